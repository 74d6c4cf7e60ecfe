"""Our own encoder and its controls: the trained MAE, its untrained twin, block intensities for a PCA."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from braing3n.config import validate_settings
from braing3n.config.models import MAEArchitecture
from braing3n.encoders.protocol import FRESH, TWIN_SEED, z_score_brain
from braing3n.models.mae import MaskedAutoencoder, load_mae
from braing3n.models.weights import CARD, load_card
from braing3n.training.seeds import seeded
from braing3n.volumes.feed import brain_tokens

LICENCE = "Apache-2.0"
CITATION = "Van Puyvelde et al. 2026, arXiv 2606.19651"


class MAEEncoder:
    """Frozen MAE encoder: the mean of all tokens, as the paper probes, and of the tokens that hold brain."""

    licence, citation = LICENCE, CITATION
    poolings = ("all", "brain")

    def __init__(self, model: MaskedAutoencoder, name: str, keys: str):
        self.name, self.model, self.dimension, self.keys = name, model, model.arch.hidden, keys

    @classmethod
    def load(cls, folder: str | Path, device: torch.device | str) -> MAEEncoder:
        model = load_mae(folder, device)
        return cls(model, "mae", f"{len(model.state_dict())} weights loaded, none missing or unexpected")

    @classmethod
    def untrained(cls, folder: str | Path, device: torch.device | str) -> MAEEncoder:
        """The same architecture as the MAE of `folder` with fresh weights: what training adds is the difference."""
        architecture = load_card(folder)["architecture"]
        with seeded(TWIN_SEED):
            model = MaskedAutoencoder(
                validate_settings(MAEArchitecture, architecture["model"], Path(folder) / CARD),
                tuple(architecture["volume_shape"]),
                architecture["patch"],
            )
        return cls(model.to(device).eval().requires_grad_(False), "untrained", FRESH)

    def preprocess(self, volumes: Tensor, brain: Tensor) -> Tensor:
        return z_score_brain(volumes, brain)

    def features(self, batch: Tensor) -> dict[str, Tensor]:
        tokens = self.model.encode(batch)  # (B, N, D)
        brain = brain_tokens(batch, self.model.patch)[..., None]  # (B, N, 1)
        brain_mean = (tokens * brain).sum(dim=1) / brain.sum(dim=1).clamp(min=1)  # (B, D)
        return {"all": tokens.mean(dim=1), "brain": brain_mean}


class BlockIntensities:
    """Mean z-scored intensity of 8 mm blocks: what a PCA of the images themselves starts from."""

    name, licence, citation, keys = "pca", LICENCE, "raw intensities", "no weights"
    poolings = ("blocks",)
    block = 8
    dimension = 9600  # 20 x 24 x 20 blocks of a 160x192x160 volume

    def preprocess(self, volumes: Tensor, brain: Tensor) -> Tensor:
        return z_score_brain(volumes, brain)

    def features(self, batch: Tensor) -> dict[str, Tensor]:
        return {"blocks": F.avg_pool3d(batch, self.block).flatten(1)}  # (B, 9600)
