"""A cohort of the volume store through a frozen encoder: pooled features as tables, one a shard."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from braing3n.encoders.protocol import Encoder
from braing3n.encoders.registry import load_encoder, made_from
from braing3n.errors import BrainG3NError
from braing3n.files import sha256_of, short_hash, write_parquet
from braing3n.training.distributed import pick_device
from braing3n.volumes.by_shard import make_by_shard
from braing3n.volumes.feed import VolumeFeed

logger = logging.getLogger(__name__)

BATCH = 8


def encode_cohort(
    name: str,
    metadata: pd.DataFrame,
    results: str | Path,
    cohort: str,
    mae: str | Path,
    table: str | Path,
    *,
    weights: str | Path | None = None,
    device: str = "auto",
) -> None:
    """Encode a cohort's volumes: `volume_id, feature, feature_<pooling> ...`, a file a shard; finished ones stay.

    Args:
        table: `features/<name>/<cohort>.parquet`, the list of shards, written last; the features go to the folder
            beside it, `features/<name>/<cohort>/<shard>.parquet`.

    Raises:
        BrainG3NError: there is no such encoder, a feature is not finite, or another run works on this cohort.
        ResumeLater: asked to stop, or the job's time limit is near.
    """
    folder, on = Path(table).with_suffix(""), pick_device(device)
    encoder = load_encoder(name, mae, weights, str(on))
    logger.info("%s (%s, licence: %s): %s", name, encoder.citation, encoder.licence, encoder.keys)

    def files(shard: str) -> list[Path]:
        return [folder / f"{shard}.parquet"]

    def make(shard: str, rows: pd.DataFrame) -> None:
        write_parquet(*files(shard), feature_table(encoder, rows, results, on))

    made_by = short_hash(name, *(sha256_of(path) for path in made_from(name, mae, weights)))
    make_by_shard(f"encode_{name}", cohort, metadata, results, made_by, files, make, table)


def feature_table(
    encoder: Encoder, rows: pd.DataFrame, results: str | Path, device: torch.device | str
) -> pd.DataFrame:
    """Features of rows of the metadata table: `volume_id, feature`, and `feature_<pooling>` for further poolings.

    Raises:
        BrainG3NError: a feature is not finite.
    """
    pooled = encode_rows(encoder, rows, results, device)
    table = {"volume_id": rows["volume_id"].tolist()}
    for position, pooling in enumerate(encoder.poolings):
        bad = ~np.isfinite(pooled[pooling]).all(1)
        if bad.any():
            raise BrainG3NError(
                f"{encoder.name} gave features that are not finite", found=", ".join(rows["volume_id"][bad][:3])
            )
        table["feature" if position == 0 else f"feature_{pooling}"] = list(pooled[pooling])
    return pd.DataFrame(table).astype({"volume_id": "str"})


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
