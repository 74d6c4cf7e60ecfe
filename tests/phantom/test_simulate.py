"""The simulator against independent resampling, and each effect against its definition."""

from __future__ import annotations

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from braing3n.geometry import SRI24_AFFINE, VOLUME_SHAPE, cropped_affine
from braing3n.phantom.accuracy import storage_orders
from braing3n.phantom.anatomy import FIELD_MM, FIELD_SHAPE, PADDED_AFFINE, field_points, to_padded
from braing3n.phantom.fields import bias_field, displacement, without_affine_part
from braing3n.phantom.simulate import contrast, rician, simulate, ventricle_ml
from braing3n.phantom.truth import (
    BRAIN_CENTRE,
    BRAIN_CENTRE_VOXEL,
    Grid,
    ScanTruth,
    SubjectTruth,
    Tumour,
    pose,
    rigid,
    scanner_grid,
    truth_row,
)

WHOLE = (slice(None),) * 3
AT_HOME = SubjectTruth()
COARSE = scanner_grid((3, 3, 3), (210, 240, 210), "RAS", BRAIN_CENTRE)


def block(corner=(90, 100, 60), shape=(50, 44, 40)) -> Grid:
    """A piece of the atlas's own grid."""
    return Grid(shape, SRI24_AFFINE @ nib.affines.from_matvec(np.eye(3), corner))


def brain_nodes(anatomy):
    return np.pad(anatomy.brain[::FIELD_MM, ::FIELD_MM, ::FIELD_MM], [(0, 1), (0, 1), (0, 1)])


def test_atlas_at_home_is_the_atlas(anatomy):
    result = simulate(anatomy, AT_HOME, ScanTruth(), block())
    piece = tuple(slice(int(a), int(a) + n) for a, n in zip(to_padded((90, 100, 60)), (50, 44, 40), strict=True))
    assert np.allclose(result.volume / 1000, anatomy.t1[piece], atol=0.0015)  # tone curve has steps of 0.001
    assert np.array_equal(result.brain, anatomy.brain[piece])
    assert (result.bias == 1).all()


@pytest.mark.parametrize("deformation_mm", [0.0, 2.0])
def test_native_point_shows_the_atlas_where_the_truth_says(anatomy, deformation_mm):
    """`affine` maps native RAS+ mm to SRI24 RAS+ mm, and the displacement comes on top: checked with SciPy."""
    subject = SubjectTruth(
        affine=pose((20, -15, 10), (12, -25, 30), (1.1, 0.9, 1.05), (0.02, -0.03, 0.01)),
        deformation_mm=deformation_mm,
        deformation_seed=3,
    )
    motion = rigid((2, -1, 3), (1, 2, -3))
    grid = scanner_grid((1.2, 1.2, 1.2), (36, 30, 42), "PIL", (15, -20, 25), tilt_deg=(4, -3, 2))
    result = simulate(anatomy, subject, ScanTruth(motion=motion), grid)

    voxels = np.stack(np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij"), axis=-1).reshape(-1, 3)
    scanner_mm = nib.affines.apply_affine(grid.affine, voxels)
    sri24_mm = nib.affines.apply_affine(subject.affine @ motion, scanner_mm)
    atlas = nib.affines.apply_affine(np.linalg.inv(PADDED_AFFINE), sri24_mm).T
    u = displacement(anatomy, subject)
    atlas = atlas + np.stack([ndimage.map_coordinates(c, atlas / FIELD_MM, order=1, mode="nearest") for c in u])
    image = contrast(anatomy, subject, ScanTruth(), WHOLE)
    expected = ndimage.map_coordinates(image, atlas, order=1).reshape(grid.shape)
    assert np.abs(result.volume / 1000 - expected).max() < 0.005
    inside = ndimage.map_coordinates(anatomy.brain.astype(float), atlas, order=1).reshape(grid.shape)
    assert (result.brain == (inside > 0.5)).mean() > 0.9999


def test_pose_puts_the_brain_where_it_says():
    matrix = pose((10, 20, 30), (5, -6, 7), (1.1, 1.0, 0.9))
    assert np.allclose(nib.affines.apply_affine(matrix, (5, -6, 7)), BRAIN_CENTRE)
    assert np.linalg.det(matrix) == pytest.approx(1 / (1.1 * 1.0 * 0.9))
    turned = pose((0, 0, 90))  # a quarter turn about the z axis brings atlas x (right) to native y (front)
    right_of_centre = BRAIN_CENTRE + np.array([10, 0, 0])
    assert np.allclose(nib.affines.apply_affine(np.linalg.inv(turned), right_of_centre), (0, 10, 0), atol=1e-9)


@pytest.mark.parametrize(
    "effect",
    [
        {"ventricle_mm": 4.5},
        {"ventricle_mm": -2.0},
        {"hippocampal_atrophy": 1.0},
        {"deformation_mm": 2.0, "deformation_seed": 7},
        {"dimorphism_mm": 1.0},
        {"tumour": Tumour((150, 110, 85), 18)},
        {"ventricle_mm": 4.5, "hippocampal_atrophy": 1.0, "deformation_mm": 1.5, "dimorphism_mm": 0.6},
    ],
)
def test_displacement_does_not_fold_and_has_no_affine_part(anatomy, effect):
    u = displacement(anatomy, SubjectTruth(**effect))
    gradient = np.stack([np.stack(np.gradient(component, FIELD_MM)) for component in u])  # (component, axis, ...)
    jacobian = np.linalg.det(np.moveaxis(gradient, (0, 1), (-2, -1)) + np.eye(3))
    assert jacobian.min() > 0.05
    nodes = brain_nodes(anatomy)
    points = np.vstack([(field_points() - 100)[:, nodes], np.ones(int(nodes.sum()))])
    fit, *_ = np.linalg.lstsq(points.T, u[:, nodes].T, rcond=None)
    assert np.abs(fit).max() < 1e-3


def test_stated_deformation_is_its_root_mean_square(anatomy):
    nodes = brain_nodes(anatomy)
    for name in ("deformation_mm", "dimorphism_mm"):
        u = displacement(anatomy, SubjectTruth(**{name: 1.7}))
        assert np.sqrt((u[:, nodes] ** 2).sum(axis=0).mean()) == pytest.approx(1.7, rel=1e-3)
    assert not displacement(anatomy, AT_HOME).any()


def test_affine_part_is_removed_exactly(anatomy):
    nodes = brain_nodes(anatomy)
    points = field_points()
    affine = np.stack([0.1 * points[0] + 2, -0.05 * points[2], points[1] * 0.2 - 1])
    assert np.abs(without_affine_part(affine, nodes)).max() < 1e-9
    assert points.shape == (3, *FIELD_SHAPE)


def test_ventricles_grow_as_stated(anatomy):
    volumes = [ventricle_ml(anatomy, SubjectTruth(ventricle_mm=mm)) for mm in (-2, 0, 1, 2, 4.5)]
    assert (np.diff(volumes) > 0).all()
    assert volumes[1] == pytest.approx(anatomy.ventricles.astype(float).sum() / 1000, rel=0.01)
    assert volumes[-1] > 1.8 * volumes[1]
    larger = SubjectTruth(affine=pose(scale=(1.1, 1.1, 1.1)))
    assert ventricle_ml(anatomy, larger) == pytest.approx(1.331 * volumes[1], rel=0.001)


def test_ventricle_volume_is_what_the_image_shows(anatomy):
    """Dark voxels near the lateral ventricles, counted on the image, grow by the stated volume."""
    grid = block((80, 75, 58), (80, 105, 48))
    dark = {}
    for mm in (0.0, 3.0):
        dark[mm] = (simulate(anatomy, SubjectTruth(ventricle_mm=mm), ScanTruth(), grid).volume < 510).sum() / 1000
    stated = ventricle_ml(anatomy, SubjectTruth(ventricle_mm=3.0)) - ventricle_ml(anatomy, AT_HOME)
    assert dark[3.0] - dark[0.0] == pytest.approx(stated, rel=0.25)


def test_atrophy_darkens_its_region_only(anatomy):
    temporal = block((80, 105, 40), (80, 60, 35))
    before = simulate(anatomy, AT_HOME, ScanTruth(), temporal).volume
    after = contrast(anatomy, SubjectTruth(hippocampal_atrophy=1.0), ScanTruth(), WHOLE)
    lost = contrast(anatomy, AT_HOME, ScanTruth(), WHOLE) - after
    assert lost.min() > -0.0015
    assert lost[anatomy.hippocampal == 0].max() < 0.0015
    assert lost.sum() > 1000
    shrunk = simulate(anatomy, SubjectTruth(hippocampal_atrophy=1.0), ScanTruth(), temporal).volume
    assert shrunk.mean() < before.mean()
    cortical = contrast(anatomy, SubjectTruth(cortical_atrophy=1.0), ScanTruth(), WHOLE)
    ventricular = anatomy.ventricles > 0.9
    assert np.abs(contrast(anatomy, AT_HOME, ScanTruth(), WHOLE) - cortical)[ventricular].max() < 0.05


def test_modalities_order_tissues_as_they_should(anatomy):
    csf = anatomy.ventricles > 0.95
    white = (anatomy.t1 > 0.97) & (anatomy.t1 < 1.03) & anatomy.brain
    grey = (np.abs(anatomy.t1 - anatomy.tissue[1]) < 0.03) & anatomy.brain
    mean = {}
    for modality in ("T1", "T2", "FLAIR", "T1c"):
        image = contrast(anatomy, AT_HOME, ScanTruth(modality), WHOLE)
        mean[modality] = [image[region].mean() for region in (csf, grey, white)]
    assert mean["T1"] == sorted(mean["T1"])
    assert mean["T2"] == sorted(mean["T2"], reverse=True)
    fluid, grey_value, white_value = mean["FLAIR"]
    assert fluid < white_value < grey_value
    assert np.allclose(mean["T1"], mean["T1c"])


def test_tumour_enhances_on_the_stated_side(anatomy):
    """SRI24 voxel 150 is left of the midline, so in RAS+ mm the rim lies at smaller x than the brain's centre."""
    tumour = Tumour((150, 110, 85), 14, mass_effect_mm=0.0)
    subject = SubjectTruth(affine=pose(), tumour=tumour)
    grid = scanner_grid((3, 3, 3), (210, 240, 210), "ASL")
    with_rim = simulate(anatomy, subject, ScanTruth("T1c"), grid).volume
    without = simulate(anatomy, replace(subject, tumour=None), ScanTruth("T1c"), grid).volume
    bright = np.argwhere(with_rim - without > 250)
    centre = nib.affines.apply_affine(grid.affine, bright).mean(axis=0)
    expected = np.array([-1, -1, 1]) * (np.array(tumour.centre) - BRAIN_CENTRE_VOXEL)
    assert np.abs(centre - expected).max() < 6
    faint = replace(subject, tumour=replace(tumour, enhancement=0.0))
    brightened = simulate(anatomy, faint, ScanTruth("T1c"), grid).volume - without > 250
    assert brightened.sum() < 0.1 * len(bright)


def test_lesions_are_bright_on_flair_in_white_matter(anatomy):
    extent = SubjectTruth(white_matter_lesions=0.6)
    change = contrast(anatomy, extent, ScanTruth("FLAIR"), WHOLE) - contrast(
        anatomy, AT_HOME, ScanTruth("FLAIR"), WHOLE
    )
    lesion = change > 0.1
    assert lesion.sum() > 500
    assert anatomy.t1[lesion].mean() > 0.85
    less = contrast(anatomy, SubjectTruth(white_matter_lesions=0.2), ScanTruth("FLAIR"), WHOLE)
    assert less.sum() < (change + contrast(anatomy, AT_HOME, ScanTruth("FLAIR"), WHOLE)).sum()


def test_all_storage_orders_show_the_same_head(anatomy):
    subject = SubjectTruth(affine=pose((5, 10, -5), (4, 0, -3)), tumour=Tumour((150, 110, 85), 14))
    size, extent = (4, 5, 3), (96, 100, 60)
    reference = simulate(anatomy, subject, ScanTruth("T1c"), scanner_grid(size, extent, "RAS")).volume
    orders = storage_orders()
    assert len(set(orders)) == 48
    for order in orders[::7]:
        grid = scanner_grid(size, extent, order)
        assert "".join(nib.aff2axcodes(grid.affine)) == order
        result = simulate(anatomy, subject, ScanTruth("T1c"), grid)
        turned = nib.as_closest_canonical(nib.Nifti1Image(result.volume, result.affine))
        assert np.allclose(turned.get_fdata(), reference, atol=0.05)


def test_thick_voxels_average_thin_ones(anatomy):
    thick = simulate(anatomy, AT_HOME, ScanTruth(), scanner_grid((1, 1, 4), (40, 40, 40), "RAS", BRAIN_CENTRE)).volume
    thin = simulate(
        anatomy, AT_HOME, ScanTruth(), scanner_grid((1, 1, 4 / 3), (40, 40, 40), "RAS", BRAIN_CENTRE)
    ).volume
    assert np.allclose(thick, thin.reshape(40, 40, 10, 3).mean(axis=3), atol=0.5)


def test_bias_spans_the_stated_range_over_the_brain_and_multiplies(anatomy):
    plain = simulate(anatomy, AT_HOME, ScanTruth(), COARSE)
    biased = simulate(anatomy, AT_HOME, ScanTruth(bias=0.4, seed=5), COARSE)
    inside = biased.bias[biased.brain]
    assert inside.min() == pytest.approx(0.8, abs=1e-4)
    assert inside.max() == pytest.approx(1.2, abs=1e-4)
    assert np.allclose(biased.volume, plain.volume * biased.bias, rtol=1e-4, atol=1e-3)
    step = np.abs(np.diff(biased.bias, axis=0)).max() / 3  # per mm
    assert step < 0.01
    other = bias_field(COARSE.shape, 0.4, 6, biased.brain)
    assert abs(np.corrcoef(other[biased.brain], inside)[0, 1]) < 0.99


def test_noise_is_rician_of_the_stated_strength(anatomy):
    result = simulate(anatomy, AT_HOME, ScanTruth(noise=0.09, gain=1000), COARSE).volume
    quiet = simulate(anatomy, AT_HOME, ScanTruth(gain=1000), COARSE).volume
    air = result[quiet == 0]
    assert air.mean() == pytest.approx(90 * np.sqrt(np.pi / 2), rel=0.02)  # Rayleigh
    bright = quiet > 700
    assert (result - quiet)[bright].std() == pytest.approx(90, rel=0.05)
    signal = np.full(100_000, 2.0, np.float32)
    noisy = rician(signal, 0.5, np.random.default_rng(0))
    assert (noisy**2).mean() == pytest.approx(4 + 2 * 0.25, rel=0.01)  # E m^2 = s^2 + 2 sigma^2


def test_stripped_is_zero_outside_and_defaced_has_no_face(anatomy):
    head = simulate(anatomy, AT_HOME, ScanTruth(), COARSE)
    stripped = simulate(anatomy, AT_HOME, ScanTruth(stripped=True, noise=0.05), COARSE)
    assert (stripped.brain != head.brain).sum() < 0.002 * head.brain.sum()  # voxels that are half brain to the last bit
    assert not stripped.volume[~stripped.brain].any()
    assert (stripped.volume[stripped.brain] > 0).mean() > 0.999
    quiet = simulate(anatomy, AT_HOME, ScanTruth(stripped=True), COARSE).volume
    inner = ndimage.binary_erosion(head.brain & stripped.brain)
    assert np.allclose(quiet[inner], head.volume[inner], atol=1)
    defaced = simulate(anatomy, AT_HOME, ScanTruth(defaced=True), COARSE)
    assert np.allclose(defaced.volume[inner], head.volume[inner], atol=1)
    assert (defaced.volume < head.volume - 100).sum() > 200


def test_equal_truth_gives_equal_bytes(anatomy):
    subject = SubjectTruth(deformation_mm=1.5, deformation_seed=1, ventricle_mm=1.0)
    scan = ScanTruth(noise=0.03, bias=0.3, seed=11)
    first, again = (simulate(anatomy, subject, scan, COARSE).volume for _ in range(2))
    assert first.tobytes() == again.tobytes()
    assert (simulate(anatomy, subject, replace(scan, seed=12), COARSE).volume != first).any()


def test_final_grid_is_aligned_with_the_atlas(anatomy):
    grid = Grid(VOLUME_SHAPE, cropped_affine())
    result = simulate(anatomy, AT_HOME, ScanTruth(stripped=True), grid)
    assert result.volume.shape == VOLUME_SHAPE
    assert result.volume.dtype == np.float32
    assert result.brain.sum() == anatomy.brain.sum()


def test_truth_row_holds_the_whole_transform():
    subject = SubjectTruth(affine=pose((5, 0, 0), (1, 2, 3)))
    scan = ScanTruth("T2", motion=rigid((0, 0, 2), (1, 0, 0)), noise=0.02)
    row = truth_row(subject, scan, cohort="X", subject="S1")
    assert np.allclose(np.reshape(row["affine"], (4, 4)), subject.affine @ scan.motion)
    assert row["modality"] == "T2"
    assert row["noise"] == 0.02
    assert row["subject"] == "S1"
