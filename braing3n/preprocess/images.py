"""Reading and writing volumes for the steps that compute with SimpleITK, on the package's affine convention.

SimpleITK indexes (x, y, z), hands arrays over as (z, y, x) and keeps world coordinates in LPS+; files carry the
NIfTI affine in RAS+. The change between the two is made here and nowhere else.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from braing3n.errors import BrainG3NError
from braing3n.files import write_nifti

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])


def limit_threads(threads: int) -> None:
    """Bound the threads of SimpleITK, and of ANTs where it is not imported yet, in this process."""
    os.environ.setdefault("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", str(threads))
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)


def read_image(path: Path) -> sitk.Image:
    """A 3D volume as float32.

    Raises:
        BrainG3NError: the file is missing, unreadable or not three-dimensional.
    """
    try:
        image = sitk.ReadImage(str(path), sitk.sitkFloat32)
    except RuntimeError as error:
        found = "no such file" if not Path(path).exists() else str(error).strip().splitlines()[-1]
        raise BrainG3NError("volume cannot be read", file=path, found=found, remedy="rerun the step before") from error
    if image.GetDimension() != 3:
        raise BrainG3NError(
            "volume is not three-dimensional", file=path, expected="3 axes", found=f"{image.GetDimension()} axes"
        )
    return image


def read_mask(path: Path) -> sitk.Image:
    """A mask as uint8 of 0 and 1 (1 where the stored value is above 0.5)."""
    return sitk.Cast(read_image(path) > 0.5, sitk.sitkUInt8)


def affine_of(image: sitk.Image) -> np.ndarray:
    """NIfTI affine of a SimpleITK image: voxel (x, y, z) -> RAS+ millimetres, shape (4, 4)."""
    affine = np.eye(4)
    direction = np.array(image.GetDirection()).reshape(3, 3)
    affine[:3, :3] = LPS_TO_RAS @ direction @ np.diag(image.GetSpacing())
    affine[:3, 3] = LPS_TO_RAS @ np.array(image.GetOrigin())
    return affine


def write_image(path: Path, image: sitk.Image, dtype: type = np.float32) -> None:
    """Write a volume atomically as NIfTI on its own grid."""
    write_nifti(path, sitk.GetArrayViewFromImage(image).transpose(2, 1, 0), affine_of(image), dtype)


def image_like(array: np.ndarray, like: sitk.Image) -> sitk.Image:
    """Array (z, y, x) as an image on the grid of `like`."""
    image = sitk.GetImageFromArray(array)
    image.CopyInformation(like)
    return image


def same_grid(one: sitk.Image, other: sitk.Image, tolerance_mm: float = 1e-2) -> bool:
    """Whether two images have the same shape and their corner voxels lie within `tolerance_mm` of each other."""
    if one.GetSize() != other.GetSize():
        return False
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in one.GetSize()])).reshape(3, -1)
    corners = np.vstack([corners, np.ones(corners.shape[1])])  # (4, 8)
    return bool(np.abs((affine_of(one) - affine_of(other)) @ corners).max() <= tolerance_mm)


def volume_ml(mask: sitk.Image | np.ndarray, spacing: tuple[float, ...] | None = None) -> float:
    """Volume of a mask of 0 and 1 in millilitres."""
    array = sitk.GetArrayViewFromImage(mask) if isinstance(mask, sitk.Image) else mask
    spacing = mask.GetSpacing() if spacing is None else spacing
    return float(np.count_nonzero(array) * np.prod(spacing) / 1000.0)


def box_of(mask: sitk.Image, margin_mm: float) -> tuple[slice, slice, slice]:
    """Index box (x, y, z) of a mask's set voxels, widened by a margin and clipped to the image."""
    array = sitk.GetArrayViewFromImage(mask)
    bounds = []
    for axis, (size, spacing) in enumerate(zip(mask.GetSize(), mask.GetSpacing(), strict=True)):
        others = tuple(a for a in range(3) if a != 2 - axis)
        hits = np.flatnonzero(array.any(axis=others))
        margin = int(np.ceil(margin_mm / spacing))
        bounds.append(slice(max(0, int(hits[0]) - margin), min(size, int(hits[-1]) + 1 + margin)))
    return tuple(bounds)


def in_orientation(source: sitk.Image, axes: str, segment: Callable[[sitk.Image], np.ndarray]) -> np.ndarray:
    """Run `segment` on the voxels of `source` reordered to `axes`, such as "RAS"; its mask is brought back to theirs.

    `segment` returns an array (z, y, x) of the image it is given. Nothing is interpolated.
    """
    oriented = sitk.DICOMOrient(source, axes)
    mask = image_like((segment(oriented) > 0).astype(np.uint8), oriented)
    own = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(source.GetDirection())
    return sitk.GetArrayFromImage(sitk.DICOMOrient(mask, own))
