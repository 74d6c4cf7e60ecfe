"""Brain masks: what a backend is, and masks that need none because the cohort delivers them."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from nibabel.processing import resample_from_to

from braing3n import geometry
from braing3n.config.data import MaskSettings
from braing3n.errors import BrainG3NError
from braing3n.preprocess.images import affine_of, image_like, read_image, volume_ml, write_image

MODALITIES: dict[str, tuple[str, ...]] = {
    "hd-bet": geometry.MODALITIES,
    "hd-bet-v1": geometry.MODALITIES,
    "deepbet": ("T1",),  # trained on T1-weighted scans only
    "provided": geometry.MODALITIES,
}
BRAIN_ML = (100.0, 3000.0)  # outside of it no human brain was masked, whatever the age
MIN_BLANK_FACES = 0.5  # share of the field of view's faces that holds one value where a scan is stripped


class Masker(Protocol):
    """A brain extraction whose model is loaded once and called for every scan."""

    name: str
    modalities: tuple[str, ...]

    def __call__(self, image: Path, out_mask: Path) -> dict[str, float]:
        """Write the brain mask (uint8 of 0 and 1, on the image's grid).

        Returns:
            brain_ml: its volume.

        Raises:
            BrainG3NError: no brain was found, or one that cannot be.
        """


def load_masker(settings: MaskSettings, threads: int) -> Masker:
    """The backend that `settings` names, its model loaded.

    Raises:
        BrainG3NError: its package or its weights are missing.
    """
    if settings.backend == "deepbet":
        from braing3n.preprocess.deepbet import DeepBet

        return DeepBet(settings, threads)
    if settings.backend == "hd-bet":
        from braing3n.preprocess.hdbet import HDBet

        return HDBet(settings, threads)
    if settings.backend == "hd-bet-v1":
        from braing3n.preprocess.hdbet_v1 import HDBetV1

        return HDBetV1(settings, threads)
    return Provided()


class Provided:
    """Takes a scan as delivered, without its skull."""

    name = "provided"
    modalities = MODALITIES["provided"]

    def __call__(self, image: Path, out_mask: Path) -> dict[str, float]:
        return provided_mask(image, None, out_mask)


def provided_mask(image: Path, delivered_mask: Path | None, out_mask: Path) -> dict[str, float]:
    """Write the mask that a cohort delivers beside a scan, or the one that a stripped scan carries in its voxels.

    Args:
        delivered_mask: mask file in any orientation, on any grid that covers the scan; None for a stripped scan.

    Returns:
        brain_ml, and mask_filled: the share of the field of view that the mask takes.

    Raises:
        BrainG3NError: the mask is empty, misses the scan, or the scan has not been stripped.
    """
    source = read_image(image)
    array = voxels_of_stripped(source, image) if delivered_mask is None else on_grid_of(source, delivered_mask)
    filled = float(array.mean())
    return write_brain_mask(array, source, out_mask, origin=delivered_mask or image) | {"mask_filled": filled}


def voxels_of_stripped(source: sitk.Image, path: Path) -> np.ndarray:
    """Mask (z, y, x) of a stripped scan: all above the constant background, holes filled, largest piece."""
    array = sitk.GetArrayViewFromImage(source)
    faces = np.concatenate([np.take(array, side, axis).ravel() for axis in range(3) for side in (0, -1)])
    background = np.median(faces)
    foreground = sitk.BinaryFillhole(image_like((array > background).astype(np.uint8), source))
    pieces = sitk.RelabelComponent(sitk.ConnectedComponent(foreground), sortByObjectSize=True)
    mask = sitk.GetArrayFromImage(pieces) == 1
    blank, found_ml = float(np.mean(faces == background)), volume_ml(mask, source.GetSpacing())
    if blank < MIN_BLANK_FACES or found_ml > BRAIN_ML[1]:
        raise BrainG3NError(
            "scan is declared stripped but is not",
            file=path,
            expected=f"a constant background around at most {BRAIN_ML[1]:.0f} ml",
            found=f"{blank:.0%} of the outermost voxels constant, {found_ml:.0f} ml above them",
            remedy="correct entry_stripped in the cohort's definition (config/cohorts)",
        )
    return mask


def on_grid_of(source: sitk.Image, delivered: Path) -> np.ndarray:
    """Delivered mask on the grid of `source`, bool array (z, y, x), nearest neighbour where grids differ."""
    try:
        mask = nib.funcs.squeeze_image(nib.load(delivered))
        voxels = (np.nan_to_num(mask.get_fdata(dtype=np.float32)) > 0).astype(np.uint8)
    except (OSError, EOFError, nib.filebasedimages.ImageFileError) as error:
        raise BrainG3NError(
            "delivered mask cannot be read", file=delivered, found=str(error), remedy="copy or download it again"
        ) from error
    if voxels.ndim != 3:
        raise BrainG3NError("delivered mask is not three-dimensional", file=delivered, found=f"shape {voxels.shape}")
    target = (source.GetSize(), affine_of(source))
    if voxels.shape != target[0] or not np.allclose(mask.affine, target[1], atol=1e-3):
        resampled = resample_from_to(nib.Nifti1Image(voxels, mask.affine), target, order=0)
        before = voxels.sum() * abs(np.linalg.det(mask.affine[:3, :3])) / 1000
        voxels = np.asarray(resampled.dataobj)
        after = volume_ml(voxels, source.GetSpacing())
        if after < 0.9 * before:
            raise BrainG3NError(
                "delivered mask lies partly outside its scan",
                file=delivered,
                expected=f"its {before:.0f} ml within the scan's field of view",
                found=f"{after:.0f} ml",
                remedy="check that mask and scan share one space",
            )
    return voxels.transpose(2, 1, 0) > 0


def write_brain_mask(array: np.ndarray, like: sitk.Image, out_mask: Path, *, origin: Path) -> dict[str, float]:
    """Check the volume of a mask (z, y, x) and write it; errors name the file `origin`.

    Raises:
        BrainG3NError: its volume is outside BRAIN_ML.
    """
    brain_ml = volume_ml(array, like.GetSpacing())
    if not BRAIN_ML[0] <= brain_ml <= BRAIN_ML[1]:
        raise BrainG3NError(
            "brain mask is empty" if brain_ml == 0 else "brain mask has an impossible volume",
            file=origin,
            expected=f"{BRAIN_ML[0]:.0f} to {BRAIN_ML[1]:.0f} ml",
            found=f"{brain_ml:.0f} ml",
            remedy="look at the scan: wrong orientation, cut-off brain or no brain; or use another mask backend",
        )
    write_image(out_mask, image_like(array.astype(np.uint8), like), np.uint8)
    return {"brain_ml": brain_ml}
