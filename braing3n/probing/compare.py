"""Encoders against each other on the same cells, and the best modality chosen without looking at test folds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import replace
from typing import Any

import numpy as np

from braing3n.config.training import ProbeSettings
from braing3n.files import short_hash
from braing3n.probing.estimators import OutOfFold
from braing3n.probing.folds import check_disjoint
from braing3n.probing.scores import MAIN, Scored, interval_columns, score
from braing3n.probing.statistics import corrected_resampled_t, holm, paired_difference
from braing3n.probing.tasks import POOLED

BEST = "best modality"
DIFFERENCE, P, P_HOLM, P_FOLDS = "_minus_", "_p", "_p_holm", "_p_folds"

Row = dict[str, Any]


def compare(scored: list[Scored]) -> list[Row]:
    """The first encoder less each other on a cell: `auc_minus_<other>` with a paired interval, its bootstrap p-value
    `..._p`, and Nadeau and Bengio's over folds `..._p_folds`.
    """
    rows: list[Row] = []
    for other in scored[1:]:
        first = scored[0]
        metric = MAIN[first.cell.task.kind][0]
        interval, p = paired_difference(first.replicates[metric], other.replicates[metric])
        folds = len(first.by_fold[metric])
        p_folds = corrected_resampled_t(first.by_fold[metric] - other.by_fold[metric], 1 / (folds - 1))
        name = f"{metric}{DIFFERENCE}{other.encoder}"
        rows += [
            first.common | interval_columns(name, interval),
            first.common | {"metric": name + P, "value": p},
            first.common | {"metric": name + P_FOLDS, "value": p_folds},
        ]
    return rows


def holm_rows(rows: list[Row], panel: Collection[str]) -> list[Row]:
    """p-values of `compare` adjusted over the panel's tasks, for each protocol, slice and pair of encoders."""
    families: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in rows:
        name = row["metric"]
        if DIFFERENCE in name and name.endswith(P) and row["task"] in panel:
            families[row["table"], row["slice"], row["encoder"], name.partition(DIFFERENCE)[2]].append(row)
    adjusted = []
    for family in families.values():
        for row, p in zip(family, holm(np.array([row["value"] for row in family])), strict=True):
            adjusted.append(row | {"metric": row["metric"].removesuffix(P) + P_HOLM, "value": float(p)})
    return adjusted


def best_modality(scored: list[Scored], settings: ProbeSettings) -> list[Row]:
    """Scores when the modality is chosen for each test fold by the inner loss on the others' persons.

    Taking the modality with the best test score, as a figure of best slices does, is optimistic.
    """
    parts: dict[tuple[str, str], list[Scored]] = defaultdict(list)
    for one in scored:
        if one.cell.shared and one.cell.slice in one.cell.task.slices and one.cell.slice != POOLED:
            parts[one.cell.protocol, one.encoder].append(one)
    rows: list[Row] = []
    for own in parts.values():
        own = [one for one in own if one.cell.classes == own[0].cell.classes and one.out.inner_loss.size]
        if len(own) < 2:
            continue
        losses = np.stack([one.out.inner_loss for one in own])  # (modalities, folds)
        if np.isnan(losses).all(axis=0).any():
            continue
        merged = chosen_folds(own, np.nanargmin(losses, axis=0))
        result = score(merged.cell, merged.encoder, merged.out, settings, max(one.widening for one in own))
        rows += result.rows(None, settings)
    return rows


def chosen_folds(parts: list[Scored], choice: np.ndarray) -> Scored:
    """The scans of each fold in its chosen modality (folds,), as one cell with their predictions."""
    members = [np.isin(one.cell.fold, np.flatnonzero(choice == m)) for m, one in enumerate(parts)]

    def joined(values: list[np.ndarray]) -> np.ndarray:
        return np.concatenate([part[member] for part, member in zip(values, members, strict=True)])

    first = parts[0]
    cell = replace(
        first.cell,
        slice=BEST,
        rows=joined([one.cell.rows for one in parts]),
        values=joined([one.cell.values for one in parts]),
        persons=joined([one.cell.persons for one in parts]),
        fold=joined([one.cell.fold for one in parts]),
        sites=joined([one.cell.sites for one in parts]),
        smallest=min(one.cell.smallest for one in parts),
        split_hash=short_hash(*(one.cell.split_hash for one in parts), *map(str, choice)),
    )
    check_disjoint(cell.fold, cell.persons)
    out = OutOfFold(joined([one.out.predictions for one in parts]), np.full(len(choice), np.nan))
    return Scored(cell, first.encoder, out, {}, {}, first.widening)
