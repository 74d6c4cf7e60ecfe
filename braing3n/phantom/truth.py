"""What is known about a simulated scan: the subject's anatomy, the acquisition, the voxels. Zero means no effect."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import nibabel as nib
import numpy as np
from scipy.spatial.transform import Rotation

from braing3n.geometry import SRI24_AFFINE

BRAIN_CENTRE_VOXEL = (119.5, 129.0, 72.0)  # SRI24 voxel
BRAIN_CENTRE = nib.affines.apply_affine(SRI24_AFFINE, BRAIN_CENTRE_VOXEL)  # SRI24 RAS+ mm


@dataclass(frozen=True)
class Tumour:
    """A glioblastoma: necrotic core, enhancing rim, oedema along the white matter, tissue pushed aside."""

    centre: tuple[float, float, float]
    """SRI24 voxel."""
    radius_mm: float
    """Outer radius of the enhancing rim, on average over directions."""
    rim_mm: float = 4.0
    oedema_mm: float = 14.0
    enhancement: float = 1.0
    mass_effect_mm: float = 3.0
    seed: int = 0
    """Of its irregular outline."""


@dataclass(frozen=True, eq=False)
class SubjectTruth:
    """A head at one visit.

    The position in SRI24 of the native point x (RAS+ mm) is `p + u(p)` with `p = affine @ x` and u the smooth
    displacement of `braing3n.phantom.fields`, from which its least-squares affine part over the brain is taken out:
    `affine` is therefore the best affine registration, exactly.
    """

    affine: np.ndarray = field(default_factory=lambda: np.eye(4))
    """Native RAS+ mm -> SRI24 RAS+ mm, 4x4."""
    deformation_mm: float = 0.0
    """Root mean square over the brain of the individual smooth deformation."""
    deformation_seed: int = 0
    dimorphism_mm: float = 0.0
    """Amplitude of one fixed smooth deformation, the shape that sexes differ by here."""
    ventricle_mm: float = 0.0
    """How far the walls of the lateral ventricles move outward; negative narrows."""
    cortical_atrophy: float = 0.0
    """0 to 1: sulci widen."""
    hippocampal_atrophy: float = 0.0
    """0 to 1: the hippocampi shrink and the temporal horns fill."""
    white_matter_lesions: float = 0.0
    """0 to 1: extent of lesions around the ventricles and in deep white matter."""
    contrast_loss: float = 0.0
    """0 to 1: white matter darkens towards grey matter on T1, as in old age."""
    tumour: Tumour | None = None


@dataclass(frozen=True, eq=False)
class ScanTruth:
    """One acquisition of a head. Bias and noise are stated as BrainWeb does (Kwan et al. 1999)."""

    modality: str = "T1"
    seed: int = 0
    noise: float = 0.0
    """Standard deviation of the Rician noise's channels, of the brightest tissue; BrainWeb's 9 % is 0.09."""
    bias: float = 0.0
    """Range of the bias field over the brain; 0.4 is 0.8 to 1.2."""
    gain: float = 1000.0
    """Intensity of the brightest tissue."""
    gamma: float = 1.0
    """Exponent on intensities: a site's contrast."""
    motion: np.ndarray = field(default_factory=lambda: np.eye(4))
    """This scan's RAS+ mm -> the subject's native RAS+ mm."""
    stripped: bool = False
    defaced: bool = False


@dataclass(frozen=True, eq=False)
class Grid:
    """Voxels of a scan."""

    shape: tuple[int, int, int]
    affine: np.ndarray
    """Voxel -> RAS+ mm."""


def pose(
    rotation_deg: Any = (0.0, 0.0, 0.0),
    translation_mm: Any = (0.0, 0.0, 0.0),
    scale: Any = (1.0, 1.0, 1.0),
    shear: Any = (0.0, 0.0, 0.0),
) -> np.ndarray:
    """Affine native RAS+ mm -> SRI24 RAS+ mm of a head whose brain's centre lies at `translation_mm`.

    The head is the atlas, first scaled and sheared, then rotated about x, y and z, then moved. A scale above 1 is a
    larger head.
    """
    linear = np.eye(3)
    linear[0, 1], linear[0, 2], linear[1, 2] = shear
    linear = Rotation.from_euler("xyz", rotation_deg, degrees=True).as_matrix() @ linear @ np.diag(scale)
    to_native = nib.affines.from_matvec(linear, np.asarray(translation_mm) - linear @ BRAIN_CENTRE)
    return np.linalg.inv(to_native)


def rigid(rotation_deg: Any, translation_mm: Any) -> np.ndarray:
    """Rotation about the origin, then translation, 4x4."""
    return nib.affines.from_matvec(Rotation.from_euler("xyz", rotation_deg, degrees=True).as_matrix(), translation_mm)


def scanner_grid(
    voxel_mm: Any, extent_mm: Any, codes: str = "RAS", centre_mm: Any = (0.0, 0.0, 0.0), tilt_deg: Any = (0.0, 0.0, 0.0)
) -> Grid:
    """Voxels of a field of view.

    Args:
        voxel_mm, extent_mm: size of a voxel and of the field of view along R-L, A-P and S-I.
        codes: anatomical direction of each stored axis, such as "PSR".
        centre_mm: middle of the field of view, RAS+ mm.
        tilt_deg: rotation of the whole field of view about x, y and z.
    """
    world = nib.orientations.axcodes2ornt(tuple(codes))  # stored axis -> (world axis, direction)
    axes = world[:, 0].astype(int)
    size = np.asarray(voxel_mm, float)[axes]
    shape = tuple(int(n) for n in np.round(np.asarray(extent_mm, float)[axes] / size))
    linear = np.zeros((3, 3))
    linear[axes, np.arange(3)] = world[:, 1] * size
    linear = Rotation.from_euler("xyz", tilt_deg, degrees=True).as_matrix() @ linear
    offset = np.asarray(centre_mm) - linear @ ((np.array(shape) - 1) / 2)
    return Grid(shape, nib.affines.from_matvec(linear, offset))


def truth_row(subject: SubjectTruth, scan: ScanTruth, /, **known: Any) -> dict[str, Any]:
    """One row of the truth table: `known` and every parameter.

    `affine` is a list of 16 numbers, row by row: the scan's own RAS+ mm -> SRI24 RAS+ mm, with the motion between the
    scans of a session.
    """
    row = known | {"modality": scan.modality, "affine": (subject.affine @ scan.motion).ravel().tolist()}
    row |= {name: float(getattr(subject, name)) for name in SUBJECT_EFFECTS}
    row |= {name: float(getattr(scan, name)) for name in SCAN_EFFECTS}
    row["tumour_radius_mm"] = subject.tumour.radius_mm if subject.tumour else 0.0
    return row


SUBJECT_EFFECTS = (
    "deformation_mm",
    "dimorphism_mm",
    "ventricle_mm",
    "cortical_atrophy",
    "hippocampal_atrophy",
    "white_matter_lesions",
    "contrast_loss",
)
SCAN_EFFECTS = ("noise", "bias", "gain", "gamma", "stripped", "defaced")
