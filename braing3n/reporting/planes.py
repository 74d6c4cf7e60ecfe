"""Volumes on the SRI24 grid -> pictures in the radiological convention.

Voxel axes are LPS (`braing3n.geometry`): axis 0 runs to the patient's left, axis 1 to posterior, axis 2 to superior.
Pictures are arrays of rows from top to bottom, so that the patient's right is on the left-hand side.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

Box = tuple[slice, slice, slice]
PLANES = ("axial", "coronal", "sagittal")
EDGES = {  # what lies at the left and the right edge of each picture
    "axial": ("R", "L"),
    "coronal": ("R", "L"),
    "sagittal": ("A", "P"),
}


def plane(volume: np.ndarray, name: str, index: int, frame: Box | None = None) -> np.ndarray:
    """One slice as a picture, anterior up in axial, superior up in coronal and sagittal, cut to `frame`.

    (X, Y, Z) in LPS order -> axial (Y, X), coronal (Z, X), sagittal (Z, Y).
    """
    x, y, z = frame or (slice(None),) * 3
    cuts = {"axial": (x, y, index), "coronal": (x, index, z), "sagittal": (index, y, z)}
    return as_picture(volume[cuts[name]], name)


def as_picture(cut: np.ndarray, name: str) -> np.ndarray:
    """A slice in the order of the voxel axes, (X, Y), (X, Z) or (Y, Z) -> rows from top to bottom."""
    return cut.T if name == "axial" else cut.T[::-1]


def box_of(masks: Sequence[np.ndarray], margin: int | Sequence[int] = 5) -> Box:
    """Smallest box around all masks of one shape, with a margin in voxels (by axis); everything if they are empty."""
    union = np.logical_or.reduce(masks)
    box = []
    margins = [margin] * 3 if isinstance(margin, int) else margin
    for axis, (size, extra) in enumerate(zip(union.shape, margins, strict=True)):
        occupied = np.flatnonzero(union.any(axis=tuple(a for a in range(3) if a != axis)))
        low, high = (occupied[0], occupied[-1] + 1) if occupied.size else (0, size)
        box.append(slice(max(0, int(low) - extra), min(size, int(high) + extra)))
    return box[0], box[1], box[2]


def picture_sizes(frame: Box) -> list[tuple[int, int]]:
    """Width and height in voxels of the axial, coronal and sagittal pictures."""
    x, y, z = (edge.stop - edge.start for edge in frame)
    return [(x, y), (x, z), (y, z)]


def slice_indices(mask: np.ndarray) -> dict[str, int]:
    """Where the planes cut: the middle of the mask's box; sagittal an eighth of its width off it, through cortex."""
    x, y, z = box_of([mask], margin=0)
    middle = {name: (edge.start + edge.stop) // 2 for name, edge in zip(PLANES[::-1], (x, y, z), strict=True)}
    return middle | {"sagittal": middle["sagittal"] + (x.stop - x.start) // 8}


def window(volume: np.ndarray, mask: np.ndarray) -> tuple[float, float]:
    """Grey-value range for display: zero to the 99.5th percentile of the brain."""
    if not mask.any():
        return 0.0, 1.0
    high = float(np.percentile(volume[mask], 99.5))
    return 0.0, high if high > 0 else 1.0


def filled(mask_picture: np.ndarray) -> np.ndarray:
    """A mask's slice without inner holes, so that its contour is the outline only."""
    return ndimage.binary_fill_holes(mask_picture)


def to_lps(data: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, tuple[float, float, float]]:
    """A volume in any orientation -> LPS axes, with the voxel sizes (mm) along them.

    Only flips and permutes; an oblique grid keeps its voxels.
    """
    from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform

    change = ornt_transform(io_orientation(affine), axcodes2ornt(("L", "P", "S")))
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    order = np.argsort(change[:, 0])
    return apply_orientation(data, change), tuple(float(sizes[i]) for i in order)
