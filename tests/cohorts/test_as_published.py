"""`as_published`: what the paper's table was made of, where it differs from the cohorts' own documentation."""

import pandas as pd
import pytest

from braing3n.cohorts.definition import load_definition
from braing3n.cohorts.scan import scan_cohort
from braing3n.phantom.layouts import write_layout


def published(name, folder):
    return scan_cohort(load_definition(name, as_published=True), folder).rows


def test_as_published_adni_takes_the_group_at_enrolment(scanned):
    root = scanned("ADNI").tree.root
    rows = published("ADNI", root).query("subject_id == 'ADNI:941_S_9001'")
    assert rows.iloc[0]["diagnosis"] == "MCI"  # EMCI in the archive's file
    assert rows.iloc[1:]["diagnosis"].isna().all()
    assert not rows["entry_bias_corrected"].any()


def test_as_published_corr_has_sexes_swapped(tmp_path):
    tree = write_layout("CoRR", tmp_path, 2, 2)
    stem = "sub-0025000_ses-1_run-1_space-MNI152NLin2009cAsym_desc-preproc_T1w.nii.gz"
    tree.nifti(f"fmriprep/sub-0025000/ses-1/anat/{stem}")
    rows = published("CoRR", tmp_path)
    assert list(rows["sex"]) == ["M"]
    assert set(rows["entry_stripped"]) == {True}
    assert list(scan_cohort(load_definition("CoRR"), tmp_path).rows["sex"]) == ["F", "M"]


def test_as_published_ppmi_repeats_the_baseline(scanned):
    rows = published("PPMI", scanned("PPMI").tree.root)
    visits = rows[(rows["subject_id"] == "PPMI:3000") & (rows["modality"] == "T1")]
    assert len(visits) > 1
    for column in ("updrs3", "moca", "age_at_scan"):
        assert visits[column].nunique() == 1
    assert set(visits["updrs3"]) == {5.0}, "the first row of the visit, on medication"
    assert set(visits["site"]) == {"30"}
    assert visits["vendor"].isna().all()
    assert set(visits["age_source"]) == {"baseline"}
    assert set(rows[rows["subject_id"] == "PPMI:9001"]["modality"]) == {"FLAIR"}


def test_as_published_oasis_diagnoses(scanned):
    first = published("OASIS-2", scanned("OASIS-2").tree.root)
    assert set(first[first["diagnosis_detail"] == "Converted"]["diagnosis"]) == {"MCI"}
    second = published("OASIS-1", scanned("OASIS-1").tree.root)
    assert list(second["entry_axes"]) == ["LAS"]
    assert list(second["diagnosis"]) == ["HC"]  # 75 years old and never rated
    assert list(second["education_years"]) == [2.0]


def test_as_published_abide_keeps_every_run(scanned):
    rows = published("ABIDE-I", scanned("ABIDE-I").tree.root)
    assert list(rows[rows["subject_id"] == "ABIDE-I:0050810"]["run"]) == [1, 2]


def test_as_published_nki_keeps_every_run_and_one_age(scanned):
    rows = published("NKI-RS", scanned("NKI-RS").tree.root)
    late = rows[(rows["subject_id"] == "NKI-RS:A99999999") & (rows["session_id"] == "FLU1")]
    assert list(late["run"]) == [1, 2]
    assert set(late["age_at_scan"]) == {40.0}
    assert set(rows["age_source"]) == {"baseline"}


@pytest.mark.parametrize(
    ("name", "stem", "variant"),
    [
        ("HBN", "derivatives/qsiprep/sub-NDARAA0000XY/ses-HBNsiteRU/anat/sub-NDARAA0000XY_ses-HBNsiteRU", "qsiprep"),
        ("ADHD-200", "fmriprep/sub-0010001/ses-1/anat/sub-0010001_ses-1_run-1_space-MNI152NLin6Asym", "fMRIPrep"),
        ("NKI-RS2", "sub-A00000001/ses-MRI1/anat/sub-A00000001_ses-MRI1_space-MNI152NLin6Asym", "derivative"),
    ],
)
def test_as_published_takes_derivatives_for_stripped(tmp_path, name, stem, variant):
    tree = write_layout(name, tmp_path, 4, 4)
    tree.nifti(f"{stem}_desc-brain_mask.nii.gz")
    tree.nifti(f"{stem}_desc-preproc_T1w.nii.gz")
    (row,) = published(name, tmp_path).itertuples()
    assert (row.source_variant, row.entry_stripped, row.entry_bias_corrected) == (variant, True, False)
    assert pd.isna(row.mask_path)


def test_as_published_fcon1000_makes_equal_numbers_one_person(tmp_path):
    tree = write_layout("FCON1000", tmp_path, 3, 3)
    for site in ("Beijing_Zang", "AnnArbor_a"):
        tree.nifti(f"{site}/derivatives/sub-00101_T1w_brain.nii.gz")
    rows = published("FCON1000", tmp_path)
    assert list(rows["subject_id"]) == ["FCON1000:00101"]
    assert set(scan_cohort(load_definition("FCON1000"), tmp_path).rows["entry_stripped"]) == {False}


def test_as_published_bgsp_has_no_tables(tmp_path):
    tree = write_layout("BGSP", tmp_path, 2, 2)
    tree.nifti("sub-0001_ses-01/anatomical_brain/sub-0001_T1w_brain.nii.gz")
    (row,) = published("BGSP", tmp_path).itertuples()
    assert row.entry_stripped
    assert pd.isna(row.age_at_scan)
    assert pd.isna(row.sex)


def test_as_published_counts_idh2_as_idh1(scanned):
    rows = published("UCSF-PDGM", scanned("UCSF-PDGM").tree.root)
    assert set(rows[rows["subject_id"] == "UCSF-PDGM:0900"]["idh1"]) == {"mutant"}
    assert not rows["entry_bias_corrected"].any()


def test_as_published_hcp_ages_are_bins_beside_the_restricted_table(scanned):
    rows = published("HCP-YA", scanned("HCP-YA").tree.root)
    assert rows["age_is_binned"].all()
    assert not rows["entry_bias_corrected"].any()
