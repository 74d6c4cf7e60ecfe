"""One process or many: started by torchrun (or by SLURM through it), the same code runs as data-parallel workers."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

from braing3n.errors import BrainG3NError

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """This process among those that train together."""

    rank: int
    size: int
    device: torch.device

    @property
    def main(self) -> bool:
        return self.rank == 0


def pick_device(setting: str) -> torch.device:
    """`auto` takes the GPU if there is one."""
    if setting == "cuda" and not torch.cuda.is_available():
        raise BrainG3NError("no GPU is visible", file="device", found="cuda", remedy="set device: auto or cpu")
    if setting == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


@contextmanager
def process_group(setting: str) -> Iterator[Processes]:
    """Join the process group that torchrun's environment describes; without one, be the only process."""
    device = pick_device(setting)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Processes(0, 1, device)
        return
    # The main process evaluates and writes the card alone while the others wait: longer than the default ten minutes.
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=timedelta(hours=2))
    try:
        yield Processes(dist.get_rank(), dist.get_world_size(), device)
    finally:
        dist.destroy_process_group()


def share(items: Sequence[T]) -> Sequence[T]:
    """This process's part of a list of work; the parts of all processes are disjoint and complete."""
    if not dist.is_initialized():
        return items
    return items[dist.get_rank() :: dist.get_world_size()]


def mean_over_processes(sums: dict[str, float], count: float, device: torch.device | str = "cpu") -> dict[str, float]:
    """Means from each process's sums and count, equal on every process. Every process must call it with equal keys."""
    values = torch.tensor([*sums.values(), count], dtype=torch.float64, device=device)
    if dist.is_initialized():
        dist.all_reduce(values)
    *totals, count = values.tolist()
    return {key: total / count for key, total in zip(sums, totals, strict=True)}


def reduce_mean(numbers: dict[str, Tensor]) -> dict[str, Tensor]:
    """Scalars averaged over the processes, left on the device. Every process must call it with equal keys."""
    if not dist.is_initialized():
        return numbers
    values = torch.stack([value.float() for value in numbers.values()])
    dist.all_reduce(values)
    return dict(zip(numbers, values / dist.get_world_size(), strict=True))


def barrier() -> None:
    if dist.is_initialized():
        dist.barrier()
