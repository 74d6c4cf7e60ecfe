"""Are generated volumes copies of training scans? Nearest neighbours in the latent space, and a look at them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from braing3n.reporting.drawing import Drawing, Drawn
from braing3n.reporting.page import Block, Fold, Table, count, fixed, number, plain, plural, table
from braing3n.reporting.pictures import black_figure, caption_above, mark_sides, read_packed, show
from braing3n.reporting.planes import PLANES, box_of, picture_sizes, plane, slice_indices, window
from braing3n.reporting.run import AbsentError, Run
from braing3n.reporting.style import BLUE, GREEN, GRID, MUTED, ORANGE, VERMILLION, save_chart, save_picture
from braing3n.reporting.topics.mosaics import read_volume

TITLE = "Memorization"
LEAD = (
    "The distance from each generated volume to its nearest training scan, beside the distance that training scans "
    "keep from those of other persons. The positive control adds noise to training latents: such copies must be found."
)
SOURCE, PAIRS = "tables/memorization.parquet", "tables/memorization_pairs.parquet"
GENERATED, TRAINING = "generated vs training", "training vs training"
SHOWN = 3


def measures(run: Run) -> pd.DataFrame:
    """A row a comparison, a column a metric."""
    rows = run.rows(SOURCE)
    return rows.pivot_table(index="task", columns="metric", values="value", sort=False, observed=True)


def drawings(run: Run) -> dict[str, Drawing]:
    return {"ranges": lambda stem: _draw_ranges(run, stem), "nearest": lambda stem: _draw_nearest(run, stem)}


def _draw_ranges(run: Run, stem: Path) -> Drawn:
    """Range, 5th percentile, median and mean of the nearest distances, a row a comparison."""
    import matplotlib.pyplot as plt

    wide = measures(run)
    if not {"min", "max", "median", "mean", "p5"} <= set(wide.columns):
        raise AbsentError("records no distances", file=SOURCE)
    wide = wide.dropna(subset=["mean"])[::-1]
    figure, axis = plt.subplots(figsize=(9, 1.1 + 0.36 * len(wide)))
    for y, (_, row) in enumerate(wide.iterrows()):
        axis.hlines(y, row["min"], row["max"], color=BLUE, linewidth=2.2, alpha=0.45)
    y = range(len(wide))
    axis.scatter(wide["p5"], y, marker="|", s=90, color=ORANGE, linewidths=2, label="5th percentile", zorder=3)
    axis.scatter(wide["median"], y, marker="o", s=28, color=BLUE, label="median", zorder=3)
    axis.scatter(wide["mean"], y, marker="D", s=24, color=GREEN, label="mean", zorder=3)
    if TRAINING in wide.index:
        threshold = wide.loc[TRAINING, "p5"]
        axis.axvline(
            threshold, color=VERMILLION, linestyle="--", linewidth=1, label="suspect below (training's 5th percentile)"
        )
    axis.set_yticks(list(y), wide.index)
    axis.set_ylim(-0.6, len(wide) - 0.4)
    axis.set_xlim(left=0)
    axis.set_xlabel("distance to the nearest training scan (L2 over normalised latents)")
    axis.grid(True, axis="x", color=GRID)
    axis.tick_params(axis="y", length=0)
    axis.spines["left"].set_color(MUTED)
    figure.legend(loc="outside upper left", ncols=4)
    n = run.rows(PAIRS)["volume_id"].nunique()
    return Drawn(
        [p.name for p in save_chart(figure, stem)],
        f"Distance to the nearest training scan of another person: range (line), 5th percentile, median and mean. "
        f"n = {plural(n, 'generated volume')}.",
        "Ranges of nearest-neighbour distances for training, held-out and generated volumes and for controls",
        [SOURCE],
    )


def nearest_pairs(run: Run) -> pd.DataFrame:
    """Each generated volume with its nearest training scan, the closest pair first."""
    pairs = run.rows(PAIRS)
    return pairs[pairs["rank"] == 1].sort_values("distance", kind="stable").reset_index(drop=True)


def _draw_nearest(run: Run, stem: Path) -> Drawn:
    """The closest pairs: generated above, its nearest training scan below."""
    pairs = nearest_pairs(run).head(SHOWN)
    scans = run.volumes.set_index("volume_id", drop=False)
    volumes = [
        (_read_generated(run, pair), read_volume(run, scans.loc[pair["neighbour"]])) for _, pair in pairs.iterrows()
    ]
    frame = box_of([volume > 0 for both in volumes for volume in both])
    sizes = picture_sizes(frame)
    scale = 9.6 / (len(pairs) * sum(width for width, _ in sizes))
    widths = [scale * width for width, _ in sizes] * len(pairs)
    tallest = scale * max(height for _, height in sizes)
    figure, grid = black_figure(widths, [tallest] * 2, top=0.4, left=1.0)
    for k, (both, (_, pair)) in enumerate(zip(volumes, pairs.iterrows(), strict=True)):
        indices = slice_indices(both[1] > 0)
        for i, volume in enumerate(both):
            for j, view in enumerate(PLANES):
                axis = figure.add_subplot(grid[i, 3 * k + j])
                show(axis, plane(volume, view, indices[view], frame), window(volume, volume > 0)[1])
                if i == 0 and j == 1:
                    caption_above(axis, f"{pair['arm']}\ndistance {pair['distance']:.1f}")
                if i == 0 and k == 0:
                    mark_sides(axis, view)
                if j == 0 and k == 0:
                    label = ("generated", "nearest\ntraining scan")[i]
                    axis.set_ylabel(label, color="white", fontsize=8.5, rotation=0, ha="right", va="center")
    return Drawn(
        [p.name for p in save_picture(figure, stem)],
        f"The {plural(len(pairs), 'generated volume')} nearest to a training scan, above that scan, radiological "
        "convention.",
        "Slices of generated volumes above their nearest training scans",
        [PAIRS, "generated/<arm>.npy", "volumes/"],
    )


def _read_generated(run: Run, pair: pd.Series):
    rows = run.rows(f"generated/{pair['arm']}.parquet").set_index("volume_id")
    row = rows.loc[pair["volume_id"]]
    return read_packed(run, f"generated/{pair['arm']}.npy", int(row["row"]), row["scale"])


def comparisons_table(run: Run) -> list[Block]:
    wide = measures(run)
    labels = {
        "mean": "mean",
        "median": "median",
        "p5": "5th percentile",
        "min": "min",
        "max": "max",
        "fraction_under_p5": "share under training's 5th percentile",
        "copy_ratio_min": "lowest copy ratio",
        "found_source": "source found",
        "copy_ratio_max": "highest copy ratio",
        "ratio_to_training": "mean over training's",
        "accuracy": "accuracy",
        "p_value": "p",
    }
    present = [name for name in labels if name in wide.columns] + [name for name in wide.columns if name not in labels]
    sizes = run.rows(SOURCE).groupby("task", sort=False)["n_scans"].max()
    body = [[task, count(sizes[task]), *(number(row[name]) for name in present)] for task, row in wide.iterrows()]
    columns = ["comparison", "volumes", *(labels.get(name, name) for name in present)]
    return [Table("Nearest distances", columns, body, SOURCE, frozenset(range(1, len(columns))))]


def pairs_list(run: Run) -> list[Block]:
    pairs = nearest_pairs(run)
    labels = {"volume_id": "generated", "arm": "arm", "neighbour": "nearest training scan", "distance": "distance"}
    labels |= {"copy_ratio": "copy ratio"}
    formats = {"distance": lambda v: fixed(v, 1), "copy_ratio": lambda v: fixed(v, 2), "volume_id": plain}
    block = table(pairs.head(20), "Generated volumes nearest to a training scan", PAIRS, labels, formats)
    return [Fold(f"The {min(20, len(pairs))} nearest pairs", [block])]


def statement(run: Run) -> list[tuple[str, str]]:
    """Memorization"""
    pairs = nearest_pairs(run)
    under, n = int(pairs["under_p5"].sum()), len(pairs)
    text = (
        f"Memorization: {under:,} of {plural(n, 'generated volume')} lie nearer to a training scan than 95 % of "
        "training scans do to those of other persons."
    )
    return [("none" if under else "yes", text)]


PARTS = (comparisons_table, pairs_list)
