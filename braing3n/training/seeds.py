"""Seeds as pure functions of what they are for: no generator state needs saving or sharing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derive(*keys: int) -> int:
    """A seed (63 bits) from non-negative integers such as (seed, purpose, step, micro-batch)."""
    return int(np.random.SeedSequence(keys).generate_state(1, np.uint64)[0] >> 1)


def generator(device: torch.device | str, *keys: int) -> torch.Generator:
    """A generator on `device`, seeded by `derive(*keys)`."""
    return torch.Generator(device=device).manual_seed(derive(*keys))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run a block, such as the construction of a model, under a fixed global seed; the state before is put back."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
