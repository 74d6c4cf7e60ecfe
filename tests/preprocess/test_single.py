"""One session by hand: what is delivered, and that a scan that fails is an error."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from braing3n.config.data import PreprocessSettings
from braing3n.errors import BrainG3NError
from braing3n.files import read_json, read_parquet, write_nifti
from braing3n.geometry import SRI24_AFFINE, SRI24_SHAPE, VOLUME_SHAPE, center_crop_or_pad, cropped_affine
from braing3n.preprocess import single
from braing3n.preprocess.single import index_row, preprocess_session
from braing3n.preprocess.steps import Volume


@pytest.fixture
def steps(monkeypatch, atlas_dir):
    """Replaces the five steps by files as they would leave them."""

    def run_chain(shard, work, atlas, settings, threads):
        mask = np.zeros(SRI24_SHAPE, np.uint8)
        mask[60:180, 50:200, 20:140] = 1
        write_nifti(work / "mask.nii.gz", mask, SRI24_AFFINE)
        (work / "transform.mat").write_text("affine")
        (work / "rigid.mat").write_text("rigid")
        volumes = []
        for row in read_parquet(shard).to_dict("records"):
            image = f"{row['modality']}.nii.gz"
            write_nifti(work / image, center_crop_or_pad(mask) * np.float32(7), cropped_affine())
            outputs = {"image": image, "mask": "mask.nii.gz", "transform": "transform.mat"}
            outputs |= {"rigid": "rigid.mat"} if row["modality"] != "T1" else {}
            volumes.append(Volume(row, outputs=outputs, qc={"brain_ml": 1500.0}))
        return volumes

    monkeypatch.setattr(single, "run_chain", run_chain)
    return atlas_dir


def test_results_lie_under_plain_names(steps, tmp_path):
    scans = {name: tmp_path / f"{name}.nii.gz" for name in ("T1", "T2")}
    for path in scans.values():
        path.write_text("scan")
    out = tmp_path / "out"
    qc = preprocess_session(scans, out, atlas=steps, settings=PreprocessSettings())
    names = ["T1.nii.gz", "T1.png", "T2.nii.gz", "T2.png", "T2_rigid.mat", "mask.nii.gz", "qc.json", "transform.mat"]
    assert sorted(path.name for path in out.iterdir()) == names
    assert read_json(out / "qc.json") == qc == {"T1": {"brain_ml": 1500.0}, "T2": {"brain_ml": 1500.0}}
    image, mask = nib.load(out / "T1.nii.gz"), nib.load(out / "mask.nii.gz")
    assert image.shape == mask.shape == VOLUME_SHAPE
    assert np.allclose(image.affine, mask.affine)
    assert np.array_equal(np.asarray(image.dataobj) > 0, np.asarray(mask.dataobj) > 0)
    assert (out / "T1.png").stat().st_size > 5000


def test_a_scan_that_fails_is_an_error_with_its_reason(monkeypatch, tmp_path):
    (tmp_path / "t1.nii.gz").write_bytes(b"")
    failed = Volume({"modality": "T1", "source_path": "t1.nii.gz"}, "failed", "file is empty", failed_step="convert")
    monkeypatch.setattr(single, "run_chain", lambda *arguments: [failed])
    with pytest.raises(BrainG3NError, match=r"t1\.nii\.gz: T1 failed at convert; found: file is empty"):
        preprocess_session(
            {"T1": tmp_path / "t1.nii.gz"}, tmp_path / "out", atlas=tmp_path, settings=PreprocessSettings()
        )
    with pytest.raises(BrainG3NError, match="scan does not exist"):
        index_row("T1", tmp_path / "none.nii", False, None)


def test_entry_state_follows_from_the_options(tmp_path):
    for name, source_format in {"a.nii.gz": "nifti", "b.mgz": "mgz", "c.img": "analyze"}.items():
        (tmp_path / name).write_text("")
        assert index_row("T1", tmp_path / name, False, None)["source_format"] == source_format
    row = index_row("T1", tmp_path, True, tmp_path / "a.nii.gz")
    assert row["source_format"] == "dicom"
    assert row["entry_stripped"]
    assert row["mask_path"] == str(tmp_path / "a.nii.gz")
