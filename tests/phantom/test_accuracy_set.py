"""The accuracy set spans what it says, and every brain lies inside its field of view."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from braing3n.phantom.accuracy import ENTRIES, accuracy_set, write_accuracy_set
from braing3n.phantom.anatomy import PADDED_AFFINE
from braing3n.phantom.truth import BRAIN_CENTRE


@pytest.fixture(scope="module")
def scans():
    return accuracy_set(40, 2025)


def parts(affine):
    """Rotation (degrees about x, y, z), scale and position of the brain's centre, from native -> SRI24."""
    to_native = np.linalg.inv(affine)
    u, stretch, vt = np.linalg.svd(to_native[:3, :3])
    angles = Rotation.from_matrix(u @ vt).as_euler("xyz", degrees=True)
    return angles, stretch, nib.affines.apply_affine(to_native, BRAIN_CENTRE)


def test_spans_pose_and_acquisition(scans):
    t1 = [scan for scan in scans if scan.scan.modality == "T1" and scan.known["entry_space"] == "native"]
    assert len([scan for scan in scans if scan.scan.modality == "T1"]) == 40
    angles, scales, positions = (np.array(x) for x in zip(*[parts(scan.subject.affine) for scan in t1], strict=True))
    assert (angles.min(axis=0) < -20).all()
    assert (angles.max(axis=0) > 20).all()
    assert np.abs(angles).max() < 29  # a little shear counts as rotation
    assert (positions.min(axis=0) < -24).all()
    assert (positions.max(axis=0) > 24).all()
    assert np.abs(positions).max() <= 30
    assert scales.mean(axis=1).min() < 0.89
    assert scales.mean(axis=1).max() > 1.11
    noise, bias = (np.array([getattr(scan.scan, name) for scan in t1]) for name in ("noise", "bias"))
    assert noise.min() < 0.01
    assert 0.08 < noise.max() <= 0.09
    assert 0.36 < bias.max() <= 0.40
    voxels = np.array([np.sort(scan.known["voxel_mm"]) for scan in t1])
    assert voxels.min() < 0.9
    assert (voxels[:, 2] / voxels[:, 0] > 1.5).any()
    isotropic = voxels[np.isclose(voxels[:, 0], voxels[:, 2])]
    assert isotropic.max() > 1.85


def test_covers_entry_states_orders_and_modalities(scans):
    assert {scan.known["entry"] for scan in scans} == set(ENTRIES)
    assert len({scan.known["orientation"] for scan in scans}) > 30
    assert {scan.scan.modality for scan in scans} == {"T1", "T2", "FLAIR", "T1c"}
    handedness = {np.sign(np.linalg.det(scan.grid.affine[:3, :3])) for scan in scans}
    assert handedness == {-1.0, 1.0}
    for scan in scans:
        assert scan.scan.stripped == scan.known["entry_stripped"]
        assert scan.scan.defaced == scan.known["entry_defaced"]
        if scan.known["entry_bias_corrected"]:
            assert scan.scan.bias <= 0.05
        if scan.known["shares_grid"]:
            assert np.array_equal(scan.scan.motion, np.eye(4))


def test_every_brain_lies_in_its_field_of_view(scans, anatomy):
    brain = np.argwhere(anatomy.brain[::4, ::4, ::4]) * 4
    for scan in scans:
        to_voxel = np.linalg.inv(scan.subject.affine @ scan.scan.motion @ scan.grid.affine) @ PADDED_AFFINE
        voxels = nib.affines.apply_affine(to_voxel, brain)
        assert (voxels > 0).all(), scan.source_path
        assert (voxels < np.array(scan.grid.shape) - 1).all(), scan.source_path


def test_depends_on_seed_alone():
    first, again, other = (accuracy_set(3, seed)[1] for seed in (1, 1, 2))
    assert np.array_equal(first.subject.affine, again.subject.affine)
    assert first.scan.seed == again.scan.seed
    assert not np.array_equal(first.subject.affine, other.subject.affine)


def test_written_set_has_masks_and_bias_fields(anatomy, atlas_dir, tmp_path):
    del anatomy
    table = write_accuracy_set(atlas_dir, tmp_path, 1, 3, workers=1)
    assert list(table.modality) == ["T1", "T2"]
    for row in table.itertuples():
        image, mask, bias = (
            nib.load(tmp_path / p) for p in (f"ACCURACY/{row.source_path}", row.mask_path, row.bias_path)
        )
        assert image.shape == mask.shape == bias.shape
        assert "".join(nib.aff2axcodes(image.affine)) == row.orientation
        inside = np.asarray(mask.dataobj) > 0
        signal = np.asarray(image.dataobj, float)
        assert signal[inside].mean() > 1.5 * np.median(signal)
        assert np.ptp(bias.get_fdata()[inside]) == pytest.approx(row.bias, rel=0.01)
