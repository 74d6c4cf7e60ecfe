"""Centre crop or pad of a registered volume to 160x192x160, and its place in the packed store (paper, Appendix B)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

from braing3n.errors import BrainG3NError
from braing3n.files import write_nifti
from braing3n.geometry import SRI24_AFFINE, SRI24_SHAPE, VOLUME_SHAPE, center_crop_or_pad, cropped_affine
from braing3n.volumes.store import write_store


def crop(image: Path, out: Path | None) -> dict[str, float]:
    """Crop a volume on the SRI24 grid to 160x192x160 and, with `out`, write it as float32 NIfTI.

    Returns:
        `cropped_brain_fraction`: of the voxels above zero, how many lie outside of the crop.

    Raises:
        BrainG3NError: the image is not on the SRI24 grid, or holds no brain.
    """
    volume = read_on_grid(image)
    cropped = center_crop_or_pad(volume)
    inside, whole = int((cropped > 0).sum()), int((volume > 0).sum())
    if inside == 0:
        raise BrainG3NError(
            "registered volume holds no brain", file=image, remedy="look at its mask and its registration"
        )
    if out is not None:
        write_nifti(out, cropped, cropped_affine())
    return {"cropped_brain_fraction": 1 - inside / whole}


def read_on_grid(image: Path) -> np.ndarray:
    """Voxels of an image that must lie on the SRI24 grid or its crop, float32."""
    found = nib.load(image)
    grids = {SRI24_SHAPE: SRI24_AFFINE, VOLUME_SHAPE: cropped_affine()}
    if found.shape not in grids or not np.allclose(found.affine, grids[found.shape], atol=1e-3):
        raise BrainG3NError(
            "is not on the SRI24 grid",
            file=image,
            expected=f"shape {SRI24_SHAPE}, affine {SRI24_AFFINE.tolist()}",
            found=f"shape {found.shape}, affine {np.round(found.affine, 3).tolist()}",
        )
    return found.get_fdata(dtype=np.float32)


def pack_store(store: Path, volume_ids: Sequence[str], images: Iterable[Path]) -> None:
    """Pack the shard's images, cropped or not, into the store `store` and its table (docs/data-contract.md)."""
    write_store(store, volume_ids, (center_crop_or_pad(read_on_grid(image)) for image in images))
