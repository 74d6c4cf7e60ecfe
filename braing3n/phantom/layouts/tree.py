"""Files of a few bytes with true headers, and tables in the cohorts' own formats: enough to be indexed."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd


@dataclass
class Tree:
    """Writes one cohort under `root` and remembers what an index of it must hold.

    `kept`: one dictionary an image to be kept, with `source_path` and any index columns whose truth is known.
    `left_out`: path -> text that the ledger's reason must contain.
    """

    root: Path
    kept: list[dict[str, Any]] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

    def keep(self, path: str, **truth: Any) -> str:
        self.kept.append({"source_path": path, **truth})
        return path

    def drop(self, path: str, reason: str) -> str:
        self.left_out[path] = reason
        return path

    def bytes(self, path: str, content: bytes) -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)

    def nifti(self, path: str, shape: Sequence[int] = (176, 240, 256), spacing: float = 1.0, content: str = "") -> str:
        """Header and a few bytes that depend on `content` (default: the path), so that files differ."""
        raw = _nifti_header(tuple(shape), spacing) + _filler(content or path)
        self.bytes(path, gzip.compress(raw, 1, mtime=0) if path.endswith(".gz") else raw)
        return path

    def analyze(self, stem: str, shape: Sequence[int] = (256, 256, 128, 1), ending: str = "") -> str:
        """`<stem><ending>.hdr` and `.img`; returns the header's path."""
        header = nib.AnalyzeHeader(endianness=">")
        header.set_data_dtype(np.int16)
        header.set_data_shape(shape)
        self.bytes(f"{stem}{ending}.hdr", header.binaryblock)
        self.bytes(f"{stem}{ending}.img", _filler(stem))
        return f"{stem}{ending}.hdr"

    def dicom(self, folder: str, name: str = "slice", n_slices: int = 2, **fields: Any) -> str:
        """A series of `n_slices` files with the given header fields; returns the folder."""
        for number in range(n_slices):
            content = _dicom_header(tuple(sorted(fields.items()))) + _filler(f"{folder}/{name}/{number}")
            self.bytes(f"{folder}/{name}_{number:03d}.dcm", content)
        return folder

    def text(self, path: str, rows: Iterable[Sequence[Any]], delimiter: str = ",", **options: Any) -> str:
        """Rows as delimited text; options `encoding` (utf-8) and `newline` (line feed)."""
        newline = options.get("newline", "\n")
        lines = [delimiter.join(_quoted(value, delimiter) for value in row) for row in rows]
        self.bytes(path, (newline.join(lines) + newline).encode(options.get("encoding", "utf-8")))
        return path

    def excel(self, path: str, rows: Sequence[Sequence[Any]]) -> str:
        """Rows, the first of them names, as `.xls` (numbers as Excel's floats) or `.xlsx`."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.endswith(".xls"):
            import xlwt

            book = xlwt.Workbook()
            sheet = book.add_sheet("Table")
            for i, row in enumerate(rows):
                for j, value in enumerate(row):
                    if value not in (None, ""):
                        sheet.write(i, j, value)
            book.save(str(target))
        else:
            pd.DataFrame(rows[1:], columns=rows[0]).to_excel(target, index=False)
        return path


def _quoted(value: Any, delimiter: str) -> str:
    text = "" if value is None else str(value)
    return f'"{text}"' if delimiter in text else text


def _filler(content: str) -> bytes:
    return hashlib.sha256(content.encode()).digest()


_HEADERS: dict[Any, bytes] = {}


def _nifti_header(shape: tuple[int, ...], spacing: float) -> bytes:
    if (shape, spacing) not in _HEADERS:
        header = nib.Nifti1Header()
        header.set_data_dtype(np.int16)
        header.set_data_shape(shape)
        header.set_zooms((spacing,) * 3 + (1.0,) * (len(shape) - 3))
        header["magic"] = b"n+1"
        header["vox_offset"] = 352
        _HEADERS[shape, spacing] = header.binaryblock + bytes(4)
    return _HEADERS[shape, spacing]


def _dicom_header(fields: tuple[tuple[str, Any], ...]) -> bytes:
    if fields not in _HEADERS:
        import io

        from pydicom.dataset import Dataset, FileMetaDataset
        from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

        data = Dataset()
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.file_meta.MediaStorageSOPClassUID = MRImageStorage
        data.file_meta.MediaStorageSOPInstanceUID = "1.2.826.0.1.1"
        data.SOPInstanceUID, data.SOPClassUID = "1.2.826.0.1.1", MRImageStorage
        data.SeriesInstanceUID = "1.2.826.0.1.2"
        data.Modality, data.Rows, data.Columns = "MR", 256, 256
        data.PixelSpacing, data.SliceThickness = [1.0, 1.0], 1.0
        data.MRAcquisitionType = "3D"
        # What must never reach a table, a file name or a log.
        data.PatientName, data.PatientID, data.PatientBirthDate = "Doe^Jane", "SECRET-4711", "19480229"
        for name, value in fields:
            setattr(data, name, value)
        buffer = io.BytesIO()
        data.save_as(buffer, enforce_file_format=True)
        _HEADERS[fields] = buffer.getvalue()
    return _HEADERS[fields]


def visits(volumes: int, subjects: int) -> list[tuple[int, int]]:
    """(subject, visit) of every session, as even as the counts allow: the first subjects have a visit more."""
    each, more = divmod(volumes, subjects)
    return [(s, v) for s in range(subjects) for v in range(each + (s < more))]
