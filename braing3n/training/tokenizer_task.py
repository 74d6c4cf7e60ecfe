"""Phase 2: projection and decoder on top of the frozen MAE (paper, Appendix C)."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from braing3n.config.training import TokenizerSettings
from braing3n.errors import BrainG3NError
from braing3n.files import sha256_of, short_hash
from braing3n.models.mae import MaskedAutoencoder, load_mae
from braing3n.models.tokenizer import Tokenizer, tokenizer_card_architecture
from braing3n.models.weights import WEIGHTS
from braing3n.training import seeds
from braing3n.training.distributed import mean_over_processes, pick_device, share
from braing3n.training.loop import fit
from braing3n.training.mae import split_batches
from braing3n.training.task import TrainingTask
from braing3n.volumes.feed import VolumeFeed, data_hash

logger = logging.getLogger(__name__)

STATISTICS_VOLUMES = 4096  # training volumes behind latent_mean and latent_std: five million tokens
MEAN_VOLUMES = 512  # training volumes behind the mean volume that the check compares with
PRINCIPAL_VOLUMES = 64  # training volumes behind the projection's first weights: 77,000 tokens for 1152^2 covariances


class TokenizerTask(TrainingTask):
    """Voxel L1 between z-scored volumes and their reconstruction from frozen tokens.

    Args:
        model: projection and decoder.
        encoder: the trained MAE; moved to the device when first used, never trained.
        train, val: feeds of the volumes; `val` may be empty.
        latent_noise: upper bound of the noise on the latents, see `TokenizerSettings`.
        batch_size: volumes a forward pass of validation.
        seed: of the samples behind statistics and mean volume.
    """

    def __init__(
        self,
        model: Tokenizer,
        encoder: MaskedAutoencoder,
        train: VolumeFeed,
        val: VolumeFeed,
        *,
        latent_noise: float,
        batch_size: int,
        seed: int,
    ):
        self.model, self.encoder, self.train, self.val = model, encoder, train, val
        self.latent_noise, self.batch_size, self.seed = latent_noise, batch_size, seed
        self.n_train = len(train)

    def batch(self, indices: np.ndarray, device: torch.device, generator: torch.Generator) -> Tensor:
        return self.train.batch(indices, device)  # (B, 1, X, Y, Z)

    def tokens(self, volumes: Tensor) -> Tensor:
        """Frozen features (B, N, D) of volumes (B, 1, X, Y, Z)."""
        self.encoder.to(volumes.device)
        with torch.no_grad():
            return self.encoder.encode(volumes)

    def loss(self, model: nn.Module, batch: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        tokens = self.tokens(batch)  # (B, N, D)
        noise = None
        if self.latent_noise:
            shape, device = (*tokens.shape[:2], self.model.arch.latent), tokens.device
            sigma = self.latent_noise * torch.rand(len(tokens), 1, 1, generator=generator, device=device)
            noise = sigma * torch.randn(shape, generator=generator, device=device)  # (B, N, L)
        return absolute_error(model(tokens, noise), batch).mean(), {}

    def validate(self, model: nn.Module, device: torch.device) -> dict[str, float]:
        """Voxel L1 (`loss`) and peak signal-to-noise ratio in dB, shared among the processes."""
        if len(self.val) == 0:
            return {}
        sums, count = {"loss": 0.0, "psnr": 0.0}, 0
        for indices in share(split_batches(len(self.val), self.batch_size)):
            volumes = self.val.batch(indices, device)
            reconstruction = model(self.tokens(volumes))
            sums["loss"] += float(absolute_error(reconstruction, volumes).sum())
            sums["psnr"] += float(psnr(reconstruction, volumes).sum())
            count += len(indices)
        return mean_over_processes(sums, count, device)

    def initialise(self, device: torch.device) -> None:
        """Start the projection at the whitened principal axes of the training tokens, the linear map that keeps most.

        The paper does not say how P starts. A random P spreads a few large directions of the features over all latent
        channels; on phantom volumes the whitened axes reached its validation error in two thirds of the steps.
        """
        chosen = self.sample(PRINCIPAL_VOLUMES)
        hidden = self.encoder.arch.hidden
        total = torch.zeros(hidden, dtype=torch.float64, device=device)
        square = torch.zeros(hidden, hidden, dtype=torch.float64, device=device)
        for positions in split_batches(len(chosen), self.batch_size):
            tokens = self.tokens(self.train.batch(chosen[positions], device)).flatten(0, 1).double()  # (B N, D)
            total += tokens.sum(dim=0)
            square += tokens.T @ tokens
        count = len(chosen) * int(np.prod(self.encoder.grid))
        mean = total / count
        values, axes = torch.linalg.eigh(square / count - torch.outer(mean, mean))  # ascending
        kept = min(self.model.arch.latent, hidden)
        scale = values[-kept:].clamp(min=1e-6 * values[-1]).sqrt()
        with torch.no_grad():
            weight = self.model.projection.weight  # (L, D)
            weight[:kept] = (axes[:, -kept:] / scale).T.flip(0).to(weight)

    def calibrate(self, model: nn.Module, device: torch.device) -> None:
        """Mean and standard deviation of each latent channel over tokens and training volumes, into the buffers."""
        mean = torch.zeros(model.arch.latent, dtype=torch.float64, device=device)
        square = mean.clone()
        chosen = self.sample(STATISTICS_VOLUMES)
        with torch.autocast(device.type, enabled=False):
            for positions in split_batches(len(chosen), self.batch_size):
                latents = model.project(self.tokens(self.train.batch(chosen[positions], device))).double()  # (B, N, L)
                mean += latents.mean(dim=1).sum(dim=0) / len(chosen)
                square += latents.square().mean(dim=1).sum(dim=0) / len(chosen)
        model.latent_mean.copy_(mean)
        model.latent_std.copy_((square - mean.square()).clamp(min=1e-12).sqrt())

    def checks(self, history: list[dict], model: nn.Module, device: torch.device) -> list[dict]:
        """Reconstruction against the mean training volume, which needs no encoder at all."""
        feed, of = (self.val, "validation") if len(self.val) else (self.train, "training (no validation volumes)")
        mean_volume = self.mean_volume(device)  # (1, 1, X, Y, Z)
        sums = {"error": 0.0, "error of mean": 0.0, "psnr": 0.0, "psnr of mean": 0.0}
        for indices in split_batches(len(feed), self.batch_size):
            volumes = feed.batch(indices, device)
            reconstruction = model(self.tokens(volumes))
            for suffix, prediction in (("", reconstruction), (" of mean", mean_volume.expand_as(volumes))):
                sums[f"error{suffix}"] += float(absolute_error(prediction, volumes).sum())
                sums[f"psnr{suffix}"] += float(psnr(prediction, volumes).sum())
        means = {key: total / len(feed) for key, total in sums.items()}
        detail = f"{len(feed)} {of} volumes, z-scored, all voxels; baseline: the mean training volume"
        return [
            {
                "name": "reconstruction error below that of the mean volume",
                "value": means["error"],
                "baseline": means["error of mean"],
                "passed": means["error"] < means["error of mean"],
                "detail": f"mean absolute error of {detail}",
            },
            {
                "name": "reconstruction PSNR above that of the mean volume",
                "value": means["psnr"],
                "baseline": means["psnr of mean"],
                "passed": means["psnr"] > means["psnr of mean"],
                "detail": f"dB, peak: the volume's range, {detail}",
            },
        ]

    def mean_volume(self, device: torch.device) -> Tensor:
        """(1, 1, X, Y, Z), over at most `MEAN_VOLUMES` random training volumes."""
        chosen = self.sample(MEAN_VOLUMES)
        return sum(
            self.train.batch(chosen[positions], device).sum(dim=0, keepdim=True) / len(chosen)
            for positions in split_batches(len(chosen), self.batch_size)
        )

    def sample(self, n: int) -> np.ndarray:
        """At most `n` training volumes, in order: all of them when there are no more."""
        return np.sort(np.random.default_rng(self.seed).permutation(self.n_train)[:n])


def absolute_error(reconstruction: Tensor, volumes: Tensor) -> Tensor:
    """Mean absolute error of each volume: (B, 1, X, Y, Z) twice -> (B,) float32."""
    return (reconstruction.float() - volumes).abs().mean(dim=(1, 2, 3, 4))


def psnr(reconstruction: Tensor, volumes: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each volume in dB, its own range being the peak: (B, 1, X, Y, Z) twice -> (B,)."""
    error = (reconstruction.float() - volumes).square().mean(dim=(1, 2, 3, 4))
    peak = volumes.amax(dim=(1, 2, 3, 4)) - volumes.amin(dim=(1, 2, 3, 4))
    return 20 * peak.log10() - 10 * error.clamp(min=1e-12).log10()


def train_tokenizer(
    metadata: pd.DataFrame, results: str | Path, mae: str | Path, settings: TokenizerSettings, out: str | Path
) -> dict[str, Any]:
    """Train projection and decoder on rows with split == train, validate on split == val (docs/data-contract.md).

    Without validation volumes the last weights are kept and the card says so. Test volumes are never touched.

    Args:
        mae: folder of the trained MAE.

    Returns:
        The card.

    Raises:
        BrainG3NError: no training volumes; no MAE; and what `fit` raises.
    """
    parts = {split: metadata[metadata["split"] == split].reset_index(drop=True) for split in ("train", "val")}
    if parts["train"].empty:
        raise BrainG3NError("no volume has split == train", file="metadata", found=f"{len(metadata)} rows")
    if parts["val"].empty:
        logger.warning("no volume has split == val: training goes by the training loss alone")
    encoder = load_mae(mae)
    with seeds.seeded(settings.train.seed):
        model = Tokenizer(settings.model, encoder.arch.hidden, encoder.grid)
    task = TokenizerTask(
        model,
        encoder,
        VolumeFeed(parts["train"], results),
        VolumeFeed(parts["val"], results),
        latent_noise=settings.latent_noise,
        batch_size=settings.train.micro_batch_size or settings.train.batch_size,
        seed=settings.train.seed,
    )
    task.initialise(pick_device(settings.train.device))
    encoder_hash = sha256_of(Path(mae) / WEIGHTS)
    return fit(
        task,
        settings.train,
        out,
        name="tokenizer",
        data_hash=short_hash(data_hash(pd.concat(parts.values()), results), encoder_hash),
        architecture=tokenizer_card_architecture(model)
        | {"mae_sha256": encoder_hash, "latent_noise": settings.latent_noise},
    )
