"""3D masked autoencoder (paper, Appendix C, phase 1; He et al. 2022).

Mask convention, everywhere: 0 is keep, 1 is remove. Shapes: B batch, N = 1200 tokens, V = 360 visible and M = 840
masked ones, D encoder width, E decoder width, P = 4096 voxels a patch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from braing3n.config import validate_settings
from braing3n.config.models import MAEArchitecture
from braing3n.geometry import PATCH_SIZE, VOLUME_SHAPE
from braing3n.models.transformer import Block, initialise, patchify, sincos_positions, unpatchify
from braing3n.models.weights import load_card, load_weights


def visible_count(tokens: int, mask_ratio: float) -> int:
    """Tokens left visible, exact: 1200 at 0.70 gives 360 and 120 at 0.9 gives 12.

    `int((1 - 0.9) * 120)` is 11, since 1 - 0.9 is a little below 0.1; so the masked ones are rounded and subtracted.
    """
    return tokens - round(tokens * mask_ratio)


class Masking(NamedTuple):
    """Which tokens stay visible. Ids are positions in the grid, ascending."""

    ids_keep: Tensor
    """(B, V)"""
    ids_masked: Tensor
    """(B, M)"""
    ids_restore: Tensor
    """(B, N): where each token lies in the concatenation of the visible and the masked ones."""

    @property
    def mask(self) -> Tensor:
        """(B, N) float: 0 is keep, 1 is remove."""
        return (self.ids_restore >= self.ids_keep.shape[1]).float()


def random_masking(
    batch: int, tokens: int, visible: int, generator: torch.Generator, device: torch.device | str
) -> Masking:
    """Draw which tokens stay visible, on the device, by the argsort of uniform noise."""
    noise = torch.rand(batch, tokens, generator=generator, device=device)
    ids = noise.argsort(dim=1)
    ids_keep, ids_masked = ids[:, :visible].sort(dim=1).values, ids[:, visible:].sort(dim=1).values
    return Masking(ids_keep, ids_masked, torch.cat([ids_keep, ids_masked], dim=1).argsort(dim=1))


def fixed_masking(tokens: int, visible: int, seeds: Sequence[int], device: torch.device | str) -> Masking:
    """Masks of a volume each from a seed each, the same on every device and in every batch."""
    drawn = [random_masking(1, tokens, visible, torch.Generator().manual_seed(seed), "cpu") for seed in seeds]
    return Masking(*(torch.cat(ids).to(device) for ids in zip(*drawn, strict=True)))


def gather_tokens(x: Tensor, ids: Tensor) -> Tensor:
    """(B, N, D), (B, K) -> (B, K, D), whole rows at a time."""
    B, N, D = x.shape
    rows = ids + N * torch.arange(B, device=ids.device)[:, None]
    return x.reshape(B * N, D).index_select(0, rows.flatten()).reshape(B, -1, D)


class MaskedAutoencoder(nn.Module):
    """ViT encoder on the visible patches, ViT decoder on all, mean squared error on the masked ones.

    Input volumes are z-scored, (B, 1, X, Y, Z). Patches are cut before they are embedded, so that masked ones cost
    nothing in the encoder. `encode` is the frozen-feature path: all tokens, no masking, no decoder.

    Args:
        arch: widths, depths, mask ratio.
        volume_shape: voxels of an input volume, each side divisible by `patch`.
        patch: side of a cubic patch.
    """

    def __init__(
        self,
        arch: MAEArchitecture,
        volume_shape: tuple[int, int, int] = VOLUME_SHAPE,
        patch: int = PATCH_SIZE,
    ):
        super().__init__()
        self.arch, self.volume_shape, self.patch = arch, tuple(volume_shape), patch
        self.grid = tuple(n // patch for n in volume_shape)
        self.tokens = math.prod(self.grid)
        self.visible = visible_count(self.tokens, arch.mask_ratio)

        self.embed = nn.Linear(patch**3, arch.hidden)
        self.register_buffer("positions", sincos_positions(self.grid, arch.hidden))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, arch.hidden)) if arch.cls_token else None
        self.blocks = nn.ModuleList(
            Block(arch.hidden, arch.heads, arch.mlp, qkv_bias=arch.qkv_bias) for _ in range(arch.depth)
        )
        self.norm = nn.LayerNorm(arch.hidden)

        self.decoder_embed = nn.Linear(arch.hidden, arch.decoder_hidden)
        self.register_buffer("decoder_positions", sincos_positions(self.grid, arch.decoder_hidden))
        self.mask_token = nn.Parameter(torch.zeros(1, 1, arch.decoder_hidden))
        self.decoder_blocks = nn.ModuleList(
            Block(arch.decoder_hidden, arch.decoder_heads, arch.decoder_mlp, qkv_bias=arch.qkv_bias)
            for _ in range(arch.decoder_depth)
        )
        self.decoder_norm = nn.LayerNorm(arch.decoder_hidden)
        self.head = nn.Linear(arch.decoder_hidden, patch**3)

        initialise(self)
        nn.init.normal_(self.mask_token, std=0.02)
        if self.cls_token is not None:
            nn.init.normal_(self.cls_token, std=0.02)

    def forward(self, volumes: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """One training pass.

        Args:
            volumes: (B, 1, X, Y, Z), z-scored.
            generator: source of the masks, on the volumes' device.

        Returns:
            loss (scalar), prediction (B, M, P) of the masked patches in the order of the grid, mask (B, N): 0 is keep,
            1 is remove.
        """
        masking = random_masking(len(volumes), self.tokens, self.visible, generator, volumes.device)
        loss, prediction = self.forward_masked(volumes, masking)
        return loss, prediction, masking.mask

    def forward_masked(self, volumes: Tensor, masking: Masking) -> tuple[Tensor, Tensor]:
        """`forward` under given masks -> loss, prediction (B, M, P)."""
        patches = self.patches(volumes)  # (B, N, P)
        latent = self.forward_encoder(patches, masking.ids_keep)  # (B, V, D), or (B, 1 + V, D) with a cls token
        x = self.forward_decoder(latent, masking.ids_restore)  # (B, N, E)
        # Visible patches do not enter the loss: nothing is predicted there.
        prediction = self.head(gather_tokens(x, masking.ids_masked))  # (B, M, P)
        target = gather_tokens(patches, masking.ids_masked)  # (B, M, P)
        return self.forward_loss(prediction, target), prediction

    def reconstruct(self, volumes: Tensor, masking: Masking) -> Tensor:
        """Volumes with their masked patches as predicted, the visible ones as they are: (B, 1, X, Y, Z)."""
        _, prediction = self.forward_masked(volumes, masking)
        patches = self.patches(volumes).clone()
        patches[masking.mask.bool()] = prediction.flatten(0, 1).to(patches.dtype)  # both in the order of the grid
        return unpatchify(patches, self.grid, self.patch)

    def encode(self, volumes: Tensor) -> Tensor:
        """Features of whole volumes: (B, 1, X, Y, Z) -> (B, N, D), after the encoder's last norm, without cls token."""
        x = self.embed(self.patches(volumes)) + self.positions  # (B, N, D)
        x = self.run_encoder(x)
        return x[:, 1:] if self.cls_token is not None else x  # (B, N, D)

    def patches(self, volumes: Tensor) -> Tensor:
        """(B, 1, X, Y, Z) -> (B, N, P), after a check of the shape."""
        if tuple(volumes.shape[1:]) != (1, *self.volume_shape):
            raise ValueError(f"expected volumes (B, 1, {self.volume_shape}), found {tuple(volumes.shape)}")
        return patchify(volumes, self.patch)

    def forward_encoder(self, patches: Tensor, ids_keep: Tensor) -> Tensor:
        """(B, N, P), (B, V) -> (B, V, D), with the cls token first if there is one."""
        x = self.embed(gather_tokens(patches, ids_keep))  # (B, V, D)
        return self.run_encoder(x + self.positions[ids_keep])

    def run_encoder(self, x: Tensor) -> Tensor:
        """Embedded tokens with positions -> tokens after all blocks and the last norm."""
        if self.cls_token is not None:  # it has no position
            x = torch.cat([self.cls_token.to(x.dtype).expand(len(x), -1, -1), x], dim=1)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def forward_decoder(self, latent: Tensor, ids_restore: Tensor) -> Tensor:
        """(B, V, D) of visible tokens -> (B, N, E), all tokens in the order of the grid, without cls token."""
        x = self.decoder_embed(latent)  # (B, V, E)
        cls = 0 if self.cls_token is None else 1
        cls_token, x = x[:, :cls], x[:, cls:]
        # The mask token takes the encoder output's dtype: under autocast that is bfloat16, its own is float32.
        masked = self.mask_token.to(x.dtype).expand(len(x), self.tokens - x.shape[1], -1)
        x = gather_tokens(torch.cat([x, masked], dim=1), ids_restore)  # (B, N, E)
        x = torch.cat([cls_token, x + self.decoder_positions], dim=1)
        for block in self.decoder_blocks:
            x = block(x)
        return self.decoder_norm(x)[:, cls:]  # (B, N, E)

    def forward_loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Mean squared error of masked patches, (B, M, P) both; every patch weighs the same."""
        return F.mse_loss(prediction.float(), target)


def block_flops(tokens: int, hidden: int, mlp: int) -> int:
    """Forward FLOPs of one block on one sample, 2 a multiply-add: four projections, attention, two MLP layers."""
    projections, mixing = 2 * tokens * 4 * hidden**2, 2 * 2 * tokens**2 * hidden
    return projections + mixing + 2 * 2 * tokens * hidden * mlp


def forward_flops(model: MaskedAutoencoder) -> int:
    """FLOPs of the matrix products in a training forward pass of one volume; 517 GFLOP at the paper's size."""
    arch, cls = model.arch, int(model.cls_token is not None)
    visible, tokens, voxels = model.visible, model.tokens, model.patch**3
    embed = 2 * visible * voxels * arch.hidden
    encoder = arch.depth * block_flops(visible + cls, arch.hidden, arch.mlp)
    link = 2 * (visible + cls) * arch.hidden * arch.decoder_hidden
    decoder = arch.decoder_depth * block_flops(tokens + cls, arch.decoder_hidden, arch.decoder_mlp)
    head = 2 * (tokens - visible) * arch.decoder_hidden * voxels
    return embed + encoder + link + decoder + head


def training_flops(model: MaskedAutoencoder) -> int:
    """Forward and backward FLOPs of one volume. No gradient is needed of the voxels themselves."""
    return 3 * forward_flops(model) - 2 * model.visible * model.patch**3 * model.arch.hidden


def mae_card_architecture(model: MaskedAutoencoder) -> dict[str, Any]:
    """What `card.json` keeps under `architecture`, enough to rebuild the model."""
    return {
        "kind": "mae",
        "model": model.arch.model_dump(mode="json"),
        "volume_shape": list(model.volume_shape),
        "patch": model.patch,
    }


def load_mae(folder: str | Path, device: torch.device | str = "cpu") -> MaskedAutoencoder:
    """The trained MAE of a model folder, frozen and in eval mode.

    Raises:
        BrainG3NError: no card or weights there, or they do not fit each other.
    """
    architecture = load_card(folder)["architecture"]
    model = MaskedAutoencoder(
        validate_settings(MAEArchitecture, architecture["model"], Path(folder) / "card.json"),
        tuple(architecture["volume_shape"]),
        architecture["patch"],
    )
    load_weights(model, folder)
    return model.to(device).eval().requires_grad_(False)
