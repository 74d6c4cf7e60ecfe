"""What the training loop asks of a model and its data: the four trainings differ in nothing else."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn


class TrainingTask(Protocol):
    """A model, its training samples, its loss and its validation. Subclass it to inherit the defaults.

    Randomness comes from the generators that the loop hands in, and from nothing else: they are seeded by (seed, step,
    micro-batch), which makes a resumed run equal an uninterrupted one and two processes equal one.
    """

    model: nn.Module
    """Trained as it is: parameters with `requires_grad` False stay frozen; its whole state dict is saved."""
    n_train: int
    """Training samples; `batch` takes indices into them."""
    sample_weights: np.ndarray | None = None
    """(n_train,) relative frequencies of the samples; None takes each once an epoch."""
    flops_per_sample: float | None = None
    """Training FLOPs (forward and backward) of a sample, for the reported TFLOP/s."""

    def batch(self, indices: np.ndarray, device: torch.device, generator: torch.Generator) -> Any:
        """Training samples by index, on the device. May run in a thread ahead of the step that uses it.

        `generator` lies on the CPU and serves augmentation and other random choices about data.
        """
        ...

    def loss(self, model: nn.Module, batch: Any, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Scalar loss, a mean over samples, and detached scalar tensors to be recorded.

        `model` may be wrapped (DDP, compiled): call `model(...)`, never one of its methods. `generator` lies on the
        batch's device. Runs under autocast.
        """
        ...

    def validate(self, model: nn.Module, device: torch.device) -> dict[str, float]:
        """Metrics with the key "loss", of the EMA weights when EMA is on; `{}` when there is nothing to validate on.

        Deterministic: seeds of its own, fixed. Runs in eval mode, without gradients, under autocast, on every process,
        and must return the same everywhere: either compute everything on each, or share the work with
        `braing3n.training.distributed.mean_over_processes`.
        """
        ...

    def calibrate(self, model: nn.Module, device: torch.device) -> None:
        """Set buffers that follow from the trained weights, such as statistics of their output; by default none.

        `model` carries the weights that are about to be checked and saved, in eval mode, without gradients. Runs on the
        main process only.
        """

    def checks(self, history: list[dict], model: nn.Module, device: torch.device) -> list[dict]:
        """What shows that the training learned, for the card: `{name, value, baseline, passed, detail}` each.

        `history` has rows `{step, epoch, split, metric, value}`; `model` carries the weights that are saved, in eval
        mode. Runs on the main process only.
        """
        ...
