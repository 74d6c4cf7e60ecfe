"""Decoded latents as a volume store: z-scored voxels back to non-negative intensities with an empty background.

The decoder's output is z-scored with a background of 0, and some tissue is 0 there too. To be stored like a real volume
(background 0, brain above it) it needs a brain mask and the offset that the z-score took away. Intensities are in units
of the brain's standard deviation: z + offset, with the mean over standard deviation of real scans as offset.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy import ndimage

from braing3n.errors import BrainG3NError
from braing3n.files import read_parquet, write_parquet
from braing3n.volumes.feed import VolumeFeed
from braing3n.volumes.store import LEVELS, write_array

BLOCK = 4  # voxels; side of the blocks that brain and background are told apart by at first
BRAIN_LEVEL = 0.15  # mean |z| of a block with brain; a decoded background stays well below
NEIGHBOURS = np.ones((3, 3, 3), dtype=bool)
EDGE_LEVEL = 0.25  # |z| of a voxel at the brain's edge


def brain_mask(z: np.ndarray) -> np.ndarray:
    """Brain of a decoded volume: z-scored (X, Y, Z), sides divisible by 4 -> bool.

    Blocks with contrast, without holes, are brain; between one block inside and one outside their border, background is
    what can be reached from outside through voxels near 0. Tissue at 0 deeper inside therefore stays brain. A volume
    without any contrast is taken as brain throughout.
    """
    magnitude = np.abs(z)
    x, y, z_blocks = (n // BLOCK for n in z.shape)
    blocks = magnitude.reshape(x, BLOCK, y, BLOCK, z_blocks, BLOCK).mean(axis=(1, 3, 5)) > BRAIN_LEVEL
    labels, n = ndimage.label(blocks)
    if n == 0:
        return np.ones(z.shape, dtype=bool)
    largest = 1 + np.argmax(np.bincount(labels.ravel())[1:])
    brain = ndimage.binary_fill_holes(labels == largest)
    inside, near = ndimage.binary_erosion(brain, NEIGHBOURS), ndimage.binary_dilation(brain, NEIGHBOURS)
    empty = ~_to_voxels(near) | (~_to_voxels(inside) & (magnitude < EDGE_LEVEL))
    padded, _ = ndimage.label(np.pad(empty, 1, constant_values=True))  # one background, also where brain meets a face
    return padded[1:-1, 1:-1, 1:-1] != padded[0, 0, 0]


def _to_voxels(blocks: np.ndarray) -> np.ndarray:
    for axis in range(3):
        blocks = blocks.repeat(BLOCK, axis=axis)
    return blocks


def to_intensities(z: np.ndarray, offset: float) -> np.ndarray:
    """z-scored voxels (X, Y, Z) -> float32 intensities: z + offset in the brain, at least a stored unit; 0 outside."""
    mask = brain_mask(z)
    intensities = np.where(mask, np.maximum(z + offset, 0), 0).astype(np.float32)
    least = max(float(intensities.max()), 1.0) / LEVELS
    return np.where(mask, np.maximum(intensities, least), 0).astype(np.float32)


def typical_offset(metadata: pd.DataFrame, modality: str | None = None) -> float:
    """Median of mean / standard deviation of the brain, over training volumes of a modality, or all if none has it."""
    train = metadata[metadata["split"] == "train"]
    rows = train[train["modality"] == modality] if modality in set(train["modality"]) else train
    if rows.empty:
        raise BrainG3NError("no training volume to take intensities from", file="metadata")
    return float((rows["mean"] / rows["std"]).median())


def write_decoded(path: str | Path, table: pd.DataFrame, volumes: Iterable[np.ndarray], shape: tuple) -> pd.DataFrame:
    """Write intensities `<name>.npy` as the volume store packs them, and `<name>.parquet` with `table`'s columns and
    `row, scale, mean, std, brain_voxels, sha256`.
    """
    stored = write_array(path, volumes, len(table), shape)
    result = pd.concat([table.reset_index(drop=True), stored], axis=1)
    write_parquet(Path(path).with_suffix(".parquet"), result)
    return result


def decoded_feed(path: str | Path, device: torch.device | str = "cpu") -> tuple[VolumeFeed, pd.DataFrame]:
    """Feed of the volumes of a generated or forecast table `<name>.parquet`, z-scored like real ones, and the table."""
    path = Path(path)
    table = read_parquet(path)
    stores = table.assign(store_file=path.with_suffix(".npy").name, store_row=table["row"])
    return VolumeFeed(stores, path.parent, device), table
