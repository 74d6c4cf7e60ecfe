"""A look at the volumes of each cohort, as they enter the models: three planes, outlines."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from braing3n.geometry import center_crop_or_pad
from braing3n.reporting.drawing import Drawing, Drawn
from braing3n.reporting.page import fixed, plural
from braing3n.reporting.pictures import black_figure, caption_above, mark_sides, read_packed, show
from braing3n.reporting.planes import PLANES, Box, box_of, filled, picture_sizes, plane, slice_indices, window
from braing3n.reporting.run import Run, pick
from braing3n.reporting.style import ORANGE, SKY, YELLOW, save_picture

TITLE = "A look at every cohort"
LEAD = (
    "Volumes from the store, as the models see them: SRI24 space, 1 mm, radiological convention (the patient's right "
    "is on the left-hand side), anterior up in axial, superior up in coronal and sagittal."
)
WORST_BY = "qc_atlas_correlation"
WIDTH = 1.55  # inches of one picture
PARTS = ()


def drawings(run: Run) -> dict[str, Drawing]:
    return {cohort: partial(_draw_cohort, run, cohort) for cohort in sorted(run.volumes["cohort"].unique())}


def _draw_cohort(run: Run, cohort: str, stem: Path) -> Drawn:
    everything = run.volumes.query("cohort == @cohort")
    chosen = pick(everything, run.settings.mosaic_columns, run.settings.seed, WORST_BY)
    volumes = [read_volume(run, row) for _, row in chosen.iterrows()]
    outline = atlas_mask(run)
    frame = box_of([v > 0 for v in volumes] + ([outline] if outline is not None else []))
    heights = [WIDTH * size[1] / size[0] for size in picture_sizes(frame)]
    figure, grid = black_figure([WIDTH] * len(volumes), heights)
    for column, (volume, (_, row)) in enumerate(zip(volumes, chosen.iterrows(), strict=True)):
        axes = [figure.add_subplot(grid[i, column]) for i in range(3)]
        draw_planes(axes, volume, volume > 0, outline, frame, mark_letters=column == 0)
        marked = row["chosen"] == "worst" or bool(row.get("qc_flags"))
        caption_above(axes[0], volume_label(row), ORANGE if marked else "white")
    return Drawn(
        [p.name for p in save_picture(figure, stem)],
        _caption(run, cohort, chosen, len(everything), outline is not None),
        f"Axial, coronal and sagittal slices of {plural(len(chosen), 'volume')} of {cohort} with the brain's outline",
        ["metadata/volumes.parquet", f"volumes/{cohort}/"],
    )


def _caption(run: Run, cohort: str, chosen: pd.DataFrame, n_all: int, with_atlas: bool) -> str:
    lowest = int((chosen["chosen"] == "worst").sum())
    how = f"{len(chosen) - lowest} of them drawn at random (seed {run.settings.seed})"
    if lowest:
        how += f", {lowest} with the lowest correlation with the atlas"
    if len(chosen) == n_all:
        how = "all there are"
    lines = " Yellow: outline of the brain mask." + (" Blue: outline of the SRI24 brain." if with_atlas else "")
    marked = " Orange names: lowest correlation, or flagged by QC." if lowest or chosen["qc_flags"].any() else ""
    return f"{cohort}: {plural(len(chosen), 'volume')} of {n_all:,}, {how}.{lines}{marked}"


def volume_label(row: pd.Series) -> str:
    """Who, which modality, age and sex, in two short lines."""
    who = str(row["subject_id"]).split(":", 1)[-1]
    age = None if pd.isna(row["age_at_scan"]) else f"{fixed(row['age_at_scan'], 0)} y"
    details = [row["modality"], age, None if pd.isna(row["sex"]) else row["sex"]]
    return f"{who[-16:]}\n{', '.join(str(d) for d in details if d)}"


def read_volume(run: Run, row: pd.Series) -> np.ndarray:
    """Intensities (X, Y, Z) of one row of the metadata table."""
    return read_packed(run, row["store_file"], int(row["store_row"]), row["scale"])


def atlas_mask(run: Run) -> np.ndarray | None:
    """The SRI24 brain mask on the volumes' grid, if the atlas was given."""
    if run.atlas is None:
        return None
    from braing3n.preprocess.atlas import Atlas

    return center_crop_or_pad(Atlas(run.atlas).mask)


def draw_planes(
    axes: list,
    volume: np.ndarray,
    mask: np.ndarray,
    outline: np.ndarray | None,
    frame: Box,
    mark_letters: bool = True,
    sizes: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> None:
    """Fill three axes with axial, coronal and sagittal slices, the mask's outline and the letters of the sides."""
    indices = slice_indices(mask)
    _, high = window(volume, mask)
    x, y, z = sizes
    aspects = {"axial": y / x, "coronal": z / x, "sagittal": z / y}
    for axis, name in zip(axes, PLANES, strict=True):
        show(axis, plane(volume, name, indices[name], frame), high, aspects[name])
        if outline is not None and outline.shape == volume.shape:
            _contour(axis, plane(outline, name, indices[name], frame), SKY)
        _contour(axis, plane(mask, name, indices[name], frame), YELLOW)
        if mark_letters:
            mark_sides(axis, name)


def _contour(axis, mask_picture: np.ndarray, colour: str) -> None:
    if mask_picture.any():
        axis.contour(filled(mask_picture), levels=[0.5], colors=[colour], linewidths=0.7)
