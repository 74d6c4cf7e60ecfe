import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation

from braing3n.files import write_nifti
from braing3n.geometry import SRI24_AFFINE
from braing3n.preprocess import qc
from braing3n.preprocess.atlas import load_atlas
from braing3n.preprocess.transforms import decompose, write_transform


@pytest.fixture(scope="module")
def atlas(atlas_dir):
    return load_atlas(atlas_dir)


def test_decompose_gives_back_what_was_put_in():
    turn = Rotation.from_rotvec(np.radians(20) * np.array([0.6, 0, 0.8])).as_matrix()
    assert decompose(1.1 * turn) == {
        "scale": pytest.approx(1.1),
        "stretch": pytest.approx(1.0),
        "shear": pytest.approx(0.0, abs=1e-9),
        "rotation_deg": pytest.approx(20.0),
    }
    sheared = turn @ np.array([[1, 0.15, 0], [0, 1, 0], [0, 0, 1.0]])
    assert decompose(sheared)["shear"] == pytest.approx(0.15)
    assert decompose(turn @ np.diag([1.2, 1, 1]))["stretch"] == pytest.approx(1.2)


def test_correlation_is_pearsons_for_linear_relations_and_serves_other_contrasts():
    rng = np.random.default_rng(0)
    reference = rng.uniform(0, 1, 200_000)
    noisy = reference + rng.normal(0, 0.3, reference.size)
    pearson = np.corrcoef(reference, noisy)[0, 1]
    assert qc.atlas_correlation(noisy, reference) == pytest.approx(pearson, abs=0.01)
    assert qc.atlas_correlation(-noisy, reference) == pytest.approx(pearson, abs=0.01)
    assert qc.atlas_correlation(np.exp(-3 * reference), reference) > 0.99
    assert qc.atlas_correlation(rng.permutation(reference), reference) < 0.03
    assert qc.atlas_correlation(np.zeros(reference.size), reference) == 0.0


def test_dice_and_leakage():
    inside = np.zeros((40, 40, 40), bool)
    inside[10:30, 10:30, 10:30] = True
    wider = ndimage.binary_dilation(inside, iterations=3)
    assert qc.dice(inside, inside) == 1.0
    assert qc.dice(inside, ~inside) == 0.0
    assert qc.leakage(wider, inside) == 0.0
    far = inside.copy()
    far[36:39, 10:30, 10:30] = True
    assert qc.leakage(far, inside) == pytest.approx(3 * 400 / (8000 + 3 * 400))


def test_the_atlas_itself_passes_with_the_best_marks(atlas, tmp_path):
    linear = np.diag([1.1, 1.0, 1.0, 1.0])
    write_transform(tmp_path / "x.mat", linear)
    numbers = qc.volume_qc(atlas.brain_path, atlas.mask_path, tmp_path / "x.mat", atlas)
    assert numbers["atlas_correlation"] == pytest.approx(1.0, abs=0.02)
    assert numbers["atlas_dice"] == 1.0
    assert numbers["leakage"] == 0.0
    assert numbers["brain_ml"] == pytest.approx(1.1 * atlas.mask.sum() / 1000)
    assert numbers["scale"] == pytest.approx(1.1 ** (1 / 3))
    assert all(np.isfinite(value) for value in numbers.values())


def test_a_mirrored_brain_is_suspect_and_a_shifted_one_scores_low(atlas, tmp_path):
    write_transform(tmp_path / "x.mat", np.eye(4))
    write_nifti(tmp_path / "mask.nii.gz", atlas.mask, SRI24_AFFINE, np.uint8)
    straight = qc.volume_qc(atlas.brain_path, atlas.mask_path, tmp_path / "x.mat", atlas)
    write_nifti(tmp_path / "mirrored.nii.gz", qc.mirrored(atlas.brain, atlas.mask), SRI24_AFFINE)
    swapped = qc.volume_qc(tmp_path / "mirrored.nii.gz", tmp_path / "mask.nii.gz", tmp_path / "x.mat", atlas)
    assert swapped["mirror_margin"] < 0 < straight["mirror_margin"]
    write_nifti(tmp_path / "shifted.nii.gz", np.roll(atlas.brain, 12, axis=1), SRI24_AFFINE)
    write_nifti(tmp_path / "shifted_mask.nii.gz", np.roll(atlas.mask, 12, axis=1), SRI24_AFFINE, np.uint8)
    moved = qc.volume_qc(tmp_path / "shifted.nii.gz", tmp_path / "shifted_mask.nii.gz", tmp_path / "x.mat", atlas)
    assert moved["atlas_correlation"] < 0.8
    assert moved["atlas_dice"] < 0.95
    assert moved["leakage"] > 0.01


def test_snr_falls_as_noise_rises(atlas):
    rng = np.random.default_rng(1)
    ratios = [
        qc.signal_quality(atlas.brain + rng.normal(0, sigma, atlas.brain.shape).astype(np.float32), atlas.mask)
        for sigma in (20, 40, 80)
    ]
    assert ratios[0]["snr"] > ratios[1]["snr"] > ratios[2]["snr"]
    assert ratios[0]["cnr"] > ratios[1]["cnr"] > ratios[2]["cnr"] > 0
    median = np.median(atlas.brain[atlas.mask])
    assert ratios[2]["snr"] == pytest.approx(median / 80, rel=0.15)
