"""Slices as pictures: which side is which cannot be seen from a symmetric brain, so it is proved on one that is not."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from braing3n.geometry import SRI24_AFFINE
from braing3n.reporting.planes import box_of, filled, plane, slice_indices, to_lps, window

SHAPE = (6, 8, 10)
CORNERS = {  # picture -> where the bright voxel must appear (row, column); the voxel is right, anterior, superior
    "axial": (0, 0),  # anterior at the top, right on the left-hand side
    "coronal": (0, 0),  # superior at the top, right on the left-hand side
    "sagittal": (0, 0),  # superior at the top, anterior on the left-hand side
}


def right_anterior_superior() -> np.ndarray:
    volume = np.zeros(SHAPE)
    volume[0, 0, -1] = 1  # LPS: axis 0 from right to left, 1 from anterior to posterior, 2 from inferior to superior
    return volume


@pytest.mark.parametrize(("name", "index"), [("axial", SHAPE[2] - 1), ("coronal", 0), ("sagittal", 0)])
def test_right_anterior_superior_voxel_is_at_the_upper_left(name, index):
    picture = plane(right_anterior_superior(), name, index)
    assert np.argwhere(picture).tolist() == [list(CORNERS[name])]


def test_voxel_axes_of_the_grid_are_those_that_the_pictures_assume():
    assert nib.aff2axcodes(SRI24_AFFINE) == ("L", "P", "S")


@pytest.mark.parametrize("codes", [("R", "A", "S"), ("L", "P", "S"), ("P", "S", "R"), ("I", "R", "A")])
def test_to_lps_brings_any_orientation_to_the_same_picture(codes):
    lps = np.arange(np.prod(SHAPE), dtype=float).reshape(SHAPE)
    affine = np.diag([-1.0, -2.0, 3.0, 1.0])
    change = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt(("L", "P", "S")), nib.orientations.axcodes2ornt(codes)
    )
    turned = nib.orientations.apply_orientation(lps, change)
    turned_affine = affine @ nib.orientations.inv_ornt_aff(change, SHAPE)
    back, sizes = to_lps(turned, turned_affine)
    assert np.array_equal(back, lps)
    assert sizes == (1.0, 2.0, 3.0)


def test_box_and_cuts_follow_the_mask_and_an_empty_mask_gives_the_whole():
    mask = np.zeros(SHAPE, dtype=bool)
    mask[2:4, 3:7, 5:9] = True
    assert box_of([mask], margin=1) == (slice(1, 5), slice(2, 8), slice(4, 10))
    assert box_of([np.zeros(SHAPE, dtype=bool)]) == tuple(slice(0, n) for n in SHAPE)
    assert slice_indices(mask) == {"axial": 7, "coronal": 5, "sagittal": 3}
    wide = np.zeros((20, 8, 10), dtype=bool)
    wide[2:18] = True
    assert slice_indices(wide)["sagittal"] == 12


def test_frame_cuts_every_picture_to_the_same_box():
    frame = (slice(1, 5), slice(2, 8), slice(4, 10))
    volume = np.zeros(SHAPE)
    assert [plane(volume, name, 0, frame).shape for name in ("axial", "coronal", "sagittal")] == [
        (6, 4),
        (6, 4),
        (6, 6),
    ]


def test_window_ignores_background_and_outline_ignores_holes():
    volume = np.zeros(SHAPE)
    volume[2:4] = 50.0
    assert window(volume, volume > 0) == (0.0, 50.0)
    assert window(np.zeros(SHAPE), np.zeros(SHAPE, dtype=bool)) == (0.0, 1.0)
    ring = np.ones((5, 5), dtype=bool)
    ring[2, 2] = False
    assert filled(ring).all()
