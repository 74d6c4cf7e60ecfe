"""Simulated heads on disk, and how far a transform is from the true one."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from braing3n.files import write_nifti
from braing3n.geometry import SRI24_AFFINE
from braing3n.phantom.simulate import Simulation, simulate
from braing3n.phantom.truth import BRAIN_CENTRE, ScanTruth, SubjectTruth, scanner_grid

EXTENT_MM = (190, 230, 200)
RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def scan_of(anatomy, affine: np.ndarray, voxel_mm=(2, 2, 2), codes: str = "RAS", **truth) -> Simulation:
    """A scan of the atlas's head under `affine` (native RAS+ mm -> SRI24 RAS+ mm)."""
    centre = nib.affines.apply_affine(np.linalg.inv(affine), BRAIN_CENTRE)
    grid = scanner_grid(voxel_mm, EXTENT_MM, codes, centre + np.array([0.0, 0.0, -10.0]))
    return simulate(anatomy, SubjectTruth(affine=affine), ScanTruth(seed=7, **truth), grid)


def save(folder: Path, name: str, scan: Simulation) -> tuple[Path, Path]:
    """Image and true brain mask as files."""
    image, mask = folder / f"{name}.nii.gz", folder / f"{name}_mask.nii.gz"
    write_nifti(image, scan.volume, scan.affine)
    write_nifti(mask, scan.brain, scan.affine, np.uint8)
    return image, mask


def brain_points(atlas, step: int = 8) -> np.ndarray:
    """Points of the atlas brain, RAS+ mm, (n, 3)."""
    return nib.affines.apply_affine(SRI24_AFFINE, np.argwhere(atlas.mask)[:: step**3])


def errors_mm(found: np.ndarray, true: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Distance between where two 4x4 (RAS+ mm) send `points`."""
    return np.linalg.norm(nib.affines.apply_affine(found, points) - nib.affines.apply_affine(true, points), axis=1)


def in_ras(matrix: np.ndarray) -> np.ndarray:
    """A 4x4 in LPS millimetres, as ITK has it, in RAS+."""
    return RAS_TO_LPS @ matrix @ RAS_TO_LPS
