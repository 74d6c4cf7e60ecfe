"""A cohort through the frozen encoder and tokenizer: latents for the diffusion models, features for the probes."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from braing3n.errors import BrainG3NError
from braing3n.files import sha256_of, write_bytes, write_parquet
from braing3n.models.mae import MaskedAutoencoder, load_mae
from braing3n.models.tokenizer import Tokenizer, load_tokenizer
from braing3n.models.weights import WEIGHTS, load_card
from braing3n.training.distributed import pick_device
from braing3n.training.mae import split_batches
from braing3n.volumes.by_shard import make_by_shard
from braing3n.volumes.feed import VolumeFeed, brain_tokens
from braing3n.volumes.latents import write_latents

BATCH = 8  # volumes a forward pass: 1200 tokens each keep a GPU busy


def encode_cohort(
    metadata: pd.DataFrame,
    results: str | Path,
    cohort: str,
    mae: str | Path,
    tokenizer: str | Path,
    latents: str | Path,
    features: str | Path,
) -> None:
    """Encode a cohort's volumes in float32 and write latents, their ids and pooled features; finished shards stay.

    Args:
        metadata: the metadata table; rows of other cohorts are passed over.
        mae, tokenizer: model folders that belong together.
        latents: `latents/<cohort>.parquet`, the list of shards, written last; the latents go to the folder beside it,
            `latents/<cohort>/<shard>.safetensors`, with their ids.
        features: `features/mae/<cohort>.parquet`, likewise for `features/mae/<cohort>/<shard>.parquet`.

    Raises:
        BrainG3NError: the tokenizer was trained on another encoder, or another run works on this cohort.
        ResumeLater: asked to stop, or the job's time limit is near.
    """
    check_same_encoder(tokenizer, mae)
    device = pick_device("auto")
    encoder, projection = load_mae(mae, device), load_tokenizer(tokenizer, device)
    weights = sha256_of(Path(tokenizer) / WEIGHTS)  # the tokenizer's card names the encoder's

    def files(shard: str) -> list[Path]:
        cached = Path(latents).with_suffix("") / f"{shard}.safetensors"
        return [cached, cached.with_suffix(".parquet"), Path(features).with_suffix("") / f"{shard}.parquet"]

    def make(shard: str, rows: pd.DataFrame) -> None:
        feed, ids = VolumeFeed(rows, results), rows["volume_id"].tolist()
        parts = [encode_batch(encoder, projection, feed.batch(at, device)) for at in split_batches(len(feed), BATCH)]
        z, mean, brain = (torch.cat(part) for part in zip(*parts, strict=True))  # (n, N, L), (n, D), (n, D)
        cached, _, pooled = files(shard)
        write_latents(cached, ids, z, weights)
        table = {"volume_id": ids, "feature": list(mean.numpy()), "feature_brain": list(brain.numpy())}
        write_parquet(pooled, pd.DataFrame(table).astype({"volume_id": "str"}))

    make_by_shard("encode", cohort, metadata, results, weights, files, make, latents)
    write_bytes(features, Path(latents).read_bytes())


@torch.no_grad()
def encode_batch(encoder: MaskedAutoencoder, tokenizer: Tokenizer, volumes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """z-scored volumes (B, 1, X, Y, Z) -> on the CPU: raw latents (B, N, L), mean of all tokens (B, D), mean of the
    tokens that hold any brain (B, D).
    """
    tokens = encoder.encode(volumes)  # (B, N, D)
    brain = brain_tokens(volumes, encoder.patch)[..., None]  # (B, N, 1)
    brain_mean = (tokens * brain).sum(dim=1) / brain.sum(dim=1)  # (B, D)
    return tokenizer.project(tokens).cpu(), tokens.mean(dim=1).cpu(), brain_mean.cpu()


def check_same_encoder(tokenizer: str | Path, mae: str | Path) -> None:
    """Refuse a tokenizer beside another encoder than the one it was trained on.

    Raises:
        BrainG3NError: the MAE's weights are not those of the tokenizer's card.
    """
    expected, found = load_card(tokenizer)["architecture"]["mae_sha256"], sha256_of(Path(mae) / WEIGHTS)
    if found != expected:
        raise BrainG3NError(
            "the tokenizer was trained on another encoder",
            file=tokenizer,
            expected=f"MAE weights {expected[:12]}",
            found=f"{found[:12]} in {mae}",
            remedy="train the tokenizer again on this MAE",
        )
