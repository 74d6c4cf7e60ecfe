"""Charts of the linear probes: a forest plot of tasks and encoders, a heat map of tasks and modalities."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from braing3n.geometry import MODALITIES
from braing3n.reporting.drawing import Drawing, Drawn
from braing3n.reporting.page import count, fixed, plural
from braing3n.reporting.run import AbsentError, Run
from braing3n.reporting.style import GRID, INK, MUTED, PALETTE, save_chart

SOURCE = "tables/probes.parquet"
POOLED = "pooled"
RECOMMENDED, PUBLISHED = "recommended", "published"
ENCODERS, PAPER = "encoders", "paper"  # in the column `table`: what was not probed, what the paper's text states
METRICS = {  # shown metric: label, decimals
    "auc": ("AUC", 3),
    "r2": ("R²", 2),
    "mae": ("mean absolute error", 2),
}
UNINFORMED = {"auc": 0.5, "r2": 0.0}  # what a prediction without information scores
MARKERS = "osD^vPX*p"  # one more than colours, so that no two encoders share both


def protocols(rows: pd.DataFrame) -> list[str]:
    """Names in the column `table` that are protocols, the recommended one first, as published second."""
    names = set(rows["table"]) - {ENCODERS, PAPER}
    return sorted(names, key=lambda name: (name != RECOMMENDED, name != PUBLISHED, name))


def encoders(rows: pd.DataFrame) -> list[str]:
    """Those that were probed, in the order of the table, which is that of the configuration."""
    return list(dict.fromkeys(rows.loc[~rows["table"].isin([ENCODERS, PAPER]), "encoder"]))


def drawings(run: Run) -> dict[str, Drawing]:
    shown = [name for name in protocols(run.rows(SOURCE)) if name in (RECOMMENDED, PUBLISHED)]
    found: dict[str, Drawing] = {f"forest-{name}": partial(_draw_forest, run, name) for name in shown}
    return found | {f"modalities-{name}": partial(_draw_modalities, run, name) for name in shown}


def _draw_forest(run: Run, protocol: str, stem: Path) -> Drawn:
    """Points with intervals, a row a task, AUC on the left and R² on the right."""
    import matplotlib.pyplot as plt

    rows = run.rows(SOURCE)
    names = encoders(rows)
    shown = rows[(rows["table"] == protocol) & rows["value"].notna() & (rows["slice"] == POOLED)]
    panels = [(metric, shown[shown["metric"] == metric]) for metric in ("auc", "r2")]
    panels = [(metric, part) for metric, part in panels if len(part)]
    if not panels:
        raise AbsentError(f"no task of '{protocol}' had enough persons", file=SOURCE)
    tallest = max(part["task"].nunique() for _, part in panels)
    height = 1.1 + tallest * (0.16 + 0.085 * len(names))
    figure, axes = plt.subplots(1, len(panels), figsize=(4.7 * len(panels), height), squeeze=False)
    stated = False
    for axis, (metric, part) in zip(axes.flat, panels, strict=True):
        tasks = _forest_panel(axis, part, metric, names)
        stated |= protocol == PUBLISHED and _paper_marks(axis, rows, metric, tasks)
    handles = [_marker(plt, i, name) for i, name in enumerate(names)]
    if stated:
        handles.append(
            plt.Line2D(
                [], [], color=INK, marker="|", linestyle="", label="the paper's mae, modality not stated", markersize=9
            )
        )
    figure.legend(handles=handles, loc="outside upper left", ncols=min(6, len(names)))
    drawn = pd.concat([part for _, part in panels])
    persons = drawn["n_subjects"].dropna()
    tasks = plural(drawn["task"].nunique(), "task")
    return Drawn(
        [p.name for p in save_chart(figure, stem)],
        f"Protocol '{protocol}', all modalities pooled. Points with 95 % intervals over persons; dashed: no "
        f"information. {tasks}, n = {span(persons)} persons a task.",
        "Forest plot: scores of each task and encoder with intervals",
        [SOURCE],
    )


def span(values: pd.Series) -> str:
    low, high = count(values.min()), count(values.max())
    return low if low == high else f"{low} to {high}"


def _marker(plt, position: int, name: str):
    colour, marker = PALETTE[position % len(PALETTE)], MARKERS[position % len(MARKERS)]
    return plt.Line2D([], [], color=colour, marker=marker, linestyle="", label=name, markersize=5)


def _forest_panel(axis, part: pd.DataFrame, metric: str, names: list[str]) -> list[str]:
    """Draw one metric; returns the tasks from bottom to top."""
    tasks = list(dict.fromkeys(part["task"]))[::-1]
    offsets = np.linspace(0.32, -0.32, len(names)) if len(names) > 1 else [0.0]
    for position, (name, offset) in enumerate(zip(names, offsets, strict=True)):
        own = part[part["encoder"] == name].drop_duplicates("task").set_index("task").reindex(tasks)
        colour, marker = PALETTE[position % len(PALETTE)], MARKERS[position % len(MARKERS)]
        y = np.arange(len(tasks)) + offset
        axis.hlines(y, own["ci_low"], own["ci_high"], color=colour, linewidth=1.3, alpha=0.75)
        axis.scatter(own["value"], y, color=colour, marker=marker, s=20, linewidths=0, zorder=3)
    for boundary in np.arange(len(tasks) - 1) + 0.5:
        axis.axhline(boundary, color=GRID, linewidth=0.6)
    axis.axvline(UNINFORMED[metric], color=MUTED, linestyle="--", linewidth=1)
    low = float(np.nanmin([part["ci_low"].min(), part["value"].min()]))
    axis.set_xlim(min(max(low, -1.0), 0.0) - 0.03 if metric == "r2" else min(max(low - 0.03, 0), 0.45), 1.02)
    axis.set_yticks(range(len(tasks)), tasks, color=INK)
    axis.set_ylim(-0.6, len(tasks) - 0.4)
    axis.set_xlabel(METRICS[metric][0])
    axis.grid(True, axis="x", color=GRID)
    axis.tick_params(axis="y", length=0)
    return tasks


def _paper_marks(axis, rows: pd.DataFrame, metric: str, tasks: list[str]) -> bool:
    """A tick at every score of its own encoder that the paper states without a modality; whether there is one."""
    stated = rows[(rows["table"] == PAPER) & (rows["metric"] == metric) & (rows["encoder"] == "mae")]
    stated = stated[stated["task"].isin(tasks) & (stated["slice"] == POOLED)]
    y = np.array([tasks.index(task) for task in stated["task"]])
    axis.vlines(stated["value"], y - 0.42, y + 0.42, color=INK, linewidth=1.4)
    return len(stated) > 0


def _draw_modalities(run: Run, protocol: str, stem: Path) -> Drawn:
    """Tasks by modalities for the first encoder, as the paper's Table 6: AUC on the left and R² on the right."""
    import matplotlib.pyplot as plt

    rows = run.rows(SOURCE)
    first = encoders(rows)[0]
    slices = [POOLED, *MODALITIES]
    own = rows[(rows["table"] == protocol) & (rows["encoder"] == first) & rows["slice"].isin(slices)]
    panels = [(metric, _grid(own, metric, slices)) for metric in UNINFORMED]
    panels = [(metric, grid) for metric, grid in panels if grid.notna().any(axis=None)]
    if not panels:
        raise AbsentError(f"no task of '{protocol}' had enough persons", file=SOURCE)
    tallest = max(len(grid) for _, grid in panels)
    figure, axes = plt.subplots(1, len(panels), figsize=(4.7 * len(panels), 0.9 + 0.27 * tallest), squeeze=False)
    for axis, (metric, grid) in zip(axes.flat, panels, strict=True):
        _heat_panel(axis, grid, metric)
        axis.set_ylim(tallest, 0)
    return Drawn(
        [p.name for p in save_chart(figure, stem)],
        f"Protocol '{protocol}', encoder {first}: scores by modality; bold: the highest single modality of a task, "
        "chosen on test scores here and by inner folds in the rows 'best modality'. A dash: too few persons.",
        f"Heat map: scores of {first} for each task and modality",
        [SOURCE],
    )


def _grid(rows: pd.DataFrame, metric: str, slices: list[str]) -> pd.DataFrame:
    """Tasks, in the panel's order, by slices; tasks without any score are left out."""
    own = rows[rows["metric"] == metric].drop_duplicates(["task", "slice"])
    tasks = list(dict.fromkeys(own["task"]))
    grid = own.pivot(index="task", columns="slice", values="value").reindex(index=tasks, columns=slices)
    return grid[grid.notna().any(axis=1)].astype(float)


def _heat_panel(axis, grid: pd.DataFrame, metric: str) -> None:
    """Cells from no information (light) to a perfect score (dark), each with its number."""
    floor = UNINFORMED[metric]
    mesh = axis.pcolormesh(np.ma.masked_invalid(grid.to_numpy()), cmap="Blues", vmin=floor, vmax=1, linewidth=0)
    mesh.set_edgecolor("face")
    best = grid.drop(columns=POOLED).max(axis=1)
    for i, (task, row) in enumerate(grid.iterrows()):
        for j, (name, value) in enumerate(row.items()):
            missing = not np.isfinite(value)
            colour = MUTED if missing else "#ffffff" if value > 0.4 * floor + 0.6 else "#000000"
            weight = "bold" if name != POOLED and value == best[task] else "normal"
            text = "–" if missing else fixed(value, 2)
            axis.text(j + 0.5, i + 0.5, text, ha="center", va="center", color=colour, fontsize=8.5, weight=weight)
    axis.set_xticks(np.arange(len(grid.columns)) + 0.5, list(grid.columns))
    axis.set_yticks(np.arange(len(grid)) + 0.5, list(grid.index), color=INK)
    axis.xaxis.tick_top()
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    axis.set_title(METRICS[metric][0])
