"""Bias correction and affine registration beside two peers: same scans, one core each, brain mask given to all.

    python -m benchmarks.preprocess --atlas DIR [--scans 2] [--keep DIR] [--skip-brainles]

The peers are brainles-preprocessing, the package behind the paper's route, with its own classes and defaults in an
environment of its own, and the best recipe from stock calls: SimpleITK's N4 on a quarter of the resolution within the
brain mask, and ANTsPy's `Affine`. Accuracy is against the truth of simulated 1 mm heads. The unshrunk N4 of the first
peer takes most of the time, some ten minutes a scan.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from benchmarks.common import case, finish
from braing3n.files import write_nifti
from braing3n.geometry import SRI24_AFFINE
from braing3n.phantom.anatomy import load_anatomy
from braing3n.phantom.simulate import simulate
from braing3n.phantom.truth import ScanTruth, SubjectTruth, pose, scanner_grid
from braing3n.preprocess.atlas import Atlas, load_atlas
from braing3n.preprocess.transforms import read_transform

PEER, TORCH = "brainles-preprocessing==0.6.14", "torch==2.13.0"
CORPUS = 35_309  # volumes in the paper's Table 3
LPS_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
RATES = {"brainles": 10.0, "stock": 2.0}

# Every script does the jobs (image, mask, corrected, transform, registered) and prints CPU seconds a step, peak memory.
HEAD = """
import json, sys, time
from pathlib import Path
jobs, atlas = json.loads(Path(sys.argv[1]).read_text()), sys.argv[2]
times = []
def timed(step):
    start = time.process_time()
    step()
    return time.process_time() - start
"""
TAIL = """
# Not getrusage's peak, which begins with that of the process that started this one.
peak = int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))) / 2**10
print(json.dumps({"times": times, "peak_mib": peak}))
"""
OURS = """
import ants
from braing3n.config.data import N4Settings, RegisterSettings
from braing3n.preprocess.atlas import load_atlas
from braing3n.preprocess.n4 import correct_bias
from braing3n.preprocess.register import affine_to_atlas, resample_to_atlas
folder, settings = load_atlas(atlas), RegisterSettings()
for job in jobs:
    image, mask, corrected, transform, registered = (Path(job[key]) for key in job)
    within = mask if sys.argv[3] == "mask-n4" else None
    n4 = timed(lambda: correct_bias(image, corrected, mask=within, settings=N4Settings(), threads=1))
    def register():
        affine_to_atlas(corrected, mask, folder, transform, settings=settings, threads=1)
        out = registered, registered.with_name("mask.nii.gz")
        resample_to_atlas(corrected, mask, [transform], folder, *out, settings=settings)
    times.append({"n4": n4, "register": timed(register)})
"""
STOCK = """
import shutil
import ants
import SimpleITK as sitk
sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
fixed = ants.image_read(atlas + "/sri24_brain.nii.gz")
for job in jobs:
    def correct():
        image, mask = sitk.ReadImage(job["image"], sitk.sitkFloat32), sitk.ReadImage(job["mask"], sitk.sitkUInt8)
        n4 = sitk.N4BiasFieldCorrectionImageFilter()
        n4.Execute(sitk.Shrink(image, [4] * 3), sitk.Shrink(mask, [4] * 3))
        sitk.WriteImage(image / sitk.Exp(n4.GetLogBiasFieldAsImage(image)), job["corrected"])
    def register():
        moving = ants.image_read(job["corrected"]) * ants.image_read(job["mask"])
        result = ants.registration(fixed, moving, "Affine", random_seed=2025)
        shutil.copyfile(result["fwdtransforms"][0], job["transform"])
        ants.image_write(ants.apply_transforms(fixed, moving, [job["transform"]]), job["registered"])
    times.append({"n4": timed(correct), "register": timed(register)})
"""
BRAINLES = """
import numpy as np
import SimpleITK as sitk
sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
from brainles_preprocessing.n4_bias_correction import SitkN4BiasCorrector
from brainles_preprocessing.registration import ANTsRegistrator
for job in jobs:
    n4 = timed(lambda: SitkN4BiasCorrector().correct(job["image"], job["corrected"]))
    brain = job["corrected"].replace("corrected", "brain")
    def register():
        image = sitk.ReadImage(job["corrected"], sitk.sitkFloat32)
        sitk.WriteImage(sitk.Mask(image, sitk.ReadImage(job["mask"], sitk.sitkUInt8)), brain)
        ANTsRegistrator({"type_of_transform": "Affine", "random_seed": 2025}).register(
            atlas + "/sri24_brain.nii.gz", brain, job["registered"], job["transform"], job["transform"] + ".log"
        )
    times.append({"n4": n4, "register": timed(register)})
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--atlas", type=Path, required=True, help="folder that `braing3n atlas fetch` made")
    parser.add_argument("--scans", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="where scans, results and the peer's environment stay")
    parser.add_argument("--skip-brainles", action="store_true", help="leave out the slow peer")
    options = parser.parse_args()
    atlas = load_atlas(options.atlas)
    with tempfile.TemporaryDirectory() as scratch:
        folder = (options.keep or Path(scratch)).resolve()
        truth = [make_scan(atlas, folder, number) for number in range(options.scans)]
        routes = {} if options.skip_brainles else {"brainles": (str(peer_environment(folder)), BRAINLES, "")}
        routes["stock"] = (sys.executable, STOCK, "")
        routes |= {"ours": (sys.executable, OURS, "n4-mask"), "ours-mask-first": (sys.executable, OURS, "mask-n4")}
        measured = {}
        for name, route in routes.items():
            measured[name] = measure(name, *route, folder, atlas, truth)
            print(f"{name:16}", "  ".join(f"{key} {value:.2f}" for key, value in measured[name].items()), flush=True)
    cases = [compare(measured, peer, goal) for peer, goal in RATES.items() if peer in measured]
    hours = {name: CORPUS * numbers["core_s"] / 3600 for name, numbers in measured.items()}
    finish("preprocess", cases, scans=options.scans, measured=measured, core_hours_for_the_corpus=hours)


def make_scan(atlas: Atlas, folder: Path, number: int) -> dict[str, Any]:
    """A 1 mm head with its true mask, in `folder`; the truth."""
    rng = np.random.default_rng((2025, number))
    affine = pose(
        rng.uniform(-15, 15, 3), rng.uniform(-15, 15, 3), rng.uniform(0.9, 1.1, 3), rng.uniform(-0.03, 0.03, 3)
    )
    subject = SubjectTruth(affine=affine, deformation_mm=1.0, deformation_seed=number)
    scan = simulate(
        load_anatomy(atlas.folder),
        subject,
        ScanTruth(seed=number, noise=0.04, bias=0.4),
        scanner_grid((1, 1, 1), (192, 240, 220), "LPS"),
    )
    write_nifti(folder / f"scan{number}.nii.gz", scan.volume, scan.affine)
    write_nifti(folder / f"mask{number}.nii.gz", scan.brain, scan.affine, np.uint8)
    return {"affine": affine, "brain": scan.brain, "bias": scan.bias, "volume": scan.volume}


def peer_environment(folder: Path) -> Path:
    """Python of an environment with the peer, made where it is not there yet."""
    python = folder / "brainles-env" / "bin" / "python"
    if not python.exists():
        venv.create(folder / "brainles-env", with_pip=True)
        for packages in ([TORCH], [TORCH, PEER]):
            subprocess.run([python, "-m", "pip", "install", "-q", *packages], check=True)
    return python


def measure(
    name: str, python: str, script: str, mode: str, folder: Path, atlas: Atlas, truth: list[dict[str, Any]]
) -> dict[str, float]:
    """Run a route on all scans: means over scans of core seconds and errors, and its peak memory."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    jobs = [
        {
            "image": str(folder / f"scan{number}.nii.gz"),
            "mask": str(folder / f"mask{number}.nii.gz"),
            "corrected": str(folder / name / f"corrected{number}.nii.gz"),
            "transform": str(folder / name / f"affine{number}.mat"),
            "registered": str(folder / name / f"registered{number}.nii.gz"),
        }
        for number in range(len(truth))
    ]
    (folder / name / "jobs.json").write_text(json.dumps(jobs))
    (folder / name / "route.py").write_text(HEAD + script + TAIL)
    environment = os.environ | {"ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1", "OMP_NUM_THREADS": "1"}
    command = [python, str(folder / name / "route.py"), str(folder / name / "jobs.json"), str(atlas.folder), mode]
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    if run.returncode:
        raise SystemExit(f"{name} failed:\n{run.stdout[-2000:]}{run.stderr[-4000:]}")
    result = json.loads(run.stdout.strip().splitlines()[-1])
    points = nib.affines.apply_affine(SRI24_AFFINE, np.argwhere(atlas.mask[::8, ::8, ::8]) * 8)
    errors = [affine_error(job["transform"], known["affine"], points) for job, known in zip(jobs, truth, strict=True)]
    correlation, left = np.median(
        [bias_scores(job["corrected"], known) for job, known in zip(jobs, truth, strict=True)], axis=0
    )
    n4, register = (float(np.mean([each[step] for each in result["times"]])) for step in ("n4", "register"))
    return {
        "core_s": n4 + register,
        "n4_s": n4,
        "register_s": register,
        "peak_mib": result["peak_mib"],
        "affine_median_mm": float(np.median([np.median(each) for each in errors])),
        "affine_max_mm": float(max(each.max() for each in errors)),
        "bias_correlation": float(correlation),
        "bias_left": float(left),
    }


def affine_error(transform: str, affine: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Distance in mm between where the transform and the truth send points of the atlas brain."""
    found = LPS_RAS @ read_transform(Path(transform)) @ LPS_RAS
    true = np.linalg.inv(affine)
    return np.linalg.norm(nib.affines.apply_affine(found, points) - nib.affines.apply_affine(true, points), axis=1)


def bias_scores(corrected: str, known: dict[str, Any]) -> tuple[float, float]:
    """Correlation of the estimated log field with the true one over the brain, and what is left of the latter, as a
    part of its standard deviation (the correlation does not see how strong a field is).
    """
    after = np.asarray(nib.load(corrected).dataobj)
    inside = known["brain"] & (known["volume"] > 0) & (after > 0)
    estimated = np.log(known["volume"][inside] / after[inside])
    true = np.log(known["bias"][inside])
    return float(np.corrcoef(estimated, true)[0, 1]), float((true - estimated).std() / true.std())


def compare(measured: dict[str, dict[str, float]], peer: str, goal: float) -> dict[str, Any]:
    """Volumes a core-hour; met only at equal or better accuracy."""
    # The stock recipe is given the brain mask for N4; against it, so is ours.
    ours, theirs = measured["ours-mask-first" if peer == "stock" else "ours"], measured[peer]
    result = case(
        f"preprocess beside {peer}",
        peer=PEER if peer == "brainles" else "SimpleITK N4 shrink 4 + ANTsPy Affine",
        ours=3600 / ours["core_s"],
        theirs=3600 / theirs["core_s"],
        unit="volumes a core-hour",
        goal=goal,
        larger_is_better=True,
    )
    accurate = (
        ours["affine_median_mm"] <= theirs["affine_median_mm"] + 0.05
        and ours["bias_left"] <= theirs["bias_left"] + 0.01
    )
    return result | {"as_accurate": accurate, "met": result["met"] and accurate}


if __name__ == "__main__":
    main()
