"""Flow matching on latents: what the conditional and the longitudinal training share (docs/flow.md)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from braing3n.config.training import ConditionDropout, TimeSettings
from braing3n.flow.times import sample_times
from braing3n.models.conditions import Conditions, drop_conditions, droppable, null_frequencies
from braing3n.models.dit import DiT
from braing3n.training import seeds
from braing3n.training.distributed import mean_over_processes, share
from braing3n.training.flops import forward_flops
from braing3n.training.mae import split_batches
from braing3n.training.task import TrainingTask

Ends = tuple[Tensor, ...]
Path = Callable[[Ends, Tensor, Tensor], tuple[Tensor, Tensor]]
"""(known ends (B, N, L) each, noise (B, N, L), times (B,)) -> position and velocity, (B, N, L) each."""

VALIDATION = 5  # purpose of derived seeds; the loop uses 1 to 3, the MAE 4
VALIDATION_DRAWS = 64  # times and noises at least, so that a handful of validation samples give a steady loss
MEAN_SAMPLES = 4096  # training samples behind the mean velocity


@dataclass(frozen=True)
class FlowSamples:
    """Samples of one split."""

    ends: Callable[[np.ndarray, torch.device], Ends]
    """Indices -> the normalised latents that the samples' paths run between, (B, N, L) each, on the device."""
    conditions: Conditions

    def __len__(self) -> int:
        return len(self.conditions)


class FlowTask(TrainingTask):
    """Mean squared error of the velocity at random times on a path, under randomly dropped conditions.

    Args:
        model: the diffusion transformer.
        path: where a sample is at a time, and its velocity there.
        train, val: samples; `val` may be empty.
        time, dropout: distributions of times and of dropped conditions.
        batch_size: samples a forward pass of validation.
        seed: of validation times and noise, the same in every epoch.
        constants: velocities that need no network, by name, which the check compares with; the mean over training
            samples at each token and channel, the best of its kind, is always among them.
    """

    def __init__(
        self,
        model: DiT,
        path: Path,
        train: FlowSamples,
        val: FlowSamples,
        *,
        time: TimeSettings,
        dropout: ConditionDropout,
        batch_size: int,
        seed: int,
        constants: Mapping[str, float] | None = None,
    ):
        self.model, self.path, self.train, self.val = model, path, train, val
        self.time, self.dropout, self.batch_size, self.seed = time, dropout, batch_size, seed
        self.constants = dict(constants or {})
        self.may_drop = droppable(model.vocabulary, model.never_dropped)
        self.n_train = len(train)
        tokens, columns = (1, model.tokens, model.arch.latent), (1, len(model.vocabulary.names))
        self.flops_per_sample = 3.0 * forward_flops(model, tokens, (1,), columns, columns, integers=(3,))

    def batch(self, indices: np.ndarray, device: torch.device, generator: torch.Generator) -> tuple[Ends, Conditions]:
        conditions = drop_conditions(
            self.train.conditions.take(indices),
            self.may_drop,
            self.dropout.independent,
            self.dropout.joint,
            generator,
        )
        return self.train.ends(indices, device), conditions.to(device)

    def loss(
        self, model: nn.Module, batch: tuple[Ends, Conditions], generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean squared error, and the shares of null conditions that came out of the dropout."""
        ends, conditions = batch
        x, t, velocity = self.draw(ends, generator)  # (B, N, L), (B,), (B, N, L)
        predicted = model(x, t, conditions.values, conditions.state)  # (B, N, L)
        metrics = null_frequencies(conditions, self.model.vocabulary, self.may_drop)
        return squared_error(predicted, velocity).mean(), metrics

    def draw(self, ends: Ends, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Random times and noise -> positions (B, N, L), times (B,), velocities (B, N, L)."""
        noise = torch.randn(ends[0].shape, generator=generator, device=generator.device)
        t = sample_times(len(noise), generator, self.time.distribution, self.time.shift)
        position, velocity = self.path(ends, noise, t)
        return position, t, velocity

    def validate(self, model: nn.Module, device: torch.device) -> dict[str, float]:
        """Velocity error on the validation samples, no condition dropped, shared among the processes."""
        if len(self.val) == 0:
            return {}
        total, count = 0.0, 0
        for number, indices in share(self.draws(self.val)):
            errors, _ = self.errors(model, self.val, number, indices, device)
            total, count = total + float(errors.sum()), count + len(indices)
        return mean_over_processes({"loss": total}, count, device)

    def draws(self, samples: FlowSamples) -> list[tuple[int, np.ndarray]]:
        """(number, indices) of the batches of a validation: all samples, often enough for `VALIDATION_DRAWS`."""
        order = np.tile(np.arange(len(samples)), math.ceil(VALIDATION_DRAWS / len(samples)))
        return [(number, order[at]) for number, at in enumerate(split_batches(len(order), self.batch_size))]

    def errors(
        self, model: nn.Module, samples: FlowSamples, number: int, indices: np.ndarray, device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """Errors (B,) of the model in one batch of a validation, and the velocities (B, N, L) that were right."""
        ends, conditions = samples.ends(indices, device), samples.conditions.take(indices).to(device)
        x, t, velocity = self.draw(ends, seeds.generator(device, self.seed, VALIDATION, number))
        return squared_error(model(x, t, conditions.values, conditions.state), velocity), velocity

    def checks(self, history: list[dict], model: nn.Module, device: torch.device) -> list[dict]:
        """Velocity error against that of constant velocities, and the course of the training loss."""
        samples, of = (self.val, "validation") if len(self.val) else (self.train, "training (no validation samples)")
        constants = {"mean velocity": self.mean_velocity(device), **self.constants}
        totals = dict.fromkeys(["model", *constants], 0.0)
        count = 0
        for number, indices in self.draws(samples):
            errors, velocity = self.errors(model, samples, number, indices, device)
            totals["model"] += float(errors.sum())
            for name, constant in constants.items():
                totals[name] += float(squared_error(velocity, constant).sum())
            count += len(indices)
        value = totals["model"] / count
        plural = "" if len(samples) == 1 else "s"
        detail = (
            f"mean squared error of the velocity, {len(samples)} {of} sample{plural}, {count} draws of time and noise"
        )
        below = [
            {
                "name": f"velocity error below that of the {name}",
                "value": value,
                "baseline": totals[name] / count,
                "passed": value < totals[name] / count,
                "detail": detail,
            }
            for name in constants
        ]
        return [*below, loss_fell(history)]

    def mean_velocity(self, device: torch.device) -> Tensor:
        """(N, L): mean over training samples at each token and channel. The noise has mean 0 and is left out."""
        chosen = np.sort(np.random.default_rng(self.seed).permutation(self.n_train)[:MEAN_SAMPLES])
        total = torch.zeros(self.model.tokens, self.model.arch.latent, device=device)
        for positions in split_batches(len(chosen), self.batch_size):
            ends = self.train.ends(chosen[positions], device)
            middle = torch.full((len(positions),), 0.5, device=device)
            total += self.path(ends, torch.zeros_like(ends[0]), middle)[1].sum(dim=0)
        return total / len(chosen)


def squared_error(predicted: Tensor, velocity: Tensor | float) -> Tensor:
    """Mean squared error of each sample: (B, N, L) twice -> (B,) float32."""
    return (predicted.float() - velocity).square().mean(dim=(1, 2))


def loss_fell(history: list[dict]) -> dict:
    """Check that the training loss of the last tenth of the epochs lies below that of the first epoch."""
    losses = [row["value"] for row in history if row["split"] == "train" and row["metric"] == "loss"]
    tail = losses[-max(1, len(losses) // 10) :]
    value = sum(tail) / len(tail)
    return {
        "name": "training loss fell",
        "value": value,
        "baseline": losses[0],
        "passed": value < losses[0],
        "detail": f"mean of the last {len(tail)} of {len(losses)} epochs against the first",
    }
