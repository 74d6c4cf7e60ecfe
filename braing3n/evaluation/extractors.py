"""Feature extractors of the Fréchet distances: Inception-V3 on 2D slices, our own encoder on volumes.

Slices are cut from z-scored volumes with one intensity window for all sets: a window of each image's own would hide the
very differences that are measured.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from braing3n.errors import BrainG3NError
from braing3n.files import sha256_of
from braing3n.models.mae import MaskedAutoencoder

VIEWS = ("sagittal", "coronal", "axial")  # slices across x, y and z of the SRI24 grid
INCEPTION_SIDE = 299


def robust_window(volumes: Tensor) -> tuple[float, float]:
    """0.5 and 99.5 percentile of the brain voxels of z-scored volumes (B, 1, X, Y, Z), whose background is 0."""
    brain = volumes[volumes != 0].double().numpy()
    low, high = np.quantile(brain, [0.005, 0.995])
    return float(low), float(high)


def central_slices(volumes: Tensor, per_view: int, window: tuple[float, float]) -> list[Tensor]:
    """The central slices across each axis, windowed to [0, 1] with a black background.

    Args:
        volumes: (B, 1, X, Y, Z) z-scored, background 0.

    Returns:
        For each view (B, per_view, H, W).
    """
    low, high = window
    shown = ((volumes[:, 0] - low) / (high - low)).clamp(0, 1) * (volumes[:, 0] != 0)
    result = []
    for axis in (1, 2, 3):
        start = (shown.shape[axis] - per_view) // 2
        result.append(shown.narrow(axis, start, per_view).movedim(axis, 1))
    return result


class InceptionSlices:
    """Inception-V3 pooled features (2048) of central slices, from a TorchScript file.

    The file is `inception-2015-12-05.pt` as published with StyleGAN2-ADA and StyleGAN3 by NVIDIA, the network of the
    original FID. It is called as `model(images, return_features=True)` on RGB images in 0..255.

    Raises:
        BrainG3NError: no such file, or it is not a TorchScript module.
    """

    name, views = "inception", VIEWS

    def __init__(self, path: str | Path, per_view: int, device: torch.device | str = "cpu"):
        path = Path(path)
        if not path.exists():
            raise BrainG3NError(
                "Inception weights are missing",
                file=path,
                remedy="put NVIDIA's inception-2015-12-05.pt there and set frechet.inception_weights",
            )
        try:
            self.model = torch.jit.load(str(path), map_location=device).eval()
        except RuntimeError as error:
            raise BrainG3NError("is not a TorchScript module", file=path, found=str(error).splitlines()[0]) from error
        self.per_view, self.device, self.sha256 = per_view, device, sha256_of(path)

    @torch.no_grad()
    def features(self, volumes: Tensor, window: tuple[float, float]) -> np.ndarray:
        """(B, 1, X, Y, Z) z-scored -> (B, 3 per_view, 2048), the views in the order of VIEWS."""
        parts = []
        for slices in central_slices(volumes.to(self.device), self.per_view, window):
            B, S = slices.shape[:2]
            images = slices.reshape(B * S, 1, *slices.shape[2:])  # (B S, 1, H, W)
            side = (INCEPTION_SIDE, INCEPTION_SIDE)
            images = F.interpolate(images, side, mode="bilinear", antialias=True, align_corners=False)
            images = (images * 255).clamp(0, 255).repeat(1, 3, 1, 1)  # (B S, 3, 299, 299)
            parts.append(self.model(images, return_features=True).reshape(B, S, -1))
        return torch.cat(parts, dim=1).float().cpu().numpy()


class MAEVolumes:
    """Mean token of our own encoder, one vector a volume. It favours what our models make: read it beside others."""

    name, views = "mae", ()

    def __init__(self, model: MaskedAutoencoder, device: torch.device | str = "cpu"):
        self.model, self.device = model, device

    @torch.no_grad()
    def features(self, volumes: Tensor, window: tuple[float, float]) -> np.ndarray:
        """(B, 1, X, Y, Z) z-scored -> (B, 1, D); the window is not used."""
        return self.model.encode(volumes.to(self.device)).mean(dim=1, keepdim=True).float().cpu().numpy()
