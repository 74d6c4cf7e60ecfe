"""Volumes to the device: 16-bit rows from memory-mapped stores, cast and z-scored where they are used.

The z-score uses mean and standard deviation of the brain voxels (stored value > 0) and leaves the background at exactly
0 (paper, Appendix B: "z-score per volume in the loader"; MONAI's `NormalizeIntensity(nonzero=True)` does the same).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from braing3n.errors import BrainG3NError
from braing3n.files import read_parquet, short_hash
from braing3n.geometry import PATCH_SIZE
from braing3n.volumes.store import open_store

SLAB = 8  # planes of 192 x 160 float32 that a core's cache holds
COLUMNS = ("volume_id", "store_file", "store_row", "scale", "mean", "std")


class VolumeFeed:
    """Random access to the volumes of a table of metadata, by its row position.

    Safe to call from several threads. Files are opened when first used and stay mapped.

    Args:
        metadata: rows of the metadata table (docs/data-contract.md).
        results: folder that `store_file` is relative to.
        device: where batches go unless a call says otherwise.
    """

    def __init__(self, metadata: pd.DataFrame, results: str | Path, device: torch.device | str = "cpu"):
        missing = [column for column in COLUMNS if column not in metadata.columns]
        if missing:
            raise BrainG3NError(
                "metadata lacks columns of the volume store",
                found=f"no {', '.join(missing)}",
                remedy="run: braing3n metadata build",
            )
        self.results, self.device = Path(results), torch.device(device)
        self.files = metadata["store_file"].to_numpy()
        self.rows = metadata["store_row"].to_numpy(dtype=np.int64)
        std = metadata["std"].to_numpy(dtype=np.float64)
        # z = (stored * scale - mean) / std = stored * gain - offset
        self.gain = (metadata["scale"].to_numpy(dtype=np.float64) / std).astype(np.float32)
        self.offset = (metadata["mean"].to_numpy(dtype=np.float64) / std).astype(np.float32)
        self._stores: dict[str, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.rows)

    def batch(
        self,
        indices: Sequence[int] | np.ndarray,
        device: torch.device | str | None = None,
        out: Tensor | None = None,
    ) -> Tensor:
        """Rows -> z-scored volumes (B, 1, X, Y, Z) float32 on the device; background 0.

        `out`, an earlier batch of the same size that is no longer needed, is overwritten and returned. On the CPU that
        saves two thirds of the time: fresh memory costs more than the arithmetic.
        """
        device = self.device if device is None else torch.device(device)
        indices = np.asarray(indices)
        if out is None:
            shape = self._store(self.files[indices[0]]).shape[1:]
            out = torch.empty((len(indices), 1, *shape), device=device)
        if device.type == "cpu":
            self._standardise_on_cpu(indices, out)
            return out
        stored = self.stored(indices, pinned=device.type == "cuda").to(device, non_blocking=True)  # (B, X, Y, Z) uint16
        for volume, index in zip(out[:, 0].copy_(stored), indices, strict=True):
            standardise(volume, float(self.gain[index]), float(self.offset[index]))
        return out

    def _standardise_on_cpu(self, indices: np.ndarray, out: Tensor) -> None:
        """From the map to `out` (B, 1, X, Y, Z), a few planes at a time so that they stay in the cache."""
        for k, index in enumerate(indices):
            volume = self._store(self.files[index])[self.rows[index]]
            for x in range(0, len(volume), SLAB):
                part = out[k, 0, x : x + SLAB]
                np.copyto(part.numpy(), volume[x : x + SLAB])
                standardise(part, float(self.gain[index]), float(self.offset[index]))

    def stored(self, indices: np.ndarray, pinned: bool = False) -> Tensor:
        """Stored values as they lie in the files: (B, X, Y, Z) uint16 on the CPU, page-locked if `pinned`."""
        shape = self._store(self.files[indices[0]]).shape[1:]
        # torch keeps page-locked blocks until their copy has ended, then hands them out again: no buffers of our own.
        result = torch.empty((len(indices), *shape), dtype=torch.uint16, pin_memory=pinned)
        view = result.numpy()
        for k, index in enumerate(indices):
            view[k] = self._store(self.files[index])[self.rows[index]]
        return result

    def _store(self, file: str) -> np.ndarray:
        if file not in self._stores:
            self._stores[file] = open_store(self.results / file)
        return self._stores[file]


def standardise(stored: Tensor, gain: float, offset: float) -> None:
    """Stored values of one volume, as float32, to z-scores in place; where nothing is stored they stay 0."""
    stored.mul_(gain).sub_(offset)
    F.threshold_(stored, -offset, 0.0)  # what a stored 0 has become, and every brain voxel is above


def brain_fraction(volumes: Tensor, patch: int = PATCH_SIZE) -> Tensor:
    """Share of brain voxels in every token. z-scored (B, 1, X, Y, Z) -> (B, N) in [0, 1], tokens in C order.

    A brain voxel whose z-score is exactly 0 counts as background; with 16-bit values that is rare.
    """
    return F.avg_pool3d((volumes != 0).float(), patch).flatten(1)


def brain_tokens(volumes: Tensor, patch: int = PATCH_SIZE) -> Tensor:
    """Which tokens hold any brain. z-scored (B, 1, X, Y, Z) -> (B, N) bool."""
    return brain_fraction(volumes, patch) > 0


def balanced_weights(metadata: pd.DataFrame, columns: Sequence[str], power: float) -> np.ndarray:
    """Relative frequency of every row, by the number of rows that share its values in `columns`: count^-power.

    Power 0 leaves the frequencies as they are, 1 draws every combination of values equally often. Missing values are a
    group of their own.

    Raises:
        BrainG3NError: no such column.
    """
    missing = [column for column in columns if column not in metadata.columns]
    if missing:
        raise BrainG3NError("no such column to balance by", file="balance", found=", ".join(missing))
    counts = metadata.groupby(list(columns), dropna=False)["volume_id"].transform("size")
    return counts.to_numpy(dtype=np.float64) ** -power


def data_hash(metadata: pd.DataFrame, results: str | Path) -> str:
    """Hash of the volumes of a table: which ones, in which split, and what their voxels are (sha256 of the store)."""
    stores = [read_parquet(Path(results) / file).set_index("volume_id") for file in _tables(metadata)]
    sha256 = pd.concat([store["sha256"] for store in stores]) if stores else pd.Series(dtype="string")
    rows = metadata[["volume_id", "split"]].assign(sha256=metadata["volume_id"].map(sha256)).sort_values("volume_id")
    return short_hash(*(" ".join(map(str, row)) for row in rows.itertuples(index=False)))


def _tables(metadata: pd.DataFrame) -> list[Path]:
    return [Path(file).with_suffix(".parquet") for file in sorted(metadata["store_file"].unique())]
