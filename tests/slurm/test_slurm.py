"""The shipped SLURM profile on a real SLURM: flags asked for, cancelled and resumed training, a dead node daemon.

Run by `make test-slurm`; skipped where no cluster can be started. Everything it starts, it stops.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from cluster import Cluster, available
from safetensors.torch import load_file

pytestmark = [pytest.mark.slurm, pytest.mark.skipif(available() is not None, reason=str(available()))]

REPOSITORY = Path(__file__).parents[2]
TINY = REPOSITORY / "tests" / "tiny.yaml"
ENVIRONMENT = {
    **os.environ,
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    "OMP_NUM_THREADS": "1",  # four training processes share the test machine's two cores
}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    cluster = Cluster(tmp_path_factory.mktemp("slurm"))
    cluster.start()
    yield cluster
    cluster.stop()


@pytest.fixture(scope="module")
def project(tmp_path_factory, atlas_dir) -> Path:
    """Phantom cohorts and their frozen index, with a configuration that lies apart from the repository."""
    root = tmp_path_factory.mktemp("project")
    config = yaml.safe_load(TINY.read_text())
    config["pathvars"] = {name: str(root / name) for name in ("results", "resources", "logs", "benchmarks")}
    config["atlas"] = {"path": str(atlas_dir / "sri24_brain.nii.gz"), "head_path": str(atlas_dir / "sri24_head.nii.gz")}
    config["phantom"]["root"] = str(root / "raw")
    config["cohorts"] = {name: {"root": str(root / "raw" / name)} for name in ("IXI", "ADNI", "UPENN-GBM")}
    path = root / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    run("braing3n", "phantom", "make", "--atlas", str(atlas_dir), "--settings", f"config/config.yaml+{path}#phantom")
    run("braing3n", "index", "--config", "config/config.yaml", "--config", str(path))
    return path


def run(*command: str, timeout: float = 900) -> str:
    result = subprocess.run(
        command, cwd=REPOSITORY, env=ENVIRONMENT, capture_output=True, text=True, timeout=timeout, check=False
    )
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    return result.stdout + result.stderr


def snakemake(project: Path, *targets: str) -> list[str]:
    """The documented command; only the plugin's waiting times are shortened."""
    options = ["--profile", "slurm", "--configfile", str(project), "--slurm-init-seconds-before-status-checks", "2"]
    return ["snakemake", *targets, *options, "--slurm-logdir", str(project.parent / "logs" / "slurm")]


def results(project: Path) -> Path:
    return project.parent / "results"


def test_preprocessing_of_one_cohort(cluster, project):
    run(*snakemake(project, "cohort_ixi"))
    for step in ("convert", "n4", "mask", "register", "crop"):
        assert list((results(project) / "status" / step / "IXI").glob("*.parquet"))
    assert list((results(project) / "volumes" / "IXI").glob("*.npy"))


@pytest.fixture(scope="module")
def uninterrupted(cluster, project) -> dict:
    """Weights of the training left alone, run once; its result is put aside."""
    run(*snakemake(project, "train_mae"))
    folder = results(project) / "models" / "mae"
    weights = load_file(folder / "model.safetensors")
    folder.rename(folder.with_name("mae_uninterrupted"))
    return weights


def wait_for(condition, seconds: float, what: str):
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        if value := condition():
            return value
        time.sleep(0.2)
    raise AssertionError(f"waited {seconds:.0f} s for {what}")


def training_job(cluster: Cluster) -> str | None:
    """Id of the running training job."""
    for line in cluster.query("squeue", "-h", "-t", "running", "-o", "%i %k").splitlines():
        if "train_mae" in line:
            return line.split()[0]
    return None


def test_cancelled_training_resumes_to_the_same_weights(cluster, project, uninterrupted):
    process = subprocess.Popen(
        snakemake(project, "train_mae"),
        cwd=REPOSITORY,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        job = wait_for(lambda: training_job(cluster), 120, "the training job")
        flags = cluster.query("scontrol", "show", "job", job)
        assert re.search(r"TresPer(Job|Node)=gres:gpu:h100:4", flags), flags
        assert "Partition=gpu" in flags
        assert "NumNodes=1" in flags
        assert re.search(r"TRES=[^\n]*mem=125G|MinMemoryNode=125G|MinMemoryNode=128000M", flags), flags
        assert "TimeLimit=04:00:00" in flags
        checkpoints = results(project) / "models" / "mae" / "checkpoints"
        wait_for(lambda: checkpoints.exists() and list(checkpoints.glob("*")), 120, "a checkpoint")
        cluster.query("scancel", job)
        output, _ = process.communicate(timeout=600)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=60)
    assert process.returncode == 0, output.decode()[-4000:]
    log = (project.parent / "logs" / "train_mae.log").read_text()
    assert "resuming after step" in log
    weights = load_file(results(project) / "models" / "mae" / "model.safetensors")
    assert weights.keys() == uninterrupted.keys()
    for key, value in weights.items():
        assert value.equal(uninterrupted[key]), key


def test_run_survives_the_death_of_the_node_daemon(cluster, project):
    process = subprocess.Popen(
        snakemake(project, "cohort_upenn_gbm"),
        cwd=REPOSITORY,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        wait_for(lambda: cluster.query("squeue", "-h", "-t", "running", "-o", "%i").strip(), 120, "a running job")
        cluster.kill_node()
        time.sleep(3)
        cluster.start_node()
        cluster.wait_until_up()
        output, _ = process.communicate(timeout=900)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=60)
    assert process.returncode == 0, output.decode()[-4000:]
    assert list((results(project) / "volumes" / "UPENN-GBM").glob("*.npy"))
