"""Random changes of z-scored training volumes, on their device. The paper uses none; every default is none."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from braing3n.config.training import AugmentSettings

BIAS_NODES = 4  # control points of the bias field along each axis


def augment(volumes: Tensor, settings: AugmentSettings, generator: torch.Generator) -> Tensor:
    """Flip, move, scale and disturb (B, 1, X, Y, Z); background stays 0. `generator` lies on the CPU.

    Intensities are changed after the geometry and in the brain only: v (1 + contrast) (1 + bias field) + shift + noise.
    """
    B, device = len(volumes), volumes.device

    def uniform(*shape: int) -> Tensor:
        return (2 * torch.rand(*shape, generator=generator) - 1).to(device)  # in [-1, 1]

    if settings.flip > 0:
        flipped = torch.rand(B, generator=generator).to(device) < settings.flip
        volumes = torch.where(flipped[:, None, None, None, None], volumes.flip(2), volumes)
    if settings.rotation_deg or settings.scale or settings.shift_voxels:
        volumes = move(volumes, uniform(B, 9), settings)
    brain = volumes != 0
    column = (B, 1, 1, 1, 1)
    if settings.contrast:
        volumes = volumes * (1 + settings.contrast * uniform(*column))
    if settings.bias:
        nodes = settings.bias * uniform(B, 1, BIAS_NODES, BIAS_NODES, BIAS_NODES)
        volumes = volumes * (1 + F.interpolate(nodes, volumes.shape[2:], mode="trilinear", align_corners=True))
    if settings.intensity_shift:
        volumes = volumes + settings.intensity_shift * uniform(*column)
    if settings.noise:
        seed = int(torch.randint(2**62, (), generator=generator))
        on_device = torch.Generator(device=device).manual_seed(seed)  # five million numbers a volume
        volumes = volumes + settings.noise * torch.randn(volumes.shape, generator=on_device, device=device)
    return volumes * brain


def move(volumes: Tensor, draws: Tensor, settings: AugmentSettings) -> Tensor:
    """Rotate, scale and shift each volume about its centre with one interpolation. draws (B, 9) in [-1, 1]."""
    size = torch.tensor(volumes.shape[2:], dtype=torch.float32, device=volumes.device)  # (3,) voxels
    angles = draws[:, :3] * settings.rotation_deg * torch.pi / 180
    linear = rotations(angles) * (1 + settings.scale * draws[:, None, 3:6])  # (B, 3, 3), output -> input voxels
    shift = draws[:, 6:] * settings.shift_voxels
    # affine_grid counts in half volumes and names the axes from the last to the first.
    half = size / 2
    theta = torch.cat([linear * half / half[:, None], (shift / half)[..., None]], dim=2)  # (B, 3, 4)
    theta = torch.cat([theta[:, :, :3].flip(1, 2), theta[:, :, 3:].flip(1)], dim=2)
    grid = F.affine_grid(theta, list(volumes.shape), align_corners=False)
    return F.grid_sample(volumes, grid, align_corners=False)


def rotations(angles: Tensor) -> Tensor:
    """Rotation matrices about x, then y, then z. (B, 3) radians -> (B, 3, 3)."""
    cos, sin = angles.cos(), angles.sin()
    one, zero = torch.ones_like(cos[:, 0]), torch.zeros_like(cos[:, 0])

    def matrix(*entries: Tensor) -> Tensor:
        return torch.stack(entries, dim=1).reshape(-1, 3, 3)

    (cx, cy, cz), (sx, sy, sz) = cos.unbind(1), sin.unbind(1)
    about_x = matrix(one, zero, zero, zero, cx, -sx, zero, sx, cx)
    about_y = matrix(cy, zero, sy, zero, one, zero, -sy, zero, cy)
    about_z = matrix(cz, -sz, zero, sz, cz, zero, zero, zero, one)
    return about_z @ about_y @ about_x
