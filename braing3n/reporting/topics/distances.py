"""Distances between real, reconstructed and generated volumes, with the distance between halves of the real ones."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pandas as pd

from braing3n.reporting.drawing import Drawing, Drawn
from braing3n.reporting.page import Block, Fold, Notice, Table, count, number, plural
from braing3n.reporting.results import interval
from braing3n.reporting.run import AbsentError, Run
from braing3n.reporting.style import BLUE, GRID, MUTED, save_chart

TITLE = "Distances"
LEAD = (
    "Fréchet and kernel (KID) distances between sets of volumes. 'Real vs real' compares two halves of the real "
    "volumes that share no person: no set can be expected to come closer. Few volumes give large and noisy distances."
)
SOURCE = "tables/frechet.parquet"
POOLED, FLOOR = "pooled", "real vs real"


def extractors(run: Run) -> list[str]:
    rows = run.rows(SOURCE)
    return list(dict.fromkeys(rows.loc[rows["metric"] == "frechet", "encoder"]))


def drawings(run: Run) -> dict[str, Drawing]:
    return {name: partial(_draw, run, name) for name in extractors(run)}


def _draw(run: Run, extractor: str, stem: Path) -> Drawn:
    import matplotlib.pyplot as plt

    rows = run.rows(SOURCE)
    rows = rows[(rows["encoder"] == extractor) & (rows["metric"] == "frechet") & (rows["slice"] == POOLED)]
    values = rows.set_index("task")["value"][::-1]
    figure, axis = plt.subplots(figsize=(5, 0.9 + 0.36 * len(values)))
    colours = [MUTED if task == FLOOR else BLUE for task in values.index]
    bars = axis.barh(values.index, values, color=colours, height=0.66)
    axis.bar_label(bars, [number(v) for v in values], padding=4, fontsize=9)
    if FLOOR in values.index:
        axis.axvline(values[FLOOR], color=MUTED, linestyle="--", linewidth=1)
    axis.margins(x=0.18)
    axis.set_xlabel("Fréchet distance")
    axis.set_title(f"features of {extractor}")
    axis.grid(True, axis="x", color=GRID)
    axis.tick_params(axis="y", length=0)
    return Drawn(
        [p.name for p in save_chart(figure, stem)],
        f"Fréchet distances of {extractor} features; dashed: between halves of the real volumes. "
        f"n = {count(rows['n_scans'].max())} volumes in the largest pair.",
        f"Bars: Fréchet distance of each pair of sets with {extractor} features",
        [SOURCE],
        half=True,
    )


def unavailable_notice(run: Run) -> list[Block]:
    rows = run.rows(SOURCE)
    names = rows.loc[rows["metric"] == "unavailable", "encoder"]
    text = "Not computed, no weights: {}. See docs/frechet.md for where they are published."
    return [Notice(text.format(", ".join(names)), "absent")] if len(names) else []


def rank_notice(run: Run) -> list[Block]:
    """Fréchet distances need more samples than dimensions."""
    rows = run.rows(SOURCE)
    wide = rows[rows["slice"] == POOLED].pivot_table(index=["encoder", "task"], columns="metric", values="value")
    if not {"rank_first", "rank_second", "dimension"} <= set(wide.columns):
        return []
    short = wide[wide[["rank_first", "rank_second"]].min(axis=1) < wide["dimension"]]
    if short.empty:
        return []
    text = (
        f"In {len(short)} of {plural(len(wide), 'pair')} there are too few volumes for a covariance of full rank: "
        "these Fréchet distances depend on the number of volumes and compare with no other run. KID does not."
    )
    return [Notice(text, "warning")]


def distances_table(run: Run) -> list[Block]:
    rows = run.rows(SOURCE)
    if rows["metric"].isin(["frechet", "kid"]).sum() == 0:
        raise AbsentError("holds no distance", file=SOURCE)
    pooled, views = (_table(rows[(rows["slice"] == POOLED) == wanted], wanted) for wanted in (True, False))
    return [pooled, *([Fold("By view", [views])] if views.rows else [])]


def _table(rows: pd.DataFrame, pooled: bool) -> Table:
    body = []
    for (extractor, pair, part), own in rows.groupby(["encoder", "task", "slice"], sort=False):
        by_metric = {row["metric"]: row for _, row in own.iterrows()}
        value = {name: row["value"] for name, row in by_metric.items()}
        cells = [
            number(value.get("frechet")),
            interval(by_metric["kid"]) if "kid" in by_metric else number(None),
            f"{count(value.get('n_first'))}, {count(value.get('n_second'))}",
            f"{count(value.get('rank_first'))}, {count(value.get('rank_second'))} of {count(value.get('dimension'))}",
        ]
        body.append([extractor, pair, *([] if pooled else [part]), *cells])
    columns = ["features", "pair", *([] if pooled else ["view"]), "Fréchet", "KID [95 % interval]", "volumes", "rank"]
    first = 2 if pooled else 3
    return Table("Distances between sets", columns, body, SOURCE, frozenset(range(first, len(columns))))


def statement(run: Run) -> list[tuple[str, str]]:
    """Generated against real, beside the floor, for the first extractor that there is."""
    rows = run.rows(SOURCE)
    names = extractors(run)
    if not names:
        return [("none", "Distances: none could be computed.")]
    own = rows[(rows["encoder"] == names[0]) & (rows["metric"] == "frechet") & (rows["slice"] == POOLED)]
    value = own.set_index("task")["value"]
    text = (
        f"Fréchet distance ({names[0]} features) of generated to real volumes: {number(value.get('generated vs real'))}"
    )
    text += (
        f"; of reconstructions {number(value.get('reconstructed vs real'))}, of real halves {number(value.get(FLOOR))}."
    )
    return [("none", text)]


PARTS = (unavailable_notice, rank_notice, distances_table)
