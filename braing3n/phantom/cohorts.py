"""Phantom cohorts on disk: plan every scan, render them in parallel, write tables, and the truth in another place."""

from __future__ import annotations

import logging
import multiprocessing
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from braing3n.config.data import PhantomSettings
from braing3n.errors import BrainG3NError
from braing3n.files import read_json, settings_hash, sha256_of, write_bytes, write_json, write_nifti, write_parquet
from braing3n.phantom.adni import plan_adni
from braing3n.phantom.anatomy import Anatomy, load_anatomy
from braing3n.phantom.dicom import write_series
from braing3n.phantom.ixi import plan_ixi
from braing3n.phantom.plan import CohortPlan, PlannedScan
from braing3n.phantom.simulate import Simulation, simulate, ventricle_ml
from braing3n.phantom.truth import ScanTruth, SubjectTruth, truth_row
from braing3n.phantom.upenn import plan_upenn
from braing3n.preprocess.atlas import load_atlas

log = logging.getLogger(__name__)

MANIFEST = "phantom.json"
SRI24_FILE = "sri24_T1.nii.gz"
PLANNERS: dict[str, Callable[[int, float, int], CohortPlan]] = {"ixi": plan_ixi, "adni": plan_adni, "upenn": plan_upenn}


def make_phantoms(
    atlas_folder: str | Path, settings: PhantomSettings, workers: int | None = None, save_truth_images: bool = False
) -> Path:
    """Write the cohorts into `settings.root` and their truth into the folder `truth` beside it.

    Cohorts made earlier with the same settings, atlas and code are left as they are, whatever happened to their files;
    those made otherwise are replaced. Equal settings give equal bytes.

    Args:
        workers: processes; default, the cores this process may use.
        save_truth_images: also write brain masks and bias fields.

    Returns:
        The truth table.

    Raises:
        BrainG3NError: `settings.root` holds a folder of a cohort's name that is not a phantom.
    """
    root, truth = settings.root, settings.root.parent / "truth"
    key = settings_hash(
        {
            "settings": settings.model_dump(mode="json", exclude={"root"}),
            "atlas": load_atlas(atlas_folder).sha256,
            "code": sha256_of_sources(),
            "truth_images": save_truth_images,
        }
    )
    plans = [plan(getattr(settings, name), settings.voxel_mm, settings.seed) for name, plan in PLANNERS.items()]
    plans = [plan for plan in plans if plan.scans]
    cohorts = [*(plan.name for plan in plans), "SRI24"]
    if not _claim(root, key, cohorts):
        log.info("phantom cohorts in %s are up to date", root)
        return truth / "truth.parquet"
    rows = _render_all(atlas_folder, root, plans, truth / "images" if save_truth_images else None, workers)
    for plan in plans:
        for name, content in plan.tables.items():
            write_bytes(root / plan.name / name, content)
    rows.append(_write_sri24(atlas_folder, root))
    table = pd.DataFrame(rows).sort_values(["cohort", "source_path"], ignore_index=True)
    write_parquet(truth / "truth.parquet", table)
    write_json(root / MANIFEST, {"key": key, "complete": True, "cohorts": cohorts, "volumes": len(table)})
    return truth / "truth.parquet"


def sha256_of_sources() -> dict[str, str]:
    """Hash of every module of this package: another simulator makes other phantoms."""
    return {path.name: sha256_of(path) for path in sorted(Path(__file__).parent.glob("*.py"))}


def _claim(root: Path, key: str, cohorts: list[str]) -> bool:
    """True when cohorts must be made; whatever an earlier run left of them is then gone."""
    manifest = root / MANIFEST
    known = read_json(manifest) if manifest.exists() else {}
    present = [root / name for name in cohorts if (root / name).exists()]
    if known.get("complete") and known["key"] == key and len(present) == len(cohorts):
        return False
    if present and not known:
        raise BrainG3NError(
            "folder exists and was not made by `braing3n phantom make`",
            file=present[0],
            remedy="set phantom.root to an empty folder, or move this one away",
        )
    for name in known.get("cohorts", []):
        shutil.rmtree(root / name, ignore_errors=True)
    root.mkdir(parents=True, exist_ok=True)
    write_json(manifest, {"key": key, "complete": False, "cohorts": cohorts})  # ours, even if killed half-way
    return True


def _render_all(
    atlas_folder: str | Path, root: Path, plans: list[CohortPlan], images: Path | None, workers: int | None
) -> list[dict[str, Any]]:
    load_anatomy(atlas_folder)  # derived once, here, not by every worker
    jobs = [(plan.name, planned) for plan in plans for planned in plan.scans]
    workers = min(workers or len(os.sched_getaffinity(0)), max(len(jobs), 1))
    with ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=_start_worker, initargs=(str(atlas_folder),)
    ) as pool:
        futures = [pool.submit(_render, cohort, planned, root / cohort, images) for cohort, planned in jobs]
        progress = tqdm(as_completed(futures), total=len(futures), desc="phantoms", unit="volume", disable=None)
        try:
            return [future.result() for future in progress]
        except BaseException:
            pool.shutdown(cancel_futures=True)  # one failure is enough to stop for
            raise


_anatomy: Anatomy | None = None  # of this worker process


def _start_worker(atlas_folder: str) -> None:
    global _anatomy
    torch.set_num_threads(1)
    _anatomy = load_anatomy(atlas_folder)


def _render(cohort: str, planned: PlannedScan, root: Path, images: Path | None) -> dict[str, Any]:
    assert _anatomy is not None, "worker has not started"
    result = simulate(_anatomy, planned.subject, planned.scan, planned.grid)
    if planned.dicom is None:
        write_nifti(root / planned.source_path, np.rint(result.volume), result.affine, dtype=np.int16)
    else:
        write_series(root / planned.source_path, result.volume, result.affine, planned.dicom)
    row = truth_row(
        planned.subject,
        planned.scan,
        cohort=cohort,
        source_path=planned.source_path,
        **planned.known,
        ventricle_ml=ventricle_ml(_anatomy, planned.subject),
    )
    return row | _brain_row(result, cohort, planned, images)


def _brain_row(result: Simulation, cohort: str, planned: PlannedScan, images: Path | None) -> dict[str, Any]:
    row: dict[str, Any] = {"brain_ml": float(result.brain.sum() * abs(np.linalg.det(result.affine[:3, :3])) / 1000)}
    if images is not None:
        stem = f"{cohort}_{planned.source_path.removesuffix('.nii.gz').replace('/', '_')}"
        row |= {"mask_path": f"images/{stem}_mask.nii.gz", "bias_path": f"images/{stem}_bias.nii.gz"}
        write_nifti(images.parent / row["mask_path"], result.brain, result.affine, dtype=np.uint8)
        write_nifti(images.parent / row["bias_path"], result.bias, result.affine, dtype=np.float32)
    return row


def _write_sri24(atlas_folder: str | Path, root: Path) -> dict[str, Any]:
    """The atlas's whole head, a real average of 24 adults, as a cohort of one scan."""
    atlas = load_atlas(atlas_folder)
    write_bytes(root / "SRI24" / SRI24_FILE, atlas.head_path.read_bytes())
    row = truth_row(
        SubjectTruth(),
        ScanTruth(),
        cohort="SRI24",
        source_path=SRI24_FILE,
        subject="SRI24",
        session="1",
        brain_ml=float(atlas.mask.sum()) / 1000,
        ventricle_ml=ventricle_ml(load_anatomy(atlas_folder), SubjectTruth()),
    )
    return row | {"gain": None}
