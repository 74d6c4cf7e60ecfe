"""Phase 1: the masked autoencoder on volumes of the training split."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from braing3n.config.training import AugmentSettings, MAESettings
from braing3n.errors import BrainG3NError
from braing3n.models.mae import MaskedAutoencoder, Masking, gather_tokens, mae_card_architecture, training_flops
from braing3n.models.transformer import patchify
from braing3n.training import seeds
from braing3n.training.distributed import mean_over_processes, share
from braing3n.training.loop import fit
from braing3n.training.task import TrainingTask
from braing3n.volumes.augment import augment
from braing3n.volumes.feed import VolumeFeed, balanced_weights, data_hash

logger = logging.getLogger(__name__)

VALIDATION = 4  # purpose of derived seeds; the loop uses 1 to 3
MEAN_VOLUMES = 512  # training volumes behind the mean volume; its error at a voxel is then 4 % of a standard deviation


class MAETask(TrainingTask):
    """Masked reconstruction. Validation masks are drawn from fixed seeds, the same in every epoch.

    Args:
        model: the autoencoder.
        train: feed of the training volumes.
        val: feed of the validation volumes; may be empty.
        batch_size: volumes a forward pass of validation.
        seed: of validation masks and of the sample behind the mean volume.
        augmentation: of training volumes; default none.
        sample_weights: relative frequencies of training volumes; default each once an epoch.
    """

    def __init__(
        self,
        model: MaskedAutoencoder,
        train: VolumeFeed,
        val: VolumeFeed,
        batch_size: int,
        seed: int,
        *,
        augmentation: AugmentSettings | None = None,
        sample_weights: np.ndarray | None = None,
    ):
        self.model, self.train, self.val, self.batch_size, self.seed = model, train, val, batch_size, seed
        self.augmentation, self.sample_weights = augmentation or AugmentSettings(), sample_weights
        self.n_train = len(train)
        self.flops_per_sample = training_flops(model)

    def batch(self, indices: np.ndarray, device: torch.device, generator: torch.Generator) -> Tensor:
        volumes = self.train.batch(indices, device)  # (B, 1, X, Y, Z)
        return augment(volumes, self.augmentation, generator)

    def loss(self, model: nn.Module, batch: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        loss, _, _ = model(batch, generator)
        return loss, {}

    def validate(self, model: nn.Module, device: torch.device) -> dict[str, float]:
        """Masked mean squared error over the validation volumes, shared among the processes."""
        if len(self.val) == 0:
            return {}
        total, count = 0.0, 0
        for indices in share(split_batches(len(self.val), self.batch_size)):
            volumes = self.val.batch(indices, device)
            loss, _ = model.forward_masked(volumes, self.masking(volumes, indices))
            total, count = total + float(loss) * len(indices), count + len(indices)
        return mean_over_processes({"loss": total}, count, device)

    def masking(self, volumes: Tensor, indices: np.ndarray) -> Masking:
        """Masks that belong to the volumes, whatever the batch: errors do not depend on the batch size."""
        return self.model.fixed_masking(volumes, [seeds.derive(self.seed, VALIDATION, int(index)) for index in indices])

    def checks(self, history: list[dict], model: nn.Module, device: torch.device) -> list[dict]:
        """Reconstruction of masked patches against two predictions that need no network, at the same patches."""
        feed, of = (self.val, "validation") if len(self.val) else (self.train, "training (no validation volumes)")
        mean_patches = self.mean_volume_patches(device)  # (N, P)
        totals = {"model": 0.0, "mean intensity": 0.0, "mean volume": 0.0}
        for indices in split_batches(len(feed), self.batch_size):
            volumes = feed.batch(indices, device)
            masking = self.masking(volumes, indices)
            totals["model"] += float(model.forward_masked(volumes, masking)[0]) * len(indices)
            target = gather_tokens(patchify(volumes, model.patch), masking.ids_masked)  # (B, M, P)
            for name, patches in (("mean intensity", mean_patches.mean()), ("mean volume", mean_patches)):
                everywhere = patches.expand(len(indices), *mean_patches.shape)  # (B, N, P)
                prediction = model.targets(gather_tokens(everywhere, masking.ids_masked))
                totals[name] += float(model.forward_loss(prediction, target)) * len(indices)
        errors = {name: total / len(feed) for name, total in totals.items()}
        return [
            {
                "name": f"masked reconstruction error below that of the {baseline}",
                "value": errors["model"],
                "baseline": errors[baseline],
                "passed": errors["model"] < errors[baseline],
                "detail": f"mean squared error of masked patches, z-scored, {len(feed)} {of} volumes; {explained}",
            }
            for baseline, explained in (
                ("mean intensity", "baseline: the mean over training volumes and voxels"),
                ("mean volume", "baseline: the mean training volume at the same patches"),
            )
        ]

    def mean_volume_patches(self, device: torch.device) -> Tensor:
        """Mean training volume as patches (N, P), from at most `MEAN_VOLUMES` random volumes."""
        chosen = np.random.default_rng(self.seed).permutation(self.n_train)[:MEAN_VOLUMES]
        total = torch.zeros(self.model.tokens, self.model.patch**3, dtype=torch.float64, device=device)
        for positions in split_batches(len(chosen), self.batch_size):
            total += patchify(self.train.batch(chosen[positions], device), self.model.patch).double().sum(dim=0)
        return (total / len(chosen)).float()


def split_batches(n: int, size: int) -> list[np.ndarray]:
    """0 .. n - 1 in order, in batches of `size`, the last one smaller."""
    return [np.arange(start, min(start + size, n)) for start in range(0, n, size)]


def train_mae(metadata: pd.DataFrame, results: str | Path, settings: MAESettings, out: str | Path) -> dict[str, Any]:
    """Train the MAE on rows with split == train, validate on split == val, write `out` (docs/data-contract.md).

    Without validation volumes (no person fell into that split, which happens with a handful of persons), the last
    weights are kept, early stopping watches the training loss, and the card says so. Test volumes are never touched.

    Returns:
        The card.

    Raises:
        BrainG3NError: no training volumes; and what `fit` raises.
    """
    parts = {split: metadata[metadata["split"] == split].reset_index(drop=True) for split in ("train", "val")}
    if parts["train"].empty:
        raise BrainG3NError("no volume has split == train", file="metadata", found=f"{len(metadata)} rows")
    if parts["val"].empty:
        logger.warning("no volume has split == val: training goes by the training loss alone")
    weights = balanced_weights(parts["train"], settings.balance, settings.balance_power) if settings.balance else None
    with seeds.seeded(settings.train.seed):
        model = MaskedAutoencoder(settings.model)
    task = MAETask(
        model,
        VolumeFeed(parts["train"], results),
        VolumeFeed(parts["val"], results),
        settings.train.micro_batch_size or settings.train.batch_size,
        settings.train.seed,
        augmentation=settings.augment,
        sample_weights=weights,
    )
    return fit(
        task,
        settings.train,
        out,
        name="mae",
        data_hash=data_hash(pd.concat(parts.values()), results),
        architecture=mae_card_architecture(model)
        | {"feed": settings.model_dump(mode="json", exclude={"model", "train"})},
    )
