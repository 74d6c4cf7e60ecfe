"""Tokenizer: a linear projection of frozen MAE tokens and a 3D CNN that decodes them (paper, Appendix C, phase 2).

The paper gives the decoder's parts and its 43.7 M parameters; two ResBlocks a level, the first of which changes the
width, transposed convolutions that keep it, and one attention block at 20x24x20 add up to 43.74 M.

Shapes: B batch, N = 1200 tokens, D encoder width, L = 32 latent channels, C channels of a level.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from braing3n.config import validate_settings
from braing3n.config.models import TokenizerArchitecture
from braing3n.geometry import TOKEN_GRID
from braing3n.models.weights import load_card, load_weights


class GroupNorm(nn.GroupNorm):
    """`nn.GroupNorm` with at most as many groups as channels; the result lies channels-last. (B, C, ...) -> the same.

    On a CPU, PyTorch normalises a few channels that lie last several times more slowly than the same maps with channels
    first, copies included: a third of a training step.
    """

    def __init__(self, channels: int, groups: int):
        super().__init__(min(groups, channels), channels)

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 5 or x.device.type != "cpu":
            return super().forward(x)
        return super().forward(x.contiguous()).contiguous(memory_format=torch.channels_last_3d)


class ResBlock(nn.Module):
    """Two 3x3x3 convolutions with GroupNorm and SiLU before each, and a skip. (B, C, ...) -> (B, C', ...)."""

    def __init__(self, channels_in: int, channels_out: int, groups: int):
        super().__init__()
        self.norm1 = GroupNorm(channels_in, groups)
        self.conv1 = nn.Conv3d(channels_in, channels_out, 3, padding=1)
        self.norm2 = GroupNorm(channels_out, groups)
        self.conv2 = nn.Conv3d(channels_out, channels_out, 3, padding=1)
        self.skip = nn.Identity() if channels_in == channels_out else nn.Conv3d(channels_in, channels_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))  # (B, C', X, Y, Z)
        h = self.conv2(F.silu(self.norm2(h)))  # (B, C', X, Y, Z)
        return self.skip(x) + h


class SpatialAttention(nn.Module):
    """Self-attention over the positions of a level. (B, C, X, Y, Z) -> the same."""

    def __init__(self, channels: int, heads: int, groups: int):
        super().__init__()
        self.heads = heads
        self.norm = GroupNorm(channels, groups)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        B, C = x.shape[:2]
        tokens = self.norm(x).flatten(2).transpose(1, 2)  # (B, M, C) with M = X Y Z
        qkv = self.qkv(tokens).reshape(B, -1, 3, self.heads, C // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # three of (B, H, M, C / H)
        h = F.scaled_dot_product_attention(q, k, v)  # (B, H, M, C / H)
        h = self.out(h.transpose(1, 2).reshape(B, -1, C))  # (B, M, C)
        return x + h.transpose(1, 2).reshape(x.shape)


class Decoder(nn.Module):
    """Latents on the token grid -> voxels: five levels with a doubling before each but the first.

    (B, L, 10, 12, 10) -> (B, 1, 160, 192, 160).
    """

    def __init__(self, arch: TokenizerArchitecture):
        super().__init__()
        widths = arch.widths
        self.enter = nn.Conv3d(arch.latent, widths[0], 3, padding=1)
        levels: list[nn.Module] = []
        for level, width in enumerate(widths):
            before = widths[max(level - 1, 0)]
            if level:
                levels.append(nn.ConvTranspose3d(before, before, kernel_size=2, stride=2))
            levels += [
                ResBlock(before if block == 0 else width, width, arch.groups) for block in range(arch.blocks_per_level)
            ]
            if level in arch.attention_levels:
                levels.append(SpatialAttention(width, arch.attention_heads, arch.groups))
        self.levels = nn.Sequential(*levels)
        self.leave = nn.Sequential(
            GroupNorm(widths[-1], arch.groups), nn.SiLU(), nn.Conv3d(widths[-1], 1, 3, padding=1)
        )
        # Kernels that lie channels-last in memory make every map do so: half the time of a step on a CPU.
        self.to(memory_format=torch.channels_last_3d)

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(self.levels(self.enter(x)))


class Tokenizer(nn.Module):
    """Encoder tokens -> latents -> voxels; the encoder itself stays outside, frozen.

    `latent_mean` and `latent_std` are the training split's statistics of each latent channel. They are estimated once,
    after training, and live in these weights and nowhere else: cached latents are raw, and whoever feeds or reads a
    diffusion model passes them through `normalise` or `denormalise`.

    Args:
        arch: latent channels and decoder widths.
        encoder_hidden: width D of the encoder's tokens.
        grid: tokens along each axis; a volume has 16 times as many voxels.
    """

    def __init__(self, arch: TokenizerArchitecture, encoder_hidden: int, grid: tuple[int, int, int] = TOKEN_GRID):
        super().__init__()
        self.arch, self.encoder_hidden, self.grid = arch, encoder_hidden, tuple(grid)
        self.projection = nn.Linear(encoder_hidden, arch.latent, bias=False)
        self.decoder = Decoder(arch)
        self.register_buffer("latent_mean", torch.zeros(arch.latent))
        self.register_buffer("latent_std", torch.ones(arch.latent))

    def forward(self, tokens: Tensor, noise: Tensor | None = None) -> Tensor:
        """Reconstruct: encoder tokens (B, N, D) -> z-scored voxels (B, 1, X, Y, Z).

        Args:
            noise: (B, N, L), added to the latents in units of the batch's standard deviation of each channel (Zheng et
                al. 2025, "Diffusion transformers with representation autoencoders"); None as in the paper.
        """
        latents = self.project(tokens)  # (B, N, L)
        if noise is not None:
            latents = latents + noise * latents.detach().std(dim=(0, 1))
        return self.decode(latents)

    def project(self, tokens: Tensor) -> Tensor:
        """z' = z P: (B, N, D) -> (B, N, L)."""
        return self.projection(tokens)

    def decode(self, latents: Tensor) -> Tensor:
        """Raw latents (B, N, L) -> z-scored voxels (B, 1, X, Y, Z)."""
        on_grid = latents.transpose(1, 2).reshape(len(latents), -1, *self.grid)  # (B, L, 10, 12, 10)
        return self.decoder(on_grid)

    def normalise(self, latents: Tensor) -> Tensor:
        """Raw latents (..., L) -> zero mean and unit variance a channel."""
        return (latents - self.latent_mean) / self.latent_std

    def denormalise(self, latents: Tensor) -> Tensor:
        """Inverse of `normalise`."""
        return latents * self.latent_std + self.latent_mean


def tokenizer_card_architecture(model: Tokenizer) -> dict[str, Any]:
    """What `card.json` keeps under `architecture`, enough to rebuild the model."""
    return {
        "kind": "tokenizer",
        "model": model.arch.model_dump(mode="json"),
        "encoder_hidden": model.encoder_hidden,
        "grid": list(model.grid),
    }


def load_tokenizer(folder: str | Path, device: torch.device | str = "cpu") -> Tokenizer:
    """The trained tokenizer of a model folder, frozen and in eval mode.

    Raises:
        BrainG3NError: no card or weights there, or they do not fit each other.
    """
    architecture = load_card(folder)["architecture"]
    model = Tokenizer(
        validate_settings(TokenizerArchitecture, architecture["model"], Path(folder) / "card.json"),
        architecture["encoder_hidden"],
        tuple(architecture["grid"]),
    )
    load_weights(model, folder)
    return model.to(device).eval().requires_grad_(False)
