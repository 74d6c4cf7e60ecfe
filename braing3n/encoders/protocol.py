"""What a frozen encoder is to the probes: intensities and a brain mask in, one vector a volume and pooling out."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

TWIN_SEED = 2025  # of the fresh weights of every untrained control
FRESH = "fresh weights, none loaded"


class Encoder(Protocol):
    """A frozen encoder with the preprocessing it was trained with.

    Shapes: B batch; volumes (B, 1, 160, 192, 160) on the SRI24 grid, registered and skull-stripped.
    """

    name: str
    dimension: int
    licence: str
    citation: str
    keys: str
    """Report of the loading, which is strict: how many weights were used and which heads were left out."""
    poolings: tuple[str, ...]
    """The first is the published one and goes into the column `feature`, the others into `feature_<pooling>`."""

    def preprocess(self, volumes: Tensor, brain: Tensor) -> Tensor:
        """Intensities (B, 1, X, Y, Z) float32 and brain mask, bool of the same shape -> the encoder's own input."""
        ...

    def features(self, batch: Tensor) -> dict[str, Tensor]:
        """Preprocessed batch -> (B, dimension) for every pooling."""
        ...


def z_score_brain(volumes: Tensor, brain: Tensor) -> Tensor:
    """Zero mean and unit variance over the brain's voxels, 0 outside. (B, 1, X, Y, Z), bool of that shape."""
    axes = (1, 2, 3, 4)
    count = brain.sum(axes, keepdim=True).clamp(min=1)
    mean = (volumes * brain).sum(axes, keepdim=True, dtype=torch.float64) / count
    centred = (volumes - mean.float()) * brain
    std = (centred.square().sum(axes, keepdim=True, dtype=torch.float64) / count).sqrt()
    return centred / std.clamp(min=1e-12).float()
