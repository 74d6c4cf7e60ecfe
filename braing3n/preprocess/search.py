"""A coarse search for the start of a registration: many candidate transforms, scored by mutual information.

Optimisers find the nearest optimum; a head turned by 25 degrees about each axis can lie beyond its reach. Scoring a
candidate on a 6 mm grid takes about a millisecond, so trying a hundred costs less than one stage of the optimiser.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np
import SimpleITK as sitk
from scipy import ndimage
from scipy.spatial.transform import Rotation

from braing3n.preprocess.images import LPS_TO_RAS, affine_of

GRID_MM = 6.0
BINS = 16
ANGLES_DEG = (0.0, -15.0, 15.0, -30.0, 30.0)
FOREGROUND_PERCENTILE = 98.0


def rotations(count: int) -> list[np.ndarray]:
    """The `count` smallest of the rotations by ANGLES_DEG about the three axes; the first is none. (3, 3) each."""
    angles = sorted(itertools.product(ANGLES_DEG, repeat=3), key=lambda xyz: (np.dot(xyz, xyz), xyz))
    return [Rotation.from_euler("xyz", xyz, degrees=True).as_matrix() for xyz in angles[:count]]


def matrix_about(linear: np.ndarray, fixed_center: np.ndarray, moving_center: np.ndarray) -> np.ndarray:
    """4x4 that maps `fixed_center` onto `moving_center` and turns and scales by `linear` about it."""
    matrix = np.eye(4)
    matrix[:3, :3] = linear
    matrix[:3, 3] = moving_center - linear @ fixed_center
    return matrix


def center_of_mass(image: sitk.Image) -> np.ndarray:
    """Centre of mass in LPS millimetres."""
    weights = np.clip(sitk.GetArrayViewFromImage(image), 0, None)
    index = [float(c) for c in ndimage.center_of_mass(weights)[::-1]]
    return np.array(image.TransformContinuousIndexToPhysicalPoint(index))


def resample_isotropic(image: sitk.Image, spacing_mm: float) -> sitk.Image:
    """Onto voxels of `spacing_mm`, along the image's own axes; smoothed first where that is coarser."""
    # The sigma that takes a voxel's own width to the new one, both seen as Gaussians (Cardoso et al. 2015).
    fwhm = [np.sqrt(max(0.0, spacing_mm**2 - length**2)) for length in image.GetSpacing()]
    if max(fwhm) > 0:
        image = sitk.SmoothingRecursiveGaussian(image, [max(0.05, width / 2.355) for width in fwhm])
    size = [max(1, int(np.ceil(n * s / spacing_mm))) for n, s in zip(image.GetSize(), image.GetSpacing(), strict=True)]
    first = (spacing_mm / np.array(image.GetSpacing()) - 1) / 2  # so that the outer faces coincide
    origin = image.TransformContinuousIndexToPhysicalPoint(first.tolist())
    grid = sitk.Transform(), sitk.sitkLinear, origin, [spacing_mm] * 3, image.GetDirection(), 0.0
    return sitk.Resample(image, size, *grid)


def best_start(fixed: sitk.Image, moving: sitk.Image, candidates: Iterable[np.ndarray]) -> tuple[np.ndarray, float]:
    """The candidate (4x4, LPS, fixed point -> moving point) of the highest mutual information, and that."""
    fixed, moving = resample_isotropic(fixed, GRID_MM), resample_isotropic(moving, GRID_MM)
    reference = quantise(fixed).astype(np.int64).ravel()
    levels = quantise(moving)
    shape = sitk.GetArrayViewFromImage(fixed).shape
    index = np.indices(shape).reshape(3, -1)[::-1]  # (3, n), x first
    points = np.vstack([index, np.ones(index.shape[1])])  # (4, n)
    to_world, to_index = lps_affine(fixed), np.linalg.inv(lps_affine(moving))
    best, score = None, -np.inf
    for candidate in candidates:
        position = (to_index @ candidate @ to_world @ points)[2::-1]  # (3, n), z first
        sampled = ndimage.map_coordinates(levels, position, order=1, cval=0.0)
        value = mutual_information(reference, sampled.astype(np.int64))
        if value > score:
            best, score = candidate, value
    return best, score


def lps_affine(image: sitk.Image) -> np.ndarray:
    """Voxel index (x, y, z, 1) -> LPS millimetres, 4x4."""
    to_lps = np.eye(4)
    to_lps[:3, :3] = LPS_TO_RAS
    return to_lps @ affine_of(image)


def quantise(image: sitk.Image) -> np.ndarray:
    """Intensities as float in [0, BINS): 0 is the lowest, the top bin begins at a high percentile of the foreground."""
    array = sitk.GetArrayFromImage(image)
    array -= array.min()
    positive = array[array > 0]
    top = np.percentile(positive, FOREGROUND_PERCENTILE) if positive.size else 1.0
    return np.clip(array * (BINS / top), 0, BINS - 1e-3)


def mutual_information(one: np.ndarray, other: np.ndarray) -> float:
    """Mutual information in nats of two arrays of bins."""
    joint = np.bincount(one * BINS + other, minlength=BINS * BINS).reshape(BINS, BINS) / one.size
    independent = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    nonzero = joint > 0
    return float(np.sum(joint[nonzero] * np.log(joint[nonzero] / independent[nonzero])))
