import nibabel as nib
import numpy as np
import pytest
import torch

from braing3n.config.data import MaskSettings
from braing3n.errors import BrainG3NError
from braing3n.files import write_nifti
from braing3n.preprocess.atlas import load_atlas
from braing3n.preprocess.mask import MODALITIES, load_masker, provided_mask
from braing3n.preprocess.qc import dice

AFFINE = np.array([[-2.0, 0, 0, 90], [0, 2.0, 0, -120], [0, 0, 2.0, -60], [0, 0, 0, 1]])


def ball(shape=(80, 90, 70), radius_mm=60.0, spacing=2.0, center=None):
    center = (np.array(shape) - 1) / 2 if center is None else np.asarray(center)
    index = np.indices(shape) - center.reshape(3, 1, 1, 1)
    return (index**2).sum(axis=0) * spacing**2 <= radius_mm**2


def stripped_scan(background=0.0):
    brain = ball()
    rng = np.random.default_rng(3)
    return brain, np.where(brain, rng.uniform(50, 100, brain.shape), background).astype(np.float32)


def stored(path, volume, affine, codes):
    """Write a volume in another storage order; world coordinates stay."""
    image = nib.Nifti1Image(volume, affine)
    turn = nib.orientations.ornt_transform(nib.io_orientation(affine), nib.orientations.axcodes2ornt(tuple(codes)))
    nib.save(image.as_reoriented(turn), path)
    return path


def in_order_of(path, affine):
    """The voxels of a file, in the storage order of `affine`."""
    image = nib.load(path)
    turn = nib.orientations.ornt_transform(nib.io_orientation(image.affine), nib.io_orientation(affine))
    return np.asarray(image.as_reoriented(turn).dataobj)


@pytest.mark.parametrize("background", [0.0, -3.5])
def test_stripped_scan_is_its_own_mask(tmp_path, background):
    brain, volume = stripped_scan(background)
    volume[40, 45, 35] = background  # a hole, as in a ventricle
    volume[2, 2, 2] = 80.0  # a speck in the air
    write_nifti(tmp_path / "scan.nii.gz", volume, AFFINE)
    qc = provided_mask(tmp_path / "scan.nii.gz", None, tmp_path / "mask.nii.gz")
    mask = nib.load(tmp_path / "mask.nii.gz")
    assert mask.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(mask.dataobj), brain)
    np.testing.assert_allclose(mask.affine, AFFINE)
    assert qc == {"brain_ml": pytest.approx(brain.sum() * 8 / 1000), "mask_filled": pytest.approx(brain.mean())}


@pytest.mark.parametrize("air", ["noise", "blanked"])
def test_unstripped_scan_is_refused(tmp_path, air):
    head = ball(shape=(120, 120, 120), radius_mm=95.0)  # 3.6 litres
    rng = np.random.default_rng(0)
    noise = rng.uniform(0, 10, head.shape) if air == "noise" else np.zeros(head.shape)
    write_nifti(tmp_path / "scan.nii.gz", np.where(head, 100, noise).astype(np.float32), AFFINE)
    with pytest.raises(BrainG3NError, match="declared stripped but is not"):
        provided_mask(tmp_path / "scan.nii.gz", None, tmp_path / "mask.nii.gz")


@pytest.mark.parametrize("codes", ["LPS", "PIR", "ASL"])
def test_delivered_mask_may_be_stored_in_any_order(tmp_path, codes):
    brain, volume = stripped_scan()
    brain = brain & ball(center=(45, 45, 35))  # not symmetric
    write_nifti(tmp_path / "scan.nii.gz", volume, AFFINE)
    delivered = stored(tmp_path / "delivered.nii.gz", (brain * 255).astype(np.uint8), AFFINE, codes)
    provided_mask(tmp_path / "scan.nii.gz", delivered, tmp_path / "mask.nii.gz")
    np.testing.assert_array_equal(np.asarray(nib.load(tmp_path / "mask.nii.gz").dataobj), brain)


def test_delivered_mask_on_another_grid_with_a_fourth_axis(tmp_path):
    brain, volume = stripped_scan()
    write_nifti(tmp_path / "scan.nii.gz", volume, AFFINE)
    finer = ball((160, 180, 140), spacing=1.0)[..., None].astype(np.float32)
    affine = AFFINE @ np.diag([0.5, 0.5, 0.5, 1]) @ nib.affines.from_matvec(np.eye(3), [0.5, 0.5, 0.5])
    nib.save(nib.Nifti1Image(finer, affine), tmp_path / "delivered.nii.gz")
    provided_mask(tmp_path / "scan.nii.gz", tmp_path / "delivered.nii.gz", tmp_path / "mask.nii.gz")
    assert dice(np.asarray(nib.load(tmp_path / "mask.nii.gz").dataobj) > 0, brain) > 0.97


def test_delivered_masks_that_cannot_be_are_errors(tmp_path):
    brain, volume = stripped_scan()
    scan, out = tmp_path / "scan.nii.gz", tmp_path / "mask.nii.gz"
    write_nifti(scan, volume, AFFINE)
    delivered = tmp_path / "delivered.nii.gz"
    write_nifti(delivered, np.zeros_like(brain), AFFINE, np.uint8)
    with pytest.raises(BrainG3NError, match=r"delivered.*empty"):
        provided_mask(scan, delivered, out)
    write_nifti(delivered, ball(radius_mm=20), AFFINE, np.uint8)
    with pytest.raises(BrainG3NError, match=r"impossible volume.*100 to 3000 ml"):
        provided_mask(scan, delivered, out)
    away = AFFINE.copy()
    away[0, 3] += 100
    write_nifti(delivered, brain, away, np.uint8)
    with pytest.raises(BrainG3NError, match="outside its scan"):
        provided_mask(scan, delivered, out)
    delivered.write_bytes(delivered.read_bytes()[:200])
    with pytest.raises(BrainG3NError, match="cannot be read"):
        provided_mask(scan, delivered, out)
    assert not out.exists()


@pytest.fixture(scope="module")
def deepbet():
    return load_masker(MaskSettings(backend="deepbet", device="cpu"), threads=1)


def test_deepbet_finds_the_atlas_brain_in_any_storage_order(deepbet, atlas_dir, tmp_path):
    atlas = load_atlas(atlas_dir)
    affine = nib.load(atlas.head_path).affine
    coarse, brain = atlas.head[::2, ::2, ::2], atlas.mask[::2, ::2, ::2]
    affine = affine @ np.diag([2.0, 2.0, 2.0, 1.0])
    masks = []
    for codes in ("LPS", "PIR"):
        scan = stored(tmp_path / f"{codes}.nii.gz", coarse, affine, codes)
        out = tmp_path / f"{codes}_mask.nii.gz"
        qc = deepbet(scan, out)
        masks.append(in_order_of(out, affine) > 0)
        assert dice(masks[-1], brain) >= 0.95
        assert qc["brain_ml"] == pytest.approx(masks[-1].sum() * 8 / 1000)
    np.testing.assert_array_equal(*masks)


def test_deepbet_at_full_resolution_and_where_there_is_no_brain(deepbet, atlas_dir, tmp_path):
    atlas = load_atlas(atlas_dir)
    deepbet(atlas.head_path, tmp_path / "mask.nii.gz")
    assert dice(np.asarray(nib.load(tmp_path / "mask.nii.gz").dataobj) > 0, atlas.mask) >= 0.97
    write_nifti(tmp_path / "air.nii.gz", np.zeros((60, 60, 60), np.float32), AFFINE)
    with pytest.raises(BrainG3NError, match=r"air.nii.gz.*(no brain|empty)"):
        deepbet(tmp_path / "air.nii.gz", tmp_path / "air_mask.nii.gz")


def test_backends_say_what_they_mask():
    assert load_masker(MaskSettings(backend="provided"), 1).modalities == MODALITIES["provided"]
    assert set(MODALITIES) == set(MaskSettings.model_fields["backend"].annotation.__args__)
    assert MODALITIES["deepbet"] == ("T1",)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_gpu_is_an_error_only_when_asked_for():
    with pytest.raises(BrainG3NError, match="no CUDA device"):
        load_masker(MaskSettings(backend="deepbet", device="cuda"), 1)
