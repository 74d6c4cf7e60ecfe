"""Diffusion transformer on token latents (paper, Appendix C; Peebles and Xie 2023).

One class serves conditional generation and longitudinal forecasts: they differ in the conditions and in the path that
the velocity belongs to. Shapes: B batch, N = 1200 tokens, L = 32 latent channels, D width, C conditions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from braing3n.config import validate_settings
from braing3n.config.models import ConditionVocabulary, DiTArchitecture
from braing3n.geometry import TOKEN_GRID
from braing3n.models.conditions import SINUSOIDS, ConditionEmbedding
from braing3n.models.transformer import Block, initialise, modulate, sincos_positions, sincos_scalar
from braing3n.models.weights import load_card, load_weights

TIME_SCALE = 1000.0  # t in [0, 1] to the range that the sinusoids were made for


class DiT(nn.Module):
    """Velocity of a flow at (x, t) under conditions; adaLN-Zero, so that it starts as zero everywhere.

    Args:
        arch: width, depth, heads, latent channels.
        vocabulary: what it is conditioned on.
        never_dropped: conditions without a null embedding.
        grid: tokens along each axis.
    """

    def __init__(
        self,
        arch: DiTArchitecture,
        vocabulary: ConditionVocabulary,
        never_dropped: Iterable[str] = (),
        grid: tuple[int, int, int] = TOKEN_GRID,
    ):
        super().__init__()
        self.arch, self.vocabulary, self.never_dropped, self.grid = arch, vocabulary, tuple(never_dropped), tuple(grid)
        self.tokens = math.prod(grid)
        hidden = arch.hidden
        self.embed = nn.Linear(arch.latent, hidden)
        self.register_buffer("positions", sincos_positions(self.grid, hidden))
        self.time = nn.Sequential(nn.Linear(SINUSOIDS, hidden), nn.SiLU(), nn.Linear(hidden, hidden))
        self.conditions = ConditionEmbedding(vocabulary, self.never_dropped, hidden)
        self.blocks = nn.ModuleList(
            Block(hidden, arch.heads, round(arch.mlp_ratio * hidden), qkv_bias=True, modulated=True)
            for _ in range(arch.depth)
        )
        self.norm = nn.LayerNorm(hidden, elementwise_affine=False)
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(hidden, 2 * hidden))
        self.head = nn.Linear(hidden, arch.latent)
        self.reset()

    def reset(self) -> None:
        """Initial weights of Peebles and Xie: small embeddings, and zero wherever a gate or an output is made."""
        initialise(self)
        for module in (*self.time, *(layer for mlp in self.conditions.numbers.values() for layer in mlp)):
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
        for module in self.conditions.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
        for module in (self.modulation[1], self.head):
            nn.init.zeros_(module.weight)

    def forward(self, x: Tensor, t: Tensor, values: Tensor, state: Tensor) -> Tensor:
        """Velocity at x.

        Args:
            x: (B, N, L), normalised latents on their path.
            t: (B,) in [0, 1].
            values, state: (B, C), see `braing3n.models.conditions.Conditions`.

        Returns:
            (B, N, L).
        """
        c = self.time(sincos_scalar(t * TIME_SCALE, SINUSOIDS)) + self.conditions(values, state)  # (B, D)
        h = self.embed(x) + self.positions  # (B, N, D)
        for block in self.blocks:
            h = block(h, c)  # (B, N, D)
        shift, scale = self.modulation(c)[:, None].chunk(2, dim=-1)  # (B, 1, D) each
        return self.head(modulate(self.norm(h), shift, scale))  # (B, N, L)


def dit_card_architecture(model: DiT) -> dict[str, Any]:
    """What `card.json` keeps under `architecture`, enough to rebuild the model."""
    return {
        "kind": "dit",
        "model": model.arch.model_dump(mode="json"),
        "conditions": model.vocabulary.model_dump(mode="json"),
        "never_dropped": list(model.never_dropped),
        "grid": list(model.grid),
    }


def load_dit(folder: str | Path, device: torch.device | str = "cpu") -> DiT:
    """The trained diffusion transformer of a model folder (EMA weights), frozen and in eval mode.

    Raises:
        BrainG3NError: no card or weights there, or they do not fit each other.
    """
    architecture, card = load_card(folder)["architecture"], Path(folder) / "card.json"
    model = DiT(
        validate_settings(DiTArchitecture, architecture["model"], card),
        validate_settings(ConditionVocabulary, architecture["conditions"], card),
        architecture["never_dropped"],
        tuple(architecture["grid"]),
    )
    load_weights(model, folder)
    return model.to(device).eval().requires_grad_(False)
