"""How well held-out volumes are reconstructed: by the MAE behind its mask, by the tokenizer, by the mean volume."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from braing3n.evaluation.latent_encoding import check_same_encoder
from braing3n.evaluation.similarity import Original
from braing3n.files import atomic_path, short_hash
from braing3n.models.mae import MaskedAutoencoder, load_mae
from braing3n.models.tokenizer import Tokenizer, load_tokenizer
from braing3n.models.transformer import unpatchify
from braing3n.probing.bootstrap import Interval, bootstrap, percentile_interval
from braing3n.results import results_table
from braing3n.training.distributed import pick_device
from braing3n.volumes.feed import VolumeFeed

logger = logging.getLogger(__name__)

EVALUATED = 256  # held-out volumes at most: intervals are narrow by then
AVERAGED = 64  # training volumes in a modality's mean volume
SHOWN = 3  # volumes of each modality whose slices are kept
RESAMPLES, SEED = 1000, 2025
FEWEST_PERSONS = 5  # resamples of fewer take too few values for an interval
VIEWS = ("sagittal", "coronal", "axial")
WHOLE, MASKED = "brain", "masked patches"


@dataclass(frozen=True)
class Reconstruction:
    """One held-out volume and what became of it, all (X, Y, Z) z-scored.

    Attributes:
        removed: bool, voxels whose patches the MAE did not see.
        by: method -> volume.
    """

    original: np.ndarray
    removed: np.ndarray
    by: dict[str, np.ndarray]


def run_reconstruction(
    metadata: pd.DataFrame, results: str | Path, mae: str | Path, tokenizer: str | Path, figures: str | Path
) -> pd.DataFrame:
    """Compare reconstructions of held-out volumes with the originals; keep the middle slices of a few.

    Returns:
        Rows of the results table: `encoder` the method, `task` the region (the brain, or its masked patches), `slice`
        pooled or a modality, `metric` l1, psnr or ssim with an interval over persons. Empty when no volume is held out,
        as may happen with a handful of persons.

    Raises:
        BrainG3NError: the models do not belong together.
    """
    check_same_encoder(tokenizer, mae)
    Path(figures).mkdir(parents=True, exist_ok=True)
    rows = held_out(metadata)
    if rows.empty:
        logger.warning("no volume has split == val or test: nothing to reconstruct")
        return results_table([])
    device = pick_device("auto")
    encoder, decoder = load_mae(mae, device), load_tokenizer(tokenizer, device)
    means = mean_volumes(metadata, results, tuple(rows["modality"].unique()))
    scores: list[dict[str, Any]] = []
    shown: dict[str, list[tuple[str, Reconstruction]]] = {}
    started = last = time.monotonic()
    for done, (row, result) in enumerate(reconstructions(rows, results, encoder, decoder, means), start=1):
        scores += [{"person": row.person_id, "modality": row.modality} | score for score in compare(result)]
        kept = shown.setdefault(row.modality, [])
        if len(kept) < SHOWN:
            kept.append((row.volume_id, result))
        if time.monotonic() - last > 10:
            last = time.monotonic()
            logger.info("%d of %d volumes, %.2f a second", done, len(rows), done / (last - started))
    for modality, examples in shown.items():
        write_slices(Path(figures) / f"{modality}.npz", examples)
    return summarise(pd.DataFrame(scores))


def held_out(metadata: pd.DataFrame) -> pd.DataFrame:
    """At most EVALUATED volumes of the test split, or of validation and test where the test split is small.

    The smallest ids come first; ids are hashes, so that is a fixed random choice.
    """
    test = metadata[metadata["split"] == "test"]
    rows = test if len(test) >= EVALUATED else metadata[metadata["split"].isin(["val", "test"])]
    return rows.sort_values("volume_id", kind="stable").head(EVALUATED).reset_index(drop=True)


def mean_volumes(metadata: pd.DataFrame, results: str | Path, modalities: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Mean z-scored training volume (X, Y, Z) of each modality, or of all training volumes where it has none."""
    train = metadata[metadata["split"] == "train"].sort_values("volume_id", kind="stable")
    means = {}
    for modality in modalities:
        rows = train[train["modality"] == modality]
        rows = (rows if len(rows) else train).head(AVERAGED)
        feed = VolumeFeed(rows, results)
        means[modality] = (sum(feed.batch([i])[0, 0] for i in range(len(feed))) / len(feed)).numpy()
    return means


@torch.no_grad()
def reconstructions(
    rows: pd.DataFrame,
    results: str | Path,
    encoder: MaskedAutoencoder,
    decoder: Tokenizer,
    means: dict[str, np.ndarray],
) -> Iterator[tuple[Any, Reconstruction]]:
    """Each row of the table with its reconstructions. A volume's mask depends on its id alone."""
    device = next(encoder.parameters()).device
    feed = VolumeFeed(rows, results)
    for position, row in enumerate(rows.itertuples()):
        volume = feed.batch([position], device)  # (1, 1, X, Y, Z)
        masking = encoder.fixed_masking(volume, [int(short_hash(row.volume_id, length=8), 16)])
        removed = masking.mask(encoder.tokens).bool()  # (1, N)
        patches = removed[..., None].float().expand(-1, -1, encoder.patch**3)
        by = {
            "mae": encoder.reconstruct(volume, masking),
            "tokenizer": decoder(encoder.encode(volume)),
        }
        yield (
            row,
            Reconstruction(
                volume[0, 0].cpu().numpy(),
                unpatchify(patches, encoder.grid, encoder.patch)[0, 0].cpu().numpy() > 0,
                {name: v[0, 0].float().cpu().numpy() for name, v in by.items()} | {"mean-volume": means[row.modality]},
            ),
        )


def compare(result: Reconstruction) -> list[dict[str, Any]]:
    """Scores of one volume: tokenizer and mean volume over the brain, MAE and mean volume over masked patches."""
    original = Original(result.original)
    regions = {WHOLE: (None, ("tokenizer", "mean-volume")), MASKED: (result.removed, ("mae", "mean-volume"))}
    return [
        {"encoder": method, "task": task} | original.compare(result.by[method], region)
        for task, (region, methods) in regions.items()
        for method in methods
    ]


def summarise(scores: pd.DataFrame) -> pd.DataFrame:
    """Means over volumes with intervals over persons (none for a handful), pooled and for each modality."""
    rows = []
    for (method, task), part in scores.groupby(["encoder", "task"], sort=False):
        slices = [("pooled", part), *part.groupby("modality", sort=True)]
        for name, own in slices:
            common = {"table": "reconstruction", "encoder": method, "task": task, "slice": name}
            common |= {"n_subjects": own["person"].nunique(), "n_scans": len(own)}
            for metric, interval in intervals(own).items():
                row = {"metric": metric, "value": interval.value, "ci_low": interval.low, "ci_high": interval.high}
                rows.append(common | row)
    return results_table(rows)


def intervals(scores: pd.DataFrame) -> dict[str, Interval]:
    values = scores[["l1", "psnr", "ssim"]]
    if scores["person"].nunique() < FEWEST_PERSONS:
        return {name: Interval(float(values[name].mean()), np.nan, np.nan) for name in values}

    def means(weights: np.ndarray) -> dict[str, np.ndarray]:
        totals = weights.astype(np.float64) @ values.to_numpy() / weights.sum(1, keepdims=True)
        return dict(zip(values.columns, totals.T, strict=True))

    replicates = bootstrap(means, scores["person"].to_numpy(), RESAMPLES, SEED)
    return {name: percentile_interval(values) for name, values in replicates.items()}


def write_slices(path: Path, examples: list[tuple[str, Reconstruction]]) -> None:
    """Middle slices of originals and reconstructions: `volume_id` (n,), and `<what>_<view>` (n, H, W) float16 z-scores
    for what in original, masked (removed patches are NaN), mae, tokenizer, mean-volume.
    """
    arrays: dict[str, np.ndarray] = {"volume_id": np.array([name for name, _ in examples])}
    for axis, view in enumerate(VIEWS):
        stacks: dict[str, list[np.ndarray]] = {}
        for _, result in examples:
            masked = np.where(result.removed, np.nan, result.original)
            for what, volume in {"original": result.original, "masked": masked, **result.by}.items():
                stacks.setdefault(what, []).append(volume.take(volume.shape[axis] // 2, axis=axis))
        arrays |= {f"{what}_{view}": np.stack(slices).astype(np.float16) for what, slices in stacks.items()}
    with atomic_path(path) as temporary, open(temporary, "wb") as handle:
        np.savez_compressed(handle, **arrays)
