"""Planned scans -> files, over worker processes that share nothing but the anatomy on disk."""

from __future__ import annotations

import logging
import multiprocessing
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from joblib import cpu_count
from tqdm import tqdm

from braing3n.errors import BrainG3NError
from braing3n.files import write_nifti
from braing3n.phantom.anatomy import Anatomy, load_anatomy
from braing3n.phantom.dicom import write_series
from braing3n.phantom.plan import CohortPlan, PlannedScan
from braing3n.phantom.simulate import Simulation, simulate, ventricle_ml
from braing3n.phantom.truth import truth_row

T = TypeVar("T")
log = logging.getLogger(__name__)
LOG_EVERY_S = 10.0

_anatomy: Anatomy | None = None  # of this worker process


def render_plans(
    atlas_folder: str | Path, root: Path, plans: Iterable[CohortPlan], truth: Path, images: bool, workers: int | None
) -> list[dict[str, Any]]:
    """Write every scan below `root/<cohort>` and return the rows of the truth table.

    Args:
        truth: folder of the truth, apart from `root`.
        images: also write true brain masks and bias fields, into `truth/images`.
        workers: processes; default, the cores this process may use.
    """
    jobs = [(plan.name, scan, root / plan.name, truth if images else None) for plan in plans for scan in plan.scans]
    return in_parallel(atlas_folder, _render, jobs, workers, "phantoms")


def in_parallel(
    atlas_folder: str | Path, function: Callable[..., T], jobs: list[tuple], workers: int | None, title: str
) -> list[T]:
    """`function(anatomy, *job)` for every job, in worker processes if there are several; results in any order.

    Raises:
        BrainG3NError: a worker process was killed.
    """
    anatomy = load_anatomy(atlas_folder)  # derived once, here, not by every worker
    workers = min(workers or cpu_count(), max(len(jobs), 1))
    if workers == 1:
        return list(_reported((function(anatomy, *job) for job in jobs), len(jobs), title))
    with ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=_start_worker, initargs=(str(atlas_folder),)
    ) as pool:
        futures = [pool.submit(_call, function, job) for job in jobs]
        try:
            return list(_reported((future.result() for future in as_completed(futures)), len(jobs), title))
        except BrokenProcessPool as error:
            raise BrainG3NError(
                "a worker process was killed",
                file=title,
                remedy="give fewer --workers: each takes up to 2 GiB of memory",
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)  # after a failure, do not finish the rest first


def _reported(results: Iterable[T], total: int, title: str) -> Iterator[T]:
    """Pass results on; a bar at a terminal, elsewhere a log line every ten seconds."""
    began = logged = time.monotonic()
    bar = tqdm(results, total=total, desc=title, disable=None)
    for done, result in enumerate(bar, start=1):
        yield result
        now = time.monotonic()
        if bar.disable and (now - logged > LOG_EVERY_S or done == total):
            logged, rate = now, done / (now - began)
            log.info("%s: %d/%d, %.2g a second, %.0f s left", title, done, total, rate, (total - done) / rate)


def _start_worker(atlas_folder: str) -> None:
    global _anatomy
    torch.set_num_threads(1)
    _anatomy = load_anatomy(atlas_folder)


def _call(function: Callable[..., T], job: tuple) -> T:
    return function(_anatomy, *job)


def _render(anatomy: Anatomy, cohort: str, planned: PlannedScan, root: Path, truth: Path | None) -> dict[str, Any]:
    result = simulate(anatomy, planned.subject, planned.scan, planned.grid)
    if planned.dicom is None:
        write_nifti(root / planned.source_path, np.rint(result.volume), result.affine, dtype=np.int16)
    else:
        write_series(root / planned.source_path, result.volume, result.affine, planned.dicom)
    measured = {
        "ventricle_ml": ventricle_ml(anatomy, planned.subject),
        "brain_ml": float(result.brain.sum() * abs(np.linalg.det(result.affine[:3, :3])) / 1000),
    }
    known = {"cohort": cohort, "source_path": planned.source_path, **planned.known, **measured}
    row = truth_row(planned.subject, planned.scan, **known)
    return row if truth is None else row | _write_images(result, truth, cohort, planned.source_path)


def _write_images(result: Simulation, truth: Path, cohort: str, source_path: str) -> dict[str, str]:
    stem = f"images/{cohort}_{source_path.removesuffix('.nii.gz').replace('/', '_')}"
    row = {"mask_path": f"{stem}_mask.nii.gz", "bias_path": f"{stem}_bias.nii.gz"}
    write_nifti(truth / row["mask_path"], result.brain, result.affine, dtype=np.uint8)
    rounded = np.round(result.bias * 4096) / 4096  # to 12 bits: a fifth of the size, and finer than anyone needs
    write_nifti(truth / row["bias_path"], rounded, result.affine, dtype=np.float32)
    return row
