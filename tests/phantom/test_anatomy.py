"""What is derived from the atlas is where anatomy says it is."""

from __future__ import annotations

import numpy as np

from braing3n.phantom import anatomy as module
from braing3n.phantom.anatomy import FIELD_MM, FIELD_SHAPE, MIDLINE, PAD, SHAPE, load_anatomy, to_padded
from braing3n.preprocess.atlas import load_atlas


def test_head_is_the_atlas(anatomy, atlas_dir):
    atlas = load_atlas(atlas_dir)
    inside = anatomy.t1[:, :, PAD:]
    assert anatomy.t1.shape == SHAPE
    assert np.array_equal(anatomy.brain[:, :, PAD:], atlas.mask)
    dark = atlas.mask & (inside < 1.1)  # brighter voxels are toned down
    assert np.corrcoef(inside[dark], atlas.head[dark])[0, 1] > 0.9999
    assert not anatomy.t1[:3].any()  # air is zero
    assert not anatomy.t1[:, :, :2].any()  # and so is what lies far below the skull


def test_tissues_are_ordered_and_plausible(anatomy):
    csf, grey, white = anatomy.tissue
    assert 0.2 < csf < 0.4
    assert 0.6 < grey < 0.85
    assert white == 1


def test_lateral_ventricles(anatomy):
    ventricles = anatomy.ventricles.astype(np.float32)
    assert 15 < ventricles.sum() / 1000 < 35  # ml, adults
    assert not ventricles[~anatomy.brain].any()
    left, right = ventricles[int(MIDLINE) + 1 :].sum(), ventricles[: int(MIDLINE) + 1].sum()
    assert 0.75 < left / right < 1.33
    third = to_padded([119, 125, 66]).astype(int)  # the third ventricle stays out
    assert ventricles[tuple(third)] == 0
    assert anatomy.t1[ventricles > 0.9].mean() < 0.4


def test_fields_point_outward_and_are_bounded(anatomy):
    for field in (anatomy.ventricular_field, anatomy.hippocampal_field):
        assert field.shape == (3, *FIELD_SHAPE)
        length = np.linalg.norm(field, axis=0)
        assert 0.9 < length.max() <= 1.0001
    # A node to the left of the left ventricle's body points further left (up the first axis).
    node = (to_padded([140, 120, 86]) / FIELD_MM).round().astype(int)
    assert anatomy.ventricular_field[0][tuple(node)] > 0.3
    node = (to_padded([100, 120, 86]) / FIELD_MM).round().astype(int)
    assert anatomy.ventricular_field[0][tuple(node)] < -0.3


def test_hippocampi_lie_in_the_medial_temporal_lobes(anatomy):
    loss = anatomy.hippocampal.astype(np.float32)
    assert not loss[~anatomy.brain].any()
    for side in (slice(0, 120), slice(120, 240)):
        weights = np.zeros(SHAPE, np.float32)
        weights[side] = loss[side]
        centre = np.array([(weights.sum(axis=tuple({0, 1, 2} - {a})) * np.arange(SHAPE[a])).sum() for a in range(3)])
        centre /= weights.sum()
        assert 20 < abs(centre[0] - MIDLINE) < 35
        assert 40 < centre[2] - PAD < 65


def test_defacing_spares_the_brain(anatomy):
    assert not (anatomy.face & anatomy.brain).any()
    removed = anatomy.t1[anatomy.face].sum() / anatomy.t1.sum()
    assert 0.05 < removed < 0.3


def test_distances_bound_where_to_look(anatomy):
    assert (anatomy.from_brain[anatomy.brain] == 0).all()
    assert (anatomy.from_head[0] == 255).all()
    far = tuple(to_padded([119, 44 - 20, 70]).astype(int))
    assert anatomy.from_brain[far] >= 15


def test_anatomy_is_kept_beside_the_atlas(anatomy, atlas_dir, monkeypatch):
    monkeypatch.setattr(module, "derive_anatomy", lambda *_: (_ for _ in ()).throw(AssertionError("derived again")))
    again = load_anatomy(atlas_dir)
    assert np.array_equal(again.lesions, anatomy.lesions)
