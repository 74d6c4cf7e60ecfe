"""Transformer parts shared by the MAE encoder, its decoder and the diffusion transformer.

Shapes: B batch, N tokens, D width, H heads, d = D / H. Patches and tokens are in C order over the token grid,
and voxels in C order within a patch, so that token n of a 160x192x160 volume is patch (n // 120, n // 10 % 12, n % 10).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint


def patchify(volumes: Tensor, patch: int = 16) -> Tensor:
    """Cut volumes into cubes. (B, 1, X, Y, Z) -> (B, N, patch^3); 160x192x160 gives (B, 1200, 4096)."""
    B, channels, X, Y, Z = volumes.shape
    if channels != 1 or X % patch or Y % patch or Z % patch:
        raise ValueError(f"expected (B, 1, X, Y, Z) with sides divisible by {patch}, found {tuple(volumes.shape)}")
    x, y, z = X // patch, Y // patch, Z // patch
    cubes = volumes.reshape(B, x, patch, y, patch, z, patch)
    cubes = cubes.permute(0, 1, 3, 5, 2, 4, 6)  # (B, x, y, z, patch, patch, patch)
    return cubes.reshape(B, x * y * z, patch**3)


def unpatchify(patches: Tensor, grid: tuple[int, int, int], patch: int = 16) -> Tensor:
    """Inverse of `patchify`: (B, N, patch^3) with N = prod(grid) -> (B, 1, X, Y, Z)."""
    x, y, z = grid
    cubes = patches.reshape(patches.shape[0], x, y, z, patch, patch, patch)
    cubes = cubes.permute(0, 1, 4, 2, 5, 3, 6)  # (B, x, patch, y, patch, z, patch)
    return cubes.reshape(patches.shape[0], 1, x * patch, y * patch, z * patch)


def sincos_positions(grid: tuple[int, int, int], hidden: int, temperature: float = 10000.0) -> Tensor:
    """Fixed 3D sine-cosine position embedding, a third of the width for each axis -> (N, hidden).

    Channels are [sin x, cos x, sin y, cos y, sin z, cos z], each w = hidden // 6 wide with frequencies
    temperature^(-k / w) (Vaswani et al. 2017, one axis at a time as in He et al. 2022); what is left of a width that is
    no multiple of 6, such as 512, stays 0.
    """
    width = hidden // 6
    angles = axis_angles(grid, width, temperature)  # three of (N, w)
    positions = torch.cat([part for a in angles for part in (a.sin(), a.cos())], dim=1)
    return F.pad(positions, (0, hidden - 6 * width)).float()


def axis_angles(grid: tuple[int, int, int], width: int, temperature: float) -> list[Tensor]:
    """Coordinate times frequency along each axis: three of (N, width), float64."""
    frequencies = temperature ** -(torch.arange(width, dtype=torch.float64) / width)
    axes = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in grid), indexing="ij")
    return [axis.reshape(-1, 1) * frequencies for axis in axes]


def rotary_angles(grid: tuple[int, int, int], head_dim: int, temperature: float = 100.0) -> Tensor:
    """Angles of a 3D rotary embedding (Su et al. 2024), a third of the channel pairs for each axis -> (N, d / 2).

    Pairs left over where d is no multiple of 6 are not rotated. Grids are about ten tokens wide, hence the temperature.
    """
    angles = torch.cat(axis_angles(grid, head_dim // 6, temperature), dim=1)
    return F.pad(angles, (0, head_dim // 2 - angles.shape[1])).float()


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Turn channel pairs (k, k + d/2) of queries or keys by their tokens' angles. (B, H, N, d), (B or 1, N, d/2)."""
    cos, sin = angles.cos()[:, None].to(x.dtype), angles.sin()[:, None].to(x.dtype)  # (B, 1, N, d/2)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)


def sincos_scalar(values: Tensor, width: int, period: float = 10000.0) -> Tensor:
    """Sine-cosine embedding of real numbers such as a time or an age. (B,) -> (B, width)."""
    half = width // 2
    frequencies = torch.exp(-math.log(period) * torch.arange(half, device=values.device) / half)
    angles = values.float()[:, None] * frequencies  # (B, width / 2)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class Attention(nn.Module):
    """Multi-head self-attention; softmax(q k^T / sqrt(d)) v by PyTorch's fused kernels. (B, N, D) -> (B, N, D)."""

    def __init__(self, hidden: int, heads: int, *, qkv_bias: bool = False, qk_norm: bool = False):
        super().__init__()
        if hidden % heads:
            raise ValueError(f"width {hidden} is not a multiple of {heads} heads")
        self.heads = heads
        self.qkv = nn.Linear(hidden, 3 * hidden, bias=qkv_bias)
        self.q_norm = nn.RMSNorm(hidden // heads) if qk_norm else None
        self.k_norm = nn.RMSNorm(hidden // heads) if qk_norm else None
        self.out = nn.Linear(hidden, hidden)

    def forward(self, x: Tensor, angles: Tensor | None = None) -> Tensor:
        """(B, N, D), and rotary angles (B or 1, N, d/2) if there are any -> (B, N, D)."""
        B, N, D = x.shape
        qkv = self.qkv(x).reshape(B, N, 3, self.heads, D // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # three of (B, H, N, d)
        if self.q_norm is not None:  # in float32, which autocast leaves the norms' weights in
            q, k = self.q_norm(q.float()).to(v.dtype), self.k_norm(k.float()).to(v.dtype)
        if angles is not None:
            q, k = rotate(q, angles), rotate(k, angles)
        x = F.scaled_dot_product_attention(q, k, v)  # (B, H, N, d)
        return self.out(x.transpose(1, 2).reshape(B, N, D))


class Block(nn.Module):
    """Pre-norm transformer block; with `modulated`, shift, scale and gate come from a condition (adaLN-Zero).

    Without `modulated`: x + attention(norm(x)), then x + mlp(norm(x)) (Dosovitskiy et al. 2021).
    With it, forward takes a condition (B, D), and `initialise` makes every block start as the identity
    (Peebles and Xie 2023).
    """

    def __init__(
        self,
        hidden: int,
        heads: int,
        mlp: int,
        *,
        qkv_bias: bool = False,
        modulated: bool = False,
        qk_norm: bool = False,
    ):
        super().__init__()
        self.norm1 = nn.LayerNorm(hidden, elementwise_affine=not modulated)
        self.attention = Attention(hidden, heads, qkv_bias=qkv_bias, qk_norm=qk_norm)
        self.norm2 = nn.LayerNorm(hidden, elementwise_affine=not modulated)
        self.mlp = nn.Sequential(nn.Linear(hidden, mlp), nn.GELU(), nn.Linear(mlp, hidden))
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(hidden, 6 * hidden)) if modulated else None

    def forward(self, x: Tensor, condition: Tensor | None = None, angles: Tensor | None = None) -> Tensor:
        """(B, N, D), a condition (B, D) when modulated, rotary angles if there are any -> (B, N, D)."""
        if self.modulation is None:
            x = x + self.attention(self.norm1(x), angles)
            return x + self.feed_forward(self.norm2(x))
        if condition is None:
            raise ValueError("a modulated block needs a condition")
        parts = self.modulation(condition)[:, None].chunk(6, dim=-1)  # six of (B, 1, D)
        shift1, scale1, gate1, shift2, scale2, gate2 = parts
        x = x + gate1 * self.attention(modulate(self.norm1(x), shift1, scale1), angles)
        return x + gate2 * self.feed_forward(modulate(self.norm2(x), shift2, scale2))

    def feed_forward(self, x: Tensor) -> Tensor:
        """The MLP, (B, N, D) -> (B, N, D). The backward pass computes GELU again instead of keeping its output, one of
        the two widest tensors of a block (docs/mae.md, Speed). The linear map behind it is not repeated.
        """
        first, gelu, second = self.mlp
        hidden = first(x)

        def behind(hidden: Tensor) -> Tensor:
            return second(gelu(hidden))

        if not torch.is_grad_enabled():
            return behind(hidden)
        return checkpoint(behind, hidden, use_reentrant=False, preserve_rng_state=False, determinism_check="none")


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """(B, N, D) with (B, 1, D) -> (B, N, D)."""
    return x * (1 + scale) + shift


def initialise(model: nn.Module) -> None:
    """Xavier-uniform linear maps with zero bias (He et al. 2022); modulations start at zero (Peebles and Xie 2023).

    Draws from torch's global generator: build models inside `braing3n.training.seeds.seeded`.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in model.modules():
        if isinstance(module, Block) and module.modulation is not None:
            nn.init.zeros_(module.modulation[1].weight)
