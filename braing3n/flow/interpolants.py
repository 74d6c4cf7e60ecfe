"""Paths between two ends and their velocities, in the one convention of this package.

| path | t = 0 | t = 1 | x_t | velocity | sampling |
|---|---|---|---|---|---|
| `linear` | data | noise | (1-t) data + t noise | noise - data | 1 to 0 |
| `bridge` | baseline | follow-up | (1-t) baseline + t follow-up + sigma sqrt(t (1-t)) noise | see there | 0 to 1 |

The paper's equation 2 is `linear` with its data latent written x_1. For the bridge, the paper's formula puts the
baseline at t = 0, while the sentence after it puts the baseline at t = 1; the formula is followed here.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from braing3n.errors import BrainG3NError

BridgeTarget = Literal["difference", "exact"]


def per_sample(t: Tensor, like: Tensor) -> Tensor:
    """Times (B,) -> (B, 1, ..., 1), to broadcast over the other axes of `like`."""
    return t.reshape(-1, *(1,) * (like.ndim - 1)).to(like.dtype)


def linear(data: Tensor, noise: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Point on the straight path from data to noise, and its velocity (paper, equation 2).

    Args:
        data, noise: (B, ...).
        t: (B,) in [0, 1].

    Returns:
        x_t and velocity, both (B, ...).
    """
    time = per_sample(t, data)
    return torch.lerp(data, noise, time), noise - data


def bridge(
    baseline: Tensor, follow_up: Tensor, noise: Tensor, t: Tensor, sigma: float, target: BridgeTarget = "difference"
) -> tuple[Tensor, Tensor]:
    """Point on the bridge from baseline to follow-up, and the velocity to learn there (paper, section 3.4).

    `difference` learns follow-up - baseline, as the paper's text suggests. `exact` learns the interpolant's own time
    derivative, follow-up - baseline + sigma (1-2t) / (2 sqrt(t (1-t))) noise (Albergo, Boffi, Vanden-Eijnden 2023,
    "Stochastic interpolants"): only its conditional mean carries the baselines' distribution onto the follow-ups'.
    Its variance is unbounded at both ends, so the times of the two ends themselves are refused.

    Args:
        baseline, follow_up, noise: (B, ...).
        t: (B,) in [0, 1]; in (0, 1) for `exact`.

    Returns:
        x_t and target velocity, both (B, ...).
    """
    time = per_sample(t, baseline)
    envelope = (time * (1 - time)).sqrt()
    position = torch.lerp(baseline, follow_up, time) + sigma * envelope * noise
    difference = follow_up - baseline
    if target == "difference":
        return position, difference
    if bool(((t <= 0) | (t >= 1)).any()):
        raise BrainG3NError("the exact bridge velocity does not exist at the ends", expected="0 < t < 1")
    return position, difference + sigma * (1 - 2 * time) / (2 * envelope) * noise
