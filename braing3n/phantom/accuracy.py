"""Scans that span what preprocessing must cope with, for measuring its accuracy against the truth."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
from scipy.stats import qmc

from braing3n.files import write_parquet
from braing3n.geometry import SRI24_AFFINE, SRI24_SHAPE
from braing3n.phantom.people import draw_person, head_at
from braing3n.phantom.plan import CohortPlan, PlannedScan, rng_of
from braing3n.phantom.render import render_plans
from braing3n.phantom.truth import BRAIN_CENTRE, Grid, ScanTruth, pose, rigid, scanner_grid

NAME = "ACCURACY"
ROTATION_DEG, SHIFT_MM, SCALE = 25.0, 30.0, (0.85, 1.15)
VOXEL_MM, THICK_MM = (0.8, 2.0), (2.0, 4.0)
NOISE, BIAS = 0.09, 0.40
RESIDUAL_BIAS = 0.05  # what an earlier correction leaves
# State a scan arrives in: stripped, bias-corrected, defaced, space.
ENTRIES = {
    "native": (False, False, False, "native"),
    "defaced": (False, False, True, "native"),
    "corrected": (False, True, False, "native"),
    "stripped": (True, False, False, "native"),
    "stripped-corrected": (True, True, False, "native"),
    "sri24": (True, True, False, "sri24"),
}
CYCLE = (
    "native",
    "native",
    "defaced",
    "native",
    "stripped",
    "native",
    "corrected",
    "native",
    "stripped-corrected",
    "sri24",
)
COMPANIONS = ("T2", None, "FLAIR", None, "T1c")  # a second modality of the session


def storage_orders() -> list[str]:
    """All 48 orders and directions in which three axes can be stored, such as "RAS"."""
    orders = itertools.permutations(("RL", "AP", "SI"))
    return ["".join(codes) for order in orders for codes in itertools.product(*order)]


def accuracy_set(n: int, seed: int) -> list[PlannedScan]:
    """`n` sessions, each with a T1 and three of five with a second modality that moved or shares the T1's grid.

    Over the sessions, a Latin hypercube spreads rotation (+-25 degrees about each axis), shift (+-30 mm along each),
    scale (0.85 to 1.15, with differences of up to 3 % between axes), voxel size (0.8 to 2 mm; every fourth T1 and every
    second companion has slices of 2 to 4 mm), bias (up to 40 %), noise (up to 9 %), age (20 to 85 years) and severity
    of disease; orders of storage run through all 48, entry states through `ENTRIES`.

    `known` holds `entry, entry_stripped, entry_bias_corrected, entry_defaced, entry_space, shares_grid, orientation,
    voxel_mm (of each stored axis)` beside subject, session, age and sex.
    """
    spread = qmc.LatinHypercube(15, rng=rng_of(seed, "accuracy")).random(max(n, 1))
    orders = itertools.cycle(rng_of(seed, "orders").permutation(storage_orders()).tolist())
    scans: list[PlannedScan] = []
    for i in range(n):
        scans += _session(i, spread[i], orders, rng_of(seed, "acc", i))
    return scans


def write_accuracy_set(
    atlas_folder: str | Path, folder: str | Path, n: int, seed: int, workers: int | None = None
) -> pd.DataFrame:
    """Write `accuracy_set` as NIfTI into `folder/ACCURACY`, with `folder/truth.parquet` and true masks and bias fields.

    Returns:
        The truth table; `mask_path` and `bias_path` are relative to `folder`.
    """
    folder = Path(folder)
    plan = CohortPlan(NAME, accuracy_set(n, seed))
    rows = render_plans(atlas_folder, folder, [plan], folder, True, workers)
    table = pd.DataFrame(rows).sort_values("source_path", ignore_index=True)
    write_parquet(folder / "truth.parquet", table)
    return table


def _session(i: int, at: np.ndarray, orders: Iterator[str], rng: np.random.Generator) -> list[PlannedScan]:
    """`at` is the session's point in the hypercube; each scan with a grid of its own takes the next of `orders`."""
    entry = CYCLE[i % len(CYCLE)]
    stripped, corrected, defaced, space = ENTRIES[entry]
    person = draw_person("FM"[i % 2], rng)
    age, severity = 20 + 65 * at[0], max(0.0, 2 * at[1] - 1)
    shift = SHIFT_MM * (2 * at[2:5] - 1)
    if space == "sri24":
        affine = pose(rng.uniform(-1, 1, 3), BRAIN_CENTRE + rng.uniform(-1, 1, 3), rng.uniform(0.99, 1.01, 3))
    else:
        scale = (SCALE[0] + 0.015 + (SCALE[1] - SCALE[0] - 0.03) * at[5]) * (1 + rng.uniform(-0.015, 0.015, 3))
        affine = pose(ROTATION_DEG * (2 * at[6:9] - 1), shift, scale, rng.uniform(-0.03, 0.03, 3))
    head = head_at(person, age, severity, affine)
    planned: list[PlannedScan] = []
    for k, modality in enumerate(("T1", COMPANIONS[i % len(COMPANIONS)])):
        if modality is None:
            continue
        aligned = k == 1 and stripped  # delivered on the T1's grid
        thick = i % 4 == 3 if k == 0 else i % 2 == 0
        grid = planned[0].grid if aligned else _grid(space, shift, at[9 + k], thick, orders, rng)
        scan = ScanTruth(
            modality=modality,
            seed=int(rng.integers(2**31)),
            noise=NOISE * float(at[11 + k]),
            bias=RESIDUAL_BIAS if corrected else BIAS * float(at[13 + k]),
            gain=float(rng.uniform(200, 3000)),
            gamma=float(rng.uniform(0.9, 1.1)),
            motion=rigid(rng.normal(0, 1.0, 3), rng.normal(0, 1.5, 3)) if k and not aligned else np.eye(4),
            stripped=stripped,
            defaced=defaced,
        )
        known: dict[str, Any] = {
            "subject": f"A{i:03d}",
            "session": "1",
            "age": age,
            "sex": person.sex,
            "severity": severity,
            "entry": entry,
            "entry_stripped": stripped,
            "entry_bias_corrected": corrected,
            "entry_defaced": defaced,
            "entry_space": space,
            "shares_grid": stripped,
            "orientation": "".join(nib.aff2axcodes(grid.affine)),
            "voxel_mm": nib.affines.voxel_sizes(grid.affine).tolist(),
        }
        planned.append(PlannedScan(f"A{i:03d}_{modality}.nii.gz", head, scan, grid, known))
    return planned


def _grid(
    space: str, shift: np.ndarray, size: float, thick: bool, orders: Iterator[str], rng: np.random.Generator
) -> Grid:
    """A field of view that holds the brain whatever its rotation; `size`, 0 to 1, goes from small to large voxels."""
    if space == "sri24":
        return Grid(SRI24_SHAPE, SRI24_AFFINE)
    voxel = np.full(3, VOXEL_MM[0] + (VOXEL_MM[1] - VOXEL_MM[0]) * size)
    if thick:
        voxel = np.minimum(voxel, 1.3)
        voxel[int(rng.integers(3))] = THICK_MM[0] + (THICK_MM[1] - THICK_MM[0]) * size
    return scanner_grid(voxel, (240, 256, 250), next(orders), shift + rng.uniform(-6, 6, 3))
