"""Numbers that say whether a registered volume can be believed. They flag, they never drop (`QCSettings`)."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from braing3n.preprocess.atlas import Atlas
from braing3n.preprocess.transforms import decompose, read_transform

BINS = 32
MAD_TO_SD = 1.4826
LEAK_MM = 5


def volume_qc(image_in_atlas: Path, mask_in_atlas: Path, transform: Path, atlas: Atlas) -> dict[str, float]:
    """Quality of one volume on the atlas grid.

    Args:
        transform: affine from the atlas to the scan (for a scan that follows an anchor, the anchor's).

    Returns:
        brain_ml: volume of the brain before the affine.
        atlas_correlation: with the atlas inside its mask (`atlas_correlation`); mirror_margin: how much higher it is
            than with the mirrored atlas. Brains are nearly symmetric, so the margin is small; below zero is suspect.
        atlas_dice: of the two masks; leakage: share of the brain mask more than 5 mm outside the atlas'.
        scale, stretch, shear, rotation_deg: of the affine (`decompose`).
        snr: median brain intensity over noise; cnr: between the two brightest of three tissue classes, over noise.
    """
    image = np.asarray(nib.load(image_in_atlas).dataobj, dtype=np.float32)
    mask = np.asarray(nib.load(mask_in_atlas).dataobj) > 0
    linear = read_transform(transform)[:3, :3]
    inside = atlas.mask
    correlation = atlas_correlation(image[inside], atlas.brain[inside])
    reflected = mirrored(atlas.brain, inside)
    both = inside & (reflected > 0)
    margin = atlas_correlation(image[both], atlas.brain[both]) - atlas_correlation(image[both], reflected[both])
    return {
        "brain_ml": float(mask.sum() * abs(np.linalg.det(linear)) / 1000.0),
        "atlas_correlation": correlation,
        "mirror_margin": margin,
        "atlas_dice": dice(mask, inside),
        "leakage": leakage(mask, inside),
        **decompose(linear),
        **signal_quality(image, mask),
    }


def atlas_correlation(values: np.ndarray, reference: np.ndarray) -> float:
    """Correlation ratio (Roche et al. 1998): how much of `reference` a function of `values` explains, 0 to 1.

    Equal to the absolute Pearson correlation where the relation is linear, and as high for contrasts that are not the
    atlas' own, such as T2's. Square root of the explained share of the variance, over BINS bins of `values`.
    """
    reference = reference.astype(np.float64)
    total = reference.var()
    low, high = np.percentile(values, (0.5, 99.5))
    if total == 0 or high <= low:
        return 0.0
    bins = np.clip((values - low) * (BINS / (high - low)), 0, BINS - 1).astype(np.int64)
    count = np.bincount(bins, minlength=BINS)
    means = np.bincount(bins, weights=reference, minlength=BINS) / np.maximum(count, 1)
    explained = np.sum(count * (means - reference.mean()) ** 2) / reference.size
    return float(np.sqrt(explained / total))


def mirrored(volume: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A volume (X, Y, Z) reflected left to right about the middle of its mask."""
    first, last = np.flatnonzero(mask.any(axis=(1, 2)))[[0, -1]]
    result = np.zeros_like(volume)
    result[first : last + 1] = volume[first : last + 1][::-1]
    return result


def dice(one: np.ndarray, other: np.ndarray) -> float:
    """Overlap of two masks: 1 where equal, 0 where disjoint."""
    total = int(one.sum()) + int(other.sum())
    return float(2 * int((one & other).sum()) / total) if total else 0.0


def leakage(mask: np.ndarray, inside: np.ndarray) -> float:
    """Share of `mask` that lies more than LEAK_MM voxels (1 mm each) outside `inside`."""
    outside = mask & ~inside
    if not outside.any():
        return 0.0
    distance = ndimage.distance_transform_cdt(~inside, metric="chessboard")
    return float((outside & (distance > LEAK_MM)).sum() / mask.sum())


def signal_quality(image: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """snr and cnr of the brain; noise is the median absolute deviation of second differences along z.

    Interpolation has smoothed the noise, so that the numbers compare scans of one cohort, not of different grids.
    """
    core = mask[:, :, 1:-1] & mask[:, :, 2:] & mask[:, :, :-2]
    if not core.any():
        return {"snr": 0.0, "cnr": 0.0}
    second = (image[:, :, 2:] - 2 * image[:, :, 1:-1] + image[:, :, :-2])[core] / np.sqrt(6.0)
    noise = max(MAD_TO_SD * float(np.median(np.abs(second - np.median(second)))), 1e-12)
    brain = image[mask]
    classes = sitk.GetArrayFromImage(sitk.OtsuMultipleThresholds(sitk.GetImageFromArray(brain[None]), 2))[0]
    means = [float(brain[classes == label].mean()) for label in (1, 2) if (classes == label).any()]
    contrast = means[1] - means[0] if len(means) == 2 else 0.0
    return {"snr": float(np.median(brain)) / noise, "cnr": contrast / noise}
