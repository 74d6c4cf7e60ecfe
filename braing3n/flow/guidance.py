"""Classifier-free guidance (Ho and Salimans 2021; paper, section 2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from braing3n.flow.solvers import Velocity

C = TypeVar("C")


def guided(
    model: Callable[[Tensor, Tensor, C], Tensor],
    conditions: C,
    unconditional: C,
    join: Callable[[C, C], C],
    scale: float,
) -> Velocity:
    """Velocity v_uncond + scale (v_cond - v_uncond), both branches in one evaluation of twice the batch.

    At scale 1 only the conditional branch is evaluated, at scale 0 only the unconditional one.

    Args:
        model: (x (B, ...), t (B,), conditions of B samples) -> velocity (B, ...).
        unconditional: the same conditions with every droppable one null.
        join: puts two sets of conditions behind each other along the batch.
    """
    if scale in (0.0, 1.0):
        single = conditions if scale == 1.0 else unconditional
        return lambda x, t: model(x, t, single)
    both = join(conditions, unconditional)

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        doubled = model(torch.cat([x, x]), torch.cat([t, t]), both)  # (2B, ...)
        with_conditions, without = doubled.chunk(2)  # (B, ...) each
        return without + scale * (with_conditions - without)

    return velocity
