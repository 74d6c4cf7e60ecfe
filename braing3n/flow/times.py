"""When to train and where to step: times in [0, 1], drawn at random or laid on a grid."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor


def shift_times(t: Tensor, shift: float) -> Tensor:
    """Move times towards t = 1 for shift > 1, keeping 0 and 1 in place (Esser et al. 2024, section 5.3.2)."""
    return shift * t / (1 + (shift - 1) * t)


def sample_times(
    n: int,
    generator: torch.Generator,
    distribution: Literal["uniform", "logit-normal"] = "uniform",
    shift: float = 1.0,
) -> Tensor:
    """Draw `n` training times in the open interval (0, 1), float32 (n,), on the generator's device.

    Uniform is the paper's; logit-normal(0, 1) gives the middle of the path more weight (Esser et al. 2024).
    """
    if distribution == "uniform":
        t = torch.rand(n, generator=generator, device=generator.device)
    else:
        t = torch.randn(n, generator=generator, device=generator.device).sigmoid()
    edge = torch.finfo(torch.float32).eps  # rand may give 0, and the exact bridge velocity is unbounded there
    return shift_times(t, shift).clamp(edge, 1 - edge)


def sampling_grid(steps: int, start: float, end: float, shift: float = 1.0) -> Tensor:
    """Times of `steps` equal steps from `start` to `end`, shifted as in training. Shape (steps + 1,), float64."""
    return shift_times(torch.linspace(start, end, steps + 1, dtype=torch.float64), shift)
