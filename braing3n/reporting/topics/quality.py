"""Quality numbers of every volume, with the thresholds that flag them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from braing3n.config.data import QCSettings
from braing3n.reporting.drawing import Drawing, Drawn
from braing3n.reporting.page import Block, Fold, Notice, Text, count, number, plural, table
from braing3n.reporting.run import AbsentError, Run
from braing3n.reporting.style import BLUE, GRID, VERMILLION, save_chart

TITLE = "Quality of the preprocessing"
LEAD = "Flags ask for a look; they drop nothing. Thresholds are those of preprocess.qc in the configuration."
SOURCE = "metadata/volumes.parquet"
LABELS = {
    "qc_brain_ml": "brain volume [ml]",
    "qc_atlas_correlation": "correlation with the atlas",
    "qc_atlas_dice": "Dice with the atlas' mask",
    "qc_scale": "scale of the affine",
    "qc_stretch": "stretch of the affine",
    "qc_shear": "shear of the affine",
    "qc_rotation_deg": "rotation [degrees]",
    "qc_mirror_margin": "correlation over the mirror image's",
    "qc_leakage": "share of the mask outside",
    "qc_snr": "signal-to-noise ratio",
    "qc_cnr": "grey-white contrast-to-noise ratio",
}
MAX_FLAGGED = 200


def metrics(volumes: pd.DataFrame) -> list[str]:
    """The QC columns of `LABELS` that are there; steps record more, for those who look for a cause."""
    return [name for name in LABELS if name in volumes.columns and volumes[name].notna().any()]


def limits(metric: str, settings: QCSettings | None) -> tuple[float | None, float | None]:
    """Lower and upper threshold of a QC column: one number is a lower bound, two are a range."""
    if settings is None:
        return None, None
    name = metric.removeprefix("qc_")
    for key, value in settings.model_dump().items():
        if name == key or name.startswith(f"{key}_"):
            return (value[0], value[1]) if isinstance(value, tuple | list) else (value, None)
    return None, None


def drawings(run: Run) -> dict[str, Drawing]:
    return {"distributions": lambda stem: _draw(run, stem)}


def _draw(run: Run, stem: Path) -> Drawn:
    """One strip a cohort and metric: every volume a dot, flagged ones marked, thresholds as lines."""
    import matplotlib.pyplot as plt

    volumes = run.volumes
    names = metrics(volumes)
    if not names:
        raise AbsentError("has none of the quality numbers", file=SOURCE)
    cohorts = sorted(volumes["cohort"].unique())[::-1]
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    height = rows * (0.75 + 0.24 * len(cohorts))
    figure, axes = plt.subplots(rows, columns, figsize=(9.4, height), squeeze=False, sharey=True)
    random = np.random.default_rng(run.settings.seed)
    flagged = volumes["qc_flags"].fillna("").ne("")
    for axis, name in zip(axes.flat, names, strict=False):
        _strip(axis, volumes, flagged, name, cohorts, random)
        for value in limits(name, run.qc_settings):
            if value is not None:
                axis.axvline(value, color=VERMILLION, linestyle="--", linewidth=1)
    for axis in axes.flat[len(names) :]:
        axis.set_visible(False)
    thresholds = "Dashed: thresholds." if run.qc_settings else "Thresholds are not drawn: no --config was given."
    return Drawn(
        [p.name for p in save_chart(figure, stem)],
        f"Quality numbers by cohort, a dot a volume; red triangles are flagged by at least one threshold. {thresholds} "
        f"n = {plural(len(volumes), 'volume')}, {int(flagged.sum()):,} flagged.",
        "Strips of dots: quality numbers of every volume by cohort",
        [SOURCE],
    )


def _strip(axis, volumes, flagged, name, cohorts, random) -> None:
    from matplotlib.ticker import MaxNLocator

    for position, cohort in enumerate(cohorts):
        own = volumes["cohort"] == cohort
        for mask, colour, marker, size in ((own & ~flagged, BLUE, "o", 9), (own & flagged, VERMILLION, "^", 22)):
            values = volumes.loc[mask, name].dropna()
            jitter = position + random.uniform(-0.25, 0.25, len(values))
            axis.scatter(values, jitter, s=size, color=colour, alpha=0.65, linewidths=0, marker=marker, rasterized=True)
    axis.set_yticks(range(len(cohorts)), cohorts)
    axis.set_ylim(-0.6, len(cohorts) - 0.4)
    axis.set_title(LABELS[name], weight="normal")
    axis.grid(True, axis="x", color=GRID)
    axis.xaxis.set_major_locator(MaxNLocator(4))
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:.4g}")
    axis.tick_params(axis="y", length=0)


def flagged_table(run: Run) -> list[Block]:
    volumes = run.volumes
    flagged = volumes[volumes["qc_flags"].fillna("").ne("")]
    if flagged.empty:
        return [Text(f"None of {plural(len(volumes), 'volume')} is flagged.")]
    names = metrics(volumes)[:6]
    labels = {"cohort": "cohort", "source_path": "path", "volume_id": "volume", "modality": "modality"}
    labels |= {"qc_flags": "flags"} | {name: LABELS[name] for name in names}
    shown = flagged.sort_values(["cohort", "source_path"]).head(MAX_FLAGGED)
    blocks: list[Block] = [table(shown, f"{plural(len(flagged), 'flagged volume')}", SOURCE, labels)]
    if len(flagged) > MAX_FLAGGED:
        blocks.append(Notice(f"The first {MAX_FLAGGED} of {len(flagged):,} are named here.", "warning"))
    return blocks


def summary_table(run: Run) -> list[Block]:
    """Median and 5th to 95th percentile of each number, by cohort."""
    volumes = run.volumes
    names = metrics(volumes)
    rows = []
    for cohort, own in volumes.groupby("cohort"):
        row = {"cohort": cohort, "volumes": len(own), "flagged": int(own["qc_flags"].fillna("").ne("").sum())}
        for name in names:
            low, middle, high = own[name].quantile([0.05, 0.5, 0.95])
            row[LABELS[name]] = f"{number(middle)} ({number(low)}–{number(high)})"
        rows.append(row)
    formats = {"volumes": count, "flagged": count}
    block = table(pd.DataFrame(rows), "Median (5th to 95th percentile)", SOURCE, None, formats)
    shown = {"qc_flags", *names}
    others = [name.removeprefix("qc_") for name in volumes.columns if name.startswith("qc_") and name not in shown]
    more = [Text(f"Also in {SOURCE}, with the prefix qc_: {', '.join(others)}.")] if others else []
    return [Fold("Medians by cohort", [block, *more])]


PARTS = (flagged_table, summary_table)
