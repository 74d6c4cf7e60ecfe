"""Forecasts of follow-up scans beside the baselines they start from, and beside what really followed."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from braing3n.reporting.drawing import Drawing, Drawn
from braing3n.reporting.page import Block, Notice, plural
from braing3n.reporting.pictures import (
    black_figure,
    caption_above,
    change_limit,
    mark_sides,
    read_packed,
    show,
    show_change,
)
from braing3n.reporting.planes import box_of, picture_sizes, plane, slice_indices, window
from braing3n.reporting.results import long_table
from braing3n.reporting.run import AbsentError, Run
from braing3n.reporting.style import BLUE, GRID, VERMILLION, save_chart, save_picture

TITLE = "Forecasts"
LEAD = (
    "The longitudinal DiT carries a person's baseline to a later time; both ends and the real follow-up are decoded by "
    "the same tokenizer. The question is whether it comes nearer to the real follow-up than the unchanged baseline."
)
ROWS, STORE, TABLE = "forecast/forecasts.parquet", "forecast/forecasts.npy", "tables/forecast.parquet"
PERSONS = 2
NO_DIFFERENCE = 0.005  # of the baseline's error
VIEWS = ("axial", "coronal")


def forecasts(run: Run) -> pd.DataFrame:
    return run.rows(ROWS)


def drawings(run: Run) -> dict[str, Drawing]:
    rows = forecasts(run)
    persons = list(dict.fromkeys(rows["person_id"]))[:PERSONS]
    found: dict[str, Drawing] = {f"person-{i + 1}": partial(_draw_person, run, p) for i, p in enumerate(persons)}
    return {"change": partial(_draw_change, run)} | found


def _draw_change(run: Run, stem: Path) -> Drawn:
    """Change from the baseline over the horizon: every person's forecasts, their mean, and the real follow-ups."""
    import matplotlib.pyplot as plt

    rows = forecasts(run)
    forecast = rows[rows["kind"] == "forecast"]
    real = rows[rows["kind"] == "follow_up"]
    figure, axis = plt.subplots(figsize=(5.6, 3.4))
    for _, own in forecast.groupby("baseline"):
        own = own.sort_values("horizon")
        axis.plot(own["horizon"], own["voxel_change"], color=BLUE, linewidth=0.8, alpha=0.35)
    mean = forecast.groupby("horizon")["voxel_change"].mean()
    axis.plot(mean.index, mean, "o-", color=BLUE, label="forecasts: mean, and each baseline (thin)")
    axis.plot(real["horizon"], real["voxel_change"], "D", color=VERMILLION, markersize=4, label="real follow-ups")
    axis.set_xlabel("horizon [years]")
    axis.set_ylabel("mean absolute change\nfrom the baseline [SD]")
    axis.set_ylim(bottom=0)
    axis.grid(True, axis="y", color=GRID)
    figure.legend(loc="outside upper left", ncols=1)
    n = forecast["baseline"].nunique()
    return Drawn(
        [p.name for p in save_chart(figure, stem)],
        f"Change of the decoded volume from the decoded baseline, in standard deviations of the brain. n = "
        f"{plural(n, 'baseline')} of {plural(forecast['person_id'].nunique(), 'person')} ({splits(rows)} split).",
        "Change from the baseline over the horizon, forecasts and real follow-ups",
        [ROWS],
    )


def splits(rows: pd.DataFrame) -> str:
    return " and ".join(sorted(rows["split"].unique()))


def columns_of(own: pd.DataFrame) -> list[tuple[str, pd.Series]]:
    """Title and row of each column: baseline, forecasts by horizon, and the follow-up behind its own forecast."""
    columns = [("baseline", own[own["kind"] == "baseline"].iloc[0])]
    for _, row in own[own["kind"] == "forecast"].sort_values("horizon").iterrows():
        columns.append((f"forecast\n{row['horizon']:g} y", row))
    for kind, label in (("forecast_of_follow_up", "forecast"), ("follow_up", "real follow-up")):
        part = own[own["kind"] == kind]
        if len(part):
            columns.append((f"{label}\n{part.iloc[0]['horizon']:.1f} y", part.iloc[0]))
    return columns


def _draw_person(run: Run, person: str, stem: Path) -> Drawn:
    """Axial and coronal slices of one person's columns; below, the differences from the baseline."""
    rows = forecasts(run)
    own = rows[rows["person_id"] == person]
    columns = columns_of(own)
    volumes = [read_packed(run, STORE, int(row["row"]), row["scale"]) for _, row in columns]
    base, masks = volumes[0], [volume > 0 for volume in volumes]
    frame, indices = box_of(masks), slice_indices(np.logical_or.reduce(masks))
    limit = change_limit(volumes[1:], [base] * (len(volumes) - 1))
    high = window(base, base > 0)[1]
    width = min(1.5, 10.4 / len(columns))
    heights = [width * size[1] / size[0] for size in picture_sizes(frame)[: len(VIEWS)]] * 2
    figure, grid = black_figure([width] * len(columns), heights)
    for column, ((title, _), volume) in enumerate(zip(columns, volumes, strict=True)):
        for row, view in enumerate(VIEWS):
            axis = figure.add_subplot(grid[row, column])
            show(axis, plane(volume, view, indices[view], frame), high)
            if row == 0:
                caption_above(axis, title)
            if column == 0:
                mark_sides(axis, view)
            else:
                change = plane(volume - base, view, indices[view], frame)
                show_change(figure.add_subplot(grid[row + len(VIEWS), column]), change, limit)
    return Drawn(
        [p.name for p in save_picture(figure, stem)],
        f"One person of the {splits(own)} split. Above: baseline, forecasts at the horizons asked for, forecast for "
        "the time of the real follow-up, and that follow-up, all decoded from latents, radiological convention. Below: "
        f"difference from the baseline, blue to red over ±{limit:.2f} standard deviations, black for none.",
        "Axial and coronal slices of a baseline, its forecasts and the real follow-up, with differences",
        [ROWS, STORE],
    )


def held_out_notice(run: Run) -> list[Block]:
    rows = forecasts(run)
    if "train" not in set(rows["split"]):
        return []
    text = "No held-out person has a follow-up: these baselines were seen in training, and nothing here generalises."
    return [Notice(text, "warning")]


def scores_table(run: Run) -> list[Block]:
    try:
        rows = run.rows(TABLE)
    except AbsentError:
        raise AbsentError("no person has two scans in the cohorts of `longitudinal.cohorts`", file=TABLE) from None
    labels = {"slice": "compared with", "metric": "metric", "task": "persons of"}
    caption = "Means over persons; errors of the unchanged baseline and of the tokenizer stand beside the forecast's"
    return [long_table(rows, caption, TABLE, labels)]


def statement(run: Run) -> list[tuple[str, str]]:
    """Whether the forecast beats copying the baseline."""
    rows = run.rows(TABLE).set_index("metric")["value"]
    ours, copied = (rows[f"voxel L1, {name}"] for name in ("forecast", "copied baseline"))
    errors = f"voxel L1 {ours:.4f} against {copied:.4f}"
    if abs(ours - copied) < NO_DIFFERENCE * copied:
        return [("none", f"Forecasts are as near to the real follow-up as the unchanged baseline: {errors}.")]
    word = "nearer to" if ours < copied else "further from"
    text = f"Forecasts are {word} the real follow-up than the unchanged baseline: {errors}."
    return [("yes" if ours < copied else "no", text)]


PARTS = (held_out_notice, scores_table)
