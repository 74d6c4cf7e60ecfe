"""Linear probes of frozen features: what each encoder lets be read from a scan."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from braing3n.reporting.drawing import Drawing, Drawn
from braing3n.reporting.page import DASH, Block, Fold, Notice, Table, Text, count, fixed, number, plural
from braing3n.reporting.run import AbsentError, Run
from braing3n.reporting.style import GRID, INK, MUTED, PALETTE, save_chart

TITLE = "Linear probes"
LEAD = (
    "Out-of-fold predictions from frozen features; no person is in two folds. Below each score: its 95 % interval from "
    "a bootstrap over persons. A dash is a cell with too few persons; in brackets, those of its smallest class."
)
SOURCE = "tables/probes.parquet"
POOLED = "pooled"
RECOMMENDED, PUBLISHED, ENCODERS = "recommended", "published", "encoders"
METRICS = {  # shown metric: label, decimals
    "auc": ("AUC", 3),
    "r2": ("R²", 2),
    "mae": ("mean absolute error", 2),
}
CONTEXT = {  # shown metric: heading, and the metrics that say it
    "auc": ("positive", {"prevalence": lambda v: f"{100 * v:.0f} %", "classes": lambda v: f"{v:.0f} classes"}),
    "r2": ("SD of target", {"target_sd": number}),
    "mae": ("SD of target", {"target_sd": number}),
}
UNINFORMED = {"auc": 0.5, "r2": 0.0}  # what a prediction without information scores
MARKERS = "osD^vPX*"


def protocols(rows: pd.DataFrame) -> list[str]:
    """Names in the column `table` that are protocols, the recommended one first, as published last."""
    names = set(rows["table"]) - {ENCODERS}
    return sorted(names, key=lambda name: (name == PUBLISHED, name != RECOMMENDED, name))


def encoders(rows: pd.DataFrame) -> list[str]:
    """Those that were probed, in the order of the table, which is that of the configuration."""
    return list(dict.fromkeys(rows.loc[rows["table"] != ENCODERS, "encoder"]))


def drawings(run: Run) -> dict[str, Drawing]:
    shown = [name for name in protocols(run.rows(SOURCE)) if name in (RECOMMENDED, PUBLISHED)]
    return {f"forest-{name}": partial(_draw_forest, run, name) for name in shown}


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
    for axis, (metric, part) in zip(axes.flat, panels, strict=True):
        _forest_panel(axis, part, metric, names)
    handles = [_marker(plt, i, name) for i, name in enumerate(names)]
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


def _forest_panel(axis, part: pd.DataFrame, metric: str, names: list[str]) -> None:
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
    axis.set_xlim(max(low, -1.0) - 0.03 if metric == "r2" else min(max(low - 0.03, 0), 0.45), 1.02)
    axis.set_yticks(range(len(tasks)), tasks, color=INK)
    axis.set_ylim(-0.6, len(tasks) - 0.4)
    axis.set_xlabel(METRICS[metric][0])
    axis.grid(True, axis="x", color=GRID)
    axis.tick_params(axis="y", length=0)


def unavailable_notice(run: Run) -> list[Block]:
    rows = run.rows(SOURCE)
    names = rows.loc[rows["metric"] == "unavailable", "encoder"]
    return [Notice(f"Not probed, no features: {', '.join(names)}.", "absent")] if len(names) else []


def score_tables(run: Run) -> list[Block]:
    """A table a metric: tasks by encoders. The first protocol in sight, others and single modalities behind folds."""
    rows = run.rows(SOURCE)
    blocks: list[Block] = []
    for i, protocol in enumerate(protocols(rows)):
        own = rows[rows["table"] == protocol]
        pooled, single = (_metric_tables(own[(own["slice"] == POOLED) == wanted], protocol) for wanted in (True, False))
        blocks += pooled if i == 0 else [Fold(f"Protocol '{protocol}'", pooled)]
        if single:
            blocks.append(Fold(f"Protocol '{protocol}', by modality", single))
    return blocks


def _metric_tables(rows: pd.DataFrame, protocol: str) -> list[Block]:
    found = [metric for metric in METRICS if (rows["metric"] == metric).any()]
    return [_scores(rows, metric, f"{METRICS[metric][0]}, protocol '{protocol}'") for metric in found]


def _scores(rows: pd.DataFrame, metric: str, caption: str) -> Table:
    """Tasks (and slices) by encoders: a score with its interval below, or a dash with the persons there are."""
    names = encoders(rows)
    by_slice = (rows["slice"] != POOLED).any()
    body = []
    for (task, part), own in rows.groupby(["task", "slice"], sort=False):
        if not (own["metric"] == metric).any():
            continue
        scores = {row.encoder: _cell(row) for row in own[own["metric"] == metric].itertuples()}
        cells = [scores.get(name, DASH) for name in names]
        sizes = [count(own["n_subjects"].max()), count(own["n_scans"].max()), _context(own, metric)]
        body.append([task, *([part] if by_slice else []), *sizes, *cells])
    columns = ["task", *(["slice"] if by_slice else []), "persons", "scans", CONTEXT[metric][0], *names]
    return Table(caption, columns, body, SOURCE, frozenset(range(2 if by_slice else 1, len(columns))))


def _context(rows: pd.DataFrame, metric: str) -> str:
    """What the score is to be read beside: the positive class's share (or classes), the spread of the target."""
    for name, write in CONTEXT[metric][1].items():
        values = rows.loc[rows["metric"] == name, "value"].dropna()
        if len(values):
            return write(values.iloc[0])
    too_few = rows.loc[rows["metric"] == "too_few", "value"].dropna()
    return f"too few ({count(too_few.max())})" if len(too_few) else DASH


def _cell(row) -> str | tuple[str, str]:
    if pd.isna(row.value):
        return DASH
    decimals = METRICS[row.metric][1]
    if pd.isna(row.ci_low) or pd.isna(row.ci_high):
        return fixed(row.value, decimals)
    return fixed(row.value, decimals), f"{fixed(row.ci_low, 2)} to {fixed(row.ci_high, 2)}"


def other_metrics(run: Run) -> list[Block]:
    """All metrics that the tables above leave out stay in the file; say which."""
    rows = run.rows(SOURCE)
    shown = {*METRICS, "prevalence", "classes", "target_sd", "too_few", "unavailable"}
    left = sorted(set(rows["metric"].dropna()) - shown)
    return [Text(f"Also in {SOURCE}: {', '.join(left)}.")] if left else []


def statement(run: Run) -> list[tuple[str, str]]:
    """Of the classifications with the trained encoder, how many are told apart from chance."""
    rows = run.rows(SOURCE)
    protocol = protocols(rows)[0]
    own = rows[(rows["table"] == protocol) & (rows["slice"] == POOLED) & (rows["encoder"] == "mae")]
    auc = own[(own["metric"] == "auc")]
    known = auc[auc["ci_low"].notna()]
    if known.empty:
        return [("none", f"Probes: no classification had enough persons ({protocol}).")]
    above = known[known["ci_low"] > UNINFORMED["auc"]]
    best = known.loc[known["value"].idxmax()]
    shown = f"{fixed(best['value'], 2)} [{fixed(best['ci_low'], 2)}, {fixed(best['ci_high'], 2)}]"
    text = (
        f"Probes of the MAE's features ({protocol}): in {len(above)} of {plural(len(known), 'classification')} the "
        f"interval of the AUC lies above {number(UNINFORMED['auc'])}; highest {best['task']}, {shown}."
    )
    dashes = len(auc) - len(known)
    return [("none", text + (f" {dashes} had too few persons." if dashes else ""))]


PARTS = (unavailable_notice, score_tables, other_metrics)
