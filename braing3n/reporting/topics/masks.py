"""Brain masks on the scans that they were made from, where a cut or a piece of skull shows."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from braing3n.errors import BrainG3NError
from braing3n.reporting.drawing import Drawing, Drawn
from braing3n.reporting.page import plural
from braing3n.reporting.pictures import black_figure, caption_above
from braing3n.reporting.planes import PLANES, box_of, to_lps
from braing3n.reporting.run import AbsentError, Run, pick
from braing3n.reporting.style import save_picture
from braing3n.reporting.topics.mosaics import WIDTH, draw_planes, volume_label

TITLE = "Brain masks on the original scans"
LEAD = (
    "The mask's outline (yellow) on the bias-corrected scan, each on its own grid. A mask should hug the brain: no "
    "skull or eyes inside, no cortex or cerebellum outside. One scan a session is masked; the others follow it."
)
MARGIN_MM = 25.0
PARTS = ()


def masked_scans(run: Run) -> pd.DataFrame:
    """Volumes that were masked on their own grid, with the paths `native` and `mask` relative to the results."""
    status = run.status("mask")
    status = status[status["status"].isin(["ok", "skipped"])]
    outputs = status["outputs"].map(json.loads)
    frame = status.assign(native=outputs.map(lambda o: o.get("native")), mask=outputs.map(lambda o: o.get("mask")))
    frame = frame.dropna(subset=["native", "mask"])
    if frame.empty:
        raise AbsentError("no scan was masked", file="status/mask")
    details = ["volume_id", "bids_subject", "age_at_scan", "sex", "qc_flags"]
    return frame.merge(run.volumes[details], on="volume_id", how="left")


def drawings(run: Run) -> dict[str, Drawing]:
    scans = masked_scans(run)
    return {cohort: partial(_draw, run, cohort, rows) for cohort, rows in scans.groupby("cohort")}


def _draw(run: Run, cohort: str, scans: pd.DataFrame, stem: Path) -> Drawn:
    chosen = pick(scans, run.settings.mosaic_columns, run.settings.seed, None)
    figure, grid = black_figure([WIDTH] * len(chosen), [WIDTH] * len(PLANES))
    for column, (_, row) in enumerate(chosen.iterrows()):
        image, mask, sizes = read_pair(run, row["native"], row["mask"])
        axes = [figure.add_subplot(grid[i, column]) for i in range(len(PLANES))]
        frame = box_of([mask], [round(MARGIN_MM / size) for size in sizes])
        draw_planes(axes, image, mask, None, frame, mark_letters=column == 0, sizes=sizes)
        caption_above(axes[0], volume_label(row))
    return Drawn(
        [p.name for p in save_picture(figure, stem)],
        f"{cohort}: {plural(len(chosen), 'scan')} of {len(scans):,} masked ones, drawn at random (seed "
        f"{run.settings.seed}), radiological convention.",
        f"Axial, coronal and sagittal slices of {plural(len(chosen), 'scan')} of {cohort} with the mask's outline",
        [f"status/mask/{cohort}/", f"derivatives/{cohort}/"],
    )


def read_pair(run: Run, image: str, mask: str) -> tuple[np.ndarray, np.ndarray, tuple[float, float, float]]:
    """A scan and its mask on LPS axes, (X, Y, Z) each, and the voxel sizes in mm."""
    import nibabel as nib

    try:
        loaded = nib.load(run.path(image))
        voxels, sizes = to_lps(np.asarray(loaded.dataobj, dtype=np.float32), loaded.affine)
        masked, _ = to_lps(np.asarray(nib.load(run.path(mask)).dataobj) > 0, loaded.affine)
    except (OSError, EOFError, nib.filebasedimages.ImageFileError) as error:
        raise BrainG3NError("cannot be read", file=image, found=str(error)) from error
    if voxels.shape != masked.shape:
        raise BrainG3NError("mask is on another grid", file=mask, expected=str(voxels.shape), found=str(masked.shape))
    return voxels, masked, sizes
