"""Fréchet and kernel distances between real, reconstructed and generated volumes (paper, section 3.3)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from braing3n.config.training import FrechetSettings
from braing3n.encoders.protocol import z_score_brain
from braing3n.errors import BrainG3NError
from braing3n.evaluation.decoded import decoded_feed, to_intensities
from braing3n.evaluation.distances import covariance_rank, frechet_distance, kid
from braing3n.evaluation.extractors import InceptionSlices, MAEVolumes, robust_window
from braing3n.evaluation.latent_encoding import check_same_encoder
from braing3n.models.mae import load_mae
from braing3n.models.tokenizer import load_tokenizer
from braing3n.results import results_table
from braing3n.training.distributed import pick_device
from braing3n.volumes.feed import VolumeFeed

logger = logging.getLogger(__name__)

BATCH = 4
RESAMPLES = 500
WINDOW_VOLUMES = 32  # real volumes that the shared intensity window is taken from


@dataclass(frozen=True)
class VolumeSet:
    """Slice features (n, s, d) of one set with the person (or sample) of each volume."""

    features: np.ndarray
    units: np.ndarray

    def half(self, members: np.ndarray) -> VolumeSet:
        return VolumeSet(self.features[members], self.units[members])


def run_frechet(
    metadata: pd.DataFrame,
    results: str | Path,
    generated: str | Path,
    mae: str | Path,
    tokenizer: str | Path,
    settings: FrechetSettings,
) -> pd.DataFrame:
    """Distances of every pair of sets with every extractor.

    Real volumes are drawn in the generated ones' shares of modalities; reconstructions are theirs.

    Returns:
        Rows of the results table: `table` frechet, `encoder` the extractor, `task` the pair, `slice` pooled or a view.
        An extractor without weights has one row `unavailable`.
    """
    check_same_encoder(tokenizer, mae)
    device = pick_device("auto")
    feeds = [decoded_feed(file) for file in sorted(Path(generated).glob("*.parquet"))]
    if not feeds:
        raise BrainG3NError("holds no generated volumes", file=generated, remedy="run the rule generate")
    made = pd.concat([table for _, table in feeds], ignore_index=True)
    real = matched_sample(metadata, made["modality"], settings.n_real, settings.seed)
    feed = VolumeFeed(real, results)
    window = robust_window(feed.batch(np.arange(min(len(feed), WINDOW_VOLUMES))))
    logger.info("%d real, %d generated volumes, window %.2f to %.2f", len(real), len(made), *window)
    encoder, decoder = load_mae(mae, device), load_tokenizer(tokenizer, device)
    persons = real["person_id"].to_numpy()
    sources: dict[str, tuple[Callable[[], Iterator[Tensor]], np.ndarray]] = {
        "real": (lambda: batches(feed), persons),
        "reconstructed": (lambda: (reconstruct(v, o, encoder, decoder) for v, o in with_offsets(feed, real)), persons),
        "generated": (lambda: (v for own, _ in feeds for v in batches(own)), made["volume_id"].to_numpy()),
    }
    rows: list[dict[str, Any]] = []
    for name in settings.extractors:
        try:
            extractor = MAEVolumes(encoder, device) if name == "mae" else inception(settings, device)
        except BrainG3NError as error:
            logger.warning("no distances with %s: %s", name, error)
            rows.append({"table": "frechet", "encoder": name, "metric": "unavailable", "value": 1.0})
            continue
        sets = {
            part: VolumeSet(np.concatenate([extractor.features(v, window) for v in volumes()]), units)
            for part, (volumes, units) in sources.items()
        }
        rows += distances(name, extractor.views, sets, settings)
    return results_table(rows)


def inception(settings: FrechetSettings, device: torch.device) -> InceptionSlices:
    if settings.inception_weights is None:
        raise BrainG3NError(
            "frechet.inception_weights is not set", remedy="give the path of inception-2015-12-05.pt (docs/frechet.md)"
        )
    return InceptionSlices(settings.inception_weights, settings.slices_per_view, device)


def matched_sample(metadata: pd.DataFrame, modalities: pd.Series, n: int, seed: int) -> pd.DataFrame:
    """At most `n` real volumes in the shares that `modalities` has; a missing modality asks for any.

    A modality without enough volumes gives what it has; the order of the table does not matter.
    """
    shares = modalities.fillna("").value_counts(normalize=True)
    order = np.random.default_rng(seed).permutation(len(metadata))
    shuffled = metadata.sort_values("volume_id", kind="stable").iloc[order]
    taken = []
    for modality, share in shares.items():
        pool = shuffled if modality == "" else shuffled[shuffled["modality"] == modality]
        pool = pool[~pool["volume_id"].isin({i for part in taken for i in part["volume_id"]})]
        taken.append(pool.head(round(n * share)))
    sample = pd.concat(taken)
    if sample["person_id"].nunique() < 2:
        raise BrainG3NError("fewer than two persons to compare with", file="metadata", found=f"{len(sample)} volumes")
    return sample.sort_values("volume_id", kind="stable").reset_index(drop=True)


def batches(feed: VolumeFeed) -> Iterator[Tensor]:
    for start in range(0, len(feed), BATCH):
        yield feed.batch(np.arange(start, min(start + BATCH, len(feed))))


def with_offsets(feed: VolumeFeed, rows: pd.DataFrame) -> Iterator[tuple[Tensor, np.ndarray]]:
    """Batches with the mean over standard deviation of each volume, which the z-score took away."""
    offsets = (rows["mean"] / rows["std"]).to_numpy()
    for start, volumes in zip(range(0, len(feed), BATCH), batches(feed), strict=True):
        yield volumes, offsets[start : start + len(volumes)]


@torch.no_grad()
def reconstruct(volumes: Tensor, offsets: np.ndarray, encoder: torch.nn.Module, decoder: torch.nn.Module) -> Tensor:
    """decode(encode(x)), masked and z-scored exactly as generated volumes are. (B, 1, X, Y, Z) -> the same."""
    device = next(encoder.parameters()).device
    decoded = decoder(encoder.encode(volumes.to(device))).cpu()  # (B, 1, X, Y, Z)
    intensities = [to_intensities(z[0].numpy(), o) for z, o in zip(decoded, offsets, strict=True)]
    stacked = torch.from_numpy(np.stack(intensities))[:, None]
    return z_score_brain(stacked, stacked > 0)


def distances(
    extractor: str, views: tuple[str, ...], sets: dict[str, VolumeSet], settings: FrechetSettings
) -> list[dict[str, Any]]:
    """Rows of all pairs, pooled over views and for each view."""
    first, second = halves(sets["real"].units, settings.seed)
    pairs = {
        "generated vs reconstructed": (sets["generated"], sets["reconstructed"]),
        "generated vs real": (sets["generated"], sets["real"]),
        "reconstructed vs real": (sets["reconstructed"], sets["real"]),
        "real vs real": (sets["real"].half(first), sets["real"].half(second)),
    }
    slices = sets["real"].features.shape[1]
    parts = {"pooled": slice(None)}
    if views:
        width = slices // len(views)
        parts |= {view: slice(k * width, (k + 1) * width) for k, view in enumerate(views)}
    rows = []
    for pair, (a, b) in pairs.items():
        for part, chosen in parts.items():
            common = {
                "table": "frechet",
                "encoder": extractor,
                "task": pair,
                "slice": part,
                "n_subjects": len(np.unique(np.concatenate([a.units, b.units]))),
                "n_scans": len(a.units) + len(b.units),
            }
            rows += [common | row for row in pair_rows(a, b, chosen, settings.seed)]
    return rows


def pair_rows(a: VolumeSet, b: VolumeSet, chosen: slice, seed: int) -> list[dict[str, Any]]:
    x, y = a.features[:, chosen], b.features[:, chosen]
    flat_x, flat_y = x.reshape(-1, x.shape[-1]), y.reshape(-1, y.shape[-1])
    if min(len(flat_x), len(flat_y)) < 2:
        return [{"metric": "too_few", "value": min(len(flat_x), len(flat_y))}]
    estimate, low, high = kid(x, y, a.units, b.units, RESAMPLES, seed)
    return [
        {"metric": "frechet", "value": frechet_distance(flat_x, flat_y)},
        {"metric": "kid", "value": estimate, "ci_low": low, "ci_high": high},
        {"metric": "n_first", "value": len(x)},
        {"metric": "n_second", "value": len(y)},
        {"metric": "rank_first", "value": covariance_rank(flat_x)},
        {"metric": "rank_second", "value": covariance_rank(flat_y)},
        {"metric": "dimension", "value": flat_x.shape[1]},
    ]


def halves(persons: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions of two halves that share no person."""
    names = np.unique(persons)
    chosen = np.random.default_rng(seed).permutation(names)[: len(names) // 2]
    member = np.isin(persons, chosen)
    return np.flatnonzero(member), np.flatnonzero(~member)
