"""ViT-B on 96^3 volumes with the parameter names of MONAI's `ViT`, as BrainIAC's released weights have them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PatchEmbedding(nn.Module):
    def __init__(self, side: int, patch: int, hidden: int):
        super().__init__()
        self.patch_embeddings = nn.Conv3d(1, hidden, patch, stride=patch)
        self.position_embeddings = nn.Parameter(torch.zeros(1, (side // patch) ** 3, hidden))

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, S, S, S) -> (B, N, D), patches in C order."""
        return self.patch_embeddings(x).flatten(2).transpose(1, 2) + self.position_embeddings


class Attention(nn.Module):
    def __init__(self, hidden: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(hidden, 3 * hidden, bias=False)
        self.out_proj = nn.Linear(hidden, hidden)

    def forward(self, x: Tensor) -> Tensor:
        B, N, D = x.shape
        q, k, v = self.qkv(x).reshape(B, N, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4)
        return self.out_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(B, N, D))


class MLP(nn.Module):
    def __init__(self, hidden: int, mlp: int):
        super().__init__()
        self.linear1, self.linear2 = nn.Linear(hidden, mlp), nn.Linear(mlp, hidden)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear2(F.gelu(self.linear1(x)))


class Block(nn.Module):
    def __init__(self, hidden: int, heads: int, mlp: int):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.attn, self.mlp = Attention(hidden, heads), MLP(hidden, mlp)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViT3d(nn.Module):
    """Pre-norm ViT without class token. (B, 1, side, side, side) -> tokens (B, N, D) after the last norm."""

    def __init__(
        self, side: int = 96, patch: int = 16, hidden: int = 768, mlp: int = 3072, depth: int = 12, heads: int = 12
    ):
        super().__init__()
        self.side, self.hidden = side, hidden
        self.patch_embedding = PatchEmbedding(side, patch, hidden)
        self.blocks = nn.ModuleList(Block(hidden, heads, mlp) for _ in range(depth))
        self.norm = nn.LayerNorm(hidden)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embedding(x)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)
