"""One session by hand: its scans through the same five steps and the same runner as a cohort's."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd

from braing3n.cohorts.schema import typed
from braing3n.config.data import PreprocessSettings
from braing3n.errors import BrainG3NError
from braing3n.files import atomic_path, read_parquet, short_hash, write_json, write_nifti, write_parquet
from braing3n.geometry import center_crop_or_pad, cropped_affine
from braing3n.preprocess.records import volume_after
from braing3n.preprocess.shard import run_shard
from braing3n.preprocess.steps import Volume, get_step

COHORT, SHARD = "scan", "0000"
FORMATS = {".mgz": "mgz", ".mgh": "mgz", ".img": "analyze", ".hdr": "analyze"}


def preprocess_session(
    scans: Mapping[str, Path],
    out: Path,
    *,
    atlas: Path,
    settings: PreprocessSettings,
    mask: Path | None = None,
    threads: int = 1,
) -> dict[str, dict[str, Any]]:
    """Preprocess the scans of one session and leave what a person wants to see in `out`.

    Args:
        scans: modality -> file, or folder of a DICOM series.
        out: gets, per modality M, `M.nii.gz` (160x192x160) and `M.png`; and `mask.nii.gz` on the same grid,
            `transform.mat` (anchor to atlas), `M_rigid.mat` (M to the anchor) and `qc.json`.
        mask: brain mask of the anchor (the T1 where there is one); without it, `settings.mask.backend` makes one, and
            `provided` takes the anchor for stripped.

    Returns:
        Modality -> QC numbers, as in `qc.json`.

    Raises:
        BrainG3NError: a scan did not come through; the intermediate files then stay in `<out>/work`.
    """
    work = out / "work"
    shard = work / "index" / "shards" / COHORT / f"{SHARD}.parquet"
    stripped = settings.mask.backend == "provided" and mask is None
    rows = [index_row(modality, path, stripped, mask) for modality, path in scans.items()]
    write_parquet(shard, typed(pd.DataFrame(rows)))
    volumes = run_chain(shard, work, atlas, settings, threads)
    for volume in volumes:
        if volume.lost:
            raise BrainG3NError(
                f"{volume.row['modality']} {'failed' if volume.status == 'failed' else 'was excluded'} at "
                f"{volume.failed_step}",
                file=volume.row["source_path"],
                found=volume.reason,
            )
    qc = {volume.row["modality"]: dict(volume.qc) for volume in volumes}
    for volume in volumes:
        deliver(volume, work, out, atlas)
    write_json(out / "qc.json", qc)
    shutil.rmtree(work)
    return qc


def index_row(modality: str, path: Path, stripped: bool, mask: Path | None) -> dict[str, Any]:
    """What the index would say of a scan; its paths are absolute, so that the root does not matter."""
    if not path.exists():
        raise BrainG3NError("scan does not exist", file=path)
    return {
        "volume_id": short_hash(COHORT, modality, str(path.absolute())),
        "cohort": COHORT,
        "subject_id": f"{COHORT}:1",
        "person_id": f"{COHORT}:1",
        "session_id": "1",
        "run": 1,
        "modality": modality,
        "source_path": str(path.absolute()),
        "source_format": "dicom" if path.is_dir() else FORMATS.get(path.suffix, "nifti"),
        "source_bytes": 0,
        "mask_path": None if mask is None else str(mask.absolute()),
        "source_variant": "by hand",
        "entry_stripped": stripped,
        "entry_bias_corrected": False,
        "entry_defaced": False,
        "entry_space": "native",
        "shares_grid": False,
        "bids_subject": "1",
        "bids_session": "1",
        "licence": "",
        "split": "test",
        "shard": SHARD,
    }


def run_chain(shard: Path, work: Path, atlas: Path, settings: PreprocessSettings, threads: int) -> list[Volume]:
    """All steps of the chain on one shard; the volumes as the last step left them."""
    status = None
    for name in settings.chain():
        previous, status = status, work / "status" / name / COHORT / f"{SHARD}.parquet"
        run_shard(
            get_step(name),
            shard=shard,
            root=Path("/"),
            results=work,
            status=status,
            settings=getattr(settings, name),
            previous=previous,
            atlas=atlas if name == "register" else None,
            store=work / "volumes" / COHORT / f"{SHARD}.npy" if name == "crop" else None,
            threads=threads,
            timeout_s=settings.volume_timeout_s,
            max_failed_fraction=1.0,
        )
    ends = {row["volume_id"]: row for row in read_parquet(status).to_dict("records")}
    return [volume_after(row, ends[row["volume_id"]]) for row in read_parquet(shard).to_dict("records")]


def deliver(volume: Volume, work: Path, out: Path, atlas: Path) -> None:
    """Copy a volume's results out of the work folder, under plain names."""
    modality, files = volume.row["modality"], {name: work / path for name, path in volume.outputs.items()}
    copies = {files["image"]: f"{modality}.nii.gz", files["transform"]: "transform.mat"}
    if "rigid" in files:
        copies[files["rigid"]] = f"{modality}_rigid.mat"
    for source, name in copies.items():
        with atomic_path(out / name) as temporary:
            shutil.copyfile(source, temporary)
    mask = center_crop_or_pad(np.asarray(nib.load(files["mask"]).dataobj))
    write_nifti(out / "mask.nii.gz", mask, cropped_affine(), np.uint8)
    image = np.asarray(nib.load(files["image"]).dataobj)
    draw(center_crop_or_pad(image), mask > 0, atlas, out / f"{modality}.png")


def draw(volume: np.ndarray, mask: np.ndarray, atlas: Path, out: Path) -> None:
    """Three planes with the outlines of the mask (yellow) and of the atlas' brain (blue)."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    from braing3n.preprocess.atlas import load_atlas
    from braing3n.reporting.planes import box_of
    from braing3n.reporting.topics.mosaics import draw_planes

    outline = center_crop_or_pad(load_atlas(atlas).mask)
    figure, axes = plt.subplots(1, 3, figsize=(9, 3.4), facecolor="black")
    draw_planes(list(axes), volume, mask, outline, box_of([mask, outline]))
    with atomic_path(out) as temporary:
        figure.savefig(temporary, dpi=120, bbox_inches="tight")
    plt.close(figure)
