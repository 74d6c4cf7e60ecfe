"""The packed volume store: many volumes as unsigned 16-bit integers in one memory-mapped array file.

Intensity = stored value x scale, with one scale a volume (its maximum over 65535), so that packing rounds every voxel
by at most half a scale. See docs/data-contract.md, "Volume store".
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from braing3n.errors import BrainG3NError
from braing3n.files import atomic_path, write_parquet
from braing3n.geometry import VOLUME_SHAPE

LEVELS = np.iinfo(np.uint16).max  # 65535
COLUMNS = ("volume_id", "row", "scale", "mean", "std", "brain_voxels", "sha256")


def pack(volume: np.ndarray) -> tuple[np.ndarray, float]:
    """Non-negative intensities (X, Y, Z) -> uint16 of the same shape, and the scale that brings them back.

    Raises:
        BrainG3NError: the volume holds negative or non-finite values, or nothing above zero.
    """
    low, high = float(volume.min()), float(volume.max())
    if not (np.isfinite(low) and np.isfinite(high) and low >= 0 and high > 0):
        raise BrainG3NError(
            "volume cannot be packed", expected="finite values, none negative, some positive", found=f"{low} to {high}"
        )
    scale = high / LEVELS
    return np.rint(volume / scale).astype(np.uint16), scale


def unpack(packed: np.ndarray, scale: float) -> np.ndarray:
    """Stored values (X, Y, Z) -> float32 intensities."""
    return packed.astype(np.float32) * np.float32(scale)


def brain_statistics(packed: np.ndarray, scale: float) -> dict[str, float | int]:
    """`mean` and `std` of the intensity over voxels with a stored value above zero, and their count `brain_voxels`."""
    brain = packed[packed > 0].astype(np.float64) * scale
    return {"mean": float(brain.mean()), "std": float(brain.std()), "brain_voxels": int(brain.size)}


def write_array(
    path: str | Path, volumes: Iterable[np.ndarray], n: int, shape: tuple[int, int, int] = VOLUME_SHAPE
) -> pd.DataFrame:
    """Pack `n` float volumes of `shape` one at a time into the uint16 array file `path`, (n, *shape), atomically.

    Returns:
        A row a volume: `row, scale, mean, std, brain_voxels, sha256` (of the stored bytes).
    """
    path = Path(path)
    rows = []
    with atomic_path(path) as temporary:
        # Written by plain appends rather than through a memory map: a full disk is then an error, not a SIGBUS.
        with open(temporary, "wb") as handle:
            header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.uint16)), "fortran_order": False}
            np.lib.format.write_array_header_1_0(handle, {**header, "shape": (n, *shape)})
            for volume in volumes:
                if volume.shape != shape:
                    raise BrainG3NError(
                        f"volume {len(rows)} does not fit", file=path, expected=str(shape), found=str(volume.shape)
                    )
                packed, scale = pack(volume)
                content = np.ascontiguousarray(packed).tobytes()
                handle.write(content)
                digest = hashlib.sha256(content).hexdigest()
                rows.append({"row": len(rows), "scale": scale, **brain_statistics(packed, scale), "sha256": digest})
        if len(rows) != n:
            raise BrainG3NError("wrong number of volumes", file=path, expected=str(n), found=str(len(rows)))
    types = {"row": "int64", "scale": "float64", "mean": "float64", "std": "float64", "brain_voxels": "int64"}
    return pd.DataFrame(rows, columns=list(COLUMNS[1:])).astype({**types, "sha256": "string"})


def write_store(path: str | Path, volume_ids: Sequence[str], volumes: Iterable[np.ndarray]) -> pd.DataFrame:
    """Write `<name>.npy` and beside it `<name>.parquet` with `COLUMNS`, one row a volume in the order given."""
    path = Path(path)
    table = write_array(path, volumes, len(volume_ids))
    table.insert(0, "volume_id", pd.array(list(volume_ids), dtype="string"))
    write_parquet(path.with_suffix(".parquet"), table)
    return table


def open_store(path: str | Path) -> np.ndarray:
    """The stored values, uint16 (n, X, Y, Z), memory-mapped read-only."""
    path = Path(path)
    if not path.exists():
        raise BrainG3NError("volume store is missing", file=path, remedy="run the crop step of this shard")
    stored = np.load(path, mmap_mode="r")
    if stored.dtype != np.uint16 or stored.ndim != 4:
        raise BrainG3NError(
            "is not a volume store", file=path, expected="uint16 (n, X, Y, Z)", found=f"{stored.dtype} {stored.shape}"
        )
    return stored


def read_volume(results: str | Path, row: Mapping[str, Any]) -> np.ndarray:
    """Intensities, float32 (160, 192, 160), of one row of the metadata table (`store_file, store_row, scale`)."""
    return unpack(open_store(Path(results) / row["store_file"])[int(row["store_row"])], float(row["scale"]))
