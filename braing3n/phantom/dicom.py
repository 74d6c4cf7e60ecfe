"""A volume as a classic MR Image Storage series, one file a slice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid
from pydicom.valuerep import DSfloat

from braing3n.errors import BrainG3NError

UID_ROOT = "1.2.826.0.1.3680043.8.498."  # pydicom's, free for use by anyone
TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def write_series(folder: Path, volume: np.ndarray, affine: np.ndarray, header: dict[str, Any]) -> None:
    """Write `volume` (columns, rows, slices) into `folder`.

    Args:
        volume: intensities from 0 to 65535, rounded to integers.
        affine: voxel -> RAS+ mm; its axes must be orthogonal, as DICOM's are.
        header: attributes by keyword, and `file_prefix` of the file names. UIDs follow from the prefix.

    Raises:
        BrainG3NError: the axes are sheared.
    """
    header = dict(header)
    prefix = header.pop("file_prefix")
    matrix = TO_LPS @ affine
    sizes = np.linalg.norm(matrix[:3, :3], axis=0)
    direction = matrix[:3, :3] / sizes
    if not np.allclose(direction.T @ direction, np.eye(3), atol=1e-5):
        raise BrainG3NError("DICOM cannot store sheared axes", file=folder, found=str(affine.tolist()))
    common = Dataset()
    for keyword, value in (_geometry(sizes, direction, volume.shape) | header).items():
        setattr(common, keyword, value)
    for name in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        setattr(common, name, generate_uid(UID_ROOT, entropy_srcs=[prefix, name]))
    pixels = np.clip(np.rint(volume), 0, 65535).astype("<u2")
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(volume.shape[2]):
        slice_ = Dataset(common)
        slice_.SOPInstanceUID = generate_uid(UID_ROOT, entropy_srcs=[prefix, str(k)])
        slice_.InstanceNumber = k + 1
        position = matrix @ [0, 0, k, 1]
        slice_.ImagePositionPatient = [_decimal(value) for value in position[:3]]
        slice_.SliceLocation = _decimal(position[:3] @ direction[:, 2])
        slice_.PixelData = pixels[:, :, k].T.tobytes()  # stored row by row
        _save(slice_, folder / f"{prefix}_{k + 1:03d}_{header['StudyID']}.dcm")


def _geometry(sizes: np.ndarray, direction: np.ndarray, shape: tuple[int, ...]) -> dict[str, Any]:
    return {
        "SOPClassUID": MRImageStorage,
        "Modality": "MR",
        "ImageType": ["ORIGINAL", "PRIMARY", "M", "ND"],
        "ScanningSequence": ["GR", "IR"],
        "SequenceVariant": ["SP", "MP"],
        "MRAcquisitionType": "3D",
        "PatientPosition": "HFS",
        "Columns": shape[0],
        "Rows": shape[1],
        "PixelSpacing": [_decimal(sizes[1]), _decimal(sizes[0])],  # between rows, between columns
        "SliceThickness": _decimal(sizes[2]),
        "SpacingBetweenSlices": _decimal(sizes[2]),
        "ImageOrientationPatient": [_decimal(value) for value in (*direction[:, 0], *direction[:, 1])],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 0,
    }


def _decimal(value: float) -> DSfloat:
    return DSfloat(float(value), auto_format=True)  # 16 characters at most


def _save(dataset: Dataset, path: Path) -> None:
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)
