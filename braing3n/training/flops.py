"""Floating-point operations of a forward pass, counted without computing anything."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def forward_flops(model: nn.Module, *shapes: tuple[int, ...], integers: tuple[int, ...] = ()) -> int:
    """FLOPs (two a multiply-add) of `model` on float32 inputs of the given shapes; `integers` are int64 instead."""
    copied = copy.deepcopy(model).to("meta")
    inputs = [
        torch.zeros(shape, dtype=torch.int64 if i in integers else torch.float32, device="meta")
        for i, shape in enumerate(shapes)
    ]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        copied(*inputs)
    return counter.get_total_flops()
