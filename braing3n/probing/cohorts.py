"""Does a probe read the disease or the cohort? Cells within one cohort, and with one cohort at a time left out.

Diagnoses and scanners are bound to cohorts, so that a pooled probe can score high by telling cohorts apart. Within a
cohort that is no help, and on a cohort that no training scan comes from it does harm.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd

from braing3n.config.training import ProbeSettings
from braing3n.probing.cells import Cell, large_classes, one_scan_per_person, with_folds
from braing3n.probing.folds import split_hash
from braing3n.probing.tasks import POOLED, Task, target

LEFT_OUT = "leave one cohort out"
INNER_FOLDS = 4  # the other cohorts in so many groups, to choose the penalty by


def cohort_cells(task: Task, metadata: pd.DataFrame, usable: np.ndarray, settings: ProbeSettings) -> Iterator[Cell]:
    """One cell within each cohort that has enough persons, and one with a cohort a fold; one scan a person."""
    if task.field in ("cohort", "site") or POOLED not in task.slices or "recommended" not in settings.protocols:
        return
    asked, persons = target(task, metadata), metadata["person_id"].to_numpy()
    volume_ids, cohorts = metadata["volume_id"].to_numpy(), metadata["cohort"].to_numpy()
    everyone = np.flatnonzero(asked.takes_part & usable)
    if len(np.unique(cohorts[everyone])) < 2:
        return
    rows = one_scan_per_person(everyone, persons, volume_ids)
    for cohort in np.unique(cohorts[rows]):
        own = rows[cohorts[rows] == cohort]
        part = f"within {cohort}"
        cell = large_classes(task, part, "recommended", own, asked, persons, settings.min_class_persons)
        if cell.too_few is None:
            cell = with_folds(cell, None, volume_ids, settings)
        if cell.too_few is None:
            yield cell
    # Persons of several cohorts would be in training and test: one scan a person leaves them in one fold.
    cell = large_classes(task, LEFT_OUT, "recommended", rows, asked, persons, settings.min_class_persons)
    if cell.too_few is None and len(np.unique(cohorts[cell.rows])) > 1:
        fold = np.unique(cohorts[cell.rows], return_inverse=True)[1]
        yield replace(cell, fold=fold, split_hash=split_hash(volume_ids[cell.rows], fold))


def inner_cohorts(fold: np.ndarray, left_out: int) -> np.ndarray:
    """Folds for choosing the penalty while a cohort is left out: it is fold 0, the others form groups of about equal
    size, largest first. (n,) integers.
    """
    sizes = np.bincount(fold)
    others = [c for c in np.argsort(-sizes, kind="stable") if c != left_out and sizes[c]]
    groups = min(INNER_FOLDS, len(others))
    total, group_of = np.zeros(groups), np.zeros(len(sizes), dtype=int)
    for cohort in others:
        smallest = int(np.argmin(total))
        total[smallest] += sizes[cohort]
        group_of[cohort] = 1 + smallest
    return group_of[fold]


def testable(cell: Cell, left_out: int) -> bool:
    """Whether the other cohorts hold two scans or more and every class."""
    training = cell.values[cell.fold != left_out]
    return len(training) >= 2 and (not cell.classes or len(np.unique(training)) == len(cell.classes))
