"""The README's commands planned against a small frozen index: what Snakemake would run, with what resources."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from braing3n.cohorts.schema import typed

REPOSITORY = Path(__file__).parents[2]
STEPS = ("convert", "n4", "mask", "register", "crop")


def run(*arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    return subprocess.run(
        ["snakemake", *arguments], cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=120
    )


@pytest.fixture(scope="module")
def configfile(tmp_path_factory) -> Path:
    """A configuration whose index has two IXI shards and one UPENN-GBM shard."""
    root = tmp_path_factory.mktemp("project")
    index = root / "results" / "index"
    shards = {"IXI": {"0000": 6, "0001": 4}, "UPENN-GBM": {"0000": 8}}
    for cohort, names in shards.items():
        for name in names:
            (index / "shards" / cohort).mkdir(parents=True, exist_ok=True)
            (index / "shards" / cohort / f"{name}.parquet").write_bytes(b"rows")
    (index / "ledger.parquet").write_bytes(b"rows")
    rows = [{"volume_id": cohort, "cohort": cohort, "modality": "T1", "split": "train"} for cohort in shards]
    typed(pd.DataFrame(rows)).to_parquet(index / "volumes.parquet")
    cohorts = {cohort: {"n_shards": len(names), "shards": names} for cohort, names in shards.items()}
    (index / "shards.json").write_text(json.dumps({"version": 1, "cohorts": cohorts}))
    folders = {name: str(root / name) for name in ("results", "resources", "logs", "benchmarks")}
    path = root / "config.yaml"
    path.write_text(
        yaml.safe_dump({"pathvars": folders, "cohorts": {cohort: {"root": f"/data/{cohort}"} for cohort in shards}})
    )
    return path


def planned(result: subprocess.CompletedProcess) -> dict[str, int]:
    """Rule -> number of jobs, from the first job table of a dry run."""
    assert result.returncode == 0, result.stdout + result.stderr
    table = (result.stdout + result.stderr).split("Job stats:")[1].split("total")[0]
    return {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", table, re.MULTILINE)}


WHOLE = [
    ("-n",),
    ("-n", "all"),
    ("--profile", "slurm", "all", "-n"),
    ("all", "--profile", "slurm", "-n"),
]


@pytest.mark.parametrize("arguments", WHOLE, ids=" ".join)
def test_whole_workflow(configfile, arguments):
    jobs = planned(run(*arguments, "--configfile", str(configfile)))
    for step in STEPS:
        assert jobs[step] == 3
    for name in ("train_mae", "train_tokenizer", "train_dit", "train_longitudinal", "probe", "report"):
        assert jobs[name] == 1


def test_one_cohort_one_rule_and_what_depends_on_it(configfile):
    jobs = planned(run("cohort_ixi", "-n", "-R", "n4", "--profile", "profiles/local", "--configfile", str(configfile)))
    assert {step: jobs[step] for step in STEPS} == dict.fromkeys(STEPS, 2)
    assert "metadata" not in jobs


def test_until_stops_after_the_rule(configfile):
    arguments = ("cohort_ixi", "-n", "-R", "n4", "--until", "n4", "--profile", "profiles/local")
    jobs = planned(run(*arguments, "--configfile", str(configfile)))
    assert jobs == {"convert": 2, "n4": 2}


def test_cohort_names_become_target_names(configfile):
    jobs = planned(run("cohort_upenn_gbm", "-n", "--configfile", str(configfile)))
    assert jobs["crop"] == 1


def test_only_cohorts_restricts_everything(configfile):
    jobs = planned(run("all", "-n", "--configfile", str(configfile), "--config", "only_cohorts=[IXI]"))
    assert (jobs["crop"], jobs["encode"]) == (2, 1)


def test_without_index_says_what_to_run_first(tmp_path):
    result = run("-n", "--config", f"pathvars={{results: {tmp_path / 'results'}}}")
    assert result.returncode != 0
    assert "braing3n index --config config/config.yaml" in result.stdout + result.stderr
    assert "Traceback (most recent call last)" not in result.stdout + result.stderr


def test_wrong_setting_is_named_with_its_value(configfile):
    result = run("-n", "--configfile", str(configfile), "--config", "mae={model: {mask_ratio: 7}}")
    text = result.stdout + result.stderr
    assert result.returncode != 0
    assert "mae.model.mask_ratio" in text
    assert "found '7'" in text


def test_lint():
    result = run("--lint")
    assert result.returncode == 0, result.stdout + result.stderr


def test_slurm_profile_asks_for_the_gpus_of_the_paper(configfile):
    result = run("train_mae", "-n", "--profile", "slurm", "--configfile", str(configfile))
    resources = re.search(r"rule train_mae:.*?resources: ([^\n]*)", result.stdout + result.stderr, re.DOTALL)
    assert resources is not None, result.stdout + result.stderr
    for item in ("gpu=4", "gpu_model=h100", "nodes=1", "slurm_partition=gpu", "mem_mb=128000", "runtime=240"):
        assert item in resources.group(1)


def with_probe(configfile: Path, **probe) -> Path:
    path = configfile.with_name("probed.yaml")
    path.write_text(yaml.safe_dump(yaml.safe_load(configfile.read_text()) | {"probe": probe}))
    return path


def test_encoders_join_the_panel_when_their_weights_are_given(configfile):
    """One with a file, one without, one whose file is not there; the untrained control needs none."""
    weights = configfile.with_name("resnet_10_23dataset.pth")
    weights.write_bytes(b"weights")
    gone = configfile.with_name("gone.ckpt")
    encoders = ["mae", "medicalnet-10", "medicalnet-10-untrained", "brainiac-mean", "brainsegfounder", "site"]
    given = {"medicalnet-10": str(weights), "brainiac": str(gone)}
    result = run("probe_all", "-n", "-p", "--configfile", str(with_probe(configfile, encoders=encoders, weights=given)))
    assert planned(result)["encode_features"] == 2 * 2  # two encoders, two cohorts
    text = result.stdout + result.stderr
    assert text.count(f"--weights {weights}") == 2
    assert text.count("--encoder medicalnet-10-untrained") == 2
    assert (
        f"not probed: brainiac: there is no {gone}; download BrainIAC.ckpt from https://github.com/AIM-KannLab" in text
    )
    assert "not probed: brainsegfounder: no weights are given; download" in text
    assert "give its path with --weights, or in the configuration as probe.weights.brainsegfounder" in text
    assert "not probed: medicalnet" not in text


def test_the_whole_workflow_goes_on_without_weights(configfile):
    encoders = ["mae", "brainiac"]
    jobs = planned(run("all", "-n", "--configfile", str(with_probe(configfile, encoders=encoders))))
    assert "encode_features" not in jobs
    assert jobs["probe"] == jobs["report"] == 1


def cluster_commands() -> list[str]:
    """Every command of the README's section on clusters, as typed there."""
    section = re.search(r"^## On SLURM\n(.*?)^## ", (REPOSITORY / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    return re.findall(r"(?:^    |`)((?:snakemake|braing3n) [^`\n]+)", section.group(1), re.MULTILINE)


def test_the_readme_has_cluster_commands():
    assert "snakemake --profile slurm all" in cluster_commands()
    assert len(cluster_commands()) >= 8


@pytest.mark.parametrize("command", cluster_commands())
def test_cluster_commands_of_the_readme(configfile, tmp_path, command):
    """As typed, but for the reader's own file and folder, no submission, and a stand-in for `squeue`."""
    squeue = tmp_path / "squeue"
    squeue.write_text(f"#!/bin/sh\necho '7|braing3n_1|RUNNING|{REPOSITORY}|rule_train_mae'\n")
    scancel = tmp_path / "scancel"
    scancel.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/cancelled\n')
    for client in (squeue, scancel):
        client.chmod(0o755)
    program, *arguments = shlex.split(command)
    results = configfile.parent / "results"
    arguments = [{"mine.yaml": str(configfile), "results": str(results)}.get(word, word) for word in arguments]
    if "--unlock" in arguments:
        arguments += ["--directory", str(tmp_path), "--configfile", "config/config.yaml"]
        (tmp_path / "config").symlink_to(REPOSITORY / "config")
    elif program == "snakemake":
        arguments = ["-n", *arguments] + ([] if "--configfile" in arguments else ["--configfile", str(configfile)])
    path = f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    result = subprocess.run(
        [program, *arguments],
        cwd=REPOSITORY,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    text = result.stdout + result.stderr
    assert result.returncode == 0, text
    expected = {
        "snakemake all": "train_mae",
        "snakemake --profile": "train_mae",
        "snakemake --unlock": "Unlocked",
        "braing3n plan": "3 shards",
        "braing3n status": "UPENN-GBM",
        "braing3n requeue": "0 status tables were removed",
        "braing3n orphans": "1 jobs cancelled" if "--cancel" in arguments else "train_mae",
    }
    assert expected[" ".join(command.split()[:2])] in text


def resources_asked(configfile: Path, profile: str) -> dict[str, dict[str, str]]:
    """Rule -> its resources in a dry run of everything."""
    result = run("all", "-n", "--profile", profile, "--configfile", str(configfile))
    assert result.returncode == 0, result.stdout + result.stderr
    asked = {}
    for block in re.split(r"^ *(?:local)?rule ", result.stdout + result.stderr, flags=re.MULTILINE)[1:]:
        if line := re.search(r"^ *resources: (.*)$", block, re.MULTILINE):
            items = (item.split("=", 1) for item in line.group(1).split(", ") if "=" in item)
            asked[block.split(":")[0]] = dict(items)
    return asked


def test_every_rule_with_a_gpu_goes_to_the_gpu_partition(configfile):
    asked = resources_asked(configfile, "slurm")
    on_gpu = {rule for rule, resources in asked.items() if int(resources.get("gpu", 0))}
    assert {"train_mae", "train_tokenizer", "train_dit", "train_longitudinal", "encode", "frechet"} <= on_gpu
    for rule in on_gpu:
        assert asked[rule]["slurm_partition"] == "gpu", rule
        assert asked[rule]["nodes"] == "1", rule
        assert rule == "mask" or asked[rule]["gpu_model"] == "h100", rule


def test_local_profile_bounds_gpu_and_memory(configfile):
    asked = resources_asked(configfile, "profiles/local")
    assert asked["train_mae"]["gpu"] == asked["train_dit"]["gpu"] == "1"
    assert max(int(resources.get("gpu", 0)) for resources in asked.values()) == 1
    assert max(int(resources.get("mem_mb", 0)) for resources in asked.values()) <= 32000
