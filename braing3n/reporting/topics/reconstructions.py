"""Held-out volumes beside what the models make of them."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from braing3n.errors import BrainG3NError
from braing3n.reporting.drawing import Drawing, Drawn
from braing3n.reporting.page import Block, Fold, Table, count, number, plural
from braing3n.reporting.pictures import black_figure, caption_above, mark_sides, show, show_change
from braing3n.reporting.planes import PLANES, as_picture
from braing3n.reporting.results import interval
from braing3n.reporting.run import AbsentError, Run
from braing3n.reporting.style import save_picture

TITLE = "Reconstructions"
LEAD = (
    "Volumes that no model was trained on: the masked autoencoder fills in the patches that it did not see, the "
    "tokenizer rebuilds the whole volume from its latents, and the mean training volume is what both have to beat."
)
SOURCE, FOLDER = "tables/reconstruction.parquet", "figures/reconstruction"
ROWS = {  # array in the .npz -> label
    "original": "original",
    "masked": "what the\nMAE sees",
    "mae": "MAE",
    "tokenizer": "tokenizer",
    "mean-volume": "mean volume",
}
POOLED = "pooled"


def drawings(run: Run) -> dict[str, Drawing]:
    files = sorted(run.path(FOLDER).glob("*.npz"))
    if not files:
        raise AbsentError("holds no slices", file=FOLDER)
    return {path.stem: partial(_draw, run, path) for path in files}


def _draw(run: Run, path: Path, stem: Path) -> Drawn:
    """Rows: original, masked, each method, and the tokenizer's error; columns: the views of every example."""
    slices = cropped(read_slices(path))
    names = [name for name in ROWS if f"{name}_axial" in slices]
    n = len(slices["volume_id"])
    original = {view: slices[f"original_{view}"] for view in PLANES}
    brain = np.concatenate([pictures[pictures != 0] for pictures in original.values()])
    low, high = float(brain.min()), float(np.percentile(brain, 99.5))
    limit = float(np.nanpercentile(np.abs(slices["tokenizer_axial"] - original["axial"]), 99.5)) or 1.0
    sizes = [original[view].shape[1:] for view in PLANES]  # width, height of each picture
    scale = 9.4 / (max(n, 2) * sum(width for width, _ in sizes))
    widths = [scale * width for width, _ in sizes] * n
    tallest = scale * max(height for _, height in sizes)
    figure, grid = black_figure(widths, [tallest] * (len(names) + 1), top=0.3, left=1.1)
    for k in range(n):
        for j, view in enumerate(PLANES):
            column = 3 * k + j
            for i, name in enumerate([*names, "error"]):
                axis = figure.add_subplot(grid[i, column])
                if name == "error":
                    show_change(axis, as_picture(slices[f"tokenizer_{view}"][k] - original[view][k], view), limit)
                else:
                    visible = above_black(slices[f"{name}_{view}"][k], original[view][k], low)
                    show(axis, as_picture(visible, view), high - low)
                if i == 0 and j == 1:
                    caption_above(axis, f"volume {slices['volume_id'][k][:8]}")
                if i == 0 and k == 0:
                    mark_sides(axis, view)
                if column == 0:
                    label = ROWS.get(name, "tokenizer\nless original")
                    axis.set_ylabel(label, color="white", fontsize=8.5, rotation=0, ha="right", va="center")
    return Drawn(
        [p.name for p in save_picture(figure, stem)],
        f"{path.stem}: middle slices of {plural(n, 'held-out volume')}, z-scored, radiological convention. Outside the "
        "original's brain the size of what should be 0 is shown, so that every outline is the original's. Last row: "
        f"error of the tokenizer, blue to red over ±{limit:.2f} standard deviations, black for none.",
        f"Slices of {path.stem} originals, masked, and as rebuilt by MAE, tokenizer and mean volume",
        [f"{FOLDER}/{path.name}"],
    )


def read_slices(path: Path) -> dict[str, np.ndarray]:
    """Arrays of an .npz, without pickles; half precision becomes float32."""
    try:
        with np.load(path, allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files}
    except (OSError, ValueError, EOFError) as error:
        raise BrainG3NError("slices cannot be read", file=f"{FOLDER}/{path.name}", found=str(error)) from error
    return {name: a.astype(np.float32) if a.dtype == np.float16 else a for name, a in arrays.items()}


def cropped(slices: dict[str, np.ndarray], margin: int = 6) -> dict[str, np.ndarray]:
    """All slices cut to the originals' brains, one box a view."""
    boxes = {}
    for view in PLANES:
        brain = (slices[f"original_{view}"] != 0).any(axis=0)
        edges = [np.flatnonzero(brain.any(axis=1 - axis)) for axis in (0, 1)]
        boxes[view] = tuple(slice(max(0, e[0] - margin), e[-1] + 1 + margin) if e.size else slice(None) for e in edges)
    return {
        name: array if name == "volume_id" else array[:, *boxes[name.rsplit("_", 1)[1]]]
        for name, array in slices.items()
    }


def above_black(picture: np.ndarray, original: np.ndarray, low: float) -> np.ndarray:
    """z-scores for a grey scale that starts at black: shifted by `low` in the brain, outside it their size."""
    return np.where(original != 0, picture - low, np.abs(picture))


def scores_table(run: Run) -> list[Block]:
    try:
        rows = run.rows(SOURCE)
    except AbsentError:
        raise AbsentError("no volume is held out by `index.val_fraction` and `test_fraction`", file=SOURCE) from None
    pooled, single = rows[rows["slice"] == POOLED], rows[rows["slice"] != POOLED]
    blocks: list[Block] = [_table(pooled, "Reconstruction of held-out volumes, all modalities")]
    return blocks + ([Fold("By modality", [_table(single, "Reconstruction by modality")])] if len(single) else [])


def _table(rows: pd.DataFrame, caption: str) -> Table:
    """A row a method, region and modality; a column a metric, value with its interval over persons."""
    metrics = list(dict.fromkeys(rows["metric"]))
    body = []
    for (task, part, method), own in rows.groupby(["task", "slice", "encoder"], sort=False):
        by_metric = {row["metric"]: row for _, row in own.iterrows()}
        cells = [interval(by_metric[m]) if m in by_metric else number(None) for m in metrics]
        body.append([task, part, method, *cells, count(own["n_subjects"].max()), count(own["n_scans"].max())])
    units = {"l1": "L1 [SD]", "psnr": "PSNR [dB]", "ssim": "SSIM"}
    columns = ["region", "modality", "method", *(units.get(m, m) for m in metrics), "persons", "volumes"]
    return Table(caption + " [95 % interval]", columns, body, SOURCE, frozenset(range(3, len(columns))))


PARTS = (scores_table,)
