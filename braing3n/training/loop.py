"""The training loop of all four trainings: data-parallel, mixed precision, averaged weights, exact resume.

`fit` reads from top to bottom; what a training is made of stands in `TrainingTask`. Every random choice is a pure
function of (seed, epoch) for the order of samples and of (seed, step, micro-batch) for everything else, so that a
resumed run needs no generator state, and k processes with n volumes each equal one process with k micro-batches of n.
"""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from braing3n.config.training import TrainSettings
from braing3n.errors import BrainG3NError, ResumeLater
from braing3n.files import write_parquet
from braing3n.models.transformer import Block
from braing3n.models.weights import load_card, save_model
from braing3n.training import seeds
from braing3n.training.card import build_card
from braing3n.training.checkpoint import FREE_SETTINGS, Checkpoints
from braing3n.training.distributed import Processes, barrier, mean_over_processes, process_group, reduce_mean
from braing3n.training.optimizer import learning_rate, make_ema, make_optimizer
from braing3n.training.prefetch import prefetched
from braing3n.training.progress import ProgressLog, kept_log
from braing3n.training.stop import StopRequest
from braing3n.training.task import TrainingTask

logger = logging.getLogger(__name__)

ORDER, DATA, LOSS = 1, 2, 3  # purposes of derived seeds


@dataclass
class Progress:
    """What changes during training beside weights and optimizer; kept in every checkpoint."""

    step: int = 0
    """Optimizer steps done."""
    finished: bool = False
    stopped_early: bool = False
    best_loss: float = math.inf
    best_step: int | None = None
    """Step whose weights had the lowest validation loss; None without validation."""
    best_epoch: int = 0
    """1-based epoch of the lowest loss, which early stopping counts from."""
    sums: dict[str, float] = field(default_factory=dict)
    """Training metrics summed over the steps of the epoch in progress."""
    history: list[dict] = field(default_factory=list)
    seconds: float = 0.0
    """Wall time of training steps and validation, over all runs."""
    step_seconds: float = 0.0
    """Of it, training steps alone."""


@dataclass
class Run:
    """One training in progress."""

    task: TrainingTask
    settings: TrainSettings
    processes: Processes
    checkpoints: Checkpoints
    network: nn.Module
    """The model as it is called: possibly compiled and wrapped for data parallelism."""
    optimizer: torch.optim.Optimizer
    ema: AveragedModel | None
    progress: Progress

    @property
    def local_batch(self) -> int:
        return self.settings.batch_size // self.processes.size

    @property
    def micro_batch(self) -> int:
        return min(self.settings.micro_batch_size or self.local_batch, self.local_batch)

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.task.n_train / self.settings.batch_size)

    @property
    def total_steps(self) -> int:
        return self.settings.epochs * self.steps_per_epoch

    @property
    def averaged(self) -> nn.Module:
        """The weights that are validated and saved."""
        return self.task.model if self.ema is None else self.ema.module

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.processes.device.type, torch.bfloat16, enabled=self.settings.precision == "bf16")


def fit(
    task: TrainingTask,
    settings: TrainSettings,
    out: str | Path,
    *,
    name: str,
    data_hash: str,
    architecture: dict[str, Any],
) -> dict[str, Any]:
    """Train `task.model`, or resume, and write `model.safetensors`, `card.json` and `history.parquet` to `out`.

    The weights written are those with the lowest validation loss (EMA weights when `ema_decay` is set), or the last
    ones when there is nothing to validate on. Early stopping then counts epochs without a lower training loss.

    Args:
        task: model, samples, loss, validation.
        settings: the four trainings' common settings.
        out: folder of the model; resume state lies in `out/checkpoints`.
        name: `mae`, `tokenizer`, `dit` or `longitudinal`, for the card.
        data_hash: hash of the training data; a resume demands the same.
        architecture: what the card keeps to rebuild the model.

    Returns:
        The card (docs/data-contract.md, "Weights").

    Raises:
        BrainG3NError: a non-finite loss; a batch that the processes cannot share; resume state of another training.
        ResumeLater: stopped by a signal or the job's time limit, after a checkpoint.
    """
    out = Path(out)
    identity = {
        "settings": settings.model_dump(mode="json", exclude=FREE_SETTINGS),
        "architecture": architecture,
        "data_hash": data_hash,
    }
    with (
        process_group(settings.device) as processes,
        kept_log(out / "training.log" if processes.main else None),
        StopRequest(settings.stop_before_s) as stop,
    ):
        run = prepare(task, settings, processes, Checkpoints(out / "checkpoints", settings.keep_last, identity))
        shown = out / "tensorboard" if processes.main else None
        with ProgressLog(name, run.total_steps, run.progress.step, settings.batch_size, shown) as log:
            settle_buckets(run)
            first_epoch = run.progress.step // run.steps_per_epoch
            for epoch in range(first_epoch, settings.epochs):
                if run.progress.finished:
                    break
                stopping = train_epoch(run, epoch, stop, log)
                if run.progress.step == (epoch + 1) * run.steps_per_epoch:
                    close_epoch(run, epoch, log)
                if stopping and not run.progress.finished:
                    save(run)
                    reason = stop.reason or "asked for by another process"
                    done = f"{name}: stopped after step {run.progress.step} of {run.total_steps} ({reason})"
                    logger.info(done)
                    raise ResumeLater(f"{done}; run again to continue")
        return finish(run, out, name, data_hash, architecture)


def prepare(task: TrainingTask, settings: TrainSettings, processes: Processes, checkpoints: Checkpoints) -> Run:
    """Model, optimizer and averages on the device, with the newest checkpoint's state if there is one."""
    if task.n_train < 1:
        raise BrainG3NError("no training samples", expected="at least one", remedy="see which rows have split == train")
    if settings.batch_size % processes.size:
        raise BrainG3NError(
            "cannot share a batch equally",
            file="train.batch_size",
            expected=f"a multiple of {processes.size} processes",
            found=str(settings.batch_size),
        )
    model = task.model.to(processes.device).train()
    optimizer = make_optimizer(model, settings)
    ema = make_ema(model, settings.ema_decay)
    progress = Progress()
    state = checkpoints.load()
    barrier()  # nobody clears what another has yet to read
    if state is not None:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        if ema is not None:
            ema.load_state_dict(state["ema"])
        progress = Progress(**state["progress"])
        logger.info("resuming after step %d", progress.step)
    elif processes.main:
        checkpoints.clear()
    if settings.compile:  # block by block: equal blocks share one compilation, and no key of the state dict changes
        for part in [m for m in model.modules() if isinstance(m, Block)] or [model]:
            part.compile()
    network = model
    if processes.size > 1:
        network = DistributedDataParallel(model, forward_sync_buffers=False, gradient_as_bucket_view=True)
    return Run(task, settings, processes, checkpoints, network, optimizer, ema, progress)


def settle_buckets(run: Run) -> None:
    """One backward pass whose gradients are thrown away.

    After the first pass, data parallelism lays the gradients out anew in the buckets that processes exchange, and sums
    of more than two processes depend on that layout: without this, a resumed run's first step would add in another
    order than the same step of an uninterrupted run.
    """
    if run.processes.size == 1 or run.progress.finished:
        return
    with closing(micro_batches(run, 0, range(1))) as feed:
        number, _, batch = next(feed)
    with run.autocast():
        random = seeds.generator(run.processes.device, run.settings.seed, LOSS, 0, number)
        loss, _ = run.task.loss(run.network, batch, random)
    loss.backward()
    run.optimizer.zero_grad(set_to_none=True)


def epoch_order(run: Run, epoch: int) -> np.ndarray:
    """Sample indices of every step: (steps_per_epoch, batch_size), a pure function of seed and epoch.

    Each sample comes once; the last batch is filled up from the epoch's start. With sample weights they are drawn.
    """
    rng = np.random.default_rng((run.settings.seed, ORDER, epoch))
    shape = (run.steps_per_epoch, run.settings.batch_size)
    weights = run.task.sample_weights
    if weights is None:
        return np.resize(rng.permutation(run.task.n_train), shape)
    return rng.choice(run.task.n_train, size=shape, p=weights / weights.sum())


def micro_batches(run: Run, epoch: int, steps: range) -> Iterator[tuple[int, int, Any]]:
    """(index over all processes, number of samples, batch) of every micro-batch of this process, in order."""
    processes, order = run.processes, epoch_order(run, epoch)
    starts = range(0, run.local_batch, run.micro_batch)

    def make(item: tuple[int, int]) -> tuple[int, int, Any]:
        step, start = item
        first = processes.rank * run.local_batch
        indices = order[step % run.steps_per_epoch, first : first + run.local_batch][start : start + run.micro_batch]
        number = processes.rank * len(starts) + start // run.micro_batch
        random = seeds.generator("cpu", run.settings.seed, DATA, step, number)
        return number, len(indices), run.task.batch(indices, processes.device, random)

    # Reading ahead pays where another device computes; on the CPU it would only compete for the cores.
    threads = run.settings.workers if processes.device.type == "cuda" else 0
    return prefetched(make, itertools.product(steps, starts), threads)


def train_epoch(run: Run, epoch: int, stop: StopRequest, log: ProgressLog) -> bool:
    """The steps of one epoch that are still to do. True if training is to stop here.

    A step's numbers are read only once the next step is queued, so that the device never waits for the host.
    """
    progress = run.progress
    steps = range(progress.step, (epoch + 1) * run.steps_per_epoch)
    per_step = math.ceil(run.local_batch / run.micro_batch)
    began = time.monotonic()
    queued: list[tuple[int, dict[str, Tensor]]] = []
    stopping = False
    with closing(micro_batches(run, epoch, steps)) as feed:
        for step in steps:
            numbers = train_step(run, step, itertools.islice(feed, per_step))
            numbers["stop"] = torch.full((), float(stop.requested()), device=run.processes.device)
            queued.append((step, reduce_mean(numbers)))
            progress.step = step + 1
            if len(queued) > 1:
                stopping = record_step(run, *queued.pop(0), log)
            if stopping:
                break
    for step, numbers in queued:
        stopping |= record_step(run, step, numbers, log)
    progress.step_seconds += time.monotonic() - began
    progress.seconds += time.monotonic() - began
    return stopping


def train_step(run: Run, step: int, batches: Iterable[tuple[int, int, Any]]) -> dict[str, Tensor]:
    """One optimizer step over this process's micro-batches -> scalars on the device, not yet read."""
    settings, device = run.settings, run.processes.device
    for group in run.optimizer.param_groups:
        group["lr"] = learning_rate(settings, step, run.total_steps)
    run.optimizer.zero_grad(set_to_none=True)
    totals: dict[str, Tensor] = {}
    done = 0
    for number, size, batch in batches:
        done += size
        weight = size / run.local_batch  # gradients of weighted means add up to that of the batch's mean
        hold = isinstance(run.network, DistributedDataParallel) and done < run.local_batch
        with run.network.no_sync() if hold else nullcontext():  # processes exchange gradients once a step
            with run.autocast():
                random = seeds.generator(device, settings.seed, LOSS, step, number)
                loss, metrics = run.task.loss(run.network, batch, random)
            (loss * weight).backward()
        for key, value in {"loss": loss, **metrics}.items():
            totals[key] = totals.get(key, 0) + weight * value.detach().float()
    trained = [p for p in run.task.model.parameters() if p.grad is not None]
    norm = nn.utils.get_total_norm([p.grad for p in trained])
    if settings.clip_norm is not None:
        nn.utils.clip_grads_with_norm_(trained, settings.clip_norm, norm)
    run.optimizer.step()
    if run.ema is not None:
        run.ema.update_parameters(run.task.model)
    return {**totals, "grad_norm": norm}


def record_step(run: Run, step: int, numbers: dict[str, Tensor], log: ProgressLog) -> bool:
    """Read a step's numbers (waits for the device) and add them to the epoch's sums. True if a process is to stop.

    Raises:
        BrainG3NError: loss or gradient is not finite. Weights on disk are still those of the last checkpoint.
    """
    values = dict(zip(numbers, torch.stack(list(numbers.values())).tolist(), strict=True))
    stopping = values.pop("stop") > 0
    if not (math.isfinite(values["loss"]) and math.isfinite(values["grad_norm"])):
        raise BrainG3NError(
            f"training diverged at step {step + 1}",
            file=run.checkpoints.folder,
            found=f"loss {values['loss']}, gradient norm {values['grad_norm']}",
            remedy="the last checkpoint is kept; lower train.learning_rate, set train.clip_norm, or train in fp32",
        )
    for key, value in values.items():
        run.progress.sums[key] = run.progress.sums.get(key, 0.0) + value
    log.step(step + 1, values["loss"])
    return stopping


def close_epoch(run: Run, epoch: int, log: ProgressLog) -> None:
    """Record the epoch, validate, keep the best weights, decide whether to go on, checkpoint; each when it is due."""
    settings, progress = run.settings, run.progress
    began = time.monotonic()
    train = {key: total / run.steps_per_epoch for key, total in progress.sums.items()}
    train["learning_rate"] = learning_rate(settings, progress.step - 1, run.total_steps)
    progress.sums = {}
    rows = history_rows(progress.step, epoch, "train", train)
    last = epoch + 1 == settings.epochs
    if last or (epoch + 1) % settings.validate_every == 0:
        val = validate(run)
        rows += history_rows(progress.step, epoch, "val", val)
        loss = val.get("loss", train["loss"])
        if loss < progress.best_loss:
            progress.best_loss, progress.best_epoch = loss, epoch + 1
            if val:
                progress.best_step = progress.step
                if run.processes.main:
                    run.checkpoints.save_best(progress.step, run.averaged.state_dict())
        progress.stopped_early = (
            not last and settings.patience is not None and epoch + 1 - progress.best_epoch >= settings.patience
        )
    progress.history += rows
    log.epoch(epoch + 1, rows)
    progress.finished = last or progress.stopped_early
    progress.seconds += time.monotonic() - began
    if progress.finished or (epoch + 1) % settings.checkpoint_every == 0:
        save(run)


def history_rows(step: int, epoch: int, split: str, metrics: dict[str, float]) -> list[dict]:
    common = {"step": step, "epoch": epoch + 1, "split": split}
    return [{**common, "metric": metric, "value": value} for metric, value in metrics.items()]


def validate(run: Run) -> dict[str, float]:
    """The task's validation metrics, equal on every process to the last bit: all must decide alike."""
    model = run.averaged.eval()
    with torch.no_grad(), run.autocast():
        metrics = run.task.validate(model, run.processes.device)
    model.train()
    return mean_over_processes(metrics, 1, run.processes.device) if metrics else {}


def save(run: Run) -> None:
    """Write the resume state, from the main process."""
    if run.processes.main:
        state = {
            "model": run.task.model.state_dict(),
            "optimizer": run.optimizer.state_dict(),
            "ema": None if run.ema is None else run.ema.state_dict(),
            "progress": asdict(run.progress),
        }
        run.checkpoints.save(run.progress.step, state, run.progress.best_step)
    barrier()


def finish(run: Run, out: Path, name: str, data_hash: str, architecture: dict[str, Any]) -> dict[str, Any]:
    """Write history, weights and card from the main process; the card comes last and implies the rest."""
    if run.processes.main:
        model = run.averaged.eval()
        if run.progress.best_step is not None:
            model.load_state_dict(run.checkpoints.load_best(run.progress.best_step))
        with torch.no_grad(), run.autocast():
            run.task.calibrate(model, run.processes.device)
            checks = run.task.checks(run.progress.history, model, run.processes.device)
        write_parquet(out / "history.parquet", pd.DataFrame(run.progress.history))
        save_model(model, build_card(run, name, data_hash, architecture, checks), out)
    barrier()
    return load_card(out)
