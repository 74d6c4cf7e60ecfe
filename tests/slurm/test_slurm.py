"""The shipped SLURM profile on a real SLURM: flags asked for, orphans, cancelled trainings, a dead node, time limits.

Run by `make test-slurm`; skipped, with the reason, where no cluster can be started. What it starts, it stops.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from cluster import Cluster, unavailable
from safetensors.torch import load_file
from torch.testing import assert_close

pytestmark = pytest.mark.slurm

REPOSITORY = Path(__file__).parents[2]
TINY = REPOSITORY / "tests" / "tiny.yaml"
ENVIRONMENT = {
    **os.environ,
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    "OMP_NUM_THREADS": "1",  # four training processes share the test machine's cores
}
# Wide enough that a step takes longer than the way of a signal through SLURM: a cancelled epoch is then a broken one.
MODEL = {"hidden": 48, "depth": 1, "heads": 2, "mlp": 96}
MODEL |= {"decoder_hidden": 192, "decoder_depth": 2, "decoder_heads": 4, "decoder_mlp": 768}
EPOCHS, BATCH = 2, 4
COHORTS = ("IXI", "ADNI", "UPENN-GBM")
STARTED = time.time()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    if reason := unavailable():
        pytest.skip(reason)
    cluster = Cluster(tmp_path_factory.mktemp("slurm"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
    assert not cluster.leftovers(), "processes of the cluster are still there"


@pytest.fixture(scope="module")
def project(cluster, tmp_path_factory, atlas_dir) -> Path:
    """The phantom cohorts, few persons each, their frozen index, and a configuration apart from the repository."""
    root = tmp_path_factory.mktemp("project")
    config = yaml.safe_load(TINY.read_text())
    config["pathvars"] = {name: str(root / name) for name in ("results", "resources", "logs", "benchmarks")}
    config["atlas"] = {"path": str(atlas_dir / "sri24_brain.nii.gz"), "head_path": str(atlas_dir / "sri24_head.nii.gz")}
    config["phantom"] |= {"root": str(root / "raw"), "ixi": 1, "adni": 1, "upenn": 3}
    config["cohorts"] = {name: {"root": str(root / "raw" / name)} for name in COHORTS}
    config["index"] |= {"shard_size": 16, "val_fraction": 1e-6, "test_fraction": 1e-6}
    config["mae"]["model"] = MODEL
    # One volume at a time draws the same masks on four processes as on two.
    config["mae"]["train"] |= {"epochs": EPOCHS, "batch_size": BATCH, "micro_batch_size": 1}
    path = root / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    run("braing3n", "phantom", "make", "--atlas", str(atlas_dir), "--settings", f"config/config.yaml+{path}#phantom")
    run("braing3n", "index", "--config", "config/config.yaml", "--config", str(path))
    return path


def run(*command: str, timeout: float = 1200) -> str:
    result = subprocess.run(
        command, cwd=REPOSITORY, env=ENVIRONMENT, capture_output=True, text=True, timeout=timeout, check=False
    )
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    return result.stdout + result.stderr


def snakemake(project: Path, *targets: str) -> list[str]:
    """The documented command; only the plugin's waiting times are shortened, and its logs lie with the project."""
    options = ["--profile", "slurm", "--configfile", str(project), "--slurm-init-seconds-before-status-checks", "2"]
    return ["snakemake", *targets, *options, "--slurm-logdir", str(project.parent / "logs" / "slurm")]


@contextmanager
def running(command: list[str]):
    """The command in the background, its output in a file; interrupted if it still runs at the end."""
    process = subprocess.Popen(
        command, cwd=REPOSITORY, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.communicate(timeout=60)
            finally:
                process.kill()


def wait_for(condition, what: str, seconds: float = 300):
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        if value := condition():
            return value
        time.sleep(0.2)
    raise AssertionError(f"waited {seconds:.0f} s for {what}")


def jobs(cluster: Cluster, state: str) -> dict[str, str]:
    """Rule -> id of the jobs in that state."""
    lines = cluster.query("squeue", "-h", "-t", state, "-o", "%k %i").splitlines()
    return {re.sub("^rule_|_wildcards_.*", "", comment): job for comment, job in (line.split() for line in lines)}


def test_preprocessing_fills_the_store(cluster, project):
    run(*snakemake(project, "preprocess_all"))
    results = project.parent / "results"
    for cohort in COHORTS:
        for step in ("convert", "n4", "mask", "register", "crop"):
            assert list((results / "status" / step / cohort).glob("*.parquet"))
        assert list((results / "volumes" / cohort).glob("*.npy"))
    limit = (project.parent / "logs" / "n4" / "IXI" / "0000.log").read_text()
    assert "stopping at" in limit, "the step did not learn when its job ends"


def mae_of(project: Path) -> Path:
    return project.parent / "results" / "models" / "mae"


@pytest.fixture(scope="module")
def uninterrupted(cluster, project) -> dict:
    """Weights of the training left alone, run once; its folder is put aside."""
    run(*snakemake(project, "train_mae"))
    return put_aside(mae_of(project), "uninterrupted")


@pytest.fixture
def mae(project, uninterrupted):
    """Where the next training writes; what a failed test leaves there is put aside."""
    yield mae_of(project)
    if mae_of(project).exists():
        mae_of(project).rename(project.parent / f"failed-{time.time():.0f}")


def put_aside(mae: Path, name: str) -> dict:
    """Weights of a finished training, whose folder makes room for the next."""
    weights = load_file(mae / "model.safetensors")
    mae.rename(mae.with_name(f"mae_{name}"))
    return weights


def losses(mae: Path) -> torch.Tensor:
    """Training loss of every epoch."""
    history = pd.read_parquet(mae / "history.parquet").query("split == 'train' and metric == 'loss'")
    return torch.tensor(history["value"].to_numpy())


def assert_equal(weights: dict, expected: dict) -> None:
    assert weights.keys() == expected.keys()
    for key, value in weights.items():
        assert value.equal(expected[key]), key


def steps_an_epoch(project: Path) -> int:
    return math.ceil(len(pd.read_parquet(project.parent / "results/metadata/volumes.parquet")) / BATCH)


def wait_for_first_epoch(project: Path) -> None:
    checkpoint = mae_of(project) / "checkpoints" / f"step-{steps_an_epoch(project):09d}.pt"
    wait_for(checkpoint.exists, "the first epoch's checkpoint")


def test_training_cancelled_mid_epoch_resumes_to_the_same_weights(cluster, project, mae, uninterrupted):
    with running(snakemake(project, "train_mae")) as process:
        job = wait_for(lambda: jobs(cluster, "running").get("train_mae"), "the training job")
        flags = cluster.query("scontrol", "show", "job", job)
        wait_for_first_epoch(project)
        cluster.query("scancel", job)
        output, _ = process.communicate(timeout=900)
    assert process.returncode == 0, output[-4000:]
    assert_gpu_flags(flags, gpus=4, cpus=16, memory="125G", minutes=240)
    log = (mae / "training.log").read_text()
    stopped = re.search(r"stopped after step (\d+) of (\d+) \(SIGTERM\)", log)
    assert stopped, log[-4000:]
    step, total = map(int, stopped.groups())
    assert total == EPOCHS * steps_an_epoch(project)
    assert step % steps_an_epoch(project), "cancelled between two epochs"
    assert f"resuming after step {step}" in log
    assert_equal(put_aside(mae, "cancelled"), uninterrupted)


def test_training_survives_the_death_of_its_node(cluster, project, mae, uninterrupted):
    with running(snakemake(project, "train_mae")) as process:
        wait_for_first_epoch(project)
        job = jobs(cluster, "running")["train_mae"]
        node = cluster.query("squeue", "-h", "-j", job, "-o", "%N").strip()
        cluster.kill_node(node)
        cluster.start_node(node)
        cluster.wait_for("idle,mixed,allocated")
        output, _ = process.communicate(timeout=900)
    assert process.returncode == 0, output[-4000:]
    assert "resuming after step" in (mae / "training.log").read_text()
    assert_equal(put_aside(mae, "node_died"), uninterrupted)


def test_training_on_two_nodes(cluster, project, mae, uninterrupted):
    """Two processes on two nodes do what four did on one, up to the order in which gradients are summed."""
    asked = ("nodes=2", "gpu=2", "mpi=srun", "tasks=2", "tasks_per_gpu=0", "slurm_partition=gpu", "gpu_model=h100")
    two_nodes = ["--set-resources", *(f"train_mae:{item}" for item in asked)]
    with running([*snakemake(project, "train_mae"), *two_nodes]) as process:
        job = wait_for(lambda: jobs(cluster, "running").get("train_mae"), "the training job")
        flags = cluster.query("scontrol", "show", "job", job)
        output, _ = process.communicate(timeout=900)
    assert process.returncode == 0, output[-4000:]
    assert "NodeList=n[1-2]" in flags
    put_aside(mae, "two_nodes")
    two, one = (losses(mae.with_name(f"mae_{name}")) for name in ("two_nodes", "uninterrupted"))
    assert len(one) == EPOCHS
    assert_close(two, one, rtol=1e-4, atol=0)


def test_training_stops_before_its_time_limit(cluster, project, tmp_path):
    """One minute's job with a margin of one minute: it does its first steps, checkpoints, and asks to be run again."""
    results = project.parent / "results"
    config = yaml.safe_load(project.read_text())
    config["mae"]["train"]["stop_before_s"] = 60
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    train = f"braing3n launch --gpus 1 mae train --metadata {results}/metadata/volumes.parquet --results {results} "
    train += f"--settings config/config.yaml+{tmp_path}/config.yaml#mae --out {tmp_path}/mae"
    log = tmp_path / "log"
    command = ["sbatch", "--wait", "--time=1", "--mem=4000", f"--output={log}", f"--wrap={train}"]
    result = subprocess.run(command, cwd=REPOSITORY, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
    assert result.returncode == 75, result.stderr + log.read_text()
    assert "(the job's time limit is near); run again to continue" in log.read_text()
    assert list((tmp_path / "mae" / "checkpoints").glob("step-*.pt"))


def assert_gpu_flags(flags: str, *, gpus: int, cpus: int, memory: str, minutes: int) -> None:
    """What `scontrol show job` says of a job of the paper's GPU rules."""
    fields = dict(field.split("=", 1) for field in flags.split() if "=" in field)
    assert fields["TresPerJob"] == f"gres:gpu:h100:{gpus}", flags
    assert fields["Partition"] == "gpu", flags
    assert fields["Account"] in ("braing3n", "(null)"), flags
    assert fields["NumNodes"].split("-")[0] == "1", flags
    assert fields["CPUs/Task"] == str(cpus), flags
    assert fields["MinMemoryNode"] == memory, flags
    assert fields["TimeLimit"] == f"{minutes // 60:02d}:{minutes % 60:02d}:00", flags


# Rules that can wait for a GPU at the same time, the last ones of the workflow first: targets, and what each rule asks
# for (GPUs, cores, memory as SLURM writes it, minutes). `train_mae` is looked at where it runs.
GPU_RULES = [
    {
        "frechet": ("tables/frechet.parquet", 1, 8, "32000M", 240),
        "forecast": ("tables/forecast.parquet", 1, 8, "32000M", 240),
    },
    {
        "generate": ("generated", 1, 8, "32000M", 240),
        "train_longitudinal": ("models/longitudinal/model.safetensors", 1, 8, "62.50G", 240),
    },
    {
        "train_dit": ("models/dit/model.safetensors", 4, 16, "62.50G", 240),
        "reconstruct": ("tables/reconstruction.parquet", 1, 8, "16000M", 120),
    },
    {
        "encode": ("latents/IXI.parquet", 1, 8, "16000M", 30),
        "encode_features": ("features/untrained/IXI.parquet", 1, 8, "16000M", 30),
    },
    {"train_tokenizer": ("models/tokenizer/model.safetensors", 4, 16, "125G", 240)},
    {"mask": ("status/mask/IXI/0000.parquet", 1, 4, "8000M", 10)},
]


@pytest.fixture(scope="module")
def finished(cluster, project, tmp_path_factory) -> Path:
    """Configuration of a workflow whose every file is there, so that any rule can be asked for alone."""
    root = tmp_path_factory.mktemp("finished")
    config = yaml.safe_load(project.read_text())
    config["pathvars"] = {name: str(root / name) for name in ("results", "resources", "logs", "benchmarks")}
    config["preprocess"]["mask"] = {"backend": "hd-bet", "device": "cuda"}
    (root / "config.yaml").write_text(yaml.safe_dump(config))
    shutil.copytree(project.parent / "results" / "index", root / "results" / "index")
    for path in root.rglob("*"):
        os.utime(path, (STARTED, STARTED))
    summary = run("snakemake", "all", "--summary", "--configfile", str(root / "config.yaml"))
    for line in summary.splitlines():
        if line.startswith(str(root)):
            put(Path(line.split("\t")[0]))
    return root / "config.yaml"


def put(path: Path) -> None:
    """A stand-in for a file or folder that the workflow makes; all are of the same time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix:
        path.write_text("made")
    else:
        path.mkdir(exist_ok=True)
    os.utime(path, (STARTED, STARTED))


@pytest.fixture(scope="module")
def drained(cluster):
    """Nodes that take no job: submitted ones stay pending, to be looked at."""
    cluster.query("scontrol", "update", "NodeName=n[1-2]", "State=DRAIN", "Reason=test")
    yield
    cluster.query("scontrol", "update", "NodeName=n[1-2]", "State=RESUME")


@contextmanager
def submitted(cluster: Cluster, finished: Path, rules: dict):
    """Snakemake, while jobs of exactly these rules wait for the node."""
    targets = [finished.parent / "results" / target for target, *_ in rules.values()]
    for target in targets:
        shutil.rmtree(target) if target.is_dir() else target.unlink()
    with running(snakemake(finished, *map(str, targets), "--nolock")) as process:
        wait_for(lambda: process.poll() is not None or len(jobs(cluster, "pending")) == len(rules), f"{list(rules)}")
        assert process.poll() is None, process.stdout.read()[-4000:]
        yield process
    for target in targets:
        put(target)


def test_gpu_rules_ask_for_what_the_paper_used(cluster, finished, drained):
    for rules in GPU_RULES[:-1]:
        with submitted(cluster, finished, rules):
            pending = jobs(cluster, "pending")
            assert pending.keys() == rules.keys()
            for rule, (_, gpus, cpus, memory, minutes) in rules.items():
                flags = cluster.query("scontrol", "show", "job", pending[rule])
                assert_gpu_flags(flags, gpus=gpus, cpus=cpus, memory=memory, minutes=minutes)
        wait_for(lambda: not jobs(cluster, "pending"), "the jobs to be cancelled with Snakemake")


def test_jobs_of_a_killed_controller_are_found_and_cancelled(cluster, finished, drained):
    with submitted(cluster, finished, GPU_RULES[-1]) as process:
        process.kill()
        process.wait()
        flags = cluster.query("scontrol", "show", "job", jobs(cluster, "pending")["mask"])
        assert "TresPerJob=gres:gpu:1" in flags, "HD-BET may use any card"
        assert "Partition=gpu" in flags
        assert re.search(r"PENDING +mask .*\n1 jobs\n", run("braing3n", "orphans"))
        assert "1 jobs cancelled" in run("braing3n", "orphans", "--cancel")
        wait_for(lambda: run("braing3n", "orphans").startswith("0 jobs"), "the orphan to go")
