"""`braing3n plan`: arithmetic of what is left, from assumed and from measured rates; agreement with the workflow."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest
import yaml

from braing3n.cohorts.schema import typed
from braing3n.config import Config, load_config
from braing3n.errors import BrainG3NError
from braing3n.files import write_json, write_parquet
from braing3n.reporting.plan import (
    CORE_SECONDS,
    STORE_MB,
    THREADS,
    TRAIN_GPUS,
    Slots,
    make_plan,
    read_slots,
    render,
)

ROOT = Path(__file__).parents[2]
SHARDS = {"IXI": {"0000": 60, "0001": 40}, "ADNI": {"0000": 20}}


@pytest.fixture
def config(tmp_path) -> Config:
    """The demo's models on an index of 120 volumes, nothing done yet."""
    cohorts = {name: {"n_shards": len(shards), "shards": shards} for name, shards in SHARDS.items()}
    write_json(tmp_path / "index/shards.json", {"version": 1, "cohorts": cohorts})
    rows = [
        {
            "volume_id": f"{cohort}{shard}{i}",
            "cohort": cohort,
            "person_id": f"{cohort}{shard}{i // 2}",
            "subject_id": f"{cohort}:{shard}{i // 2}",
            "session_id": str(i),
            "modality": "T1",
            "age_at_scan": 60.0 + i,
            "split": "train",
            "shard": shard,
        }
        for cohort, shards in SHARDS.items()
        for shard, n in shards.items()
        for i in range(n)
    ]
    write_parquet(tmp_path / "index/volumes.parquet", typed(pd.DataFrame(rows)))
    own = tmp_path / "own.yaml"
    own.write_text(yaml.safe_dump({"pathvars": {"results": str(tmp_path), "benchmarks": str(tmp_path / "benchmarks")}}))
    return load_config([ROOT / "config/config.yaml", ROOT / "config/demo.yaml", own])


def stages(config, slots=Slots(8, 8, 1)):  # noqa: B008 - a frozen dataclass
    plan = make_plan(config, slots, gpu_tflops=1.0)
    return plan, {stage.stage: stage for stage in plan.stages}


def test_core_hours_follow_volumes_and_the_assumed_rate(config):
    plan, stage = stages(config)
    assert (plan.volumes, plan.cohorts, plan.shards) == (120, 2, 3)
    assert stage["n4"].cpu_hours == pytest.approx(120 * CORE_SECONDS["n4"] / 3600)
    # three jobs of 40 volumes on average run at once: 8 cores take four of two threads
    assert stage["n4"].wall_hours == pytest.approx(40 * CORE_SECONDS["n4"] / THREADS["n4"] / 3600)
    assert stage["crop"].disk_gb == pytest.approx(120 * STORE_MB / 1000)
    assert stage["mask"].gpu_hours == 0  # deepbet on the CPU


def test_what_is_done_is_not_counted_again(config):
    write_parquet(config.pathvars.results / "status/n4/IXI/0000.parquet", pd.DataFrame({"volume_id": []}))
    stage = stages(config)[1]["n4"]
    assert (stage.jobs, stage.jobs_done, stage.jobs_left) == (3, 1, 2)
    assert stage.cpu_hours == pytest.approx(60 * CORE_SECONDS["n4"] / 3600)


def test_measured_rates_replace_assumptions(config):
    path = config.pathvars.benchmarks / "n4/IXI/0001.tsv"
    path.parent.mkdir(parents=True)
    path.write_text("s\th:m:s\tmax_rss\tcpu_time\n200.0\t0:03:20\t100\t320.0\n")
    stage = stages(config)[1]["n4"]
    assert stage.cpu_hours == pytest.approx(120 * 8.0 / 3600)  # 320 core-seconds for 40 volumes
    assert stage.rate.startswith("measured on 40 volumes")


def test_training_cost_is_samples_times_flops_over_the_rate(config):
    stage = stages(config)[1]
    flops = float(re.search(r"x ([\d.]+) TFLOP", stage["train mae"].rate).group(1))
    epochs = config.mae.train.epochs
    assert stage["train mae"].gpu_hours == pytest.approx(
        120 * epochs * flops / 3600, rel=0.2
    )  # rate shows two decimals
    assert f"120 samples x {epochs} epochs" in stage["train mae"].rate
    assert "10 samples" in stage["train longitudinal"].rate  # ADNI's pairs: one of each of ten persons
    write_json(config.pathvars.results / "models/mae/card.json", {"metrics": {}})
    assert stages(config)[1]["train mae"].gpu_hours == 0


def test_paper_size_costs_are_those_counted_by_hand(config, tmp_path):
    full = load_config([ROOT / "config/config.yaml", tmp_path / "own.yaml"])
    stage = stages(full)[1]
    for name, tflop in (("mae", 1.54), ("tokenizer", 9.06), ("dit", 1.62)):
        assert f"x {tflop:.2f} TFLOP" in stage[f"train {name}"].rate


def test_stages_without_a_known_cost_are_named_and_not_counted(config):
    plan, stage = stages(config)
    assert stage["probe"].wall_hours is None
    text = render(plan)
    assert "not known before a first run, not counted: reconstruct, probe" in text
    assert max(map(len, text.splitlines())) <= 80


def test_encoders_with_a_pass_of_their_own_are_planned_unless_their_weights_are_missing(config):
    probe = config.probe.model_copy(update={"encoders": ("mae-brain", "site", "untrained", "brainiac")})
    plan, stage = stages(config.model_copy(update={"probe": probe}))
    assert stage["encode_untrained"].jobs == plan.cohorts == 2
    assert stage["encode_untrained"].gpu_hours == stage["encode"].gpu_hours
    assert "encode_brainiac" not in stage


def test_threads_gpus_and_rates_are_those_of_the_workflow():
    rules = "\n".join(path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk"))
    blocks = dict(re.findall(r"^rule (\w+):\n(.*?)(?=^\S|\Z)", rules, flags=re.M | re.S))
    for rule, threads in THREADS.items():
        assert int(re.search(r"threads: (\d+)", blocks[rule]).group(1)) == threads
    for model, gpus in TRAIN_GPUS.items():
        assert int(re.search(r"gpu=(\d+)", blocks[f"train_{model}"]).group(1)) == gpus
    budget = re.search(r"SECONDS_A_VOLUME = ({.*?})", rules).group(1)
    assert yaml.safe_load(budget) == CORE_SECONDS


def test_slots_follow_the_profile_and_what_is_given_by_hand():
    slurm = read_slots(ROOT / "profiles/slurm", None, None)
    assert (slurm.jobs, slurm.cores, slurm.gpus) == (200, None, 4)
    assert read_slots(ROOT / "profiles/local", None, 16) == Slots(16, 16, 1)
    assert read_slots(None, 2, 3) == Slots(3, 3, 2)
    assert Slots(200, None, 4).parallel(2) == 200
    assert Slots(200, None, 4).parallel(8, gpus=1) == 4
    assert Slots(2, 2, 1).parallel(8) == 1


def test_no_index_is_said(config, tmp_path):
    (tmp_path / "index/shards.json").unlink()
    with pytest.raises(BrainG3NError, match="braing3n index"):
        stages(config)
