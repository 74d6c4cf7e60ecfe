"""Which volumes each step works on and with what: entry states, sessions, anchors. The steps' own work is replaced."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from braing3n.config.data import MaskSettings, PreprocessSettings
from braing3n.files import write_nifti
from braing3n.preprocess import atlas, mask, n4, qc, register
from braing3n.preprocess.convert import affine_of_axes
from braing3n.preprocess.steps import get_step

SHAPE = (22, 24, 20)


class Calls(list):
    """What the steps were asked to do: (function, file names)."""

    def of(self, function: str) -> list[tuple]:
        return [call[1:] for call in self if call[0] == function]


@pytest.fixture
def calls(monkeypatch, tmp_path) -> Calls:
    calls = Calls()

    def short(path: Path | None) -> str | None:
        return None if path is None else path.name.split("_ses-1_")[-1]

    def correct_bias(image, out, *, mask, settings, threads):
        calls.append(("n4", short(image), short(mask)))
        write_nifti(out, np.ones(SHAPE, np.float32), np.eye(4))
        return {"n4_field_max": 1.5}

    class Masker:
        def __call__(self, image, out_mask):
            calls.append(("masker", short(image)))
            write_nifti(out_mask, np.ones(SHAPE, np.uint8), np.eye(4))
            return {"brain_ml": 1200.0}

    def provided_mask(image, delivered, out_mask):
        calls.append(("provided", short(image), short(delivered)))
        write_nifti(out_mask, np.ones(SHAPE, np.uint8), np.eye(4))
        return {"brain_ml": 1200.0}

    def affine_to_atlas(moving, moving_mask, atlas, out_transform, *, settings, threads):
        calls.append(("affine", short(moving), short(moving_mask)))
        out_transform.write_text("affine")
        return {"register_correlation": 0.9}

    def rigid_to_anchor(moving, fixed, out_transform, *, settings, threads):
        calls.append(("rigid", short(moving), short(fixed)))
        out_transform.write_text("rigid")
        return {"rigid_mm": 1.0}

    def resample_to_atlas(image, mask, transforms, atlas, out_image, out_mask, *, settings):
        calls.append(("resample", short(image), short(mask), [short(path) for path in transforms]))
        for out in filter(None, (out_image, out_mask)):
            write_nifti(out, np.ones(SHAPE, np.uint8), np.eye(4))
        return {"clipped_fraction": 0.0}

    monkeypatch.setattr(n4, "correct_bias", correct_bias)
    monkeypatch.setattr(mask, "load_masker", lambda settings, threads: calls.append(("load",)) or Masker())
    monkeypatch.setattr(mask, "provided_mask", provided_mask)
    monkeypatch.setattr(register, "affine_to_atlas", affine_to_atlas)
    monkeypatch.setattr(register, "rigid_to_anchor", rigid_to_anchor)
    monkeypatch.setattr(register, "resample_to_atlas", resample_to_atlas)
    monkeypatch.setattr(qc, "volume_qc", lambda *files: {"atlas_dice": 0.97})
    folder = atlas.Atlas(tmp_path / "atlas")
    for path in (folder.brain_path, folder.mask_path):
        path.parent.mkdir(exist_ok=True)
        path.write_text("atlas")
    monkeypatch.setattr(atlas, "load_atlas", lambda path: folder)
    return calls


def add(cohort, name: str, **columns) -> None:
    affine = affine_of_axes("RAS", SHAPE, np.array([6.0, 5.0, 5.5]))
    rng = np.random.default_rng(len(cohort.rows))
    write_nifti(cohort.root / f"{name}.nii.gz", rng.integers(0, 99, SHAPE).astype(np.int16), affine)
    cohort.add(f"{name}.nii.gz", **columns)


def run_chain(cohort, backend: str = "deepbet", order: str = "n4-mask") -> dict:
    """The steps up to register; the status tables by step, rows by file name without ending."""
    tables, previous = {}, None
    for name in PreprocessSettings(order=order).chain()[:-1]:
        step = get_step(name)
        folder = cohort.folder / "atlas" if name == "register" else None
        settings = MaskSettings(backend=backend) if name == "mask" else step.settings()
        table = cohort.run(step, previous, settings, atlas=folder, max_failed_fraction=0.5)
        tables[name] = table.rename(index=lambda path: path.removesuffix(".nii.gz"))
        previous = name
    return tables


def test_a_raw_session_of_two_modalities(cohort, inline, calls):
    add(cohort, "t2", subject="A", modality="T2")
    add(cohort, "t1", subject="A")
    tables = run_chain(cohort)
    assert sorted(calls.of("n4")) == [("desc-converted_T1w.nii.gz", None), ("desc-converted_T2w.nii.gz", None)]
    assert calls.of("masker") == [("desc-n4_T1w.nii.gz",)]
    assert tables["mask"].loc["t2", "status"] == "skipped"
    assert "its session's T1" in tables["mask"].loc["t2", "reason"]
    assert calls.of("affine") == [("desc-n4_T1w.nii.gz", "label-brain_desc-deepbet_mask.nii.gz")]
    assert calls.of("rigid") == [("desc-n4_T2w.nii.gz", "desc-n4_T1w.nii.gz")]
    to_atlas, to_t1 = "from-T1w_to-SRI24_mode-image_xfm.mat", "from-T2w_to-T1w_mode-image_xfm.mat"
    atlas_mask = "space-SRI24_label-brain_desc-deepbet_mask.nii.gz"
    assert calls.of("resample") == [
        ("desc-n4_T1w.nii.gz", "label-brain_desc-deepbet_mask.nii.gz", [to_atlas]),
        ("desc-n4_T2w.nii.gz", atlas_mask, [to_atlas, to_t1]),
    ]
    last = tables["register"]
    assert last["status"].tolist() == ["ok", "ok"]
    for name, kinds in {"t1": ("image", "mask", "native", "transform"), "t2": ("rigid", "mask", "transform")}.items():
        for kind in kinds:
            assert cohort.product(last.loc[name], kind).exists()
    assert cohort.product(last.loc["t2"], "mask") == cohort.product(last.loc["t1"], "mask")
    assert last.loc["t1", "qc"]["atlas_dice"] == 0.97
    assert {"SimpleITK", "antspyx", "nibabel", "dcm2niix"} <= set(last.loc["t1", "versions"])
    sidecar = Path(str(cohort.product(tables["register"].loc["t2"])).replace(".nii.gz", ".json"))
    content = json.loads(sidecar.read_text())
    assert content["SkullStripped"] is True
    assert content["SessionAnchor"] == "sub-TESTA_ses-1_T1w"
    masks = [json.loads(path.read_text()) for path in cohort.results.rglob("*_mask.json")]
    assert [content["Type"] for content in masks] == ["Brain", "Brain"]
    assert sum("SpatialReference" in content for content in masks) == 1


def test_the_mask_may_come_before_the_bias_correction_and_is_used_by_it(cohort, inline, calls):
    add(cohort, "t2", subject="A", modality="T2")
    add(cohort, "t1", subject="A")
    add(cohort, "corrected", subject="B", entry_stripped=True, entry_bias_corrected=True)
    tables = run_chain(cohort, order="mask-n4")
    mask = "label-brain_desc-deepbet_mask.nii.gz"
    assert calls.of("masker") == [("desc-converted_T1w.nii.gz",)]
    assert sorted(calls.of("n4")) == [("desc-converted_T1w.nii.gz", mask), ("desc-converted_T2w.nii.gz", None)]
    assert ("desc-n4_T1w.nii.gz", mask) in calls.of("affine")
    assert ("desc-converted_T1w.nii.gz", "label-brain_desc-provided_mask.nii.gz") in calls.of("affine")
    assert calls.of("rigid") == [("desc-n4_T2w.nii.gz", "desc-n4_T1w.nii.gz")]
    assert tables["register"]["status"].tolist() == ["ok", "ok", "ok"]


def test_nothing_is_done_twice_to_a_stripped_and_corrected_session(cohort, inline, calls):
    state = {"subject": "B", "entry_stripped": True, "entry_bias_corrected": True, "shares_grid": True}
    for name, modality in {"t1": "T1", "t1c": "T1c", "flair": "FLAIR"}.items():
        add(cohort, name, modality=modality, **state)
    tables = run_chain(cohort)
    assert tables["n4"]["status"].tolist() == ["skipped"] * 3
    assert tables["n4"]["reason"].unique().tolist() == ["delivered bias-field corrected"]
    assert not calls.of("n4")
    assert not calls.of("load")
    assert not calls.of("rigid")
    assert calls.of("provided") == [("desc-converted_T1w.nii.gz", None)]
    assert tables["mask"]["status"].tolist() == ["skipped"] * 3
    assert "delivered without skull" in tables["mask"].loc["t1", "reason"]
    affine = "from-T1w_to-SRI24_mode-image_xfm.mat"
    assert [call[2] for call in calls.of("resample")] == [[affine]] * 3
    assert tables["register"]["status"].tolist() == ["ok"] * 3
    sidecar = json.loads(next(cohort.results.rglob("*desc-converted_FLAIR.json")).read_text())
    assert sidecar["SkullStripped"] is True


def test_a_delivered_mask_is_used_before_any_backend(cohort, inline, calls):
    (cohort.root).mkdir()
    (cohort.root / "brain.nii.gz").write_text("mask")
    add(cohort, "t1", mask_path="brain.nii.gz")
    tables = run_chain(cohort, backend="hd-bet")
    assert calls.of("provided") == [("desc-n4_T1w.nii.gz", "brain.nii.gz")]
    assert tables["mask"].loc["t1", "status"] == "ok"
    assert tables["mask"].loc["t1", "outputs"]["mask"].endswith("_label-brain_desc-provided_mask.nii.gz")


@pytest.mark.parametrize(("backend", "served"), [("deepbet", False), ("provided", False), ("hd-bet", True)])
def test_a_session_that_no_backend_masks_is_excluded_whole(cohort, inline, calls, backend, served):
    add(cohort, "t2", subject="C", modality="T2")
    add(cohort, "flair", subject="C", modality="FLAIR")
    tables = run_chain(cohort, backend)
    if served:
        assert calls.of("masker") == [("desc-n4_T2w.nii.gz",)]
        assert calls.of("rigid") == [("desc-n4_FLAIR.nii.gz", "desc-n4_T2w.nii.gz")]
        assert (tables["register"]["status"] == "ok").all()
    else:
        assert tables["mask"]["status"].tolist() == ["excluded"] * 2
        assert all(backend in reason for reason in tables["mask"]["reason"])
        assert tables["register"]["failed_step"].tolist() == ["mask"] * 2
        assert not calls.of("load")


def test_a_rerun_asks_for_nothing_and_a_changed_mask_for_what_depends_on_it(cohort, inline, calls):
    add(cohort, "t1", subject="A")
    add(cohort, "t2", subject="A", modality="T2")
    run_chain(cohort)
    calls.clear()
    tables = run_chain(cohort)
    assert not calls
    assert all(table.loc["t1", "reused"] for table in tables.values())
    mask_file = cohort.product(tables["mask"].loc["t1"], "mask")
    write_nifti(mask_file, np.zeros(SHAPE, np.uint8), np.eye(4))
    run_chain(cohort)
    assert [call[0] for call in calls] == ["load", "masker"]  # made again, and equal to what followed from it
