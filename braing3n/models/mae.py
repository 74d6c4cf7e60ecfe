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
from braing3n.models.transformer import Block, initialise, patchify, rotary_angles, sincos_positions, unpatchify
from braing3n.models.weights import load_card, load_weights


def visible_count(tokens: int, mask_ratio: float) -> int:
    """Tokens left visible, exact: 1200 at 0.70 gives 360 and 120 at 0.9 gives 12.

    `int((1 - 0.9) * 120)` is 11, since 1 - 0.9 is a little below 0.1; so the masked ones are rounded and subtracted.
    """
    return tokens - round(tokens * mask_ratio)


class Masking(NamedTuple):
    """Which tokens stay visible and which are predicted. Ids are positions in the grid, ascending."""

    ids_keep: Tensor
    """(B, V)"""
    ids_masked: Tensor
    """(B, M)"""

    @property
    def ids(self) -> Tensor:
        """(B, V + M), the visible ones first: the order in which the decoder sees them."""
        return torch.cat(self, dim=1)

    def mask(self, tokens: int) -> Tensor:
        """(B, N) float: 0 is keep, 1 is remove. Tokens that are not used at all count as kept: nothing is predicted."""
        mask = torch.zeros(len(self.ids_masked), tokens, device=self.ids_masked.device)
        return mask.scatter_(1, self.ids_masked, 1.0)


def random_masking(
    batch: int,
    tokens: int,
    visible: int,
    generator: torch.Generator,
    device: torch.device | str,
    *,
    used: int | None = None,
    brain: Tensor | None = None,
) -> Masking:
    """Draw which tokens stay visible, on the device, by the argsort of uniform noise.

    With `used`, only so many tokens of each volume take part: those that `brain` (B, N) bool marks, drawn at random
    where they are more and filled up with others where they are fewer.
    """
    ids = torch.rand(batch, tokens, generator=generator, device=device)
    if used is None:
        ids = ids.argsort(dim=1)
    else:
        ids = (ids + (~brain).float()).argsort(dim=1)[:, :used]
        ids = ids.gather(1, torch.rand(batch, used, generator=generator, device=device).argsort(dim=1))
    return Masking(ids[:, :visible].sort(dim=1).values, ids[:, visible:].sort(dim=1).values)


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
        self.used = min(arch.foreground_tokens or self.tokens, self.tokens)
        self.visible = visible_count(self.used, arch.mask_ratio)

        self.embed = nn.Linear(patch**3, arch.hidden)
        self.register_buffer("positions", sincos_positions(self.grid, arch.hidden))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, arch.hidden)) if arch.cls_token else None
        self.registers = nn.Parameter(torch.zeros(1, arch.registers, arch.hidden)) if arch.registers else None
        options = {"qkv_bias": arch.qkv_bias, "qk_norm": arch.qk_norm}
        self.blocks = nn.ModuleList(Block(arch.hidden, arch.heads, arch.mlp, **options) for _ in range(arch.depth))
        self.norm = nn.LayerNorm(arch.hidden)

        self.decoder_embed = nn.Linear(arch.hidden, arch.decoder_hidden)
        self.register_buffer("decoder_positions", sincos_positions(self.grid, arch.decoder_hidden))
        self.mask_token = nn.Parameter(torch.zeros(1, 1, arch.decoder_hidden))
        self.decoder_blocks = nn.ModuleList(
            Block(arch.decoder_hidden, arch.decoder_heads, arch.decoder_mlp, **options)
            for _ in range(arch.decoder_depth)
        )
        self.decoder_norm = nn.LayerNorm(arch.decoder_hidden)
        self.head = nn.Linear(arch.decoder_hidden, patch**3)

        if arch.rope:
            for name, width in (("angles", arch.hidden // arch.heads), ("decoder_angles", self._decoder_head_width)):
                self.register_buffer(name, rotary_angles(self.grid, width), persistent=False)
        initialise(self)
        for token in (self.mask_token, self.cls_token, self.registers):
            if token is not None:
                nn.init.normal_(token, std=0.02)

    def forward(self, volumes: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """One training pass.

        Args:
            volumes: (B, 1, X, Y, Z), z-scored.
            generator: source of the masks, on the volumes' device.

        Returns:
            loss (scalar), prediction (B, M, P) of the masked patches in the order of the grid, mask (B, N): 0 is keep,
            1 is remove.
        """
        masking = self.draw_masking(volumes, generator)
        loss, prediction = self.forward_masked(volumes, masking)
        return loss, prediction, masking.mask(self.tokens)

    def draw_masking(self, volumes: Tensor, generator: torch.Generator) -> Masking:
        """Random masks of volumes, drawn on the generator's device."""
        used, brain = None, None
        if self.used < self.tokens:
            used, brain = self.used, (self.patches(volumes) != 0).any(dim=-1).to(generator.device)  # (B, N)
        sizes = (len(volumes), self.tokens, self.visible)
        masking = random_masking(*sizes, generator, generator.device, used=used, brain=brain)
        return Masking(*(ids.to(volumes.device) for ids in masking))

    def fixed_masking(self, volumes: Tensor, seeds: Sequence[int]) -> Masking:
        """Masks from a seed a volume, the same on every device and in every batch."""
        drawn = [
            self.draw_masking(volume[None], torch.Generator().manual_seed(seed))
            for volume, seed in zip(volumes, seeds, strict=True)
        ]
        return Masking(*(torch.cat(ids) for ids in zip(*drawn, strict=True)))

    def forward_masked(self, volumes: Tensor, masking: Masking) -> tuple[Tensor, Tensor]:
        """`forward` under given masks -> loss, prediction (B, M, P)."""
        patches = self.patches(volumes)  # (B, N, P)
        latent = self.forward_encoder(patches, masking.ids_keep)  # (B, V, D), or (B, 1 + V, D) with a cls token
        x = self.forward_decoder(latent, masking)  # (B, V + M, E)
        prediction = self.head(x[:, self.visible :])  # (B, M, P); visible patches do not enter the loss
        target = gather_tokens(patches, masking.ids_masked)  # (B, M, P)
        return self.forward_loss(prediction, target), prediction

    def reconstruct(self, volumes: Tensor, masking: Masking) -> Tensor:
        """Volumes with their masked patches as predicted, the visible ones as they are: (B, 1, X, Y, Z)."""
        _, prediction = self.forward_masked(volumes, masking)
        patches = self.patches(volumes)  # (B, N, P)
        if self.arch.norm_pixels:  # put each patch's own mean and variance back, for looking at
            target = gather_tokens(patches, masking.ids_masked)
            mean, std = patch_statistics(target)
            prediction = prediction * std + mean
        where = masking.ids_masked[..., None].expand(-1, -1, patches.shape[-1])
        return unpatchify(patches.scatter(1, where, prediction.to(patches.dtype)), self.grid, self.patch)

    def encode(self, volumes: Tensor) -> Tensor:
        """Features of whole volumes: (B, 1, X, Y, Z) -> (B, N, D), after the encoder's last norm, without cls token.

        With `foreground_tokens`, tokens that are not used, all of them background, have features 0.
        """
        patches = self.patches(volumes)  # (B, N, P)
        ids = torch.arange(self.tokens, device=patches.device).expand(len(patches), -1)
        if self.used < self.tokens:
            share = (patches != 0).float().mean(dim=-1)  # (B, N); the fullest tokens, the earlier ones of equal share
            ids = share.argsort(dim=1, descending=True, stable=True)[:, : self.used].sort(dim=1).values
        x = self.forward_encoder(patches, ids)
        x = x[:, 1:] if self.cls_token is not None else x  # (B, used, D)
        if self.used == self.tokens:
            return x
        return x.new_zeros(len(x), self.tokens, x.shape[-1]).scatter(1, ids[..., None].expand_as(x), x)

    def patches(self, volumes: Tensor) -> Tensor:
        """(B, 1, X, Y, Z) -> (B, N, P), after a check of the shape."""
        if tuple(volumes.shape[1:]) != (1, *self.volume_shape):
            raise ValueError(f"expected volumes (B, 1, {self.volume_shape}), found {tuple(volumes.shape)}")
        return patchify(volumes, self.patch)

    def forward_encoder(self, patches: Tensor, ids: Tensor) -> Tensor:
        """Patches (B, N, P) and which of them to see (B, V) -> (B, V, D), with the cls token first if there is one."""
        x = self.embed(gather_tokens(patches, ids)) + self.positions[ids]  # (B, V, D)
        for token in (self.registers, self.cls_token):  # without position; the cls token comes first
            if token is not None:
                x = torch.cat([token.to(x.dtype).expand(len(x), -1, -1), x], dim=1)
        n_extra = x.shape[1] - ids.shape[1]
        angles = F.pad(self.angles[ids], (0, 0, n_extra, 0)) if self.arch.rope else None  # angle 0 turns nothing
        for block in self.blocks:
            x = block(x, angles=angles)
        x = self.norm(x)
        cls = 0 if self.cls_token is None else 1
        return torch.cat([x[:, :cls], x[:, n_extra:]], dim=1) if self.arch.registers else x

    def forward_decoder(self, latent: Tensor, masking: Masking) -> Tensor:
        """(B, V, D) of visible tokens -> (B, V + M, E), the visible ones first, then the masked ones; no cls token.

        The decoder needs no order: every token carries its position.
        """
        x = self.decoder_embed(latent)  # (B, V, E)
        cls = 0 if self.cls_token is None else 1
        cls_token, x = x[:, :cls], x[:, cls:]
        masked = self.mask_token.to(x.dtype).expand(*masking.ids_masked.shape, -1)  # (B, M, E)
        x = torch.cat([x, masked], dim=1) + self.decoder_positions[masking.ids]
        x = torch.cat([cls_token, x], dim=1)
        angles = F.pad(self.decoder_angles[masking.ids], (0, 0, cls, 0)) if self.arch.rope else None
        for block in self.decoder_blocks:
            x = block(x, angles=angles)
        return self.decoder_norm(x)[:, cls:]  # (B, V + M, E)

    def forward_loss(self, prediction: Tensor, patches: Tensor) -> Tensor:
        """Mean over volumes of the (weighted) mean squared error of their masked patches. (B, M, P) both."""
        target = self.targets(patches)
        if not self.arch.brain_weighted_loss:
            return F.mse_loss(prediction.float(), target)
        error = (prediction.float() - target).square().mean(dim=-1)  # (B, M)
        weight = (patches != 0).float().mean(dim=-1)  # (B, M), share of brain
        return ((weight * error).sum(dim=1) / weight.sum(dim=1).clamp(min=1e-6)).mean()

    def targets(self, patches: Tensor) -> Tensor:
        """What is predicted of patches (..., P): the patches, or with `norm_pixels` their deviations, normalised."""
        if not self.arch.norm_pixels:
            return patches
        mean, std = patch_statistics(patches)
        return (patches - mean) / std

    @property
    def _decoder_head_width(self) -> int:
        return self.arch.decoder_hidden // self.arch.decoder_heads


def patch_statistics(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each patch, (..., P) -> two of (..., 1); the small constant is He et al.'s."""
    variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    return mean, (variance + 1e-6).sqrt()


def block_flops(tokens: int, hidden: int, mlp: int) -> int:
    """Forward FLOPs of one block on one sample, 2 a multiply-add: four projections, attention, two MLP layers."""
    projections, mixing = 2 * tokens * 4 * hidden**2, 2 * 2 * tokens**2 * hidden
    return projections + mixing + 2 * 2 * tokens * hidden * mlp


def forward_flops(model: MaskedAutoencoder) -> int:
    """FLOPs of the matrix products in a training forward pass of one volume; 516 GFLOP at the paper's size."""
    arch, cls = model.arch, int(model.cls_token is not None)
    visible, used, voxels = model.visible, model.used, model.patch**3
    embed = 2 * visible * voxels * arch.hidden
    encoder = arch.depth * block_flops(visible + cls + arch.registers, arch.hidden, arch.mlp)
    link = 2 * (visible + cls) * arch.hidden * arch.decoder_hidden
    decoder = arch.decoder_depth * block_flops(used + cls, arch.decoder_hidden, arch.decoder_mlp)
    head = 2 * (used - visible) * arch.decoder_hidden * voxels
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
