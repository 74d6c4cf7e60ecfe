"""Cropping keeps the overlay with the atlas, and the packed store equals the archived files."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest

from braing3n.errors import BrainG3NError
from braing3n.files import read_parquet, write_nifti
from braing3n.geometry import SRI24_AFFINE, SRI24_SHAPE, VOLUME_SHAPE
from braing3n.preprocess.crop import crop
from braing3n.preprocess.records import write_status
from braing3n.preprocess.steps import get_step
from braing3n.volumes.store import read_volume


def registered(seed: int = 0) -> np.ndarray:
    volume = np.zeros(SRI24_SHAPE, np.float32)
    i, j, k = np.indices((120, 150, 130), dtype=np.float32)  # compresses well, which keeps the tests quick
    volume[60:180, 50:200, 10:140] = (i + 2 * j + 3 * k) % 251 * 3.7 + 1 + seed
    return volume


def test_a_crop_overlays_the_atlas_voxel_by_voxel(tmp_path):
    volume = registered()
    write_nifti(tmp_path / "in.nii.gz", volume, SRI24_AFFINE)
    qc = crop(tmp_path / "in.nii.gz", tmp_path / "out.nii.gz")
    image = nib.load(tmp_path / "out.nii.gz")
    assert image.shape == VOLUME_SHAPE
    data = image.get_fdata(dtype=np.float32)
    for voxel in [(20, 26, 12), (80, 96, 80), (139, 175, 141)]:
        world = nib.affines.apply_affine(image.affine, voxel)
        there = nib.affines.apply_affine(np.linalg.inv(SRI24_AFFINE), world)
        assert np.allclose(there, np.rint(there))
        assert data[voxel] == volume[tuple(np.rint(there).astype(int))] > 0
    assert qc["cropped_brain_fraction"] == 0
    assert np.count_nonzero(data) == np.count_nonzero(volume)


def test_brain_outside_of_the_crop_is_counted(tmp_path):
    volume = np.zeros(SRI24_SHAPE, np.float32)
    volume[100:110, 20:28, 50:60] = 5  # the crop begins at 24
    write_nifti(tmp_path / "in.nii.gz", volume, SRI24_AFFINE)
    assert crop(tmp_path / "in.nii.gz", None)["cropped_brain_fraction"] == pytest.approx(0.5)


def test_other_grids_and_empty_volumes_are_refused(tmp_path):
    write_nifti(tmp_path / "grid.nii.gz", registered()[1:], SRI24_AFFINE)
    with pytest.raises(BrainG3NError, match="not on the SRI24 grid"):
        crop(tmp_path / "grid.nii.gz", None)
    write_nifti(tmp_path / "empty.nii.gz", np.zeros(SRI24_SHAPE, np.float32), SRI24_AFFINE)
    with pytest.raises(BrainG3NError, match="holds no brain"):
        crop(tmp_path / "empty.nii.gz", None)


@pytest.mark.parametrize("save_nifti", [True, False])
def test_the_step_archives_and_packs_what_is_left_of_a_shard(cohort, inline, save_nifti):
    fates = ["ok", "excluded", "ok"]
    rows = []
    for i, fate in enumerate(fates):
        volume_id = cohort.add(f"v{i}")
        image = f"derivatives/TEST/sub-TESTS{i}/ses-1/anat/sub-TESTS{i}_ses-1_space-SRI24_desc-registered_T1w.nii.gz"
        write_nifti(cohort.results / image, registered(i), SRI24_AFFINE)
        mappings = {"outputs": {"image": image}, "qc": {"brain_ml": 1200.0}, "versions": {}}
        texts = ("reason", "error_class", "output_sha256", "input_sha256", "settings_hash", "step_version", "run_id")
        row = {**cohort.rows[i], "volume_id": volume_id, "status": fate, "failed_step": "", "finished_at": ""}
        rows.append({**row, **dict.fromkeys(texts, ""), **mappings, "seconds": 0.0, "reused": False})
    write_status(cohort.status("register"), rows)
    store = cohort.results / "volumes" / "TEST" / "0000.npy"
    step = get_step("crop")
    table = cohort.run(step, "register", settings=step.settings(save_nifti=save_nifti), store=store)
    assert table["status"].tolist() == fates
    assert table.loc["v0", "qc"] == {"brain_ml": 1200.0, "cropped_brain_fraction": 0.0}

    packed = read_parquet(store.with_suffix(".parquet"))
    assert packed["volume_id"].tolist() == table.loc[["v0", "v2"], "volume_id"].tolist()
    for name, row in zip(("v0", "v2"), packed.to_dict("records"), strict=True):
        archived = cohort.product(table.loc[name])
        assert archived.name.endswith("_desc-preproc_T1w.nii.gz") == save_nifti
        volume = read_volume(cohort.results, {"store_file": "volumes/TEST/0000.npy", "store_row": row["row"], **row})
        truth = registered(int(name[1]))[40:200, 24:216]
        assert np.abs(volume[:, :, 2:157].astype(float) - truth).max() <= 0.505 * row["scale"]
        assert not volume[:, :, :2].any()
        if save_nifti:
            sidecar = json.loads(archived.with_name(archived.name.replace(".nii.gz", ".json")).read_text())
            assert sidecar["SkullStripped"] is True
            assert sidecar["SpatialReference"].startswith("https://")
            assert sidecar["Sources"][0].startswith("bids::sub-TESTS")
