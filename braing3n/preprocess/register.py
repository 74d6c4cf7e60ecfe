"""Registration with ANTs (Avants et al. 2011; paper, Appendix B): affine to the atlas, rigid within a session.

A transform maps points of the fixed image to points of the moving one, as ITK resamples and ANTs writes them. Files are
ITK's affine format (.mat), in LPS millimetres. Each registration runs from 4 mm over 2 mm to full resolution: coarse
levels see many of their few voxels, fine ones few of their many, which is quick and does not get lost.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from braing3n.config.data import RegisterSettings
from braing3n.errors import BrainG3NError
from braing3n.geometry import SRI24_AFFINE, SRI24_SHAPE
from braing3n.preprocess.atlas import Atlas
from braing3n.preprocess.images import (
    LPS_TO_RAS,
    box_of,
    image_like,
    limit_threads,
    read_image,
    read_mask,
    same_grid,
    volume_ml,
    write_image,
)
from braing3n.preprocess.qc import atlas_correlation
from braing3n.preprocess.search import best_start, center_of_mass, matrix_about, resample_isotropic, rotations
from braing3n.preprocess.transforms import as_transform, decompose, read_transform, write_transform


@dataclass(frozen=True)
class Level:
    """A resolution of the registration."""

    spacing_mm: float
    """Both images are resampled to it, unless it is the fixed image's own or finer."""
    iterations: str
    shrink: str
    sigmas: str
    share: float
    """Sampling rate as a multiple of the setting's."""


LEVELS = (
    Level(4.0, "500x200", "2x1", "1x0", 5.0),
    Level(2.0, "30", "1", "0", 1.0),
    Level(1.0, "10", "1", "0", 0.3),
)
STEP = 0.25  # ANTs' gradient step, as in ANTsPy
BINS = 32
CONVERGENCE = "1e-6,10"
MARGIN_MM = 8.0
MIN_BRAIN_ML, MAX_BRAIN_ML = 100.0, 3000.0
MIN_DETERMINANT, MAX_DETERMINANT = 0.3, 3.0
MIN_CORRELATION = 0.1
MAX_RIGID_STARTS = 27  # turns by at most 15 degrees: within a session people move less than between scanners
INTERPOLATORS = {
    "linear": sitk.sitkLinear,
    "bSpline": sitk.sitkBSpline,
    "lanczosWindowedSinc": sitk.sitkLanczosWindowedSinc,
}


def affine_to_atlas(
    moving: Path, moving_mask: Path, atlas: Atlas, out_transform: Path, *, settings: RegisterSettings, threads: int
) -> dict[str, float]:
    """Affine from the brain-only atlas to the masked brain of `moving`, by mutual information.

    Returns:
        register_correlation: of the result with the atlas, at 2 mm (`qc.atlas_correlation`).
        register_start_deg: rotation that the coarse search started from.

    Raises:
        BrainG3NError: the mask does not hold a brain, or the registration went astray.
    """
    limit_threads(threads)
    image, mask = read_image(moving), read_mask(moving_mask)
    if not same_grid(image, mask):
        raise BrainG3NError("mask does not lie on the image's grid", file=moving_mask, expected=f"the grid of {moving}")
    brain_ml = volume_ml(mask)
    if not MIN_BRAIN_ML <= brain_ml <= MAX_BRAIN_ML:
        raise BrainG3NError(
            "brain mask is empty" if brain_ml == 0 else "brain mask has an impossible volume",
            file=moving_mask,
            expected=f"{MIN_BRAIN_ML:.0f} to {MAX_BRAIN_ML:.0f} ml",
            found=f"{brain_ml:.0f} ml",
            remedy="look at the mask",
        )
    fixed_mask = read_mask(atlas.mask_path)
    fixed = crop(read_image(atlas.brain_path), fixed_mask)
    brain = crop(sitk.Mask(image, mask), mask)

    scale = (brain_ml / volume_ml(fixed_mask)) ** (1 / 3)
    centers = center_of_mass(crop(fixed_mask, fixed_mask)), center_of_mass(crop(mask, mask))
    starts = [matrix_about(scale * turn, *centers) for turn in rotations(settings.starts)]
    start, _ = best_start(fixed, brain, starts)
    levels = LEVELS if settings.affine == "Affine" else LEVELS[:2]
    matrix = run_ants(fixed, brain, start, "Affine", levels, settings, moving)

    found = correlation_at(matrix, fixed, brain)
    determinant = float(np.linalg.det(matrix[:3, :3]))
    if not MIN_DETERMINANT <= determinant <= MAX_DETERMINANT or not found >= MIN_CORRELATION:
        raise BrainG3NError(
            "registration to the atlas went astray",
            file=moving,
            expected=f"determinant {MIN_DETERMINANT} to {MAX_DETERMINANT}, correlation {MIN_CORRELATION} or more",
            found=f"determinant {determinant:.3f}, correlation {found:.3f}",
            remedy="look at the scan and its mask; raise preprocess.register.starts if it is turned far",
        )
    write_transform(out_transform, matrix)
    return {"register_correlation": found, "register_start_deg": decompose(start[:3, :3])["rotation_deg"]}


def rigid_to_anchor(
    moving: Path, fixed: Path, out_transform: Path, *, settings: RegisterSettings, threads: int
) -> dict[str, float]:
    """Rigid transform from the session's anchor to another of its scans, of any modality, both with or without skull.

    Returns:
        rigid_deg, rigid_mm: its rotation, and how far it moves the anchor's centre.

    Raises:
        BrainG3NError: one of the images is empty or ANTs fails.
    """
    limit_threads(threads)
    target, image = foreground(fixed), foreground(moving)
    centers = center_of_mass(target), center_of_mass(image)
    turns = rotations(min(settings.starts, MAX_RIGID_STARTS))
    # Scans of one session usually share the scanner's frame, so their headers are the first guess.
    aligned = [matrix_about(turn, centers[0], center) for center in (centers[0], centers[1]) for turn in turns]
    start, _ = best_start(target, image, aligned)
    matrix = run_ants(target, image, start, "Rigid", LEVELS[:2], settings, moving)
    write_transform(out_transform, matrix)
    shift = matrix[:3, :3] @ centers[0] + matrix[:3, 3] - centers[0]
    return {"rigid_deg": decompose(matrix[:3, :3])["rotation_deg"], "rigid_mm": float(np.linalg.norm(shift))}


def resample_to_atlas(
    image: Path,
    mask: Path,
    transforms: Sequence[Path],
    atlas: Atlas,
    out_image: Path,
    out_mask: Path | None,
    *,
    settings: RegisterSettings,
) -> dict[str, float]:
    """One interpolation from the image's own grid to the atlas': brain only, not below zero, float32.

    Args:
        mask: brain mask. With `out_mask`, on the image's grid, and resampled like it; without, on the atlas' grid.
        transforms: those that a point of the atlas passes through on its way to the image, in that order:
            [affine] for the anchor, [affine of the anchor, rigid] for a scan that follows it.

    Returns:
        clipped_fraction: share of the brain's voxels that interpolation had made negative.

    Raises:
        BrainG3NError: nothing of the brain falls onto the atlas' grid, or a mask is on the wrong one.
    """
    grid = atlas_grid()
    matrix = np.eye(4)
    for path in transforms:
        matrix = read_transform(path) @ matrix
    transform = as_transform(matrix)
    registered = sitk.Resample(read_image(image), grid, transform, INTERPOLATORS[settings.interpolation], 0.0)
    brain = read_mask(mask)
    if out_mask is not None:
        brain = sitk.Resample(sitk.Cast(brain, sitk.sitkFloat32), grid, transform, sitk.sitkLinear, 0.0) > 0.5
    elif not same_grid(brain, grid):
        raise BrainG3NError(
            "mask does not lie on the atlas' grid", file=mask, expected=f"the grid of {atlas.mask_path}"
        )
    inside = sitk.GetArrayViewFromImage(brain) > 0
    if not inside.any():
        raise BrainG3NError(
            "no brain falls onto the atlas' grid", file=mask, remedy="look at the transform and the mask"
        )
    array = np.where(inside, sitk.GetArrayViewFromImage(registered), np.float32(0))
    negative = float(np.mean(array[inside] < 0))
    write_image(out_image, image_like(np.clip(array, 0, None), grid))
    if out_mask is not None:
        write_image(out_mask, image_like(inside.astype(np.uint8), grid), np.uint8)
    return {"clipped_fraction": negative}


# ---------------------------------------------------------------------------------------------------------- helpers


def foreground(path: Path) -> sitk.Image:
    """An image cropped to its head."""
    image = read_image(path)
    head = sitk.OtsuThreshold(image, 0, 1, 200)
    if volume_ml(head) < MIN_BRAIN_ML:
        raise BrainG3NError("image is empty", file=path, found=f"{volume_ml(head):.1f} ml above Otsu's threshold")
    return crop(image, head)


def crop(image: sitk.Image, mask: sitk.Image) -> sitk.Image:
    """The box of the mask, with a margin for smoothing."""
    return image[box_of(mask, MARGIN_MM)]


def run_ants(
    fixed: sitk.Image,
    moving: sitk.Image,
    start: np.ndarray,
    kind: str,
    levels: Sequence[Level],
    settings: RegisterSettings,
    path: Path,
) -> np.ndarray:
    """Optimise Mattes' mutual information level by level, from `start`; 4x4, fixed point -> moving point."""
    matrix = start
    with tempfile.TemporaryDirectory() as scratch:
        for level in levels:
            images = [fixed, moving]
            if level.spacing_mm > min(fixed.GetSpacing()):
                images = [resample_isotropic(image, level.spacing_mm) for image in images]
            try:
                matrix = run_level(*images, matrix, kind, level, settings, Path(scratch))
            except (RuntimeError, BrainG3NError) as error:
                raise BrainG3NError("ANTs could not register it", file=path, found=str(error)) from error
    return matrix


def run_level(
    fixed: sitk.Image,
    moving: sitk.Image,
    start: np.ndarray,
    kind: str,
    level: Level,
    settings: RegisterSettings,
    scratch: Path,
) -> np.ndarray:
    """One call of antsRegistration on images as given."""
    import ants  # after limit_threads: ITK reads its thread count when it is loaded

    files = {name: str(scratch / name) for name in ("fixed.nii", "moving.nii", "start.mat", "result_")}
    sitk.WriteImage(fixed, files["fixed.nii"])
    sitk.WriteImage(moving, files["moving.nii"])
    sitk.WriteTransform(as_transform(start), files["start.mat"])
    rate = min(1.0, level.share * settings.sampling_rate)
    arguments = ["--dimensionality", "3", "--initial-moving-transform", files["start.mat"]]
    arguments += ["--metric", f"mattes[{files['fixed.nii']},{files['moving.nii']},1,{BINS},regular,{rate:g}]"]
    arguments += ["--transform", f"{kind}[{STEP}]", "--convergence", f"[{level.iterations},{CONVERGENCE}]"]
    arguments += ["--shrink-factors", level.shrink, "--smoothing-sigmas", level.sigmas]
    arguments += ["--use-histogram-matching", "0", "--collapse-output-transforms", "1", "--float", "1"]
    arguments += ["--random-seed", str(settings.seed), "--output", files["result_"]]
    ants.registration(arguments, None)
    return read_transform(Path(files["result_"] + "0GenericAffine.mat"))


def correlation_at(matrix: np.ndarray, fixed: sitk.Image, moving: sitk.Image) -> float:
    """Correlation of the moving image with the brain-only atlas, inside the atlas brain, at 2 mm."""
    fixed = resample_isotropic(fixed, 2.0)
    resampled = sitk.Resample(moving, fixed, as_transform(matrix), sitk.sitkLinear, 0.0)
    reference = sitk.GetArrayViewFromImage(fixed)
    inside = reference > 0.05 * reference.max()
    return atlas_correlation(sitk.GetArrayViewFromImage(resampled)[inside], reference[inside])


def atlas_grid() -> sitk.Image:
    """An empty image on the SRI24 grid."""
    grid = sitk.Image([int(n) for n in SRI24_SHAPE], sitk.sitkFloat32)
    grid.SetOrigin((LPS_TO_RAS @ SRI24_AFFINE[:3, 3]).tolist())
    grid.SetDirection((LPS_TO_RAS @ SRI24_AFFINE[:3, :3]).ravel().tolist())
    return grid
