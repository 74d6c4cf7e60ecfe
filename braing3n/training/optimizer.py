"""AdamW with its parameter groups, the learning rate of every step, and the averaged weights."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from braing3n.config.training import TrainSettings


def make_optimizer(model: nn.Module, settings: TrainSettings) -> torch.optim.AdamW:
    """Fused AdamW on the parameters that are trained; biases, norms and other vectors are not decayed."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=settings.learning_rate, betas=settings.betas, fused=True
    )


def learning_rate(settings: TrainSettings, step: int, total_steps: int) -> float:
    """Rate of the 0-based `step`: linear warm-up, then a cosine to `final_lr_fraction`, or constant."""
    warmup = round(settings.warmup_fraction * total_steps)
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    if settings.schedule == "constant":
        return settings.learning_rate
    progress = (step - warmup) / max(1, total_steps - warmup)
    floor = settings.final_lr_fraction
    return settings.learning_rate * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress)))


def make_ema(model: nn.Module, decay: float | None) -> AveragedModel | None:
    """Exponential moving average of the weights in float32.

    The decay grows as (1 + n) / (10 + n) with the updates n up to `decay`: with 0.9999 from the start, the random
    initial weights would still make up a tenth of the average after 23,000 steps.
    """
    if decay is None:
        return None

    def update(averaged, current, n_averaged) -> None:
        n = int(n_averaged)  # lies on the CPU
        get_ema_multi_avg_fn(min(decay, (1 + n) / (10 + n)))(averaged, current, n)

    return AveragedModel(model, multi_avg_fn=update)
