"""One encoder on one cell: cross-validated predictions, their scores, and the rows that report them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA

from braing3n.config.training import ProbeSettings
from braing3n.probing import estimators
from braing3n.probing.bootstrap import Interval, bootstrap, never_degenerate, percentile_interval
from braing3n.probing.cells import Cell
from braing3n.probing.cohorts import LEFT_OUT, inner_cohorts, testable
from braing3n.probing.estimators import OutOfFold
from braing3n.probing.metrics import Scorer, classification_scorer, regression_scorer
from braing3n.probing.sources import Source
from braing3n.probing.statistics import (
    calibration_slope,
    expected_calibration_error,
    without_regression_to_the_mean,
)
from braing3n.probing.tasks import POOLED, Task

MAIN = {"classification": ("auc",), "regression": ("r2", "mae")}
PROPORTIONS = ("auc", "balanced_accuracy", "auprc")
AGE_BANDS = ((0, 40), (40, 60), (60, 130))
MOST_SITES = 10  # subgroups by site: the most populous ones

Row = dict[str, Any]


@dataclass(frozen=True)
class Scored:
    """Out-of-fold predictions of one encoder on one cell.

    Attributes:
        replicates: metric -> (resamples + 1,), the estimate first.
        by_fold: metric -> (folds,).
    """

    cell: Cell
    encoder: str
    out: OutOfFold
    replicates: dict[str, np.ndarray]
    by_fold: dict[str, np.ndarray]

    @property
    def common(self) -> Row:
        return common(self.cell, self.encoder) | {"split_hash": self.cell.split_hash}

    def rows(self, metadata: pd.DataFrame | None, settings: ProbeSettings) -> list[Row]:
        """Every metric with its interval, what to read it beside, and with metadata the scores of subgroups."""
        rows = interval_rows(self.common, self.replicates, self.cell.smallest)
        rows += [self.common | {"metric": m, "value": v} for m, v in (describe(self.cell) | self.calibration()).items()]
        rows += self.corrected_ages(settings)
        if metadata is not None and self.cell.slice == POOLED:
            rows += self.subgroups(metadata, settings)
        return rows

    def calibration(self) -> dict[str, float]:
        if len(self.cell.classes) != 2:
            return {}
        labels, p = self.cell.values == 1, self.out.predictions[:, 1]
        return {
            "calibration_error": expected_calibration_error(labels, p),
            "calibration_slope": calibration_slope(labels, p),
        }

    def corrected_ages(self, settings: ProbeSettings) -> list[Row]:
        """Brain age with the regression to the mean taken out by inner predictions."""
        if self.cell.task.field != "age_at_scan" or not self.out.inner_predictions.size or self.cell.slice == LEFT_OUT:
            return []
        cell = self.cell
        ages = without_regression_to_the_mean(self.out.predictions, cell.values, cell.fold, self.out.inner_predictions)
        if ages is None:
            return []
        replicates = bootstrap(regression_scorer(cell.values, ages), cell.persons, settings.bootstrap, settings.seed)
        wanted = {f"{name}_bias_corrected": replicates[name] for name in ("mae", "slope")}
        return interval_rows(self.common, wanted, cell.smallest)

    def subgroups(self, metadata: pd.DataFrame, settings: ProbeSettings) -> list[Row]:
        """Main metrics by sex, age band and site, where a group has the persons that a cell needs."""
        rows: list[Row] = []
        for name, member in groups(metadata.iloc[self.cell.rows]):
            part = restricted(self.cell, member, settings.min_class_persons)
            if part is None:
                continue
            scorer = make_scorer(part, self.out.predictions[member])
            replicates = bootstrap(scorer, part.persons, settings.bootstrap, settings.seed)
            own = common(replace(part, slice=f"{POOLED}, {name}"), self.encoder)
            rows += interval_rows(own, {m: replicates[m] for m in MAIN[self.cell.task.kind]}, part.smallest)
        return rows


def common(cell: Cell, encoder: str) -> Row:
    return {
        "table": cell.protocol,
        "encoder": encoder,
        "task": cell.task.name,
        "slice": cell.slice,
        "n_subjects": cell.n_persons,
        "n_scans": len(cell.rows),
    }


def dash(cell: Cell, encoder: str) -> list[Row]:
    """Rows of a cell that is left out."""
    own = common(cell, encoder)
    missing = [own | {"metric": metric, "value": np.nan} for metric in MAIN[cell.task.kind]]
    return [*missing, own | {"metric": "too_few", "value": cell.smallest}]


def interval_rows(own: Row, replicates: dict[str, np.ndarray], smallest: int) -> list[Row]:
    rows = []
    for name, values in replicates.items():
        interval = percentile_interval(values)
        if name in PROPORTIONS:
            interval = never_degenerate(interval, smallest)
        rows.append(own | interval_columns(name, interval))
    return rows


def interval_columns(metric: str, interval: Interval) -> Row:
    return {"metric": metric, "value": interval.value, "ci_low": interval.low, "ci_high": interval.high}


def fit_and_score(cell: Cell, source: Source, X: np.ndarray, settings: ProbeSettings) -> Scored | None:
    """Cross-validate and score; None where leaving a cohort out leaves nothing to test."""
    fit = estimator(cell.task, len(cell.classes), cell.protocol, settings)
    if cell.slice == LEFT_OUT:
        out = out_of_cohort(cell, X, source.components, fit, settings)
        tested = np.isfinite(out.predictions.reshape(len(X), -1)).all(1)
        if tested.sum() < len(X):
            restricted_cell = restricted(cell, tested, 2)
            if restricted_cell is None:
                return None
            cell, out = restricted_cell, OutOfFold(out.predictions[tested], out.chosen)
    else:
        out = out_of_fold(cell, X, source.components, fit, settings)
    return score(cell, source.name, out, settings)


def score(cell: Cell, encoder: str, out: OutOfFold, settings: ProbeSettings) -> Scored:
    scorer = make_scorer(cell, out.predictions)
    replicates = bootstrap(scorer, cell.persons, settings.bootstrap, settings.seed)
    folds = (cell.fold[None] == np.unique(cell.fold)[:, None]).astype(np.float32)  # (F, n)
    return Scored(cell, encoder, out, replicates, scorer(folds))


def make_scorer(cell: Cell, predictions: np.ndarray) -> Scorer:
    return (classification_scorer if cell.classes else regression_scorer)(cell.values, predictions)


def out_of_fold(
    cell: Cell, X: np.ndarray, components: int | None, fit: Callable[..., OutOfFold], settings: ProbeSettings
) -> OutOfFold:
    """Cross-validated predictions; with `components`, of principal components fitted in each training set."""
    if components is None:
        return fit(X, cell.values, cell.fold, only=None)
    predictions, loss, inner = None, [], []
    for f in range(settings.folds):
        out = fit(reduced(X, cell.fold != f, components, settings.seed), cell.values, cell.fold, only=f)
        predictions = np.full_like(out.predictions, np.nan) if predictions is None else predictions
        predictions[cell.fold == f] = out.predictions[cell.fold == f]
        if out.inner_loss.size:
            loss.append(out.inner_loss[f])
            inner.append(out.inner_predictions[f])
    nothing_chosen = np.full(settings.folds, np.nan)
    if not loss:
        return OutOfFold(predictions, nothing_chosen)
    return OutOfFold(predictions, nothing_chosen, np.array(loss), np.stack(inner))


def out_of_cohort(
    cell: Cell, X: np.ndarray, components: int | None, fit: Callable[..., OutOfFold], settings: ProbeSettings
) -> OutOfFold:
    """Predictions for each cohort by a model of the others; NaN where these lack a class."""
    shape = (len(X), len(cell.classes)) if cell.classes else (len(X),)
    predictions = np.full(shape, np.nan)
    cohorts = [c for c in range(int(cell.fold.max()) + 1) if testable(cell, c)]
    for cohort in cohorts:
        test = cell.fold == cohort
        Z = X if components is None else reduced(X, ~test, components, settings.seed)
        predictions[test] = fit(Z, cell.values, inner_cohorts(cell.fold, cohort), only=0).predictions[test]
    return OutOfFold(predictions, np.full(len(cohorts), np.nan))


def reduced(X: np.ndarray, training: np.ndarray, components: int, seed: int) -> np.ndarray:
    """Principal components of the training scans, for all scans. (n, d) -> (n, k) float32."""
    k = min(components, int(training.sum()) - 1, X.shape[1])
    return PCA(k, random_state=seed).fit(X[training]).transform(X).astype(np.float32)


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


def describe(cell: Cell) -> dict[str, float]:
    """What a score has to be read beside: the positive class's share, or the spread of the target."""
    if not cell.classes:
        return {"target_sd": float(np.std(cell.values))}
    shares = np.bincount(cell.values, minlength=len(cell.classes)) / len(cell.values)
    if len(cell.classes) == 2:
        return {"prevalence": float(shares[1])}
    return {"classes": float(len(cell.classes)), "largest_class": float(shares.max())}


def groups(rows: pd.DataFrame) -> Iterator[tuple[str, np.ndarray]]:
    """Names and members (n,) bool of the subgroups whose scores are compared."""
    for sex in ("F", "M"):
        yield f"sex {sex}", (rows["sex"] == sex).to_numpy(dtype=bool)
    age = rows["age_at_scan"].to_numpy(dtype=float, na_value=np.nan)
    for low, high in AGE_BANDS:
        yield f"age {low} to {high}", (age >= low) & (age < high)
    for site in rows["site"].value_counts().index[:MOST_SITES]:
        yield f"site {site}", (rows["site"] == site).to_numpy(dtype=bool)


def restricted(cell: Cell, member: np.ndarray, least: int) -> Cell | None:
    """The cell's scans in a subgroup, or None with fewer than `least` persons in a class (or in all)."""
    values, persons = cell.values[member], cell.persons[member]
    parts = [persons[values == c] for c in range(len(cell.classes))] if cell.classes else [persons]
    smallest = min(len(np.unique(part)) for part in parts)
    if smallest < least:
        return None
    return replace(
        cell, rows=cell.rows[member], values=values, persons=persons, fold=cell.fold[member], smallest=smallest
    )
