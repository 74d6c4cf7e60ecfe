"""The panel: every task, slice and protocol for every encoder, on the same scans, folds and resamples."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA

from braing3n.config.training import ProbeSettings
from braing3n.errors import BrainG3NError
from braing3n.probing import estimators
from braing3n.probing.bootstrap import Interval, bootstrap, never_degenerate, percentile_interval
from braing3n.probing.cells import Cell, cells
from braing3n.probing.estimators import OutOfFold
from braing3n.probing.metrics import classification_scorer, regression_scorer
from braing3n.probing.sources import Source, load_source
from braing3n.probing.tasks import Task, load_tasks
from braing3n.results import results_table

logger = logging.getLogger(__name__)

PAPER_DIMENSION = 1152
DASHES = {"classification": ("auc",), "regression": ("r2", "mae")}
PROPORTIONS = ("auc", "balanced_accuracy", "auprc")


def run_panel(metadata: pd.DataFrame, results: str | Path, settings: ProbeSettings) -> pd.DataFrame:
    """Probe every encoder on every task.

    Args:
        metadata: the metadata table.
        results: folder with `features/` and `latents/`.

    Returns:
        Rows of the results table (`braing3n.results`); `table` is the protocol. A cell with too few persons has its
        main metrics as NaN and `too_few`, the persons of its smallest class; an encoder without features has one row
        `unavailable`.

    Raises:
        BrainG3NError: no encoder has features, or the panel asks for a column that does not exist.
    """
    tasks = load_tasks(settings.tasks)
    sources, rows = load_sources(metadata, results, settings)
    usable = np.logical_and.reduce([source.present for source in sources])
    logger.info("probing %d encoders on %d volumes, %d tasks", len(sources), usable.sum(), len(tasks))
    started = time.monotonic()
    for done, task in enumerate(tasks, start=1):
        for cell in cells(task, metadata, usable, settings):
            rows += probe_cell(cell, sources, settings)
        elapsed = time.monotonic() - started
        left = elapsed / done * (len(tasks) - done)
        logger.info("%s done (%d of %d), %.0f s, about %.0f s left", task.name, done, len(tasks), elapsed, left)
    return results_table(rows)


def load_sources(
    metadata: pd.DataFrame, results: str | Path, settings: ProbeSettings
) -> tuple[list[Source], list[dict[str, Any]]]:
    """The configured encoders that have features, and a row for each that has none."""
    sources, rows = [], []
    components = PAPER_DIMENSION
    for name in settings.encoders:
        try:
            source = load_source(name, metadata, results, components)
        except BrainG3NError as error:
            logger.warning("%s is left out: %s", name, error)
            rows.append({"table": "encoders", "encoder": name, "metric": "unavailable", "value": 1.0})
            continue
        sources.append(source)
    if not sources:
        raise BrainG3NError("no encoder has features", file=Path(results) / "features", found=str(settings.encoders))
    return sources, rows


def probe_cell(cell: Cell, sources: list[Source], settings: ProbeSettings) -> list[dict[str, Any]]:
    """Rows of one cell for all encoders."""
    common = {
        "table": cell.protocol,
        "task": cell.task.name,
        "slice": cell.slice,
        "n_subjects": cell.n_persons,
        "n_scans": len(cell.rows),
    }
    rows = []
    for source in sources:
        own = common | {"encoder": source.name}
        X = None if cell.too_few else source.matrix(cell.task)[cell.rows]
        if X is None or not X.shape[1]:  # the site probe has no features left when the site is asked for
            rows += [own | {"metric": metric, "value": np.nan} for metric in DASHES[cell.task.kind]]
            rows.append(own | {"metric": "too_few", "value": cell.smallest})
            continue
        out = out_of_fold(cell, X, source.components, settings)
        intervals = score(cell, out, settings)
        own["split_hash"] = cell.split_hash
        rows += [
            own | {"metric": metric, "value": i.value, "ci_low": i.low, "ci_high": i.high}
            for metric, i in intervals.items()
        ]
        rows += [own | {"metric": metric, "value": value} for metric, value in describe(cell).items()]
    return rows


def out_of_fold(cell: Cell, X: np.ndarray, components: int | None, settings: ProbeSettings) -> OutOfFold:
    """Cross-validated predictions; with `components`, of principal components fitted in each training set."""
    fit = estimator(cell.task, len(cell.classes), cell.protocol, settings)
    if components is None:
        return fit(X, cell.values, cell.fold, only=None)
    predictions = None
    for f in range(settings.folds):
        training = cell.fold != f
        k = min(components, training.sum() - 1, X.shape[1])
        reduced = PCA(k, random_state=settings.seed).fit(X[training]).transform(X).astype(np.float32)
        out = fit(reduced, cell.values, cell.fold, only=f)
        predictions = np.full_like(out.predictions, np.nan) if predictions is None else predictions
        predictions[cell.fold == f] = out.predictions[cell.fold == f]
    return OutOfFold(predictions, np.full(settings.folds, np.nan))


def estimator(task: Task, classes: int, protocol: str, settings: ProbeSettings) -> Callable[..., OutOfFold]:
    """Function of (X, values, fold, only=) for a task under a protocol."""
    if task.kind == "regression":
        if protocol == "published":
            return lambda X, y, fold, only: estimators.published_regression(
                X, y, fold, only=only, alpha=settings.ridge_alpha
            )
        return lambda X, y, fold, only: estimators.recommended_regression(X, y, fold, only=only)
    if protocol == "published":
        return lambda X, y, fold, only: estimators.published_classification(
            X, y, classes, fold, only=only, iterations=settings.max_iter
        )
    return lambda X, y, fold, only: estimators.recommended_classification(
        X, y, classes, fold, only=only, balanced=settings.balanced, iterations=settings.max_iter
    )


def score(cell: Cell, out: OutOfFold, settings: ProbeSettings) -> dict[str, Interval]:
    """Every metric of the pooled out-of-fold predictions with its interval over persons."""
    if cell.classes:
        scorer = classification_scorer(cell.values, out.predictions)
    else:
        scorer = regression_scorer(cell.values, out.predictions)
    replicates = bootstrap(scorer, cell.persons, settings.bootstrap, settings.seed)
    intervals = {name: percentile_interval(values) for name, values in replicates.items()}
    return {
        name: never_degenerate(interval, cell.smallest) if name in PROPORTIONS else interval
        for name, interval in intervals.items()
    }


def describe(cell: Cell) -> dict[str, float]:
    """What a score has to be read beside: the positive class's share, or the spread of the target."""
    if not cell.classes:
        return {"target_sd": float(np.std(cell.values))}
    shares = np.bincount(cell.values, minlength=len(cell.classes)) / len(cell.values)
    if len(cell.classes) == 2:
        return {"prevalence": float(shares[1])}
    return {"classes": float(len(cell.classes)), "largest_class": float(shares.max())}
