"""Affine transforms: 4x4 matrices in LPS millimetres here, ITK's format (.mat) on disk.

A transform maps points of the fixed image to points of the moving one, as ITK resamples and ANTs writes them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from braing3n.errors import BrainG3NError
from braing3n.files import atomic_path


def as_transform(matrix: np.ndarray) -> sitk.AffineTransform:
    """4x4 in LPS millimetres -> ITK transform about the origin."""
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(matrix[:3, :3].ravel().tolist())
    transform.SetTranslation(matrix[:3, 3].tolist())
    return transform


def write_transform(path: Path, matrix: np.ndarray) -> None:
    """Write a 4x4 (LPS millimetres) in ITK's format, atomically."""
    with atomic_path(path) as temporary:
        sitk.WriteTransform(as_transform(matrix), str(temporary))


def read_transform(path: Path) -> np.ndarray:
    """4x4 in LPS millimetres of an affine or rigid transform in ITK's format.

    Raises:
        BrainG3NError: the file is missing or not such a transform.
    """
    try:
        transform = sitk.ReadTransform(str(path))
    except RuntimeError as error:
        found = "no such file" if not path.exists() else str(error).strip().splitlines()[-1]
        raise BrainG3NError("transform cannot be read", file=path, found=found, remedy="rerun register") from error
    if not transform.IsLinear():
        raise BrainG3NError("transform is not linear", file=path, found=transform.GetName())
    matrix = np.eye(4)
    matrix[:3, 3] = transform.TransformPoint((0.0, 0.0, 0.0))
    for axis in range(3):
        unit = [float(axis == other) for other in range(3)]
        matrix[:3, axis] = np.array(transform.TransformPoint(unit)) - matrix[:3, 3]
    return matrix


def decompose(linear: np.ndarray) -> dict[str, float]:
    """Parts of the affine's linear map, (3, 3).

    Returns:
        scale: cube root of the determinant's size, that is head over atlas.
        stretch: largest over smallest singular value; 1 is the same scale along all axes.
        shear: largest shear of the QR decomposition.
        rotation_deg: angle of the nearest rotation.
    """
    u, singular, vt = np.linalg.svd(linear)
    rotation = u @ np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ vt))]) @ vt
    upper = np.linalg.qr(linear)[1]
    upper = upper / np.diag(upper)[:, None]
    cosine = np.clip((np.trace(rotation) - 1) / 2, -1, 1)
    return {
        "scale": float(np.cbrt(abs(np.linalg.det(linear)))),
        "stretch": float(singular[0] / max(singular[-1], 1e-12)),
        "shear": float(np.abs(np.triu(upper, 1)).max()),
        "rotation_deg": float(np.degrees(np.arccos(cosine))),
    }
