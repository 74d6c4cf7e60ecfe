"""One shard of the volume store through a frozen encoder: pooled features as a table."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from braing3n.encoders.protocol import Encoder
from braing3n.encoders.registry import load_encoder
from braing3n.errors import BrainG3NError
from braing3n.files import write_parquet
from braing3n.training.distributed import pick_device
from braing3n.volumes.feed import VolumeFeed

logger = logging.getLogger(__name__)

BATCH = 8


def encode_shard(
    name: str,
    metadata: pd.DataFrame,
    results: str | Path,
    cohort: str,
    shard: str,
    mae: str | Path,
    features: str | Path,
    *,
    weights: str | Path | None = None,
    device: str = "auto",
) -> None:
    """Encode the volumes of one shard and write `volume_id, feature, feature_<pooling> ...`.

    Raises:
        BrainG3NError: the shard has no volumes, there is no such encoder, or a feature is not finite.
    """
    rows = metadata[(metadata["cohort"] == cohort) & (metadata["shard"] == shard)].reset_index(drop=True)
    if rows.empty:
        raise BrainG3NError(f"has no volume of {cohort}, shard {shard}", file="metadata", found=f"{len(metadata)} rows")
    on = pick_device(device)
    encoder = load_encoder(name, mae, weights, str(on))
    logger.info("%s (%s, licence: %s): %s", name, encoder.citation, encoder.licence, encoder.keys)
    started = time.monotonic()
    pooled = encode_rows(encoder, rows, results, on)
    table = {"volume_id": rows["volume_id"].tolist()}
    for position, pooling in enumerate(encoder.poolings):
        bad = ~np.isfinite(pooled[pooling]).all(1)
        if bad.any():
            raise BrainG3NError(
                f"{name} gave features that are not finite", found=", ".join(rows["volume_id"][bad][:3])
            )
        table["feature" if position == 0 else f"feature_{pooling}"] = list(pooled[pooling])
    write_parquet(features, pd.DataFrame(table).astype({"volume_id": "str"}))
    seconds = time.monotonic() - started
    logger.info("%s: %d volumes of %s, shard %s, %.2f a second", name, len(rows), cohort, shard, len(rows) / seconds)


@torch.no_grad()
def encode_rows(
    encoder: Encoder, rows: pd.DataFrame, results: str | Path, device: torch.device | str
) -> dict[str, np.ndarray]:
    """Features (n, dimension) float32 of rows of the metadata table, for every pooling."""
    feed, scale = VolumeFeed(rows, results), rows["scale"].to_numpy(dtype=np.float32)
    parts: dict[str, list[np.ndarray]] = {pooling: [] for pooling in encoder.poolings}
    for start in range(0, len(rows), BATCH):
        at = np.arange(start, min(start + BATCH, len(rows)))
        stored = feed.stored(at).to(device)[:, None].float()  # (B, 1, X, Y, Z)
        volumes = stored * torch.from_numpy(scale[at]).to(device).view(-1, 1, 1, 1, 1)
        for pooling, values in encoder.features(encoder.preprocess(volumes, stored > 0)).items():
            parts[pooling].append(values.float().cpu().numpy())
    return {pooling: np.concatenate(values) for pooling, values in parts.items()}
