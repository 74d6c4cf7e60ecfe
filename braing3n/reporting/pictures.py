"""Slices on a black figure: grey images, differences, letters of the sides; volumes read from packed stores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from braing3n.errors import BrainG3NError
from braing3n.reporting.planes import EDGES
from braing3n.reporting.run import Run
from braing3n.reporting.style import CHANGE_COLOURS


def read_packed(run: Run, file: str, row: int, scale: float) -> np.ndarray:
    """One volume of a packed store (a path relative to the results), float32 intensities (X, Y, Z).

    Raises:
        AbsentError: the store is missing.
        BrainG3NError: it cannot be read, or has no such row.
    """
    path = run.path(file)
    try:
        stored = np.load(path, mmap_mode="r")[row]
    except (OSError, ValueError, IndexError) as error:
        raise BrainG3NError("volume store cannot be read", file=file, found=str(error)) from error
    return stored.astype(np.float32) * np.float32(scale)


def black_figure(
    widths: Sequence[float], heights: Sequence[float], top: float = 0.4, left: float = 0.0, gap: float = 0.05
) -> tuple[Any, Any]:
    """A black figure and its grid of cells, all in inches: pictures of these sizes, `top` and `left` for words.

    Placed by hand: for dozens of small axes the automatic layout takes seconds a figure.
    """
    import matplotlib.pyplot as plt

    width = left + sum(widths) + gap * (len(widths) - 1)
    height = top + sum(heights) + gap * (len(heights) - 1)
    figure = plt.figure(figsize=(width, height), facecolor="black", layout="none")
    grid = figure.add_gridspec(
        len(heights),
        len(widths),
        width_ratios=widths,
        height_ratios=heights,
        left=left / width,
        right=1,
        top=1 - top / height,
        bottom=0,
        wspace=gap * len(widths) / sum(widths),
        hspace=gap * len(heights) / sum(heights),
    )
    return figure, grid


def show(axis: Any, picture: np.ndarray, high: float, aspect: float = 1.0) -> None:
    """Grey from 0 to `high`."""
    axis.imshow(picture, cmap="gray", vmin=0, vmax=high, interpolation="bilinear", aspect=aspect)
    bare(axis)


def show_change(axis: Any, change: np.ndarray, limit: float) -> None:
    """A signed difference, black where there is none (under a hundredth of the range)."""
    axis.imshow(
        np.ma.masked_inside(change, -0.01 * limit, 0.01 * limit),
        cmap=CHANGE_COLOURS,
        vmin=-limit,
        vmax=limit,
        interpolation="bilinear",
    )
    bare(axis)


def bare(axis: Any) -> None:
    """No ticks and no frame; unlike `set_axis_off` this keeps the label."""
    axis.set_xticks([])
    axis.set_yticks([])
    axis.set_facecolor("black")
    for spine in axis.spines.values():
        spine.set_visible(False)


def mark_sides(axis: Any, plane: str) -> None:
    """Letters of the sides in the lower corners, legible on any grey."""
    from matplotlib.patheffects import withStroke

    style = {
        "color": "white",
        "fontsize": 8.5,
        "weight": "bold",
        "path_effects": [withStroke(linewidth=2, foreground="black")],
    }
    for letter, x in zip(EDGES[plane], (0.01, 0.9), strict=True):
        axis.text(x, 0.02, letter, transform=axis.transAxes, **style)


def caption_above(axis: Any, text: str, colour: str = "white") -> None:
    axis.set_title(text, color=colour, fontsize=8.5, loc="center", weight="normal")


def change_limit(volumes: Sequence[np.ndarray], bases: Sequence[np.ndarray]) -> float:
    """Colour range of differences: the largest 99.5th percentile in the brain, and at least a tenth."""
    highs = [
        np.percentile(np.abs(volume - base)[(volume > 0) | (base > 0)], 99.5)
        for volume, base in zip(volumes, bases, strict=True)
    ]
    return max([0.1, *map(float, highs)])
