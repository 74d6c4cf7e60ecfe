"""Generated volumes, arm by arm, from the same noise."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from braing3n.reporting.drawing import Drawing, Drawn
from braing3n.reporting.page import Block, count, plain, plural, table
from braing3n.reporting.pictures import (
    black_figure,
    caption_above,
    change_limit,
    mark_sides,
    read_packed,
    show,
    show_change,
)
from braing3n.reporting.planes import PLANES, box_of, picture_sizes, plane, slice_indices, window
from braing3n.reporting.run import AbsentError, Run
from braing3n.reporting.style import save_picture

TITLE = "Generated volumes"
LEAD = (
    "Slices of volumes that the conditional DiT drew and the tokenizer decoded. Sample k of every arm starts from the "
    "same noise, so that down a column only the condition changes."
)
FOLDER = "generated"
SAMPLES = 3


def arms(run: Run) -> dict[str, pd.DataFrame]:
    """Arm -> its table, by name.

    Raises:
        AbsentError: nothing was generated.
    """
    tables = {path.stem: run.rows(f"{FOLDER}/{path.name}") for path in sorted(run.path(FOLDER).glob("*.parquet"))}
    if not tables:
        raise AbsentError("holds no arm", file=FOLDER)
    return tables


def groups(names: list[str]) -> dict[str, list[str]]:
    """`disease_AD, disease_HC, sex_F` -> {disease: [...], sex: [...]}."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(name.split("_")[0], []).append(name)
    return found


def conditions(rows: pd.DataFrame) -> dict[str, Any]:
    return json.loads(rows["conditions"].iloc[0])


def in_words(request: dict[str, Any]) -> str:
    """`T1, disease AD`; what is asked to be left without condition is said so."""
    asked = {name: value for name, value in request.items() if value is not None}
    words = [str(asked.pop("modality"))] if "modality" in asked else []
    words += [f"{name} {value}" for name, value in asked.items()]
    if None in request.values():
        words.append("no other condition")
    return ", ".join(words) or "everything unknown"


def drawings(run: Run) -> dict[str, Drawing]:
    tables = arms(run)
    found = groups(list(tables))
    return {name: partial(_draw_group, run, {arm: tables[arm] for arm in members}) for name, members in found.items()}


def _draw_group(run: Run, tables: dict[str, pd.DataFrame], stem: Path) -> Drawn:
    """A row an arm; then, for each other arm of the first one's modality, a row of its differences from the first."""
    n = min(SAMPLES, *map(len, tables.values()))
    volumes = {name: read_samples(run, name, rows, n) for name, rows in tables.items()}
    masks = [volume > 0 for samples in volumes.values() for volume in samples]
    frame, indices = box_of(masks), slice_indices(np.logical_or.reduce(masks))
    first, *others = tables
    modality = conditions(tables[first]).get("modality")
    compared = [name for name in others if conditions(tables[name]).get("modality") == modality]
    limit = max((change_limit(volumes[name], volumes[first]) for name in compared), default=1.0)
    sizes = picture_sizes(frame)
    widths = [size[0] * 9.4 / (max(n, 2) * sum(size[0] for size in sizes)) for size in sizes]
    tallest = max(width * size[1] / size[0] for width, size in zip(widths, sizes, strict=True))
    heights = [tallest] * (len(tables) + len(compared))
    figure, grid = black_figure(widths * n, heights, top=0.3, left=1.3)
    for k in range(n):
        for j, view in enumerate(PLANES):
            column = 3 * k + j
            base = plane(volumes[first][k], view, indices[view], frame)
            for i, name in enumerate(tables):
                axis, volume = figure.add_subplot(grid[i, column]), volumes[name][k]
                show(axis, plane(volume, view, indices[view], frame), window(volume, volume > 0)[1])
                _label(axis, name, i, k, view)
            for i, name in enumerate(compared, start=len(tables)):
                axis = figure.add_subplot(grid[i, column])
                show_change(axis, plane(volumes[name][k], view, indices[view], frame) - base, limit)
                _label(axis, f"{name}\nless {first}", i, k, view)
    return Drawn(
        [p.name for p in save_picture(figure, stem)],
        _caption(tables, n, first, compared, limit),
        f"Axial, coronal and sagittal slices of generated volumes of {', '.join(tables)}",
        [f"{FOLDER}/{name}.npy" for name in tables],
    )


def _label(axis: Any, name: str, row: int, sample: int, view: str) -> None:
    """The arm at the left of its row; sample and sides on the first row."""
    if row == 0 and view == PLANES[1]:
        caption_above(axis, f"sample {sample + 1}")
    if row == 0 and sample == 0:
        mark_sides(axis, view)
    if sample == 0 and view == PLANES[0]:
        axis.set_ylabel(name, color="white", fontsize=8.5, rotation=0, ha="right", va="center")


def _caption(tables: dict[str, pd.DataFrame], n: int, first: str, compared: list[str], limit: float) -> str:
    words = "; ".join(f"{name}: {in_words(conditions(rows))}" for name, rows in tables.items())
    of = min(map(len, tables.values()))
    text = f"Arms and what they ask for: {words}. {plural(n, 'sample')} of {of:,} an arm, radiological convention."
    if compared:
        rows = "The last row is the" if len(compared) == 1 else f"The last {len(compared)} rows are"
        text += f" {rows} difference from {first}: blue to red over ±{limit:.2f} standard deviations, black for none."
    return text


def read_samples(run: Run, name: str, rows: pd.DataFrame, n: int) -> list[np.ndarray]:
    """The first n volumes (X, Y, Z) of an arm, in units of the brain's standard deviation."""
    chosen = rows.sort_values("sample").head(n)
    return [read_packed(run, f"{FOLDER}/{name}.npy", int(r.row), r.scale) for r in chosen.itertuples()]


def arms_table(run: Run) -> list[Block]:
    rows = [
        {
            "arm": name,
            "asks for": in_words(conditions(own)),
            "volumes": len(own),
            "seed": own["seed"].iloc[0],
            "guidance": own["guidance"].iloc[0],
            "solver": f"{own['solver'].iloc[0]}, {plural(int(own['steps'].iloc[0]), 'step')}",
        }
        for name, own in arms(run).items()
    ]
    formats = {"volumes": count, "seed": plain}
    return [table(pd.DataFrame(rows), "Arms", f"{FOLDER}/<arm>.parquet", None, formats)]


PARTS = (arms_table,)
