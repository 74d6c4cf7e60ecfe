import nibabel as nib
import numpy as np
import pytest
from heads import save, scan_of

from braing3n.config.data import N4Settings
from braing3n.errors import BrainG3NError
from braing3n.files import write_nifti
from braing3n.phantom.anatomy import load_anatomy
from braing3n.phantom.truth import pose
from braing3n.preprocess.images import read_image
from braing3n.preprocess.n4 import control_points, correct_bias, shrink_factors

SETTINGS = N4Settings()


@pytest.fixture(scope="module")
def scan(atlas_dir):
    anatomy = load_anatomy(atlas_dir)
    return scan_of(anatomy, pose((8, -6, 10), (0, 0, 0), (1.05, 0.97, 1.02)), voxel_mm=(2.5,) * 3, bias=0.4, noise=0.03)


@pytest.fixture
def files(scan, tmp_path):
    return *save(tmp_path, "head", scan), tmp_path / "corrected.nii.gz"


def correlation_with_truth(scan, out):
    inside = scan.brain & (scan.volume > 0)
    found = np.log(scan.volume[inside] / nib.load(out).get_fdata()[inside])
    return np.corrcoef(found, np.log(scan.bias[inside]))[0, 1]


def test_field_follows_the_true_one_with_a_brain_mask(scan, files):
    image, mask, out = files
    qc = correct_bias(image, out, mask=mask, settings=SETTINGS, threads=1)
    assert correlation_with_truth(scan, out) >= 0.88  # 0.90 found at 2.5 mm; benchmarks.accuracy has finer voxels
    # The extremes lie at the edge of the brain, where a spline is smoothest.
    true = scan.bias[scan.brain] / np.exp(np.log(scan.bias[scan.brain]).mean())
    assert qc["n4_field_min"] == pytest.approx(true.min(), abs=0.12)
    assert qc["n4_field_max"] == pytest.approx(true.max(), abs=0.12)
    assert qc["n4_mask_ml"] == pytest.approx(scan.brain.sum() * 2.5**3 / 1000, rel=1e-3)


def test_field_follows_the_true_one_from_the_head(scan, files):
    image, _, out = files
    correct_bias(image, out, mask=None, settings=SETTINGS, threads=1)
    assert correlation_with_truth(scan, out) >= 0.83  # 0.85 found: skull and scalp mislead the Otsu mask


def test_stripped_scan_is_corrected_from_its_own_voxels(scan, files):
    image, mask, out = files
    write_nifti(image, scan.volume * scan.brain, scan.affine)
    alone = correct_bias(image, out, mask=None, settings=SETTINGS, threads=1)
    masked = correct_bias(image, out, mask=mask, settings=SETTINGS, threads=1)
    assert alone == masked


def test_a_head_on_a_blanked_background_is_no_stripped_brain(scan, files):
    image, _, out = files
    outside = scan.volume < 0.15 * np.percentile(scan.volume, 99)
    write_nifti(image, np.where(outside, 0, scan.volume), scan.affine)
    qc = correct_bias(image, out, mask=None, settings=SETTINGS, threads=1)
    assert qc["n4_mask_ml"] < 1800  # the scalp alone holds more than the difference to all voxels above zero
    assert (~outside).sum() * 2.5**3 / 1000 > 2200
    inside = scan.brain & ~outside
    found = np.log(scan.volume[inside] / nib.load(out).get_fdata()[inside])
    assert np.corrcoef(found, np.log(scan.bias[inside]))[0, 1] >= 0.8  # 0.6 found from all voxels above zero


def test_grid_scale_and_background_are_kept_and_bytes_repeat(scan, files, tmp_path):
    image, mask, out = files
    correct_bias(image, out, mask=mask, settings=SETTINGS, threads=1)
    correct_bias(image, tmp_path / "again.nii.gz", mask=mask, settings=SETTINGS, threads=1)
    assert out.read_bytes() == (tmp_path / "again.nii.gz").read_bytes()
    result = nib.load(out)
    corrected = np.asarray(result.dataobj)
    assert corrected.dtype == np.float32
    np.testing.assert_allclose(result.affine, scan.affine, atol=1e-4)
    np.testing.assert_array_equal(corrected == 0, scan.volume == 0)
    assert corrected[scan.brain].mean() == pytest.approx(scan.volume[scan.brain].mean(), rel=0.03)
    ratio = scan.volume[corrected > 0] / corrected[corrected > 0]
    assert 0.5 < ratio.min() < ratio.max() < 2  # nothing in the air is blown up by the spline


@pytest.mark.parametrize(
    ("spacing", "factors"), [((1, 1, 1), [4, 4, 4]), ((2, 2, 2), [2, 2, 2]), ((0.5, 1, 6), [8, 4, 1])]
)
def test_shrinking_is_by_millimetres(spacing, factors):
    assert shrink_factors(spacing, 4) == factors


def test_control_points_lie_about_the_spline_distance_apart(files):
    image = read_image(files[0])  # 190 x 230 x 200 mm
    assert control_points(image, 200) == [4, 4, 4]
    assert control_points(image, 100) == [5, 5, 5]


def test_empty_image_and_foreign_mask_are_errors(scan, files, tmp_path):
    image, mask, out = files
    write_nifti(tmp_path / "other_mask.nii.gz", scan.brain[:-1], scan.affine, np.uint8)
    with pytest.raises(BrainG3NError, match="grid"):
        correct_bias(image, out, mask=tmp_path / "other_mask.nii.gz", settings=SETTINGS, threads=1)
    write_nifti(image, np.zeros_like(scan.volume), scan.affine)
    with pytest.raises(BrainG3NError, match="too little"):
        correct_bias(image, out, mask=None, settings=SETTINGS, threads=1)
    with pytest.raises(BrainG3NError, match="no such file"):
        correct_bias(tmp_path / "absent.nii.gz", out, mask=mask, settings=SETTINGS, threads=1)
    assert not out.exists()
