"""The state of a run from its files, while it goes on: nothing is locked, nothing is written."""

from __future__ import annotations

import json
import textwrap
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from braing3n.errors import BrainG3NError
from braing3n.files import read_json
from braing3n.reporting.page import duration
from braing3n.reporting.run import MODELS, STEPS

ROWS = (*STEPS, "encode")
COLUMNS = ["volume_id", "status", "reason", "error_class", "failed_step", "finished_at"]
STAGES = {  # what a stage leaves behind when it is done, in the order of the workflow
    "metadata": "metadata/volumes.parquet",
    "reconstruct": "tables/reconstruction.parquet",
    "probe": "tables/probes.parquet",
    "generate": "generated",
    "frechet": "tables/frechet.parquet",
    "memorization": "tables/memorization.parquet",
    "forecast": "tables/forecast.parquet",
    "report": "report/report.html",
}


@dataclass
class StepState:
    """Volumes of one cohort at one step. All but `volumes` and the shards add up to `volumes`."""

    cohort: str
    step: str
    volumes: int
    done: int = 0
    """Carried out, or not needed; of shards in progress, those with a record."""
    excluded: int = 0
    failed: int = 0
    earlier: int = 0
    """Excluded or failed at an earlier step."""
    pending: int = 0
    shards: int = 0
    shards_done: int = 0
    shards_failed: int = 0
    """Stopped with more failures than `max_failed_fraction` allows."""


@dataclass
class ErrorClass:
    step: str
    error_class: str
    count: int
    last_reason: str
    last_at: str


@dataclass
class TrainingState:
    name: str
    state: str
    """`done`, `in progress`, `ended` (finished, weights not yet written) or `not started`."""
    step: int | None = None
    total_steps: int | None = None
    epoch: int | None = None
    epochs: int | None = None
    train_loss: float | None = None
    val_loss: float | None = None
    saved_s_ago: float | None = None
    eta_s: float | None = None
    """Training time left at the mean speed so far, counted from the last checkpoint."""


@dataclass
class Status:
    results: str
    steps: list[StepState] = field(default_factory=list)
    errors: list[ErrorClass] = field(default_factory=list)
    models: list[TrainingState] = field(default_factory=list)
    stages: dict[str, bool] = field(default_factory=dict)

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2)


def read_status(results: Path, cohort: str | None = None, step: str | None = None) -> Status:
    """Counts per cohort and step, error classes, trainings and later stages.

    Raises:
        BrainG3NError: there is no index, or no such cohort or step.
    """
    index = results / "index" / "shards.json"
    if not index.exists():
        raise BrainG3NError("there is no index", file=index, remedy="run: braing3n index --config config/config.yaml")
    cohorts = read_json(index)["cohorts"]
    for name, known in ((cohort, cohorts), (step, ROWS)):
        if name is not None and name not in known:
            raise BrainG3NError(f"unknown: {name}", file=index, expected=", ".join(known))
    steps, errors = [], []
    for name in [cohort] if cohort else sorted(cohorts):
        for each in [step] if step else ROWS:
            if each == "encode":
                steps.append(encode_state(results, name, cohorts[name]["shards"]))
                continue
            state, failures = step_state(results, name, each, cohorts[name]["shards"])
            steps.append(state)
            errors.append(failures)
    return Status(
        results=results.as_posix(),
        steps=steps,
        errors=error_classes(errors),
        models=[training_state(results / "models" / name) for name in MODELS],
        stages={name: (results / path).exists() for name, path in STAGES.items()},
    )


def step_state(results: Path, cohort: str, step: str, shards: dict[str, int]) -> tuple[StepState, pd.DataFrame]:
    """One cohort at one step, and its failed rows."""
    state = StepState(cohort, step, volumes=sum(shards.values()), shards=len(shards))
    failures = []
    for shard, volumes in shards.items():
        folder = results / "status" / step / cohort
        table = _read(folder / f"{shard}.parquet")
        if table is not None:
            state.shards_done += 1
        elif (table := _read(folder / f"{shard}.failed.parquet")) is not None:
            state.shards_failed += 1
        if table is None:
            _count_in_flight(state, results, step, shard, volumes)
            continue
        here = table["failed_step"] == step
        lost = table["status"].isin(["excluded", "failed"])
        state.done += int((~lost).sum())
        state.excluded += int((here & (table["status"] == "excluded")).sum())
        state.failed += int((here & (table["status"] == "failed")).sum())
        state.earlier += int((lost & ~here).sum())
        failures.append(table[here & (table["status"] == "failed")].assign(step=step))
    state.pending = state.volumes - state.done - state.excluded - state.failed - state.earlier
    return state, pd.concat(failures) if failures else pd.DataFrame(columns=[*COLUMNS, "step"])


def encode_state(results: Path, cohort: str, shards: dict[str, int]) -> StepState:
    """Volumes of one cohort with latents; what preprocessing lost does not reach the encoder."""
    state = StepState(cohort, "encode", volumes=sum(shards.values()), shards=len(shards))
    for shard, volumes in shards.items():
        stored = _rows(results / "volumes" / cohort / f"{shard}.parquet")
        state.earlier += volumes - stored if stored is not None else 0
        encoded = _rows(results / "latents" / cohort / f"{shard}.parquet")
        state.shards_done += encoded is not None
        state.done += encoded or 0
    state.pending = state.volumes - state.done - state.earlier
    return state


def _rows(path: Path) -> int | None:
    """Length of a table, or None if it is not there."""
    try:
        return pq.read_metadata(path).num_rows
    except FileNotFoundError:
        return None


def _count_in_flight(state: StepState, results: Path, step: str, shard: str, volumes: int) -> None:
    """A shard without a table: its volumes' records, and what the step before lost."""
    records = results / "work" / step / state.cohort / shard
    before = STEPS.index(step) - 1
    earlier = _read(results / "status" / STEPS[before] / state.cohort / f"{shard}.parquet") if before >= 0 else None
    lost = 0 if earlier is None else int(earlier["status"].isin(["excluded", "failed"]).sum())
    finished = sum(1 for path in records.glob("*.json") if not path.name.startswith(".tmp")) if records.is_dir() else 0
    state.earlier += lost
    state.done += min(finished, volumes - lost)


def _read(path: Path) -> pd.DataFrame | None:
    """A status table, or None if it is not there (any more: a rerun may just have removed it)."""
    try:
        return pd.read_parquet(path, columns=COLUMNS)
    except FileNotFoundError:
        return None


def error_classes(failures: list[pd.DataFrame]) -> list[ErrorClass]:
    """Failures by step and class, the most frequent first, each with its latest reason."""
    table = pd.concat(failures) if failures else pd.DataFrame()
    if table.empty:
        return []
    groups = []
    for (step, error_class), rows in table.groupby(["step", "error_class"]):
        last = rows.sort_values("finished_at").iloc[-1]
        groups.append(ErrorClass(step, error_class, len(rows), last["reason"], last["finished_at"]))
    return sorted(groups, key=lambda group: -group.count)


def training_state(folder: Path) -> TrainingState:
    """Where a training stands: from its card if it has ended, else from its newest checkpoint."""
    checkpoints = sorted((folder / "checkpoints").glob("step-*.pt"))
    if (folder / "card.json").exists():
        card = read_json(folder / "card.json")
        metrics = card.get("metrics", {})
        state = TrainingState(folder.name, "done", step=card.get("steps"), epoch=card.get("epochs"))
        state.train_loss, state.val_loss = metrics.get("train_loss"), metrics.get("val_loss")
        return state
    if not checkpoints:
        return TrainingState(folder.name, "not started")
    newest = checkpoints[-1]
    state = TrainingState(folder.name, "in progress", step=int(newest.stem.removeprefix("step-")))
    try:
        content = _read_checkpoint(newest)
        state.saved_s_ago = time.time() - newest.stat().st_mtime
    except (OSError, RuntimeError):  # the training replaces its checkpoints as it goes
        return state
    progress, settings = content["progress"], content["identity"]["settings"]
    losses = {row["split"]: row for row in progress["history"] if row["metric"] == "loss"}
    state.epochs = settings["epochs"]
    if "train" in losses:
        state.epoch = losses["train"]["epoch"]
        state.train_loss = losses["train"]["value"]
        state.total_steps = round(state.step / state.epoch * settings["epochs"])
        state.eta_s = progress["seconds"] / state.step * (state.total_steps - state.step)
    if "val" in losses:
        state.val_loss = losses["val"]["value"]
    if progress["finished"]:
        state.state, state.eta_s = "ended", 0.0
    return state


def _read_checkpoint(path: Path) -> dict[str, Any]:
    """A resume checkpoint without its tensors, which stay on the disk."""
    import torch

    return torch.load(path, map_location="cpu", weights_only=True, mmap=True)


def render(status: Status) -> str:
    """The status as text of at most 80 columns."""
    return "\n".join([*_step_lines(status), *_error_lines(status), *_model_lines(status), *_stage_lines(status)])


def _step_lines(status: Status) -> Iterator[str]:
    yield status.results
    yield ""
    names = ("done", "excluded", "failed", "earlier", "pending", "shards")
    yield f"{'cohort':<12} {'step':<9}" + "".join(f"{name:>9}" for name in names)
    previous = ""
    for row in status.steps:
        name = "" if row.cohort == previous else row.cohort[:12]
        previous = row.cohort
        numbers = (row.done, row.excluded, row.failed, row.earlier, row.pending)
        shards = f"{row.shards_done}/{row.shards}" + ("!" if row.shards_failed else "")
        yield f"{name:<12} {row.step:<9}" + "".join(f"{n:>9,}" for n in numbers) + f"{shards:>9}"
    stopped = [row for row in status.steps if row.shards_failed]
    if stopped:
        yield "! stopped: more failures than max_failed_fraction allows, see status/<step>/<cohort>/*.failed.parquet"[
            :80
        ]
    yield "earlier: excluded or failed at an earlier step"


def _error_lines(status: Status) -> Iterator[str]:
    if not status.errors:
        return
    yield ""
    yield "failures"
    for error in status.errors[:10]:
        head = f"  {error.count:>5,} {error.step} {error.error_class}: "
        yield (head + " ".join(error.last_reason.split()))[:80]


def _model_lines(status: Status) -> Iterator[str]:
    yield ""
    yield f"{'model':<14}{'state':<13}{'epoch':>10}{'train loss':>12}{'val loss':>10}{'left':>14}"
    for model in status.models:
        epoch = "" if model.epoch is None else f"{model.epoch}" + (f"/{model.epochs}" if model.epochs else "")
        losses = ["" if v is None else f"{v:.4g}" for v in (model.train_loss, model.val_loss)]
        left = "" if model.eta_s is None else duration(model.eta_s)
        yield f"{model.name:<14}{model.state:<13}{epoch:>10}{losses[0]:>12}{losses[1]:>10}{left:>14}".rstrip()


def _stage_lines(status: Status) -> Iterator[str]:
    yield ""
    for label, wanted in (("written", True), ("not yet", False)):
        names = [name for name, done in status.stages.items() if done is wanted]
        if names:
            yield from textwrap.wrap(f"{label}: {', '.join(names)}", 80, subsequent_indent="  ")
