"""How far preprocessing is from the truth of simulated scans: `python -m benchmarks.accuracy --atlas DIR`.

Scans of `braing3n.phantom.accuracy` (all storage orders and entry states, +-25 degrees, +-30 mm, 0.8 to 4 mm voxels,
bias up to 40 %, noise up to 9 %) go through convert, bias correction, brain mask and registration, in the order of the
paper (N4, then the mask). T1s that need both steps also go through them in the other order (mask, then N4 within it).
Every scan is a row of benchmarks/results/accuracy.csv. About a minute of one core a session.

N4's field beside the true one, in logarithms over the true brain, so that a constant factor is of no account.
`bias_correlation`: of the two. It does not see how strong the field found is; hence `bias_left`, the standard deviation
of the true field over the found one, as a part of that of the true field alone: 1 is nothing corrected, 0 everything.
`bias_response`: correlation of the true field with the one found less the one found in the same scan after the field
put in was divided out, which leaves out what N4 takes for bias in the anatomy. `--n4` tries other settings of N4.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

os.environ.setdefault("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "1")

import nibabel as nib
import numpy as np
import pandas as pd
from tqdm import tqdm

from benchmarks.common import RESULTS, finish
from braing3n.config import load_config, merge
from braing3n.config.data import MaskSettings, PreprocessSettings
from braing3n.errors import BrainG3NError
from braing3n.files import read_json, settings_hash, write_json, write_nifti
from braing3n.geometry import SRI24_AFFINE
from braing3n.phantom.accuracy import NAME, write_accuracy_set
from braing3n.preprocess.atlas import Atlas, load_atlas
from braing3n.preprocess.convert import convert, to_lps
from braing3n.preprocess.mask import Masker, load_masker, provided_mask
from braing3n.preprocess.n4 import correct_bias
from braing3n.preprocess.qc import dice, volume_qc
from braing3n.preprocess.register import affine_to_atlas, resample_to_atlas, rigid_to_anchor
from braing3n.preprocess.transforms import read_transform

ORDERS = ("n4-mask", "mask-n4")
LPS_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
GOALS = {  # column, slice, goal for the median over scans, goal for the 95th (5th) percentile, larger is better
    "affine, median over the brain, mm": ("affine_median_mm", "T1", 1.0, 2.0, False),
    "affine, 95th percentile over the brain, mm": ("affine_p95_mm", "T1", None, 2.0, False),
    "rigid, median over the brain, mm": ("rigid_median_mm", "follower", 0.7, None, False),
    "mask Dice": ("mask_dice", "T1", 0.96, None, True),
    "bias correlation": ("bias_correlation", "bias", 0.95, None, True),
    "bias left": ("bias_left", "bias", None, None, False),
    "bias response": ("bias_response", "bias", None, None, True),
    "margin over the mirrored atlas": ("qc_mirror_margin", "T1", None, None, True),
}
MIN_BIAS = 0.1  # below, there is no field to correlate with
MIRROR = np.diag([-1.0, 1.0, 1.0, 1.0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--atlas", type=Path, required=True, help="folder that `braing3n atlas fetch` made")
    parser.add_argument("--work", type=Path, help="keeps scans and results, so that a run goes on; default temporary")
    parser.add_argument("--sessions", type=int, default=30)
    parser.add_argument("--seed", type=int, default=2025)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--n4", type=json.loads, default={}, help="JSON to merge over preprocess.n4; writes no result")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = options.work or Path(scratch)
        truth = scans(options.atlas, work, options.sessions, options.seed, options.workers)
        table = measure_all(truth, options.atlas, options.n4, options.workers)
    if not options.n4:
        table.round(4).to_csv(RESULTS / "accuracy.csv", index=False)
    paper, other = (table[table["order"] == order] for order in ORDERS)
    same = paper[paper["source_path"].isin(other["source_path"])]
    cases = summarise(paper, ORDERS[0]) + summarise(same, f"{ORDERS[0]}, same scans") + summarise(other, ORDERS[1])
    print(pd.DataFrame(cases).to_string(float_format="%.3f"))
    if options.n4:
        return
    lost = table[(table["affine_median_mm"] > 5) & (table["flags"] == "")]
    facts = {"scans": int((table["order"] == ORDERS[0]).sum()), "orientations": table["orientation"].nunique()}
    facts |= {"failed": int((table["error"] != "").sum()), "unflagged_beyond_5_mm": len(lost)}
    facts |= {"left_right_swapped": int(table["swapped"].fillna(0).sum())}
    finish("accuracy", cases, sessions=options.sessions, seed=options.seed, **facts)


def scans(atlas: Path, work: Path, sessions: int, seed: int, workers: int) -> pd.DataFrame:
    """The truth table of the simulated scans, which are written where they are not there yet."""
    folder = work / f"scans-{sessions}-{seed}"
    if not (folder / "truth.parquet").exists():
        write_accuracy_set(atlas, folder, sessions, seed, workers)
    return pd.read_parquet(folder / "truth.parquet").assign(folder=str(folder))


def measure_all(truth: pd.DataFrame, atlas: Path, n4: dict[str, Any], workers: int) -> pd.DataFrame:
    both = truth[~truth["entry_bias_corrected"] & ~truth["entry_stripped"] & (truth["modality"] == "T1")]
    jobs = [
        (rows.to_dict("records"), order)
        for order, chosen in zip(ORDERS, (truth, both), strict=True)
        for _, rows in chosen.groupby("subject")
    ]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=start_worker, initargs=(str(atlas), n4)) as pool:
        futures = [pool.submit(measure_session, rows, order) for rows, order in jobs]
        return pd.DataFrame([row for future in tqdm(futures, desc="sessions") for row in future.result()])


# ------------------------------------------------------------------------------------------------------ in a worker

atlas: Atlas
masker: Masker
settings: PreprocessSettings


def start_worker(folder: str, n4: dict[str, Any]) -> None:
    global atlas, masker, settings
    import ants  # noqa: F401 - so that no scan's time includes it

    atlas = load_atlas(folder)
    settings = load_config(["config/config.yaml"]).preprocess
    settings = PreprocessSettings.model_validate(merge(settings.model_dump(mode="json"), {"n4": n4}))
    masker = load_masker(MaskSettings(backend="deepbet", device="cpu"), threads=1)


def measure_session(rows: list[dict[str, Any]], order: str) -> list[dict[str, Any]]:
    """One row a scan: how far each step is from the truth, and the CPU seconds it took. Done once a work folder."""
    done = Path(rows[0]["folder"]) / f"measured-{settings_hash(settings)}-{order}-{rows[0]['subject']}.json"
    if done.exists():
        return read_json(done)
    rows = sorted(rows, key=lambda row: row["modality"] != "T1")
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        for row in rows:
            kept = ("source_path", "modality", "entry", "orientation", "noise", "bias", "deformation_mm")
            result = {"order": order} | {name: row[name] for name in kept}
            result |= {"voxel_mm": "x".join(f"{size:.2f}" for size in row["voxel_mm"]), "flags": "", "error": ""}
            try:
                result |= measure_scan(row, rows[0], order, Path(scratch))
            except BrainG3NError as error:
                result |= {"flags": "failed", "error": str(error)}
            results.append(result)
    write_json(done, results)
    return results


def measure_scan(row: dict[str, Any], anchor: dict[str, Any], order: str, folder: Path) -> dict[str, Any]:
    result: dict[str, Any] = {}

    def timed(name: str, step: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        start = time.process_time()
        value = step(*arguments, **options)
        result[f"{name}_cpu_s"] = time.process_time() - start
        return value

    name, raw = row["modality"], Path(row["folder"]) / NAME / row["source_path"]
    image, mask, corrected = (folder / f"{name}_{part}.nii.gz" for part in ("image", "mask", "n4"))
    (folder / name).mkdir()
    timed("convert", convert, raw, image, folder / name, source_format="nifti", settings=settings.convert)

    def bias(within: Path | None) -> Path:
        if row["entry_bias_corrected"]:
            return image
        timed("n4", correct_bias, image, corrected, mask=within, settings=settings.n4, threads=1)
        result.update(bias_scores(row, image, corrected))
        if row is anchor and row["bias"] >= MIN_BIAS:
            result["bias_response"] = bias_response(row, image, corrected, within)
        return corrected

    def brain(source: Path) -> None:
        if row["entry_stripped"]:
            provided_mask(source, None, mask)
        else:
            timed("mask", masker, source, mask)
            result["mask_dice"] = dice(stored(mask) > 0, truth_of(row, "mask_path") > 0)

    if row is not anchor:
        fixed = folder / "T1_n4.nii.gz"
        result |= follow(row, anchor, bias(None), fixed if fixed.exists() else folder / "T1_image.nii.gz", timed)
        return result
    if order == "n4-mask":
        ready = bias(None)
        brain(ready)
    else:
        brain(image)
        ready = bias(mask)
    transform = folder / "T1.mat"
    timed("register", affine_to_atlas, ready, mask, atlas, transform, settings=settings.register, threads=1)
    found, true = LPS_RAS @ read_transform(transform) @ LPS_RAS, np.linalg.inv(affine_of(row))
    errors = distances(found, true, atlas_points())
    result |= {f"affine_{key}_mm": value for key, value in spread(errors).items()}
    result["swapped"] = int(np.median(distances(found, true @ MIRROR, atlas_points())) < np.median(errors))
    out = folder / "registered.nii.gz", folder / "registered_mask.nii.gz"
    timed("resample", resample_to_atlas, ready, mask, [transform], atlas, *out, settings=settings.register)
    numbers = timed("qc", volume_qc, *out, transform, atlas)
    return result | {f"qc_{key}": value for key, value in numbers.items()} | {"flags": flags(numbers)}


def follow(
    row: dict[str, Any], anchor: dict[str, Any], moving: Path, fixed: Path, timed: Callable[..., Any]
) -> dict[str, float]:
    """Alignment of a session's other scan to its T1, over the brain of the T1."""
    found = np.eye(4)
    if not row["shares_grid"]:
        transform = moving.with_name("rigid.mat")
        timed("register", rigid_to_anchor, moving, fixed, transform, settings=settings.register, threads=1)
        found = LPS_RAS @ read_transform(transform) @ LPS_RAS
    true = np.linalg.inv(affine_of(row)) @ affine_of(anchor)
    native = nib.affines.apply_affine(np.linalg.inv(affine_of(anchor)), atlas_points())
    return {f"rigid_{key}_mm": value for key, value in spread(distances(found, true, native)).items()}


def affine_of(row: dict[str, Any]) -> np.ndarray:
    """True 4x4 of a scan: its RAS+ mm -> SRI24 RAS+ mm."""
    return np.reshape(row["affine"], (4, 4))


def atlas_points() -> np.ndarray:
    """Points of the atlas brain 8 mm apart, RAS+ mm, (n, 3)."""
    grid = np.argwhere(atlas.mask[::8, ::8, ::8]) * 8
    return nib.affines.apply_affine(SRI24_AFFINE, grid)


def distances(found: np.ndarray, true: np.ndarray, points: np.ndarray) -> np.ndarray:
    return np.linalg.norm(nib.affines.apply_affine(found, points) - nib.affines.apply_affine(true, points), axis=1)


def spread(errors: np.ndarray) -> dict[str, float]:
    return {"median": float(np.median(errors)), "p95": float(np.percentile(errors, 95)), "max": float(errors.max())}


def stored(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def truth_of(row: dict[str, Any], column: str) -> np.ndarray:
    """True mask or bias field, in the voxel order of converted scans."""
    image = nib.load(Path(row["folder"]) / row[column])
    return to_lps(np.asarray(image.dataobj), image.affine)[0]


def log_field(row: dict[str, Any], before: Path, after: Path) -> tuple[np.ndarray, np.ndarray]:
    """Logarithm of the field between two images, and where in the true brain it exists."""
    raw, corrected = stored(before).astype(np.float64), stored(after).astype(np.float64)
    inside = (truth_of(row, "mask_path") > 0) & (raw > 0) & (corrected > 0)
    return np.log(np.where(inside, raw, 1) / np.where(inside, corrected, 1)), inside


def bias_scores(row: dict[str, Any], before: Path, after: Path) -> dict[str, float]:
    """Correlation of the field found with the field put in, and how much of the latter is left."""
    found, inside = log_field(row, before, after)
    found, true = found[inside], np.log(truth_of(row, "bias_path")[inside])
    if row["bias"] < MIN_BIAS:
        return {}
    left = float((true - found).std() / true.std())
    return {"bias_correlation": float(np.corrcoef(found, true)[0, 1]), "bias_left": left}


def bias_response(row: dict[str, Any], before: Path, after: Path, within: Path | None) -> float:
    """Of the field found, less that found in the scan without the field put in, with the field put in."""
    true, image = truth_of(row, "bias_path"), nib.load(before)
    flat, corrected = (before.with_name(f"flat_{part}.nii.gz") for part in ("image", "n4"))
    write_nifti(flat, np.asarray(image.dataobj) / true, image.affine)
    correct_bias(flat, corrected, mask=within, settings=settings.n4, threads=1)
    (found, one), (without, other) = log_field(row, before, after), log_field(row, flat, corrected)
    inside = one & other
    return float(np.corrcoef((found - without)[inside], np.log(true[inside]))[0, 1])


def flags(numbers: dict[str, float]) -> str:
    """Names of the numbers outside the configured thresholds."""
    bounds = settings.qc.bounds()
    return ",".join(name for name, (low, high) in bounds.items() if not low <= numbers[name] <= high)


# ------------------------------------------------------------------------------------------------------ the summary


def summarise(table: pd.DataFrame, order: str) -> list[dict[str, Any]]:
    slices = {
        "T1": table["modality"] == "T1",
        "follower": (table["modality"] != "T1") & table["register_cpu_s"].notna(),
        "bias": (table["modality"] == "T1") & (table["bias"] >= MIN_BIAS),
    }
    cases = []
    for name, (column, which, goal, goal95, larger) in GOALS.items():
        values = table.loc[slices[which], column].dropna()
        if values.empty:  # the second order has no scans that follow
            continue
        median, p95 = float(values.median()), float(values.quantile(0.05 if larger else 0.95))
        met = [
            value >= bound if larger else value <= bound for value, bound in ((median, goal), (p95, goal95)) if bound
        ]
        numbers = {"median": median, "p95": p95, "worst": float(values.min() if larger else values.max())}
        cases.append({"name": name, "order": order, "n": len(values), "goal": goal, "goal_p95": goal95} | numbers)
        cases[-1]["met"] = all(met) if met else None
    return cases


if __name__ == "__main__":
    main()
