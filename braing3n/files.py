"""Files that are either whole or absent: atomic writes, content hashes, JSON and Parquet with fixed settings."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from braing3n.errors import BrainG3NError

if TYPE_CHECKING:
    import pandas as pd  # half a second that commands and worker processes without tables do not wait for


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, renamed onto it when the block ends without an exception.

    The temporary name carries the process id and keeps the file's endings, since writers such as
    nibabel choose the format by them. On an exception the temporary file is removed and `path` untouched.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp{os.getpid()}-{path.name}")
    try:
        yield temporary
        with open(temporary, "rb") as handle:
            os.fsync(handle.fileno())  # rename before the data reach the disk could leave an empty file
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: str | Path, content: bytes, *, only_if_changed: bool = False) -> bool:
    """Write atomically; with `only_if_changed`, leave an equal file (and its mtime) alone. True if written."""
    path = Path(path)
    if only_if_changed and path.exists() and path.read_bytes() == content:
        return False
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    return True


def write_text(path: str | Path, content: str, *, only_if_changed: bool = False) -> bool:
    return write_bytes(path, content.encode(), only_if_changed=only_if_changed)


def write_json(path: str | Path, content: Any, *, only_if_changed: bool = False) -> bool:
    return write_text(path, json.dumps(content, indent=2, sort_keys=True) + "\n", only_if_changed=only_if_changed)


def read_json(path: str | Path) -> Any:
    try:
        return json.loads(Path(path).read_text())
    except json.JSONDecodeError as error:
        raise BrainG3NError("is not valid JSON", file=path, found=str(error)) from error


def write_parquet(path: str | Path, table: pd.DataFrame, *, only_if_changed: bool = False) -> bool:
    """Write a table atomically. Equal tables give equal bytes: no index, no timestamps, fixed compression."""
    import io

    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False, compression="zstd")
    return write_bytes(path, buffer.getvalue(), only_if_changed=only_if_changed)


def read_parquet(path: str | Path, columns: list[str] | None = None) -> pd.DataFrame:
    path = Path(path)
    if not path.exists():
        raise BrainG3NError(
            "table is missing", file=path, remedy="run the rule that writes it, see docs/data-contract.md"
        )
    import pandas as pd

    return pd.read_parquet(path, columns=columns)


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a file, or of a folder's files (names and contents, in sorted order), in hex."""
    path = Path(path)
    if path.is_dir():
        digest = hashlib.sha256()
        for file in sorted(p for p in path.rglob("*") if p.is_file()):
            digest.update(str(file.relative_to(path)).encode() + b"\0" + sha256_of(file).encode())
        return digest.hexdigest()
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def short_hash(*parts: str, length: int = 16) -> str:
    """Stable hash of text parts, independent of the machine and of Python's hash seed."""
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:length]


def settings_hash(settings: Any) -> str:
    """Hash of a step's settings (a pydantic model or plain data): equal settings, equal hash."""
    if hasattr(settings, "model_dump"):
        settings = settings.model_dump(mode="json")
    return short_hash(json.dumps(settings, sort_keys=True, default=str))


def write_nifti(path: str | Path, data: Any, affine: Any, dtype: Any = None) -> None:
    """Write a volume atomically as NIfTI-1 in millimetres; equal data give equal bytes (gzip without a time stamp).

    Args:
        data: array (X, Y, Z).
        affine: 4x4, voxel -> RAS+ millimetres.
        dtype: on-disk type; default that of `data`. Integers are stored unscaled.
    """
    import nibabel as nib
    import numpy as np

    data = np.asarray(data) if dtype is None else np.asarray(data).astype(dtype)
    image = nib.Nifti1Image(data, affine)
    image.header.set_xyzt_units("mm")
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=1)
    with atomic_path(path) as temporary:
        nib.save(image, temporary)
