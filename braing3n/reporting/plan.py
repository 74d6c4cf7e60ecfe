"""What a run will cost before it starts: jobs, core-hours, GPU-hours, disk, wall time, from index and measured rates.

Rates come from this results folder's own timings where there are any, else from the stated assumptions.
"""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from braing3n.config import Config
from braing3n.config.training import TrainSettings
from braing3n.encoders.registry import encoder_of, weights_needed
from braing3n.errors import BrainG3NError
from braing3n.files import read_json, read_parquet
from braing3n.geometry import N_TOKENS, PATCH_SIZE, VOLUME_SHAPE
from braing3n.reporting.page import duration
from braing3n.reporting.run import MODELS, STEPS
from braing3n.reporting.status import training_state
from braing3n.reporting.topics.cost import read_benchmarks

# Core-seconds a volume, as the workflow budgets them (workflow/rules/common.smk), for heads of 1 mm.
CORE_SECONDS = {"convert": 3, "n4": 20, "mask": 25, "register": 30, "crop": 3}
THREADS = {"convert": 2, "n4": 2, "mask": 4, "register": 2, "crop": 2, "encode": 8}  # as the rules ask for
GPU_SECONDS = {"mask": 10.0, "encode": 0.2}  # a volume, on one GPU: HD-BET; the encoder reading from disk
TRAIN_GPUS = {"mae": 4, "tokenizer": 4, "dit": 4, "longitudinal": 1}  # as the rules ask for
DERIVATIVES_MB = 35.0  # a volume: five compressed images, a mask and sidecars
STORE_MB = math.prod(VOLUME_SHAPE) * 2 / 1e6


@dataclass
class Stage:
    """One stage: what is done, what is left, and what the rest will take (None: not known)."""

    stage: str
    jobs: int
    jobs_done: int
    cpu_hours: float | None = None
    gpu_hours: float | None = None
    wall_hours: float | None = None
    disk_gb: float | None = None
    rate: str = ""
    """Where the cost comes from."""

    @property
    def jobs_left(self) -> int:
        return self.jobs - self.jobs_done


@dataclass
class Plan:
    volumes: int
    cohorts: int
    shards: int
    slots: str
    stages: list[Stage] = field(default_factory=list)

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2)


@dataclass(frozen=True)
class Slots:
    """How much runs at once."""

    jobs: int
    cores: int | None
    gpus: int

    def parallel(self, threads: int, gpus: int = 0) -> int:
        """Jobs of that size that run at once, at least one."""
        at_once = self.jobs if self.cores is None else min(self.jobs, self.cores // threads)
        return max(1, min(at_once, self.gpus // gpus) if gpus else at_once)

    def __str__(self) -> str:
        cores = "" if self.cores is None else f", {self.cores} cores"
        return f"{self.jobs} jobs at once{cores}, {self.gpus} GPUs"


def read_slots(profile: Path | None, gpus: int | None, cores: int | None) -> Slots:
    """Limits of a Snakemake profile: `jobs` on a cluster, `cores` and `resources: gpu` on one machine.

    Numbers given by hand win. A cluster's profile knows no number of GPUs: 4 then, one node of the paper's.
    """
    content: dict[str, Any] = {}
    if profile is not None:
        files = sorted(profile.glob("*.yaml")) if profile.is_dir() else [profile]
        if not files:
            raise BrainG3NError("profile holds no YAML file", file=profile, expected="profiles/slurm or profiles/local")
        content = yaml.safe_load(files[0].read_text()) or {}
    gpus = gpus or int((content.get("resources") or {}).get("gpu", 4))
    if "jobs" in content and cores is None:
        return Slots(int(content["jobs"]), None, gpus)
    if cores is None:
        from os import sched_getaffinity

        cores = len(sched_getaffinity(0)) if content.get("cores", "all") == "all" else int(content["cores"])
    return Slots(cores, cores, gpus)


def make_plan(config: Config, slots: Slots, gpu_tflops: float, benchmarks: Path | None = None) -> Plan:
    """Plan the configuration's index.

    Args:
        slots: what runs at once.
        gpu_tflops: sustained TFLOP/s of one GPU, for trainings without a measured rate.
        benchmarks: timings of Snakemake; default those of the configuration.

    Raises:
        BrainG3NError: there is no index.
    """
    results = config.pathvars.results
    index = results / "index" / "shards.json"
    if not index.exists():
        raise BrainG3NError("there is no index", file=index, remedy="run: braing3n index --config config/config.yaml")
    shards = {
        (name, shard): volumes
        for name, cohort in read_json(index)["cohorts"].items()
        if not config.only_cohorts or name in config.only_cohorts
        for shard, volumes in cohort["shards"].items()
    }
    timings = read_benchmarks(benchmarks or config.pathvars.benchmarks)
    plan = Plan(sum(shards.values()), len({cohort for cohort, _ in shards}), len(shards), str(slots))
    plan.stages += [shared_stage(step, config, shards, timings, slots) for step in STEPS]
    works = model_works(config, results)
    order = ("mae", "tokenizer", "encode", "dit", "longitudinal")
    for name in order:
        if name == "encode":
            plan.stages.append(shared_stage(name, config, shards, timings, slots))
        else:
            plan.stages.append(training_stage(name, works[name], results, slots, gpu_tflops))
    for encoder in probed_encoders(config):
        plan.stages.append(shared_stage(f"encode_{encoder}", config, shards, timings, slots))
    plan.stages += [single_stage(name, path, results, timings) for name, path in SINGLE.items()]
    return plan


def probed_encoders(config: Config) -> list[str]:
    """Encoders with a pass over the volumes of their own, as the workflow chooses them (workflow/rules/common.smk)."""
    weights = config.probe.weights
    names = sorted({encoder_of(name) for name in config.probe.encoders} - {None, "mae"})
    return [name for name in names if not weights_needed(name) or (name in weights and weights[name].exists())]


def shared_stage(
    step: str, config: Config, shards: dict[tuple[str, str], int], timings: pd.DataFrame, slots: Slots
) -> Stage:
    """A stage with one job a shard, a preprocessing step, or one a cohort: `encode`, or `encode_<encoder>`, which costs
    as much.
    """
    kind = step.partition("_")[0]
    results = config.pathvars.results
    parts = by_cohort(shards) if kind == "encode" else {f"{cohort}/{shard}": n for (cohort, shard), n in shards.items()}
    done = {part for part in parts if output_of(results, step, part).exists()}
    left = {part: n for part, n in parts.items() if part not in done}
    volumes = sum(left.values())
    on_gpu = kind == "encode" or (step == "mask" and config.preprocess.mask.backend == "hd-bet")
    stage = Stage(step, len(parts), len(done))
    measured = rate_of(timings, step, parts)
    if measured is not None:
        seconds, core_seconds, stage.rate = measured
    elif on_gpu:
        seconds = core_seconds = GPU_SECONDS[kind]
        stage.rate = f"assumed {seconds:g} s a volume on one GPU"
    else:
        core_seconds = float(CORE_SECONDS[step])
        seconds = core_seconds / THREADS[step]
        stage.rate = f"assumed {core_seconds:g} core-seconds a volume"
    stage.cpu_hours = volumes * core_seconds / 3600
    stage.gpu_hours = volumes * seconds / 3600 if on_gpu else 0.0
    rounds = math.ceil(len(left) / slots.parallel(THREADS[kind], int(on_gpu)))
    stage.wall_hours = rounds * (volumes / len(left) if left else 0) * seconds / 3600
    stage.disk_gb = disk_of(step, volumes, results)
    return stage


def by_cohort(shards: dict[tuple[str, str], int]) -> dict[str, int]:
    """Volumes of every cohort."""
    volumes: dict[str, int] = {}
    for (cohort, _), n in shards.items():
        volumes[cohort] = volumes.get(cohort, 0) + n
    return volumes


def output_of(results: Path, step: str, part: str) -> Path:
    """What a stage's job for a shard, `<cohort>/<shard>`, or for a cohort writes last."""
    folder = {"encode": "latents"}.get(step, f"status/{step}")
    if step.startswith("encode_"):
        folder = f"features/{step.removeprefix('encode_')}"
    return results / folder / f"{part}.parquet"


def rate_of(timings: pd.DataFrame, step: str, parts: dict[str, int]) -> tuple[float, float, str] | None:
    """Measured wall seconds and core-seconds a volume, over all finished jobs of a step; None if there are none."""
    own = timings[timings["rule"] == step]
    sizes = [parts.get(job.partition("/")[2]) for job in own["job"]]
    own = own[[size is not None for size in sizes]]
    volumes = sum(size for size in sizes if size is not None)
    if not volumes:
        return None
    wall, cpu = own["s"].sum(), own["cpu_time"].fillna(own["s"]).sum()
    return wall / volumes, cpu / volumes, f"measured on {volumes:,} volumes: {cpu / volumes:.1f} core-seconds each"


def disk_of(step: str, volumes: int, results: Path) -> float | None:
    """GB that a stage writes."""
    if step == "convert":  # the per-volume images of all five steps
        return volumes * measured_derivatives_mb(results) / 1e3
    if step == "crop":
        return volumes * STORE_MB / 1e3
    if step == "encode":
        return volumes * N_TOKENS * 32 * 2 / 1e9
    return 0.0


def measured_derivatives_mb(results: Path, at_most: int = 200) -> float:
    """MB of per-volume images, from the records of volumes that went through every step."""
    last = sorted((results / "work" / STEPS[-1]).glob("*/*/*.json"))[:at_most]
    sizes = []
    for path in last:
        relative = path.relative_to(results / "work" / STEPS[-1])
        records = [results / "work" / step / relative for step in STEPS]
        sizes.append(sum(e["bytes"] for r in records if r.exists() for e in read_json(r)["files"].values()) / 1e6)
    return float(np.mean(sizes)) if sizes else DERIVATIVES_MB


@dataclass(frozen=True)
class Work:
    """What one training is."""

    settings: TrainSettings
    samples: int
    flops_per_sample: float
    parameters: int


def model_works(config: Config, results: Path) -> dict[str, Work]:
    """Samples, FLOPs and parameters of the four trainings, counted on models without weights."""
    import torch

    from braing3n.models.dit import DiT
    from braing3n.models.mae import MaskedAutoencoder, block_flops, training_flops
    from braing3n.models.tokenizer import Tokenizer
    from braing3n.training.flops import forward_flops
    from braing3n.training.longitudinal_task import find_pairs

    index = read_parquet(results / "index" / "volumes.parquet")
    if config.only_cohorts:
        index = index[index["cohort"].isin(config.only_cohorts)]
    train = int((index["split"] == "train").sum())
    pairs = find_pairs(index, config.longitudinal.cohorts)
    with torch.device("meta"):
        mae = MaskedAutoencoder(config.mae.model)
        tokenizer = Tokenizer(config.tokenizer.model, config.mae.model.hidden)
        dits = {
            name: DiT(section.model, section.conditions, section.never_dropped)
            for name, section in (("dit", config.dit), ("longitudinal", config.longitudinal))
        }
    tokens = (1, N_TOKENS, config.mae.model.hidden)
    arch, tokens_in = config.mae.model, N_TOKENS * PATCH_SIZE**3
    encoding = arch.depth * block_flops(N_TOKENS, arch.hidden, arch.mlp) + 2 * tokens_in * arch.hidden
    flops = {"mae": training_flops(mae), "tokenizer": encoding + 3 * forward_flops(tokenizer, tokens)}
    for name, dit in dits.items():
        values = (1, len(dit.vocabulary.names))
        latents = (1, N_TOKENS, dit.arch.latent)
        flops[name] = 3 * forward_flops(dit, latents, (1,), values, values, integers=(3,))
    models = {"mae": mae, "tokenizer": tokenizer, **dits}
    samples = dict.fromkeys(MODELS, train) | {"longitudinal": int((pairs["split"] == "train").sum())}
    return {
        name: Work(
            getattr(config, name).train,
            samples[name],
            float(flops[name]),
            sum(p.numel() for p in models[name].parameters()),
        )
        for name in MODELS
    }


def training_stage(name: str, work: Work, results: Path, slots: Slots, gpu_tflops: float) -> Stage:
    """One training: at its own speed so far if it has begun, else its FLOPs over the GPU's rate."""
    state = training_state(results / "models" / name)
    stage = Stage(f"train {name}", 1, int(state.state == "done"), cpu_hours=0.0)
    gpus = min(TRAIN_GPUS[name], slots.gpus)
    copies = 4 if work.settings.ema_decay else 3  # weights, two moments of AdamW, averaged weights
    stage.disk_gb = work.parameters * 4 * (copies * work.settings.keep_last + 2) / 1e9
    if state.state == "done":
        stage.gpu_hours = stage.wall_hours = stage.disk_gb = 0.0
    elif state.eta_s is not None:
        stage.wall_hours, stage.gpu_hours = state.eta_s / 3600, state.eta_s * gpus / 3600
        stage.rate = f"measured up to epoch {state.epoch} of {state.epochs}"
    else:
        seconds = work.samples * work.settings.epochs * work.flops_per_sample / (gpu_tflops * 1e12)
        stage.gpu_hours, stage.wall_hours = seconds / 3600, seconds / 3600 / gpus
        stage.rate = (
            f"{work.samples:,} samples x {work.settings.epochs:,} epochs x {work.flops_per_sample / 1e12:.2f} TFLOP "
            f"at {gpu_tflops:g} TFLOP/s"
        )
    return stage


SINGLE = {
    "reconstruct": "tables/reconstruction.parquet",
    "probe": "tables/probes.parquet",
    "generate": "generated",
    "frechet": "tables/frechet.parquet",
    "memorization": "tables/memorization.parquet",
    "forecast": "tables/forecast.parquet",
    "report": "report/report.html",
}


def single_stage(name: str, output: str, results: Path, timings: pd.DataFrame) -> Stage:
    """A stage of one job, whose cost is known only once it was measured."""
    stage = Stage(name, 1, int((results / output).exists()))
    own = timings[timings["rule"] == name]
    if stage.jobs_left == 0:
        stage.cpu_hours = stage.gpu_hours = stage.wall_hours = stage.disk_gb = 0.0
    elif len(own):
        stage.wall_hours = own["s"].iloc[-1] / 3600
        stage.cpu_hours = own["cpu_time"].fillna(own["s"]).iloc[-1] / 3600
        stage.rate = "measured by an earlier run"
    return stage


def render(plan: Plan) -> str:
    """The plan as a table of at most 80 columns, the sources of its rates below."""
    return "\n".join(_lines(plan))


def _lines(plan: Plan) -> Iterator[str]:
    yield f"{plan.volumes:,} volumes of {plan.cohorts} cohorts in {plan.shards:,} shards; {plan.slots}"
    yield ""
    yield f"{'stage':<19}{'jobs':>7}{'done':>7}{'CPU h':>9}{'GPU h':>9}{'disk GB':>10}{'wall time':>15}"
    for stage in plan.stages:
        yield _row(stage.stage[:18], stage.jobs, stage.jobs_done, stage)
    known = [stage for stage in plan.stages if stage.wall_hours is not None]
    total = Stage("all", sum(s.jobs for s in plan.stages), sum(s.jobs_done for s in plan.stages))
    for name in ("cpu_hours", "gpu_hours", "disk_gb", "wall_hours"):
        setattr(total, name, sum(getattr(stage, name) or 0.0 for stage in known))
    yield _row(total.stage, total.jobs, total.jobs_done, total)
    yield ""
    yield "Rates of what is left (wall time: stages one after another):"
    for stage in plan.stages:
        if stage.jobs_left and stage.rate:
            yield from textwrap.wrap(f"{stage.stage}: {stage.rate}", 78, initial_indent="  ", subsequent_indent="    ")
    unknown = [stage.stage for stage in plan.stages if stage.jobs_left and stage.wall_hours is None]
    if unknown:
        text = f"not known before a first run, not counted: {', '.join(unknown)}"
        yield from textwrap.wrap(text, 78, initial_indent="  ", subsequent_indent="    ")


def _row(name: str, jobs: int, done: int, stage: Stage) -> str:
    cpu, gpu, disk = (("–" if v is None else f"{v:,.1f}") for v in (stage.cpu_hours, stage.gpu_hours, stage.disk_gb))
    wall = "–" if stage.wall_hours is None else duration(stage.wall_hours * 3600)
    return f"{name:<19}{jobs:>7,}{done:>7,}{cpu:>9}{gpu:>9}{disk:>10}{wall:>15}"
