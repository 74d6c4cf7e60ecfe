import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from heads import brain_points, errors_mm, in_ras, save, scan_of

from braing3n.config.data import RegisterSettings
from braing3n.errors import BrainG3NError
from braing3n.files import write_nifti
from braing3n.geometry import SRI24_AFFINE, SRI24_SHAPE
from braing3n.phantom.anatomy import load_anatomy
from braing3n.phantom.truth import pose, rigid
from braing3n.preprocess.atlas import load_atlas
from braing3n.preprocess.images import read_image
from braing3n.preprocess.qc import atlas_correlation
from braing3n.preprocess.register import affine_to_atlas, resample_to_atlas, rigid_to_anchor
from braing3n.preprocess.search import best_start, center_of_mass, matrix_about, resample_isotropic, rotations
from braing3n.preprocess.transforms import read_transform, write_transform

FAST = RegisterSettings(affine="AffineFast", starts=125)
TURNED = pose((20, -16, 24), (18, -25, 12), (1.12, 1.05, 1.08), (0.03, -0.02, 0.04))
MOTION = rigid((4, -3, 6), (5, -4, 7))


@pytest.fixture(scope="module")
def atlas(atlas_dir):
    return load_atlas(atlas_dir)


@pytest.fixture(scope="module")
def anatomy(atlas_dir):
    return load_anatomy(atlas_dir)


@pytest.fixture(scope="module")
def head(anatomy):
    """T1 at 2 mm, far from the atlas's pose."""
    return scan_of(anatomy, TURNED, bias=0.2, noise=0.03)


@pytest.fixture
def files(head, tmp_path):
    return save(tmp_path, "t1", head)


def test_affine_recovers_the_true_pose(atlas, files, tmp_path):
    image, mask = files
    qc = affine_to_atlas(image, mask, atlas, tmp_path / "x.mat", settings=RegisterSettings(starts=125), threads=1)
    errors = errors_mm(in_ras(read_transform(tmp_path / "x.mat")), np.linalg.inv(TURNED), brain_points(atlas))
    assert np.median(errors) <= 0.5
    assert errors.max() <= 1.0
    assert qc["register_correlation"] > 0.8


def test_thick_slices_in_another_storage_order_twice_the_same(atlas, anatomy, tmp_path):
    scan = scan_of(anatomy, TURNED, voxel_mm=(1.5, 1.5, 4), codes="PIR", bias=0.2, noise=0.03)
    image, mask = save(tmp_path, "t1", scan)
    affine_to_atlas(image, mask, atlas, tmp_path / "x.mat", settings=FAST, threads=1)
    errors = errors_mm(in_ras(read_transform(tmp_path / "x.mat")), np.linalg.inv(TURNED), brain_points(atlas))
    assert np.median(errors) <= 1.0
    assert np.percentile(errors, 95) <= 2.0
    affine_to_atlas(image, mask, atlas, tmp_path / "y.mat", settings=FAST, threads=1)
    assert (tmp_path / "x.mat").read_bytes() == (tmp_path / "y.mat").read_bytes()


def test_rigid_across_contrasts_and_one_resampling_through_both(atlas, anatomy, files, tmp_path):
    """T2 with head, thick slices, moved since the T1: aligned to it, then through its transform to the atlas."""
    t1, t1_mask = files
    t2, _ = save(tmp_path, "t2", scan_of(anatomy, TURNED, (1, 1, 4), "LPS", modality="T2", motion=MOTION, noise=0.03))
    rigid_to_anchor(t2, t1, tmp_path / "rigid.mat", settings=FAST, threads=1)
    native = nib.affines.apply_affine(np.linalg.inv(TURNED), brain_points(atlas))  # points of the T1
    errors = errors_mm(in_ras(read_transform(tmp_path / "rigid.mat")), np.linalg.inv(MOTION), native)
    assert np.median(errors) <= 0.7
    assert np.linalg.det(read_transform(tmp_path / "rigid.mat")[:3, :3]) == pytest.approx(1.0, abs=1e-4)

    write_transform(tmp_path / "affine.mat", in_ras(np.linalg.inv(TURNED)))
    mask, one, two = tmp_path / "mask.nii.gz", tmp_path / "one.nii.gz", tmp_path / "two.nii.gz"
    resample_to_atlas(t1, t1_mask, [tmp_path / "affine.mat"], atlas, one, mask, settings=FAST)
    transforms = [tmp_path / "affine.mat", tmp_path / "rigid.mat"]
    resample_to_atlas(t2, mask, transforms, atlas, two, None, settings=FAST)
    aligned = np.asarray(nib.load(two).dataobj)
    assert atlas_correlation(aligned[atlas.mask], atlas.brain[atlas.mask]) > 0.75
    turned_back = tmp_path / "wrong.nii.gz"
    resample_to_atlas(t2, mask, transforms[::-1], atlas, turned_back, None, settings=FAST)
    wrong = np.asarray(nib.load(turned_back).dataobj)
    assert atlas_correlation(wrong[atlas.mask], atlas.brain[atlas.mask]) < 0.75
    np.testing.assert_array_equal((aligned > 0) & ~(np.asarray(nib.load(mask).dataobj) > 0), False)


@pytest.mark.parametrize("codes", ["LPS", "RAS", "PIR", "ASL", "SAR", "IPL"])
def test_left_stays_left_in_every_storage_order(atlas, codes, tmp_path):
    """A mark in the left hemisphere, far from the midline, and nothing on the right."""
    coarse = SRI24_AFFINE @ np.diag([4.0, 4.0, 4.0, 1.0])
    volume, mask = np.full((60, 60, 39), 10.0, np.float32), atlas.mask[::4, ::4, ::4]
    volume[38:42, 30:34, 18:22] = 100.0  # atlas voxels 152 to 166 along x, which runs to the left
    turn = nib.orientations.ornt_transform(nib.io_orientation(coarse), nib.orientations.axcodes2ornt(tuple(codes)))
    for name, data in (("scan", volume), ("mask", mask.astype(np.uint8))):
        nib.save(nib.Nifti1Image(data, coarse).as_reoriented(turn), tmp_path / f"{name}.nii.gz")
    write_transform(tmp_path / "x.mat", np.eye(4))
    out = tmp_path / "out.nii.gz", tmp_path / "out_mask.nii.gz"
    resample_to_atlas(
        tmp_path / "scan.nii.gz", tmp_path / "mask.nii.gz", [tmp_path / "x.mat"], atlas, *out, settings=FAST
    )
    result = nib.load(out[0])
    center = np.argwhere(np.asarray(result.dataobj) > 50).mean(axis=0)
    np.testing.assert_allclose(center, [158, 126, 78], atol=0.6)
    assert nib.affines.apply_affine(result.affine, center)[0] < -150  # RAS: left is negative


def test_result_is_a_clipped_masked_float_on_the_atlas_grid(atlas, tmp_path):
    rng = np.random.default_rng(0)
    volume = rng.normal(5, 30, SRI24_SHAPE).astype(np.float32)
    write_nifti(tmp_path / "scan.nii.gz", volume, SRI24_AFFINE)
    write_transform(tmp_path / "x.mat", np.eye(4))
    out = tmp_path / "out.nii.gz", tmp_path / "out_mask.nii.gz"
    scan = tmp_path / "scan.nii.gz"
    qc = resample_to_atlas(scan, atlas.mask_path, [tmp_path / "x.mat"], atlas, *out, settings=FAST)
    result, mask = nib.load(out[0]), nib.load(out[1])
    assert (result.shape, result.get_data_dtype(), mask.get_data_dtype()) == (SRI24_SHAPE, np.float32, np.uint8)
    np.testing.assert_allclose(result.affine, SRI24_AFFINE)
    np.testing.assert_array_equal(np.asarray(mask.dataobj) > 0, atlas.mask)
    expected = np.where(atlas.mask, np.clip(volume, 0, None), 0)
    np.testing.assert_allclose(np.asarray(result.dataobj), expected, atol=1e-3)
    assert qc["clipped_fraction"] == pytest.approx((volume[atlas.mask] < 0).mean(), abs=1e-3)


def test_search_finds_the_turned_start(atlas):
    """From a brain turned by 33 degrees, the best start is nearer than the unturned one."""
    fixed = resample_isotropic(read_image(atlas.brain_path), 4.0)
    turn = rotations(125)[90]
    center = center_of_mass(fixed)
    away = matrix_about(turn, center, center)
    transform = sitk.AffineTransform(3)
    inverse = np.linalg.inv(away)
    transform.SetMatrix(inverse[:3, :3].ravel().tolist())
    transform.SetTranslation(inverse[:3, 3].tolist())
    moving = sitk.Resample(fixed, fixed, transform)
    starts = [matrix_about(each, center, center_of_mass(moving)) for each in rotations(125)]
    found, score = best_start(fixed, moving, starts)
    np.testing.assert_allclose(found[:3, :3], turn)
    assert score > best_start(fixed, moving, starts[:1])[1]
    np.testing.assert_array_equal(rotations(1)[0], np.eye(3))
    assert len({tuple(np.round(each, 6).ravel()) for each in rotations(125)}) == 125


def test_isotropic_resampling_keeps_the_world(atlas):
    image = read_image(atlas.brain_path)
    coarse = resample_isotropic(image, 5.0)
    assert coarse.GetSpacing() == (5.0, 5.0, 5.0)
    np.testing.assert_allclose(center_of_mass(coarse), center_of_mass(image), atol=0.3)


def test_what_cannot_be_registered_is_an_error(atlas, head, files, tmp_path):
    image, mask = files
    out = tmp_path / "x.mat"

    def register():
        affine_to_atlas(image, mask, atlas, out, settings=FAST, threads=1)

    write_nifti(mask, np.zeros_like(head.brain), head.affine, np.uint8)
    with pytest.raises(BrainG3NError, match="mask is empty"):
        register()
    write_nifti(mask, head.brain[1:], head.affine, np.uint8)
    with pytest.raises(BrainG3NError, match="grid"):
        register()
    small = np.zeros_like(head.brain)
    small[40:66, 40:66, 40:66] = True  # 140 ml
    write_nifti(mask, small, head.affine, np.uint8)
    with pytest.raises(BrainG3NError, match="went astray"):
        register()
    write_nifti(image, np.zeros_like(head.volume), head.affine)
    with pytest.raises(BrainG3NError, match="empty"):
        rigid_to_anchor(image, image, out, settings=FAST, threads=1)
    assert not out.exists()
    with pytest.raises(BrainG3NError, match="no such file"):
        read_transform(out)
