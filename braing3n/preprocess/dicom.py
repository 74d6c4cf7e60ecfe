"""One DICOM series -> one uncompressed NIfTI, by dcm2niix, after a look at the geometry of its slices.

Nothing but the image, its geometry and a fixed list of scanner and sequence parameters is kept; what dcm2niix prints
and how the files are called is not passed on, since both may name the patient.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from braing3n.errors import BrainG3NError
from braing3n.files import read_json, short_hash

# Taken over from dcm2niix's sidecar: none of them can hold a name, a date, an identifier or free text.
SCANNER_FIELDS = (
    "Modality",
    "MagneticFieldStrength",
    "Manufacturer",
    "ManufacturersModelName",
    "MRAcquisitionType",
    "ScanningSequence",
    "SequenceVariant",
    "ScanOptions",
    "SliceThickness",
    "SpacingBetweenSlices",
    "EchoTime",
    "RepetitionTime",
    "InversionTime",
    "FlipAngle",
    "PixelBandwidth",
    "ParallelReductionFactorInPlane",
    "PartialFourier",
    "ConversionSoftware",
    "ConversionSoftwareVersion",
)
HEADER_TAGS = [
    "SeriesInstanceUID",
    "ImageType",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
]
# -ba y: sidecar without dates and persons; -g i: ignore the user's defaults; -w 2: never overwrite silently
DCM2NIIX_OPTIONS = ("-b", "y", "-ba", "y", "-c", "", "-f", "image", "-g", "i", "-m", "2", "-w", "2", "-z", "n")
SPACING_TOLERANCE = 0.05  # of the median distance between slices
AXIS_TOLERANCE = 1e-3
TILT_TOLERANCE = 0.02  # sine of the angle between the slices' normal and the way from the first to the last of them


def convert_series(folder: Path, scratch: Path, series: str | None) -> tuple[Path, dict[str, Any]]:
    """One series of `folder` -> NIfTI in `scratch`, and scanner and sequence parameters as in a BIDS sidecar.

    Args:
        series: hash of the series instance UID where the folder holds several.

    Raises:
        BrainG3NError: there are several series, or the slices do not make one regular stack.
    """
    import dcm2niix

    files = select_series(folder, read_headers(folder), series)
    check_stack(folder, [header for _, header in files])
    source, out = scratch / "series", scratch / "converted"
    source.mkdir()
    out.mkdir()
    for number, (path, _) in enumerate(files):
        os.symlink(path.absolute(), source / f"{number:05d}.dcm")
    command = [dcm2niix.bin, *DCM2NIIX_OPTIONS, "-o", str(out), str(source)]
    finished = subprocess.run(command, capture_output=True)
    images = sorted(out.glob("*.nii"))
    if len(images) != 1 or finished.returncode != 0:
        raise BrainG3NError(
            "dcm2niix does not make one image of the series",
            file=folder,
            expected="1 image, exit status 0",
            found=f"{len(images)} images, exit status {finished.returncode}",
            remedy="run dcm2niix on the folder by hand to see why",
        )
    sidecar = images[0].with_suffix(".json")
    content = read_json(sidecar) if sidecar.exists() else {}
    return images[0], {name: content[name] for name in SCANNER_FIELDS if name in content}


def read_headers(folder: Path) -> list[tuple[Path, Any]]:
    """The DICOM files of a folder with their geometry.

    Raises:
        BrainG3NError: there is none, or a file that is called .dcm or .ima cannot be read.
    """
    import pydicom

    headers = []
    for number, path in enumerate(sorted(p for p in folder.iterdir() if p.is_file())):
        try:
            headers.append((path, pydicom.dcmread(path, stop_before_pixels=True, specific_tags=HEADER_TAGS)))
        except Exception as error:  # parsers raise whatever the bytes lead them to
            if path.suffix.lower() in (".dcm", ".ima"):
                raise BrainG3NError(
                    f"file {number + 1} of the folder cannot be read",
                    file=folder,
                    found=type(error).__name__,
                    remedy="copy or download the series again",
                ) from error
    if not headers:
        raise BrainG3NError("holds no DICOM file", file=folder, remedy="copy or download the series again")
    return headers


def select_series(folder: Path, files: list[tuple[Path, Any]], series: str | None) -> list[tuple[Path, Any]]:
    """Those files whose series instance UID hashes to `series`; without it, all of them, if they are one series."""
    uids = {str(header.get("SeriesInstanceUID") or "") for _, header in files}
    if series is None and len(uids) > 1:
        raise BrainG3NError(
            "folder holds several series",
            file=folder,
            expected="one",
            found=str(len(uids)),
            remedy="set `split_series: true` in the cohort's definition (config/cohorts) and index again",
        )
    if series is None:
        return files
    chosen = [
        (path, header) for path, header in files if short_hash(str(header.get("SeriesInstanceUID") or "")) == series
    ]
    if not chosen:
        raise BrainG3NError("holds no file of the series", file=folder, expected=series, remedy="index again")
    return chosen


def check_stack(folder: Path, headers: Sequence[Any]) -> None:
    """Raise unless the slices are parallel, straight above each other and equally spaced, one at a position."""
    if any("MOSAIC" in (header.get("ImageType") or []) for header in headers):
        raise BrainG3NError("is a mosaic, as of functional or diffusion scans", file=folder)
    planes = [plane for header in headers for plane in planes_of(header)]
    if any(len(orientation) != 6 or len(position) != 3 for orientation, position in planes):
        raise BrainG3NError("slices lack their position or orientation", file=folder)
    orientations = np.array([orientation for orientation, _ in planes], dtype=float)
    positions = np.array([position for _, position in planes], dtype=float)
    if len(planes) < 2:
        raise BrainG3NError("holds a single slice", file=folder)
    if np.abs(orientations - orientations[0]).max() > AXIS_TOLERANCE:
        raise BrainG3NError("slices are not parallel", file=folder, remedy="leave this localizer out")
    normal = np.cross(orientations[0, :3], orientations[0, 3:])
    gaps = np.diff(np.sort(positions @ normal))
    usual = float(np.median(gaps))
    if gaps.min() < SPACING_TOLERANCE * max(usual, AXIS_TOLERANCE):
        raise BrainG3NError(
            "several slices share a position",
            file=folder,
            expected="one 3D image",
            remedy="leave out this series of several echoes or time points",
        )
    order = np.argsort(positions @ normal)
    along = positions[order[-1]] - positions[order[0]]
    sideways = np.linalg.norm(along - (along @ normal) * normal) / np.linalg.norm(along)
    if sideways > TILT_TOLERANCE:
        raise BrainG3NError(
            "slices are shifted against each other, as by a tilted gantry",
            file=folder,
            found=f"{np.degrees(np.arcsin(min(1.0, sideways))):.1f} degrees",
        )
    if np.abs(gaps - usual).max() > SPACING_TOLERANCE * usual:
        raise BrainG3NError(
            "slices are not equally spaced",
            file=folder,
            found=f"{gaps.min():.2f} to {gaps.max():.2f} mm apart",
            remedy="a slice is missing: copy or download the series again",
        )


def planes_of(header: Any) -> list[tuple[Sequence[float], Sequence[float]]]:
    """(orientation, position) of the slice in a classic file, or of every frame in an enhanced one."""
    frames = header.get("PerFrameFunctionalGroupsSequence")
    if not frames:
        return [(header.get("ImageOrientationPatient") or (), header.get("ImagePositionPatient") or ())]
    shared = (header.get("SharedFunctionalGroupsSequence") or [{}])[0]
    return [
        (
            _value(frame, shared, "PlaneOrientationSequence", "ImageOrientationPatient"),
            _value(frame, shared, "PlanePositionSequence", "ImagePositionPatient"),
        )
        for frame in frames
    ]


def _value(frame: Any, shared: Any, sequence: str, name: str) -> Sequence[float]:
    items = frame.get(sequence) or shared.get(sequence)
    return (items[0].get(name) or ()) if items else ()
