"""BIDS export, corpus summary, check of a folder, a BIDS cohort of one's own, and the commands for them."""

import json

import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from braing3n.cli.main import app
from braing3n.cohorts.check import check_folder, describe
from braing3n.cohorts.definition import load_definition
from braing3n.cohorts.export import AGE_CAP, PARTICIPANT_COLUMNS, SESSION_COLUMNS, export_bids
from braing3n.cohorts.scan import scan_cohort
from braing3n.cohorts.schema import INDEX_COLUMNS, typed
from braing3n.cohorts.summary import (
    PAPER_COVERAGE,
    PAPER_DIAGNOSES,
    corpus_summary,
    coverage_summary,
    diagnosis_summary,
)
from braing3n.phantom.layouts import write_layout
from braing3n.phantom.layouts.tree import Tree


@pytest.fixture(scope="module")
def adni(tmp_path_factory):
    """ADNI, in which one person is 95 years old."""
    folder = tmp_path_factory.mktemp("adni")
    write_layout("ADNI", folder, 12, 5, traps=True)
    rows = scan_cohort(load_definition("ADNI"), folder).rows
    rows.loc[rows["subject_id"] == "ADNI:001_S_0001", "age_at_scan"] = 95.25
    return rows


def tsv(path):
    return pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)


def test_export_caps_ages_and_keeps_the_rest(adni, tmp_path):
    export_bids(adni, tmp_path)
    people = tsv(tmp_path / "ADNI/participants.tsv")
    assert list(people.columns)[:2] == ["participant_id", "age"]
    assert people["participant_id"].is_unique
    assert len(people) == adni["subject_id"].nunique()
    old = people.set_index("participant_id").loc["sub-ADNI001S0001"]
    assert float(old["age"]) == AGE_CAP
    ages = pd.to_numeric(people["age"])
    assert ages.max() == AGE_CAP
    sessions = tsv(tmp_path / "ADNI/sub-ADNI001S0001/sub-ADNI001S0001_sessions.tsv")
    assert (pd.to_numeric(sessions["age_at_scan"]) == AGE_CAP).all()
    other = adni[adni["subject_id"] == "ADNI:002_S_0002"].sort_values("session_id")
    exported = tsv(tmp_path / "ADNI/sub-ADNI002S0002/sub-ADNI002S0002_sessions.tsv")
    assert pd.to_numeric(exported["age_at_scan"]).tolist() == pytest.approx(other["age_at_scan"].tolist(), abs=1e-6)
    assert list(exported["session_id"]) == ["ses-" + label for label in other["bids_session"]]


def test_export_writes_missing_values_as_bids_wants(adni, tmp_path):
    export_bids(adni, tmp_path)
    exported = tsv(tmp_path / "ADNI/sub-ADNI941S9001/sub-ADNI941S9001_sessions.tsv").set_index("session_id")
    assert exported.loc["ses-20150101", "diagnosis"] == "n/a"
    assert exported.loc["ses-20100505", "mmse"] == "27"
    assert not (exported == "").any().any()


def test_every_exported_column_is_described(adni, tmp_path):
    export_bids(adni, tmp_path)
    people, described = (
        tsv(tmp_path / "ADNI/participants.tsv"),
        json.loads((tmp_path / "ADNI/participants.json").read_text()),
    )
    assert set(described) == set(people.columns) - {"participant_id"}
    sessions = json.loads((tmp_path / "ADNI/sessions.json").read_text())
    assert set(sessions) == set(SESSION_COLUMNS)
    assert sessions["age_at_scan"]["Units"] == "year"
    assert described["sex"]["Levels"] == {"M": "male", "F": "female"}
    assert not set(PARTICIPANT_COLUMNS) & set(SESSION_COLUMNS)


def test_dates_leave_only_on_request(adni, tmp_path):
    export_bids(adni, tmp_path / "without")
    export_bids(adni, tmp_path / "with", dates=True)
    name = "ADNI/sub-ADNI941S9001/sub-ADNI941S9001_sessions.tsv"
    assert "acq_time" not in tsv(tmp_path / "without" / name)
    assert "2010-05-05T00:00:00" in set(tsv(tmp_path / "with" / name)["acq_time"])


def test_summary_stands_beside_the_paper(adni):
    table = corpus_summary(adni)
    line = table.iloc[0]
    assert (line["volumes"], line["paper_volumes"], line["paper_subjects"]) == (len(adni), 10910, 2592)
    assert not line["equal"]
    assert table.iloc[-1]["cohort"] == "Total"
    assert table.iloc[-1]["volumes"] == len(adni)


def test_summary_of_a_cohort_that_the_paper_does_not_have(adni):
    line = corpus_summary(adni.assign(cohort="OWN")).iloc[0]
    assert line["cohort"] == "OWN"
    assert pd.isna(line["paper_volumes"])


def test_diagnoses_and_coverage_are_counted(adni):
    diagnoses = diagnosis_summary(adni).set_index("diagnosis")
    assert diagnoses["volumes"].sum() == len(adni)
    assert diagnoses.loc["unknown", "volumes"] == adni["diagnosis"].isna().sum() == 1
    coverage = coverage_summary(adni).set_index("field")
    assert coverage.loc["moca", "percent"] == 0
    assert coverage.loc["sex", "percent"] == 100
    assert sum(PAPER_DIAGNOSES.values()) == 34111  # 96 percent of 35,309, as the paper says
    assert round(100 * 34111 / 35309.0) in (PAPER_COVERAGE["diagnosis"], PAPER_COVERAGE["diagnosis"] + 1)


def test_check_counts_and_shows_ten_examples(tmp_path):
    write_layout("IXI", tmp_path, 40, 20, traps=True)
    Tree(tmp_path).nifti("odd/name_T1.nii.gz")
    definition = load_definition("IXI")
    check = check_folder(definition, tmp_path)
    assert len(check.kept) == 42
    assert check.unknown == {"no image pattern of IXI matches": ["odd/name_T1.nii.gz"]}
    assert sum(map(len, check.failed.values())) == 2
    total = len(check.kept) + sum(len(p) for d in (check.left_out, check.failed, check.unknown) for p in d.values())
    assert total == check.found
    text = describe(definition, tmp_path, check)
    assert "would be kept: 42" in text
    assert "... and 32 more" in text
    assert "sex: " in text


def test_check_of_a_folder_that_matches_nothing_says_what_it_looks_like(tmp_path):
    write_layout("ADNI", tmp_path, 5, 2)
    definition = load_definition("IXI")
    text = describe(definition, tmp_path, check_folder(definition, tmp_path))
    assert "would be kept: 0" in text
    assert "IXI002-Guys-0828-T1.nii.gz" in text
    assert "looks like ADNI: 5 images" in text


def test_check_below_the_root_names_the_folder_above(tmp_path):
    write_layout("ADNI", tmp_path, 5, 2)
    definition = load_definition("ADNI")
    below = tmp_path / "ADNI/001_S_0001"
    check = check_folder(definition, below)
    assert not check.kept
    assert check.above == below.parent
    assert f"try --root {below.parent}" in describe(definition, below, check)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("sub-01/anat/sub-01_T1w.nii.gz", "looks like a BIDS dataset (`layout: bids`, docs/cohorts.md): 1 images"),
        ("odd/name.nii.gz", "No other definition knows these images either; docs/cohorts.md"),
    ],
)
def test_check_of_what_no_cohort_knows(tmp_path, path, words):
    Tree(tmp_path).nifti(path)
    definition = load_definition("IXI")
    assert words in describe(definition, tmp_path, check_folder(definition, tmp_path))


def test_check_of_an_empty_folder(tmp_path):
    definition = load_definition("IXI")
    check = check_folder(definition, tmp_path)
    assert "empty" in str(check.error)
    assert "would be kept: 0" in describe(definition, tmp_path, check)


def own_bids_study(folder):
    """A BIDS dataset with sessions, sidecars, contrast agent, echoes and derivatives."""
    tree = Tree(folder / "data")
    for subject, visit in (("01", "1"), ("01", "2"), ("02", "1")):
        base = f"sub-{subject}/ses-{visit}/anat/sub-{subject}_ses-{visit}"
        for name in ("T1w", "ce-gadolinium_T1w", "T2w", "FLAIR"):
            tree.nifti(f"{base}_{name}.nii.gz")
        tree.nifti(f"{base}_part-phase_T2w.nii.gz")
        tree.nifti(f"derivatives/{base}_desc-preproc_T1w.nii.gz")
        sidecar = {"Manufacturer": "SIEMENS", "ManufacturersModelName": "Prisma", "MagneticFieldStrength": 2.89}
        tree.bytes(f"{base}_T1w.json", json.dumps(sidecar).encode())
    tree.text(
        "participants.tsv", [["participant_id", "age", "sex"], ["sub-01", 30, "M"], ["02", "n/a", "female"]], "\t"
    )
    tree.text("sub-01/sub-01_sessions.tsv", [["session_id", "age"], ["ses-1", 30.5], ["ses-2", 32.5]], "\t")
    content = {"name": "OWN", "title": "Own study", "prefix": "OWN", "licence": {"name": "CC0", "access": "ours"}}
    (folder / "OWN.yaml").write_text(yaml.safe_dump(content | {"layout": "bids"}))
    return load_definition("OWN", folder / "OWN.yaml")


def test_a_bids_cohort_needs_nearly_nothing(tmp_path):
    scan = scan_cohort(own_bids_study(tmp_path), tmp_path / "data")
    rows = scan.rows.set_index(["subject_id", "session_id", "modality"])
    assert len(rows) == 12
    assert set(rows.index.get_level_values("modality")) == {"T1", "T1c", "T2", "FLAIR"}
    first, second = rows.loc["OWN:01", "1", "T1"], rows.loc["OWN:01", "2", "T1"]
    assert (first["age_at_scan"], second["age_at_scan"], first["age_source"]) == (30.5, 32.5, "reported")
    assert (first["vendor"], first["scanner_model"], first["field_strength"]) == ("Siemens", "Prisma", 3.0)
    assert rows.loc["OWN:02", "1", "T2"]["sex"] == "F"
    assert pd.isna(rows.loc["OWN:02", "1", "T2"]["age_at_scan"])
    left_out = scan.ledger[scan.ledger["status"] == "excluded"]["reason"].value_counts()
    assert left_out["derivative, not a raw image"] == 3
    assert left_out["phase, real or imaginary part"] == 3


def test_commands(tmp_path, adni):
    write_layout("IXI", tmp_path / "ixi", 4, 2)
    runner = CliRunner()
    listed = runner.invoke(app, ["cohorts", "list"])
    assert listed.exit_code == 0
    assert "UCSF-PDGM" in listed.output
    good = runner.invoke(app, ["cohorts", "check", "IXI", "--root", str(tmp_path / "ixi")])
    assert good.exit_code == 0
    assert "would be kept: 4" in good.output
    bad = runner.invoke(app, ["cohorts", "check", "IXI", "--root", str(tmp_path / "none")])
    assert bad.exit_code == 1
    assert "does not exist" in bad.output
    table = tmp_path / "volumes.parquet"
    adni.assign(split="train", shard="0000")[list(INDEX_COLUMNS)].to_parquet(table)
    summary = runner.invoke(app, ["cohorts", "summary", "--table", str(table)])
    assert summary.exit_code == 0
    assert "10910" in summary.output
    exported = runner.invoke(app, ["cohorts", "export", "--table", str(table), "--out", str(tmp_path / "bids")])
    assert exported.exit_code == 0
    assert (tmp_path / "bids/ADNI/participants.tsv").exists()


def test_an_empty_table_keeps_its_types():
    empty = typed(pd.DataFrame())
    assert {name: str(dtype) for name, dtype in empty.dtypes.items()} == {n: c.dtype for n, c in INDEX_COLUMNS.items()}
