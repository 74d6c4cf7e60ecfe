"""A raw scan -> one 3D NIfTI with voxel axes in LPS order, or the reason why not (paper, Appendix B).

Voxels are only permuted and flipped, never resampled.
"""

from __future__ import annotations

import gzip
import shutil
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel import orientations

from braing3n.config.data import ConvertSettings
from braing3n.errors import BrainG3NError, ExcludeVolume
from braing3n.files import write_nifti
from braing3n.preprocess.dicom import convert_series

MAX_AXIS_COSINE = 0.02  # voxel axes more than about 1 degree away from perpendicular are a sheared grid
DEGENERATE_MM = 1e-3


def convert(
    source: Path,
    out: Path,
    scratch: Path,
    *,
    source_format: str,
    settings: ConvertSettings,
    series: str | None = None,
    entry_axes: str | None = None,
) -> tuple[dict[str, float], dict[str, Any]]:
    """Read `source` and write `out` in LPS order, int16 where the stored values allow it and else float32.

    Args:
        source: file, or folder of DICOM files.
        scratch: existing empty folder for intermediate files.
        source_format: nifti, analyze, mgz or dicom.
        series: hash of the wanted series instance UID where the folder holds several.
        entry_axes: axis codes of a header that carries no orientation.

    Returns:
        QC numbers, and the scanner and sequence parameters of a DICOM series.

    Raises:
        BrainG3NError: the scan is damaged or not one 3D image.
        ExcludeVolume: it is a slab, or its slices are too thick.
    """
    parameters: dict[str, Any] = {}
    if source_format == "dicom":
        source, parameters = convert_series(source, scratch, series)
    image = read_image(source, scratch)
    data = read_voxels(image, source)
    affine = voxel_axes(image, data.shape, entry_axes, source)
    data, affine = to_lps(data, affine)
    qc = check_geometry(data.shape, affine, settings)
    qc |= {"convert_min": float(data.min()), "convert_max": float(data.max())}
    write_nifti(out, data, affine)
    return qc, parameters


# --------------------------------------------------------------------------------------------------------- reading


def read_image(source: Path, scratch: Path) -> Any:
    """Open an image file; a compressed one is unpacked first, which also checks it to its last byte."""
    if not source.is_file():
        raise BrainG3NError("is not a file", file=source, remedy="correct the cohort's definition and index again")
    if source.stat().st_size == 0:
        raise BrainG3NError("file is empty", file=source, remedy="copy or download it again")
    try:
        path = unpack(source, scratch)
        return nib.load(path, mmap=False) if path.suffix in (".nii", ".img", ".hdr") else nib.load(path)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise BrainG3NError(
            "compressed file is damaged or cut short",
            file=source,
            found=str(error),
            remedy="copy or download it again",
        ) from error
    except (nib.filebasedimages.ImageFileError, nib.spatialimages.HeaderDataError, ValueError, KeyError) as error:
        raise BrainG3NError(
            "is not an image that can be read", file=source, found=str(error), remedy="check it with nib-ls"
        ) from error


def unpack(source: Path, scratch: Path) -> Path:
    """`source` itself, or what it holds when gzip-compressed (.nii.gz, .mgz, .img.gz with .hdr.gz)."""
    endings = {".gz": "", ".mgz": ".mgh"}
    if source.suffix not in endings:
        return source
    members = [source]
    if source.name.endswith((".img.gz", ".hdr.gz")):
        base = source.name.removesuffix(".img.gz").removesuffix(".hdr.gz")
        members = [source.with_name(base + ".hdr.gz"), source.with_name(base + ".img.gz")]
    for member in members:
        with gzip.open(member) as packed, open(scratch / unpacked_name(member), "wb") as plain:
            shutil.copyfileobj(packed, plain, 1 << 20)
    return scratch / unpacked_name(source)


def unpacked_name(path: Path) -> str:
    return "image.mgh" if path.suffix == ".mgz" else "image" + Path(path.stem).suffix


def read_voxels(image: Any, source: Path) -> np.ndarray:
    """Checked voxel values, int16 or float32, (X, Y, Z)."""
    dtype = image.get_data_dtype()
    if dtype.fields is not None or dtype.kind not in "iuf":
        kind = "colour (RGB)" if dtype.fields is not None else str(dtype)
        raise BrainG3NError(f"voxels are {kind}", file=source, expected="one real number a voxel")
    try:
        data = np.asarray(image.dataobj)
    except (OSError, EOFError, ValueError) as error:
        raise BrainG3NError(
            "holds less data than its header says", file=source, found=str(error), remedy="copy or download it again"
        ) from error
    while data.ndim > 3 and data.shape[-1] == 1:
        data = data[..., 0]
    if data.ndim != 3:
        frames = "x".join(map(str, data.shape[3:])) if data.ndim > 3 else "no third dimension"
        raise BrainG3NError("is not one 3D image", file=source, found=f"{frames} frames" if data.ndim > 3 else frames)
    return compact(data, source)


def compact(data: np.ndarray, source: Path) -> np.ndarray:
    """Values as int16 if they are integers of that range, else float32; refuses NaN, Inf and constants."""
    if data.dtype.kind == "f":
        with np.errstate(over="ignore"):
            data = data.astype(np.float32)
        for name, bad in (("NaN", np.isnan(data)), ("infinite", np.isinf(data))):
            if count := int(bad.sum()):
                raise BrainG3NError(
                    f"contains {name} values", file=source, found=f"{count} of {data.size} voxels", remedy="repair it"
                )
    low, high = data.min(), data.max()
    if low == high:
        raise BrainG3NError("all voxels are equal", file=source, found=f"{low:g} everywhere")
    if data.dtype.kind in "iu":
        fits = np.iinfo(np.int16).min <= low and high <= np.iinfo(np.int16).max
        data = data.astype(np.int16 if fits else np.float32)
    return data


# -------------------------------------------------------------------------------------------------------- geometry


def voxel_axes(image: Any, shape: tuple[int, int, int], entry_axes: str | None, source: Path) -> np.ndarray:
    """Voxel -> RAS+ millimetres with exactly perpendicular axes, (4, 4)."""
    if has_orientation(image):
        affine = np.asarray(image.affine, dtype=float)
    elif entry_axes is not None:
        affine = affine_of_axes(entry_axes, shape, np.asarray(image.header.get_zooms()[:3], dtype=float))
    else:
        raise BrainG3NError(
            "header carries no orientation",
            file=source,
            expected="a qform or sform code above 0",
            remedy="give the axes as `axes` in the cohort's definition (config/cohorts)",
        )
    linear = affine[:3, :3]
    zooms = np.linalg.norm(linear, axis=0)
    if not np.isfinite(affine).all() or zooms.min() < DEGENERATE_MM or np.linalg.matrix_rank(linear / zooms) < 3:
        raise BrainG3NError("affine is degenerate", file=source, found=str(np.round(affine, 4).tolist()))
    cosines = (linear / zooms).T @ (linear / zooms) - np.eye(3)
    if np.abs(cosines).max() > MAX_AXIS_COSINE:
        raise BrainG3NError(
            "affine is sheared (a tilted gantry, or a resampled header)",
            file=source,
            expected="perpendicular voxel axes",
            found=f"cosine {np.abs(cosines).max():.3f} between two of them",
        )
    left, _, right = np.linalg.svd(linear / zooms)
    result = affine.copy()
    result[:3, :3] = left @ right * zooms
    return result


def has_orientation(image: Any) -> bool:
    if isinstance(image, nib.Nifti1Pair):  # also NIfTI-2 and single files
        return int(image.header["sform_code"]) > 0 or int(image.header["qform_code"]) > 0
    return not isinstance(image, nib.AnalyzeImage)


def affine_of_axes(codes: str, shape: tuple[int, int, int], zooms: np.ndarray) -> np.ndarray:
    """Affine of a grid whose axes run towards `codes` (such as ASL), centred on the world's origin, (4, 4)."""
    orientation = orientations.axcodes2ornt(tuple(codes))
    linear = np.zeros((3, 3))
    for voxel_axis, (world_axis, sign) in enumerate(orientation):
        linear[int(world_axis), voxel_axis] = sign * zooms[voxel_axis]
    centre = linear @ ((np.array(shape) - 1) / 2)
    return nib.affines.from_matvec(linear, -centre)


def to_lps(data: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Permute and flip voxels so that the axes run closest to left, posterior and superior."""
    wanted = orientations.axcodes2ornt(("L", "P", "S"))
    change = orientations.ornt_transform(orientations.io_orientation(affine), wanted)
    moved = orientations.apply_orientation(data, change)
    return np.ascontiguousarray(moved), affine @ orientations.inv_ornt_aff(change, data.shape)


def check_geometry(shape: tuple[int, int, int], affine: np.ndarray, settings: ConvertSettings) -> dict[str, float]:
    """Voxel sizes and field of view in mm.

    Raises:
        ExcludeVolume: a slab or thick slices.
    """
    zooms = np.linalg.norm(affine[:3, :3], axis=0)
    extent = zooms * np.array(shape)
    if extent.min() < settings.min_extent_mm:
        raise ExcludeVolume(
            f"slab: field of view {' x '.join(f'{mm:.0f}' for mm in extent)} mm, less than the "
            f"{settings.min_extent_mm:g} mm of preprocess.convert.min_extent_mm in one direction"
        )
    if zooms.max() > settings.max_voxel_mm:
        raise ExcludeVolume(
            f"thick slices: voxels of {' x '.join(f'{mm:.2f}' for mm in zooms)} mm, more than the "
            f"{settings.max_voxel_mm:g} mm of preprocess.convert.max_voxel_mm in one direction"
        )
    return {"voxel_min_mm": zooms.min(), "voxel_max_mm": zooms.max(), "extent_min_mm": extent.min()}
