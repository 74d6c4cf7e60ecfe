"""Names follow BIDS derivatives (entities in the order of the specification)."""

from __future__ import annotations

import json
import re
from pathlib import PurePosixPath

import pytest

from braing3n.preprocess import naming

ROW = {"cohort": "UPENN-GBM", "bids_subject": "UPENN00001", "bids_session": "1", "modality": "T1", "run": 1}
# entities in BIDS' order, then the suffix
PATTERN = re.compile(
    r"sub-[A-Za-z0-9]+_ses-[A-Za-z0-9]+(_ce-[a-z]+)?(_run-\d+)?(_from-\w+?_to-\w+?_mode-image)?(_space-[A-Za-z0-9]+)?"
    r"(_label-[a-z]+)?(_desc-[a-z0-9]+)?_(T1w|T2w|FLAIR|mask|xfm)\.(nii\.gz|mat|json)"
)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "sub-UPENN00001_ses-1_space-SRI24_desc-preproc_T1w.nii.gz"),
        ({"modality": "T2"}, "sub-UPENN00001_ses-1_space-SRI24_desc-preproc_T2w.nii.gz"),
        ({"modality": "FLAIR", "run": 2}, "sub-UPENN00001_ses-1_run-2_space-SRI24_desc-preproc_FLAIR.nii.gz"),
        ({"modality": "T1c"}, "sub-UPENN00001_ses-1_ce-gadolinium_space-SRI24_desc-preproc_T1w.nii.gz"),
        ({"modality": "T1c", "run": 3}, "sub-UPENN00001_ses-1_ce-gadolinium_run-3_space-SRI24_desc-preproc_T1w.nii.gz"),
    ],
)
def test_image_names(changes, name):
    path = naming.image_path({**ROW, **changes}, desc="preproc", space="SRI24")
    assert path == PurePosixPath("derivatives/UPENN-GBM/sub-UPENN00001/ses-1/anat") / name
    assert PATTERN.fullmatch(name)
    assert naming.sidecar_path(path).name == name.replace(".nii.gz", ".json")
    assert naming.desc_of(path) == "preproc"
    assert naming.bids_uri(path) == f"bids::sub-UPENN00001/ses-1/anat/{name}"


def test_masks_transforms_and_scans_on_their_own_grid():
    names = [
        naming.mask_path(ROW, desc="hdbet").name,
        naming.mask_path(ROW, desc="deepbet", space="SRI24").name,
        naming.transform_path({**ROW, "modality": "T2"}, to="T1w").name,
        naming.image_path(ROW, desc="n4").name,
    ]
    assert names == [
        "sub-UPENN00001_ses-1_label-brain_desc-hdbet_mask.nii.gz",
        "sub-UPENN00001_ses-1_space-SRI24_label-brain_desc-deepbet_mask.nii.gz",
        "sub-UPENN00001_ses-1_from-T2w_to-T1w_mode-image_xfm.mat",
        "sub-UPENN00001_ses-1_desc-n4_T1w.nii.gz",
    ]
    assert all(PATTERN.fullmatch(name) for name in names)


def test_no_two_scans_of_a_session_share_a_name():
    rows = [{**ROW, "modality": m, "run": r} for m in ("T1", "T1c", "T2", "FLAIR") for r in (1, 2)]
    assert len({naming.image_path(row, desc="n4") for row in rows}) == len(rows)
    assert len({naming.transform_path(row, to="T1w") for row in rows}) == len(rows)


def test_dataset_description(tmp_path):
    naming.write_dataset_description(tmp_path, "IXI")
    path = tmp_path / "derivatives" / "IXI" / "dataset_description.json"
    content = json.loads(path.read_text())
    assert content["DatasetType"] == "derivative"
    assert {"Name", "BIDSVersion", "GeneratedBy"} <= set(content)
    before = path.stat().st_mtime_ns
    naming.write_dataset_description(tmp_path, "IXI")
    assert path.stat().st_mtime_ns == before
