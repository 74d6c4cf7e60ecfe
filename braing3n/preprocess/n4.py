"""Bias-field correction with N4 (Tustison et al. 2010; paper, Appendix B).

The field is smooth, so it is estimated on a coarser grid and evaluated, as the B-spline it is, at full resolution.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from braing3n.config.data import N4Settings
from braing3n.errors import BrainG3NError
from braing3n.preprocess.images import (
    image_like,
    limit_threads,
    read_image,
    read_mask,
    same_grid,
    volume_ml,
    write_image,
)

SPLINE_ORDER = 3
BLANK_FRACTION = 0.3  # share of exact zeros from which the background counts as blanked
MAX_BRAIN_ML = 2200.0  # what is left of a blanked image above this is a head, with scalp
MIN_MASK_ML = 100.0
CORE_MM = 15.0
CLOSING_MM = 6.0  # bridges dark bone between scalp and brain


def correct_bias(image: Path, out: Path, *, mask: Path | None, settings: N4Settings, threads: int) -> dict[str, float]:
    """Divide the bias field out of `image` and write the result as float32 on the same grid.

    Args:
        image: volume to correct.
        mask: brain mask on the image's grid, where there is one already: the field is then estimated from the brain
            alone, which is best. None takes the inside of the head (`head_core`).

    Returns:
        n4_field_min, n4_field_max: range of the field within the mask, relative to its mean there.
        n4_mask_ml: volume that the field was estimated from.
        n4_iterations: iterations of the last level; n4_convergence: its final change of the field.

    Raises:
        BrainG3NError: the mask does not fit the image or holds too little of it, or the fit fails.
    """
    limit_threads(threads)
    source = read_image(image)
    selected = estimation_mask(source, image, mask)
    log_field, fit = estimate_log_field(source, selected, settings, image)

    inside = sitk.GetArrayViewFromImage(selected) > 0
    log_field -= log_field[inside].mean()
    low, high = float(log_field[inside].min()), float(log_field[inside].max())
    # Far from the mask the spline runs free; there nothing is known of the field beyond its range in the mask.
    np.clip(log_field, low, high, out=log_field)
    corrected = sitk.GetArrayViewFromImage(source) / np.exp(log_field)
    write_image(out, image_like(corrected, source))
    return {
        "n4_field_min": float(np.exp(low)),
        "n4_field_max": float(np.exp(high)),
        "n4_mask_ml": volume_ml(selected),
    } | fit


def estimation_mask(source: sitk.Image, path: Path, mask: Path | None) -> sitk.Image:
    """Voxels that the field is estimated from: those of the mask, or inside the head, whose logarithm exists."""
    positive = source > 0
    if mask is not None:
        selected = read_mask(mask)
        if not same_grid(selected, source):
            raise BrainG3NError("mask does not lie on the image's grid", file=mask, expected=f"the grid of {path}")
    elif stripped(source):
        selected = positive
    else:
        selected = head_core(source)
    selected = sitk.And(sitk.Cast(selected, sitk.sitkUInt8), sitk.Cast(positive, sitk.sitkUInt8))
    if volume_ml(selected) < MIN_MASK_ML:
        raise BrainG3NError(
            "too little of the image is left to estimate a bias field from",
            file=mask or path,
            expected=f"at least {MIN_MASK_ML:.0f} ml",
            found=f"{volume_ml(selected):.1f} ml",
            remedy="look at the scan: it is empty, or its contrast is lost",
        )
    return selected


def stripped(source: sitk.Image) -> bool:
    """Whether an image shows a brain alone. Scanners and defacing blank the background of whole heads, too."""
    voxels = sitk.GetArrayViewFromImage(source)
    return bool(np.mean(voxels == 0) >= BLANK_FRACTION) and volume_ml(source > 0) <= MAX_BRAIN_ML


def head_core(source: sitk.Image) -> sitk.Image:
    """Bright voxels at least CORE_MM below the surface of the head, uint8.

    Scalp and marrow are brighter than any brain on T1 and lie where coils are most sensitive: with them, N4 takes
    anatomy for bias. Without them its field follows the true one nearly as well as with a brain mask.
    """
    bright = sitk.OtsuThreshold(source, 0, 1, 200)
    closing = [max(1, round(CLOSING_MM / length)) for length in source.GetSpacing()]
    head = sitk.BinaryFillhole(sitk.BinaryMorphologicalClosing(bright, closing))
    depth = sitk.SignedMaurerDistanceMap(head, insideIsPositive=True, squaredDistance=False, useImageSpacing=True)
    return sitk.And(bright, sitk.Cast(depth >= CORE_MM, sitk.sitkUInt8))


def estimate_log_field(
    source: sitk.Image, selected: sitk.Image, settings: N4Settings, path: Path
) -> tuple[np.ndarray, dict[str, float]]:
    """Logarithm of the field at full resolution, array (z, y, x), and how the last level ended."""
    shrink = shrink_factors(source.GetSpacing(), settings.shrink)
    n4 = sitk.N4BiasFieldCorrectionImageFilter()
    n4.SetMaximumNumberOfIterations(list(settings.iterations))
    n4.SetConvergenceThreshold(settings.convergence)
    n4.SetSplineOrder(SPLINE_ORDER)
    n4.SetNumberOfControlPoints(control_points(source, settings.spline_distance_mm))
    try:
        n4.Execute(sitk.Shrink(source, shrink), sitk.Shrink(selected, shrink))
        log_field = sitk.GetArrayFromImage(n4.GetLogBiasFieldAsImage(source))
    except RuntimeError as error:
        raise BrainG3NError(
            "N4 could not estimate a bias field", file=path, found=str(error).strip().splitlines()[-1]
        ) from error
    if not np.isfinite(log_field).all():
        raise BrainG3NError("N4 estimated a field that is not finite", file=path, remedy="look at the scan")
    fit = {
        "n4_iterations": float(n4.GetElapsedIterations()),
        "n4_convergence": float(n4.GetCurrentConvergenceMeasurement()),
    }
    return log_field, fit


def shrink_factors(spacing: tuple[float, ...], shrink: int) -> list[int]:
    """Factor per axis that brings voxels to about `shrink` mm: N4's usual factor for 1 mm voxels, less for coarser."""
    return [max(1, round(shrink / length)) for length in spacing]


def control_points(image: sitk.Image, distance_mm: float) -> list[int]:
    """Control points per axis of the coarsest level, so that they lie about `distance_mm` apart."""
    extent = np.array(image.GetSize()) * np.array(image.GetSpacing())
    return [int(max(1, round(length / distance_mm))) + SPLINE_ORDER for length in extent]
