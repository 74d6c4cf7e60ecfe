"""Cells of the panel: a task on one slice of the scans under one protocol, with its folds and counts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from braing3n.config.training import ProbeSettings
from braing3n.probing.folds import regression_strata, split_hash, stratified_group_folds
from braing3n.probing.tasks import POOLED, Target, Task, target

ONE_SCAN = ("recommended", "recommended-combat")  # protocols that weigh persons alike


@dataclass(frozen=True)
class Cell:
    """What one probe is fitted on; the same for every encoder.

    Attributes:
        rows: positions in the metadata table, (n,).
        values: class indices (int) or numbers, (n,).
        classes: names, empty for a regression.
        persons: (n,).
        fold: (n,) test folds; empty when the cell is left out.
        shared: the folds are the persons' own over all slices of the task.
        too_few: why the cell is left out, or None.
        smallest: persons of the smallest class, or of all in a regression.
        sites: (n,) codes of the acquisition sites.
    """

    task: Task
    slice: str
    protocol: str
    rows: np.ndarray
    values: np.ndarray
    classes: tuple[str, ...]
    persons: np.ndarray
    fold: np.ndarray
    split_hash: str
    too_few: str | None
    smallest: int
    shared: bool = False
    sites: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=int))

    @property
    def n_persons(self) -> int:
        return len(np.unique(self.persons))


def cells(task: Task, metadata: pd.DataFrame, usable: np.ndarray, settings: ProbeSettings) -> Iterator[Cell]:
    """Every slice and protocol of a task.

    As published, folds are drawn anew within each slice. As recommended, a person keeps one fold over all slices of
    the task, so that slices can be compared and combined without leakage.

    Args:
        usable: (n,) bool, rows that have the features of every encoder.
    """
    asked = target(task, metadata)
    persons, volume_ids = metadata["person_id"].to_numpy(), metadata["volume_id"].to_numpy()
    everyone = np.flatnonzero(asked.takes_part & usable)
    shared = person_folds(task, asked, persons, everyone, settings)
    for part in task.slices:
        in_slice = everyone if part == POOLED else everyone[(metadata["modality"] == part).to_numpy()[everyone]]
        for protocol in settings.protocols:
            rows = in_slice
            if protocol in ONE_SCAN:
                rows = one_scan_per_person(rows, persons, volume_ids)
            cell = large_classes(task, part, protocol, rows, asked, persons, settings.min_class_persons)
            if cell.too_few is None:
                folds = shared if protocol != "published" else None
                cell = with_folds(cell, folds, volume_ids, settings)
            yield cell


def one_scan_per_person(rows: np.ndarray, persons: np.ndarray, volume_ids: np.ndarray) -> np.ndarray:
    """Of each person the scan with the smallest id: ids are hashes, so that is a fixed random choice."""
    order = rows[np.argsort(volume_ids[rows], kind="stable")]
    _, first = np.unique(persons[order], return_index=True)
    return np.sort(order[first])


def large_classes(
    task: Task, part: str, protocol: str, rows: np.ndarray, asked: Target, persons: np.ndarray, least: int
) -> Cell:
    """The cell without folds; classes with too few persons are left out where two others remain."""
    values, classes, too_few = asked.values[rows], asked.classes, None
    if task.kind == "regression":
        smallest = len(np.unique(persons[rows]))
        if smallest < 5 * least:
            too_few = f"{smallest} persons, {5 * least} needed"
        elif np.ptp(values) == 0:
            too_few = "all values are the same"
    else:
        counts = np.array([len(np.unique(persons[rows[values == c]])) for c in range(len(classes))])
        kept = np.flatnonzero(counts >= least)
        if len(kept) < 2:
            described = ", ".join(f"{name} {count}" for name, count in zip(classes, counts, strict=True))
            too_few = f"persons a class: {described or 'none'}; {least} needed in two"
            smallest = int(np.sort(counts)[-2]) if len(counts) > 1 else 0
        else:
            member = np.isin(values, kept)
            rows, values, smallest = rows[member], np.searchsorted(kept, values[member]), int(counts[kept].min())
            classes = tuple(classes[c] for c in kept)
    empty = np.empty(0, dtype=int)
    return Cell(task, part, protocol, rows, values, classes, persons[rows], empty, "", too_few, smallest)


def with_folds(cell: Cell, shared: dict | None, volume_ids: np.ndarray, settings: ProbeSettings) -> Cell:
    """Assign folds: the persons' shared ones where every training set then holds every class, else the cell's own."""
    fold = None
    if shared is not None:
        fold = np.array([shared[person] for person in cell.persons])
        fold = fold if trainable(cell, fold, settings.folds) else None
    is_shared = fold is not None
    if fold is None:
        fold = own_folds(cell.task, cell.values, cell.persons, settings)
        if fold is None or not trainable(cell, fold, settings.folds):
            return replace(cell, too_few=f"{settings.folds} folds leave a training set without a class")
    return replace(cell, fold=fold, split_hash=split_hash(volume_ids[cell.rows], fold), shared=is_shared)


def person_folds(
    task: Task, asked: Target, persons: np.ndarray, rows: np.ndarray, settings: ProbeSettings
) -> dict | None:
    """One fold for every person of the task, or None where there are too few of them."""
    fold = own_folds(task, asked.values[rows], persons[rows], settings) if len(rows) else None
    return None if fold is None else dict(zip(persons[rows], fold, strict=True))


def own_folds(task: Task, values: np.ndarray, persons: np.ndarray, settings: ProbeSettings) -> np.ndarray | None:
    """Stratified folds of these scans, or None where scikit-learn has too few persons or scans for them."""
    strata = regression_strata(values, persons, settings.folds) if task.kind == "regression" else values.astype(int)
    if len(np.unique(persons)) < settings.folds or np.bincount(strata).max() < settings.folds:
        return None
    return stratified_group_folds(strata, persons, settings.folds, settings.seed)


def trainable(cell: Cell, fold: np.ndarray, folds: int) -> bool:
    """Whether every fold has scans, and every training set two scans or more and every class."""
    if len(np.unique(fold)) < folds:
        return False
    for f in range(folds):
        training = cell.values[fold != f]
        if len(training) < 2 or (cell.classes and len(np.unique(training)) < len(cell.classes)):
            return False
    return True
