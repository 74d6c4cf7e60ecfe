"""Integrate dx/dt = v(x, t) over a grid of times, in either direction."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Literal

from torch import Tensor

Velocity = Callable[[Tensor, Tensor], Tensor]
Solver = Literal["euler", "heun"]


def integrate(velocity: Velocity, x: Tensor, times: Tensor, solver: Solver = "euler") -> Tensor:
    """State at the last time of the grid, starting from `x` at its first.

    Noise becomes data on a grid that falls from 1 to 0, a baseline becomes a follow-up on one that rises from 0 to 1.
    Euler is of first order and costs one evaluation a step (the paper's); Heun is of second order and costs two.

    Args:
        velocity: (x (B, ...), t (B,)) -> (B, ...).
        x: (B, ...), the state at `times[0]`.
        times: (steps + 1,), monotonic; see `braing3n.flow.times.sampling_grid`.
    """
    for now, then in pairwise(times.tolist()):
        step = then - now
        slope = velocity(x, x.new_full((x.shape[0],), now))  # (B, ...)
        if solver == "heun":
            ahead = velocity(x + step * slope, x.new_full((x.shape[0],), then))  # (B, ...)
            slope = (slope + ahead) / 2
        x = x + step * slope
    return x
