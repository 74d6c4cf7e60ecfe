"""Raw scans to the report through Snakemake, with two damaged files and a SIGKILL on the way.

One run on tiny settings (tests/tiny.yaml), looked at from several sides; the geometry is the paper's.
"""

import gzip
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
pytestmark = pytest.mark.slow


def command(*arguments: str) -> str:
    result = subprocess.run(
        arguments, cwd=REPOSITORY, env=ENVIRONMENT, capture_output=True, text=True, timeout=1200, check=False
    )
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    return result.stdout + result.stderr


def snakemake(project: Path, *arguments: str) -> list[str]:
    return ["snakemake", *arguments, "--profile", "profiles/demo", "--configfile", str(project / "config.yaml")]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def put_nans(path: Path) -> None:
    image = nib.load(path)
    data = image.get_fdata(dtype=np.float32)
    data[tuple(n // 2 for n in data.shape)] = np.nan
    nib.save(nib.Nifti1Image(data, image.affine), path)


@pytest.fixture(scope="module")
def damaged() -> dict[str, str]:
    """File name -> a word of the reason that the report must give; filled in by `project`."""
    return {}


@pytest.fixture(scope="module")
def project(tmp_path_factory, atlas_dir, damaged) -> Path:
    """Phantom cohorts with a truncated and a NaN file, indexed."""
    root = tmp_path_factory.mktemp("end_to_end")
    config = yaml.safe_load((REPOSITORY / "tests" / "tiny.yaml").read_text())
    config["pathvars"] = {name: str(root / name) for name in ("results", "resources", "logs", "benchmarks")}
    config["atlas"] = {"path": str(atlas_dir / "sri24_brain.nii.gz"), "head_path": str(atlas_dir / "sri24_head.nii.gz")}
    config["phantom"]["root"] = str(root / "raw")
    names = ("IXI", "ADNI", "UPENN-GBM", "SRI24")
    config["cohorts"] = {name: {"root": str(root / "raw" / name)} for name in names}
    (root / "config.yaml").write_text(yaml.safe_dump(config))
    settings = f"config/config.yaml+{root / 'config.yaml'}#phantom"
    command("braing3n", "phantom", "make", "--atlas", str(atlas_dir), "--settings", settings)
    truncated = sorted((root / "raw" / "IXI").glob("*-T2.nii.gz"))[0]
    with_nans = sorted((root / "raw" / "UPENN-GBM").rglob("*_FLAIR.nii.gz"))[0]
    truncate(truncated)
    put_nans(with_nans)
    damaged |= {truncated.name: "cut short", with_nans.name: "NaN"}
    command("braing3n", "index", "--config", "config/config.yaml", "--config", str(root / "config.yaml"))
    return root


def finished_records(project: Path) -> set[str]:
    return {path.stem for path in (project / "results" / "work" / "n4" / "ADNI").rglob("*.json")}


@pytest.fixture(scope="module")
def kept_at_the_kill(project) -> set[str]:
    """Kill a run in the middle of ADNI's N4 shard; the volumes whose work was finished by then."""
    (shard,) = (project / "results" / "index" / "shards" / "ADNI").glob("*.parquet")
    target = f"{project}/results/status/n4/ADNI/{shard.name}"
    total = len(pd.read_parquet(shard))
    run = subprocess.Popen(
        snakemake(project, target), cwd=REPOSITORY, env=ENVIRONMENT, start_new_session=True, stderr=subprocess.DEVNULL
    )
    limit = time.monotonic() + 300
    while not finished_records(project):
        assert run.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < limit
        time.sleep(0.02)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    time.sleep(1)  # orphaned workers die with their parent
    kept = finished_records(project)
    assert 0 < len(kept) < total
    command(*snakemake(project, "--unlock"))
    return kept


@pytest.fixture(scope="module")
def results(project, kept_at_the_kill) -> Path:
    command(*snakemake(project, "all"))
    return project / "results"


def test_a_killed_shard_redoes_only_what_was_not_finished(results, kept_at_the_kill):
    (table,) = (results / "status" / "n4" / "ADNI").glob("*.parquet")
    status = pd.read_parquet(table)
    assert set(status.loc[status.reused, "volume_id"]) == kept_at_the_kill


def test_damaged_files_are_named_in_the_report_with_their_reason(results, damaged):
    report = (results / "report" / "report.html").read_text()
    for name, reason in damaged.items():
        rows = [row for row in re.findall(r"<tr.*?</tr>", report, re.DOTALL) if name in row]
        assert any(reason.lower() in row.lower() for row in rows), f"{name}: no row of the report says '{reason}'"


def test_everything_else_is_there(results, damaged):
    index = pd.read_parquet(results / "index" / "volumes.parquet")
    metadata = pd.read_parquet(results / "metadata" / "volumes.parquet")
    lost = index[~index.volume_id.isin(metadata.volume_id)]
    assert {Path(path).name for path in lost.source_path} == set(damaged)
    for name in ("mae", "tokenizer", "dit", "longitudinal"):
        assert (results / "models" / name / "model.safetensors").exists()
    ledger = pd.read_parquet(results / "metadata" / "ledger.parquet")
    assert (ledger.status == "failed").sum() == len(damaged)
    assert (ledger.status == "kept").sum() == len(metadata)


def test_a_store_row_equals_the_archived_nifti(results):
    metadata = pd.read_parquet(results / "metadata" / "volumes.parquet")
    for cohort, rows in metadata.groupby("cohort"):
        row = rows.iloc[0]
        store = np.load(results / row.store_file, mmap_mode="r")
        assert isinstance(store, np.memmap)
        (table,) = (results / "status" / "crop" / cohort).glob(f"{row.shard}.parquet")
        status = pd.read_parquet(table).set_index("volume_id")
        outputs = yaml.safe_load(status.loc[row.volume_id, "outputs"])
        archived = nib.load(results / outputs["image"]).get_fdata(dtype=np.float32)
        assert archived.shape == (160, 192, 160)
        np.testing.assert_allclose(store[row.store_row] * row["scale"], archived, atol=0.501 * row["scale"])


def test_registered_brains_overlay_the_atlas(results):
    metadata = pd.read_parquet(results / "metadata" / "volumes.parquet")
    assert metadata.qc_atlas_dice.min() > 0.85
    assert metadata.qc_atlas_correlation[metadata.modality == "T1"].median() > 0.7


def test_nothing_is_left_to_do(project, results):
    assert "Nothing to be done" in command(*snakemake(project, "all", "-n"))


def test_a_changed_setting_reruns_its_step_and_what_follows(project, results):
    setting = ("--config", "preprocess={register: {seed: 7}}")
    plan = command(*snakemake(project, "cohort_ixi", "-n"), *setting)
    jobs = dict(re.findall(r"^(\w+) +(\d+)$", plan.split("Job stats:")[1], re.MULTILINE))
    assert "register" in jobs
    assert "crop" in jobs
    assert "n4" not in jobs


def test_no_patient_name_leaves_the_headers(project, results):
    """The phantom DICOM headers carry these fields on purpose (braing3n/phantom/adni.py)."""
    import pydicom

    slice_ = next((project / "raw" / "ADNI").rglob("*.dcm"))
    header = pydicom.dcmread(slice_, stop_before_pixels=True)
    secrets = [str(header.PatientName).encode(), str(header.PatientBirthDate).encode()]
    assert all(secrets)
    for path in results.rglob("*"):
        if path.is_file() and path.suffix in (".json", ".parquet", ".tsv", ".html", ".gz"):
            content = gzip.decompress(path.read_bytes())[:400] if path.suffix == ".gz" else path.read_bytes()
            assert not any(secret in content for secret in secrets), path
