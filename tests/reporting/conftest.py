"""A small results folder that follows docs/data-contract.md: two cohorts, one failure, one exclusion."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from braing3n.files import short_hash, write_json, write_parquet
from braing3n.results import results_table
from braing3n.volumes.store import write_array

SHAPE = (20, 24, 18)
STEPS = ("convert", "n4", "mask", "register", "crop")
FAILED = {
    "cohort": "IXI",
    "path": "IXI099-Guys-0001-T1.nii.gz",
    "volume_id": "feedfacefeedface",
    "status": "failed",
    "stage": "n4",
    "reason": "2,311 of 7,077,888 voxels are NaN; convert the scan again",
}
EXCLUDED = {
    "cohort": "ADNI",
    "path": "005_S_0221/Localizer/2010-01-01/I1234",
    "volume_id": None,
    "status": "excluded",
    "stage": "index",
    "reason": "localizer, not a structural scan",
}


def corner_volume(seed: int) -> np.ndarray:
    """A block (SHAPE, LPS) that is brighter in its anterior superior part, and there brightest on the right."""
    random = np.random.default_rng(seed)
    volume = np.zeros(SHAPE, dtype=np.float32)
    volume[3:17, 3:21, 3:15] = 100 + random.uniform(0, 10, (14, 18, 12))
    volume[3:17, 3:14, 9:15] = 200  # low y is anterior, high z superior
    volume[3:10, 3:14, 9:15] = 300  # low x is the patient's right
    return volume


def volume_rows() -> list[dict]:
    rows = []
    for cohort, subjects, modalities in (("IXI", 3, ("T1", "T2")), ("ADNI", 4, ("T1",))):
        for number in range(subjects):
            for modality in modalities:
                rows.append(
                    {
                        "volume_id": short_hash(cohort, str(number), modality),
                        "cohort": cohort,
                        "subject_id": f"{cohort}:{number:03d}",
                        "person_id": f"{cohort}-{number}",
                        "session_id": "1",
                        "modality": modality,
                        "source_path": f"{cohort}{number:03d}-{modality}.nii.gz",
                        "bids_subject": f"{cohort}{number:03d}",
                        "age_at_scan": None if number == 2 else 40.0 + 10 * number,
                        "sex": "FM"[number % 2],
                        "diagnosis": "HC" if cohort == "IXI" else ("AD", "MCI")[number % 2],
                        "site": "A",
                        "split": ("train", "val", "test", "train")[number],
                        "shard": "0000",
                    }
                )
    return rows


def write_volumes(root: Path) -> pd.DataFrame:
    table = pd.DataFrame(volume_rows())
    parts = []
    for cohort, rows in table.groupby("cohort", sort=False):
        file = f"volumes/{cohort}/0000.npy"
        stored = write_array(root / file, (corner_volume(i) for i in range(len(rows))), len(rows), SHAPE)
        stored = stored.drop(columns="sha256").rename(columns={"row": "store_row"})
        parts.append(pd.concat([rows.reset_index(drop=True), stored], axis=1).assign(store_file=file))
    table = pd.concat(parts, ignore_index=True)
    table["qc_brain_ml"] = np.linspace(1200, 1500, len(table))
    table["qc_atlas_correlation"] = np.linspace(0.95, 0.45, len(table))
    table["qc_flags"] = ["atlas_correlation" if value < 0.5 else "" for value in table["qc_atlas_correlation"]]
    write_parquet(root / "metadata/volumes.parquet", table)
    return table


def write_ledger(root: Path, volumes: pd.DataFrame) -> None:
    kept = volumes[["cohort", "volume_id"]].assign(path=volumes["source_path"], status="kept", stage="", reason="")
    write_parquet(root / "metadata/ledger.parquet", pd.concat([kept, pd.DataFrame([FAILED, EXCLUDED])]))


def status_rows(volumes: pd.DataFrame, cohort: str, step: str) -> pd.DataFrame:
    names = ["volume_id", "cohort", "subject_id", "session_id", "modality"]
    rows = volumes.loc[volumes["cohort"] == cohort, names].assign(
        status="ok", reason="", error_class="", failed_step=""
    )
    if cohort == "IXI":
        failed = step != "convert"
        row = {"volume_id": FAILED["volume_id"], "cohort": cohort, "status": "failed" if failed else "ok"}
        if failed:
            row |= {"reason": FAILED["reason"], "error_class": "BrainG3NError", "failed_step": "n4"}
        rows = pd.concat([rows, pd.DataFrame([row])]).fillna("")
    versions = json.dumps({"simpleitk": "2.5.7"})
    return rows.assign(outputs="{}", versions=versions, seconds=2.0, finished_at="2026-01-02T03:04:05+00:00")


def write_status(root: Path, volumes: pd.DataFrame) -> None:
    counts = volumes.groupby("cohort").size()
    counts["IXI"] += 1
    cohorts = {name: {"n_shards": 1, "shards": {"0000": int(n)}} for name, n in counts.items()}
    write_json(root / "index/shards.json", {"version": 1, "cohorts": cohorts})
    for step in STEPS:
        for cohort in counts.index:
            write_parquet(root / f"status/{step}/{cohort}/0000.parquet", status_rows(volumes, cohort, step))


def write_models(root: Path) -> None:
    for name, passed in (("mae", True), ("tokenizer", True), ("dit", True), ("longitudinal", False)):
        history = [
            {"step": 4 * epoch, "epoch": epoch, "split": split, "metric": "loss", "value": 1 / epoch + shift}
            for epoch in range(1, 6)
            for split, shift in (("train", 0.0), ("val", 0.05))
        ]
        write_parquet(root / f"models/{name}/history.parquet", pd.DataFrame(history))
        check = {
            "name": "validation error below that of the mean volume",
            "value": 0.25,
            "baseline": 0.875 if passed else 0.125,
            "passed": passed,
            "detail": "3 volumes",
        }
        card = {
            "name": name,
            "parameters": 123456,
            "training_samples": 5,
            "steps": 20,
            "epochs": 5,
            "metrics": {"train_loss": 0.2, "val_loss": 0.25},
            "checks": [check],
            "versions": {"torch": "2.13.0"},
            "seconds": 3600.0,
            "gpu_hours": 0.5,
            "peak_memory_bytes": 3 * 2**30,
            "created": "2026-01-02T03:04:05+00:00",
        }
        write_json(root / f"models/{name}/card.json", card)


def write_probes(root: Path) -> None:
    rows = []
    for table in ("published", "recommended"):
        for encoder, value in (("mae", 0.875), ("pca", 0.625)):
            known = {"ci_low": value - 0.0625, "ci_high": value + 0.0625, "n_subjects": 7, "n_scans": 10}
            base = {"table": table, "encoder": encoder, "slice": "pooled", "split_hash": "abc"}
            rows.append({**base, "task": "sex", "metric": "auc", "value": value, **known})
            rows.append({**base, "task": "age", "metric": "mae", **known, "value": 1.0, "ci_low": 0.5, "ci_high": 2.0})
            rows.append({**base, "task": "age", "metric": "r2", "value": value - 0.5, **known})
            rows.append({**base, "task": "sex", "metric": "prevalence", "value": 0.4, "n_subjects": 7, "n_scans": 10})
            few = {**base, "task": "hc-vs-pd", "n_subjects": 3, "n_scans": 4}
            rows.append({**few, "metric": "auc", "value": float("nan")})
            rows.append({**few, "metric": "too_few", "value": 1})
    rows.append({"table": "encoders", "encoder": "mae-brain", "metric": "unavailable", "value": 1.0})
    write_parquet(root / "tables/probes.parquet", results_table(rows))


def write_benchmarks(root: Path) -> None:
    header = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"
    for name, seconds in (("n4/IXI/0000", 60.0), ("n4/ADNI/0000", 30.0), ("train_mae", 600.0)):
        path = root / f"benchmarks/{name}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{header}{seconds}\t0:01:00\t512.0\t-\t-\t-\t0\t0\t98.0\t{1.5 * seconds}\n")


def write_generated(root: Path) -> None:
    """Three arms of two samples; the second arm is the first plus a tenth of a standard deviation."""
    requests = {"age_30": {"age": 30}, "age_70": {"age": 70}, "null_T1": {"age": None, "sex": None}}
    for number, (name, request) in enumerate(requests.items()):
        volumes = [corner_volume(seed) / 100 + 0.1 * number * (corner_volume(seed) > 0) for seed in range(2)]
        stored = write_array(root / f"generated/{name}.npy", volumes, 2, SHAPE)
        rows = [
            {
                "volume_id": short_hash(name, str(sample)),
                "arm": name,
                "conditions": json.dumps({"modality": "T1"} | request),
                "modality": "T1",
                "sample": sample,
                "seed": 109,
                "guidance": 2.0,
                "solver": "euler",
                "steps": 10,
            }
            for sample in range(2)
        ]
        write_parquet(root / f"generated/{name}.parquet", pd.concat([pd.DataFrame(rows), stored], axis=1))


def write_forecasts(root: Path) -> None:
    kinds = [
        ("baseline", 0.0),
        ("follow_up", 2.5),
        ("forecast_of_follow_up", 2.5),
        ("forecast", 0.0),
        ("forecast", 5.0),
    ]
    rows = [
        {
            "volume_id": short_hash("forecast", kind, str(horizon)),
            "kind": kind,
            "baseline": "b",
            "follow_up": "f",
            "person_id": "ADNI-2",
            "split": "test",
            "modality": "T1",
            "horizon": horizon,
            "voxel_change": 0.01 * horizon,
        }
        for kind, horizon in kinds
    ]
    volumes = [corner_volume(0) / 100 * (1 + 0.02 * horizon) for _, horizon in kinds]
    stored = write_array(root / "forecast/forecasts.npy", volumes, len(kinds), SHAPE)
    write_parquet(root / "forecast/forecasts.parquet", pd.concat([pd.DataFrame(rows), stored], axis=1))
    errors = {"forecast": 0.25, "copied baseline": 0.5, "tokenizer": 0.125}
    common = {"table": "forecast", "encoder": "longitudinal", "task": "test baselines", "slice": "real follow-up"}
    rows = [common | {"metric": f"voxel L1, {name}", "value": v, "n_subjects": 1} for name, v in errors.items()]
    write_parquet(root / "tables/forecast.parquet", results_table(rows))


def write_reconstructions(root: Path) -> None:
    folder = root / "figures/reconstruction"
    folder.mkdir(parents=True)
    volume = corner_volume(0)
    z = np.where(volume > 0, (volume - 150) / 80, 0)
    arrays = {"volume_id": np.array(["0123456789abcdef"])}
    for axis, view in enumerate(("sagittal", "coronal", "axial")):
        for name, shift in (
            ("original", 0.0),
            ("masked", np.nan),
            ("mae", 0.1),
            ("tokenizer", 0.2),
            ("mean-volume", 0.3),
        ):
            arrays[f"{name}_{view}"] = (z + shift).take(SHAPE[axis] // 2, axis=axis)[None].astype(np.float16)
    np.savez_compressed(folder / "T1.npz", **arrays)
    rows = [
        {
            "table": "reconstruction",
            "encoder": method,
            "task": "brain",
            "slice": "pooled",
            "metric": "psnr",
            "value": value,
            "ci_low": value - 1,
            "ci_high": value + 1,
            "n_subjects": 3,
            "n_scans": 4,
        }
        for method, value in (("tokenizer", 21.5), ("mean-volume", 18.5))
    ]
    write_parquet(root / "tables/reconstruction.parquet", results_table(rows))


def write_distances(root: Path) -> None:
    rows = [{"table": "frechet", "encoder": "inception", "metric": "unavailable", "value": 1.0}]
    for pair, value in (("generated vs real", 80.0), ("reconstructed vs real", 40.0), ("real vs real", 20.0)):
        numbers = {
            "frechet": value,
            "kid": value / 1000,
            "n_first": 4,
            "n_second": 6,
            "rank_first": 3,
            "rank_second": 5,
        }
        for metric, number in (numbers | {"dimension": 96}).items():
            own = {"task": pair, "slice": "pooled", "metric": metric, "value": number, "n_scans": 10}
            rows.append({"table": "frechet", "encoder": "mae"} | own)
    write_parquet(root / "tables/frechet.parquet", results_table(rows))


def write_memorization(root: Path, volumes: pd.DataFrame) -> None:
    rows = [
        {"table": "memorization", "task": task, "slice": "pooled", "metric": metric, "value": value, "n_scans": 4}
        for task, scale in (("training vs training", 1.0), ("generated vs training", 2.0))
        for metric, value in (
            ("mean", 8 * scale),
            ("median", 7 * scale),
            ("p5", 4 * scale),
            ("min", 3.0),
            ("max", 16.0),
        )
    ]
    write_parquet(root / "tables/memorization.parquet", results_table(rows))
    pairs = [
        {
            "volume_id": short_hash("age_30", str(sample)),
            "arm": "age_30",
            "rank": rank,
            "neighbour": volumes["volume_id"].iloc[rank],
            "distance": 3.5 + sample + rank,
            "copy_ratio": 0.75,
            "under_p5": sample == 0,
        }
        for sample in range(2)
        for rank in (1, 2)
    ]
    write_parquet(root / "tables/memorization_pairs.parquet", pd.DataFrame(pairs))


@pytest.fixture(scope="session")
def failed() -> dict:
    return FAILED


@pytest.fixture(scope="session")
def excluded() -> dict:
    return EXCLUDED


@pytest.fixture(scope="session")
def whole_results(tmp_path_factory) -> Path:
    """Everything that the report reads; shared, do not change it."""
    root = tmp_path_factory.mktemp("run") / "results"
    volumes = write_volumes(root)
    write_ledger(root, volumes)
    write_status(root, volumes)
    write_models(root)
    write_probes(root)
    write_benchmarks(root)
    write_generated(root)
    write_forecasts(root)
    write_reconstructions(root)
    write_distances(root)
    write_memorization(root, volumes)
    return root


@pytest.fixture
def results(whole_results, tmp_path) -> Path:
    """A copy to break."""
    import shutil

    return Path(shutil.copytree(whole_results, tmp_path / "results"))
