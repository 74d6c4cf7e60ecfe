"""The two definitions that docs/cohorts.md shows, taken from the page and followed to the letter."""

import re
import textwrap
from pathlib import Path

import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from braing3n.cli.main import app
from braing3n.files import read_parquet
from braing3n.phantom.layouts.tree import Tree

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/cohorts.md").read_text()


def shown(name):
    """The definition that the page shows for `config/cohorts/<name>.yaml`."""
    blocks = re.findall(r"(?:^    .*\n|^\n)+", PAGE, re.MULTILINE)
    (block,) = (block for block in blocks if f"# config/cohorts/{name}.yaml" in block)
    return textwrap.dedent(block).strip() + "\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder of one's own, with a place for definitions."""
    (tmp_path / "config/cohorts").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def indexed(folder, name, data):
    (folder / f"config/cohorts/{name}.yaml").write_text(shown(name))
    check = CliRunner().invoke(app, ["cohorts", "check", name, "--root", str(data)])
    assert check.exit_code == 0, check.output
    mine = {"pathvars": {"results": str(folder / "results")}, "cohorts": {name: {"root": str(data)}}}
    (folder / "mine.yaml").write_text(yaml.safe_dump(mine))
    arguments = ["index", "--config", str(ROOT / "config/config.yaml"), "--config", "mine.yaml"]
    index = CliRunner().invoke(app, arguments)
    assert index.exit_code == 0, index.output
    return read_parquet(folder / "results/index/volumes.parquet").set_index("source_path")


def test_a_bids_cohort(folder):
    tree = Tree(folder / "data")
    for subject in ("01", "02"):
        tree.nifti(f"sub-{subject}/anat/sub-{subject}_T1w.nii.gz")
    people = [["participant_id", "age", "sex", "group"], ["sub-01", 70, "M", "patient"], ["sub-02", 65, "F", "control"]]
    tree.text("participants.tsv", people, "\t")
    rows = indexed(folder, "MYSTUDY", folder / "data")
    assert list(rows["diagnosis"]) == ["AD", "HC"]
    assert list(rows["age_at_scan"]) == [70, 65]
    assert list(rows["sex"]) == ["M", "F"]


def test_a_cohort_of_plain_files(folder):
    tree = Tree(folder / "data")
    for name in ("P001_V1_20240131_t1", "P001_V1_20240131_t2", "P002_V1_20240207_t1"):
        tree.nifti(f"{name}.nii.gz")
    tree.text("clinic_20230101.csv", [["ID", "Age", "Sex"], [1, 20, 0]])
    tree.text("clinic_20240301.csv", [["ID", "Age", "Sex"], [1, 70, 0], [2, -9, 1]])
    visits = [["patient", "visit_date", "MMSE"], ["P001", "2024-02-10", 28], ["P002", "2022-02-10", 12]]
    tree.excel("scores.xlsx", visits)
    rows = indexed(folder, "CLINIC", folder / "data")
    first, second = rows.loc["P001_V1_20240131_t1.nii.gz"], rows.loc["P002_V1_20240207_t1.nii.gz"]
    assert (first["age_at_scan"], first["sex"], first["mmse"], first["score_date_delta_days"]) == (70, "M", 28, 10)
    assert pd.isna(second["age_at_scan"])
    assert second["sex"] == "F"
    assert pd.isna(second["mmse"]), "two years away"
    assert rows["entry_defaced"].all()
    assert list(rows["modality"]) == ["T1", "T2", "T1"]


def test_a_dated_table_for_images_without_dates_is_told(folder):
    data = folder / "data"
    Tree(data).nifti("P001_V1_t1.nii.gz")
    Tree(data).text("clinic_1.csv", [["ID", "Age", "Sex"], [1, 70, 0]])
    Tree(data).excel("scores.xlsx", [["patient", "visit_date", "MMSE"], ["P001", "2024-02-10", 28]])
    text = shown("CLINIC").replace(r"_(?P<date>\d{8})", "").replace("_20240131", "")
    (folder / "config/cohorts/CLINIC.yaml").write_text(text)
    check = CliRunner().invoke(app, ["cohorts", "check", "CLINIC", "--root", str(data)])
    assert "table 'visits' is joined by date, but no pattern finds a date" in check.output
