"""The panel: every task, slice and protocol for every encoder, on the same scans, folds and resamples."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from braing3n.config.training import ProbeSettings
from braing3n.errors import BrainG3NError
from braing3n.probing.cells import Cell, cells
from braing3n.probing.cohorts import cohort_cells
from braing3n.probing.compare import best_modality, compare, holm_rows
from braing3n.probing.scores import Scored, dash, fit_and_score
from braing3n.probing.sources import Source, load_source, site_codes
from braing3n.probing.tasks import POOLED, Task, load_tasks
from braing3n.results import results_table

logger = logging.getLogger(__name__)

PAPER_DIMENSION = 1152  # principal components of the PCA control where no encoder before it sets their number

Row = dict[str, Any]


def run_panel(metadata: pd.DataFrame, results: str | Path, settings: ProbeSettings) -> pd.DataFrame:
    """Probe every encoder on every task.

    Args:
        metadata: the metadata table.
        results: folder with `features/` and `latents/`.

    Returns:
        Rows of the results table (`braing3n.results`); `table` is the protocol. A cell with too few persons has its
        main metrics as NaN and `too_few`, the persons of its smallest class; an encoder without features has one row
        `unavailable` in the table `encoders`. The table `paper` holds what the paper's text reports.

    Raises:
        BrainG3NError: no encoder has features, or the panel asks for a column that does not exist.
    """
    tasks = load_tasks(settings.tasks)
    sources, rows = load_sources(metadata, results, settings)
    usable = np.logical_and.reduce([source.present for source in sources])
    logger.info("probing %d encoders on %d volumes, %d tasks", len(sources), usable.sum(), len(tasks))
    rows += [row for task in tasks for row in paper_rows(task)]
    sites, started = site_codes(metadata), time.monotonic()
    for done, task in enumerate(tasks, start=1):
        scored: list[Scored] = []
        for cell in [*cells(task, metadata, usable, settings), *cohort_cells(task, metadata, usable, settings)]:
            found, own = probe_cell(replace(cell, sites=sites[cell.rows]), sources, metadata, settings)
            scored += found
            rows += own
        rows += best_modality(scored, settings)
        elapsed = time.monotonic() - started
        left = elapsed / done * (len(tasks) - done)
        logger.info("%s done (%d of %d), %.0f s, about %.0f s left", task.name, done, len(tasks), elapsed, left)
    panel = {task.name for task in tasks if task.status != "extra"}
    return results_table(rows + holm_rows(rows, panel))


def paper_rows(task: Task) -> list[Row]:
    """What the paper's text states of a task; a score that it only bounds from below has the bound as `ci_low` too."""
    return [
        {
            "table": "paper",
            "encoder": stated.encoder,
            "task": task.name,
            "slice": stated.slice or POOLED,
            "metric": stated.metric,
            "value": stated.value,
            "ci_low": stated.value if stated.at_least else np.nan,
        }
        for stated in task.paper
    ]


def load_sources(
    metadata: pd.DataFrame, results: str | Path, settings: ProbeSettings
) -> tuple[list[Source], list[Row]]:
    """The configured encoders that have features, and a row for each that has none.

    The PCA control keeps as many components as the first encoder has features.
    """
    sources, rows = [], []
    for name in settings.encoders:
        widths = [source.width for source in sources if source.width]
        try:
            source = load_source(name, metadata, results, components=widths[0] if widths else PAPER_DIMENSION)
        except BrainG3NError as error:
            logger.warning("%s is left out: %s", name, error)
            rows.append({"table": "encoders", "encoder": name, "metric": "unavailable", "value": 1.0})
            continue
        sources.append(source)
    if not sources:
        raise BrainG3NError("no encoder has features", file=Path(results) / "features", found=str(settings.encoders))
    return sources, rows


def probe_cell(
    cell: Cell, sources: list[Source], metadata: pd.DataFrame, settings: ProbeSettings
) -> tuple[list[Scored], list[Row]]:
    """One cell for all encoders, and the first encoder compared with each other."""
    scored, rows = [], []
    for source in sources:
        X = None if cell.too_few else source.matrix(cell.task)[cell.rows]
        if X is None or not X.shape[1]:  # the site probe has no features left when the site is asked for
            rows += dash(cell, source.name)
            continue
        found = fit_and_score(cell, source, X, settings)
        if found is None:
            rows += dash(cell, source.name)
            continue
        scored.append(found)
        rows += found.rows(metadata if source is sources[0] else None, settings)
    return scored, rows + compare(scored)
