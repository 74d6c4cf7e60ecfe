"""The few facts that the index needs from an image's header, without reading its voxels."""

from __future__ import annotations

import hashlib
import io
import json
import zlib
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np

from braing3n.cohorts.walk import Found
from braing3n.files import short_hash

# Nothing outside this list is ever read from a DICOM header, so that no field that could identify a person gets out.
DICOM_TAGS = (
    "Modality",
    "Manufacturer",
    "ManufacturerModelName",
    "MagneticFieldStrength",
    "MRAcquisitionType",
    "SeriesInstanceUID",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "PixelSpacing",
    "SliceThickness",
    "SpacingBetweenSlices",
)


class HeaderError(Exception):
    """The file is not what its name says."""


@dataclass(frozen=True, slots=True)
class Header:
    """Shape in voxels (x, y, z), spacing in mm, number of volumes, and what DICOM says about the scanner."""

    shape: tuple[int, ...] = ()
    spacing: tuple[float, ...] = ()
    n_volumes: int = 1
    acquisition: str | None = None
    dicom_modality: str | None = None
    vendor: str | None = None
    model: str | None = None
    field_strength: float | None = None


def read_header(root: Path, found: Found) -> Header:
    """Header of one entry.

    Raises:
        HeaderError: the file is empty, damaged in its first bytes, or of another format.
    """
    path = root / found.first
    try:
        if found.n_bytes == 0:
            raise HeaderError("file is empty")
        if found.kind == "dicom":
            return _dicom(path, found.n_files)
        return _nibabel(path, found.kind)
    except HeaderError:
        raise
    except Exception as error:  # header parsers raise whatever the bytes lead them to
        raise HeaderError(f"header cannot be read ({type(error).__name__}: {error})") from error


def _nibabel(path: Path, kind: str) -> Header:
    with open(path, "rb") as handle:
        content = handle.read(1024)
    if content[:2] == b"\x1f\x8b":
        content = zlib.decompressobj(wbits=31).decompress(content, 1024)
    if kind == "mgz":
        header = nib.freesurfer.mghformat.MGHHeader.from_fileobj(io.BytesIO(content))
    elif len(content) < 348:
        raise HeaderError(f"file ends within its header ({len(content)} bytes)")
    elif int.from_bytes(content[:4], "little") in (540, 469893120):
        header = nib.Nifti2Header(content[:540], check=False)
    elif content[344:347] in (b"n+1", b"ni1"):
        header = nib.Nifti1Header(content[:348], check=False)
    elif kind == "analyze" and int.from_bytes(content[:4], "little") in (348, 1543569408):
        header = nib.AnalyzeHeader(content[:348], check=False)
    else:
        raise HeaderError("is not a NIfTI file" if kind == "nifti" else "is not an Analyze header")
    shape = tuple(int(n) for n in header.get_data_shape())
    spacing = tuple(round(float(abs(mm)), 4) for mm in header.get_zooms()[:3])
    if len(shape) < 3 or min(shape) < 1:
        raise HeaderError(f"is not a volume (shape {shape})")
    return Header(shape[:3], spacing, int(np.prod(shape[3:], dtype=int)))


def _dicom(path: Path, n_files: int) -> Header:
    import pydicom

    data = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(DICOM_TAGS))

    def number(name: str) -> float | None:
        value = data.get(name)
        return float(value) if value not in (None, "") else None

    n_slices = int(number("NumberOfFrames") or n_files)
    pixel = data.get("PixelSpacing") or ()
    thickness = number("SpacingBetweenSlices") or number("SliceThickness")
    rows, columns = number("Rows"), number("Columns")
    return Header(
        shape=(int(rows), int(columns), n_slices) if rows and columns else (),
        spacing=(*(float(mm) for mm in pixel), thickness) if len(pixel) == 2 and thickness else (),
        acquisition=str(data.get("MRAcquisitionType") or "") or None,
        dicom_modality=str(data.get("Modality") or "") or None,
        vendor=str(data.get("Manufacturer") or "") or None,
        model=str(data.get("ManufacturerModelName") or "") or None,
        field_strength=number("MagneticFieldStrength"),
    )


def with_sidecar(header: Header, sidecar: Path) -> Header:
    """Add what the JSON sidecar of BIDS says about the scanner.

    Raises:
        HeaderError: the sidecar is not JSON.
    """
    try:
        content = json.loads(sidecar.read_text())
    except ValueError as error:
        raise HeaderError(f"sidecar {sidecar.name} is not valid JSON ({error})") from error
    tesla = content.get("MagneticFieldStrength")
    return replace(
        header,
        vendor=content.get("Manufacturer") or None,
        model=content.get("ManufacturersModelName") or None,
        field_strength=float(tesla) if isinstance(tesla, int | float) else None,
    )


def split_series(root: Path, found: Found) -> list[Found]:
    """A DICOM folder that holds several series -> one entry a series; a folder with one series stays as it is.

    Raises:
        HeaderError: a file of the folder cannot be read.
    """
    import pydicom

    folder = root / found.path
    series: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(file for file in folder.iterdir() if file.is_file()):
        try:
            data = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["SeriesInstanceUID"])
        except Exception as error:
            if path.suffix.lower() not in (".dcm", ".ima"):
                continue
            raise HeaderError(f"{path.name} cannot be read ({type(error).__name__}: {error})") from error
        series[str(data.get("SeriesInstanceUID") or "")].append(path)
    if len(series) < 2:
        return [found]
    return [
        replace(
            found,
            first=f"{found.path}/{files[0].name}",
            n_bytes=sum(file.stat().st_size for file in files),
            n_files=len(files),
            series_uid=short_hash(uid),
        )
        for uid, files in sorted(series.items())
    ]


def content_sample(root: Path, found: Found, block: int = 65536) -> str:
    """Hash of the first, middle and last block of an entry's (first) voxel file: other samples, other images."""
    digest = hashlib.sha256(str(found.n_files).encode())
    path = root / (found.voxels or found.first)
    size = path.stat().st_size
    with open(path, "rb") as handle:
        for start in sorted({0, max(0, size // 2 - block // 2), max(0, size - block)}):
            handle.seek(start)
            digest.update(handle.read(block))
    return digest.hexdigest()
