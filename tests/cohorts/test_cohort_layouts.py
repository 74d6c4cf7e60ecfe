"""All eighteen cohorts with their traps: every image ends where the truth says, with the truth's values."""

import random

import pandas as pd
import pytest

from braing3n.cohorts.scan import assemble
from braing3n.cohorts.walk import walk
from braing3n.phantom.layouts import LAYOUTS

YEAR_TOLERANCE = 0.01  # ages come with two decimals, or as birth months


def equal(expected, found):
    if expected is None:
        return pd.isna(found)
    return abs(found - expected) <= YEAR_TOLERANCE if isinstance(expected, float) else found == expected


def test_eighteen_cohorts():
    assert len(LAYOUTS) == 18


def test_exactly_the_images_of_the_truth_are_kept(cohort):
    assert sorted(cohort.rows.index) == sorted(truth["source_path"] for truth in cohort.tree.kept)


def test_columns_hold_the_truth(cohort):
    wrong = [
        f"{truth['source_path']}: {column} is {cohort.rows.loc[truth['source_path'], column]!r}, should be {value!r}"
        for truth in cohort.tree.kept
        for column, value in truth.items()
        if column != "source_path" and not equal(value, cohort.rows.loc[truth["source_path"], column])
    ]
    assert not wrong, "\n".join(wrong[:10])


def test_what_is_left_out_says_why(cohort):
    assert cohort.tree.left_out
    for path, reason in cohort.tree.left_out.items():
        line = cohort.ledger.loc[path]
        assert line["status"] in ("excluded", "failed"), path
        assert reason in line["reason"], f"{path}: {line['reason']}"


def test_every_file_is_accounted_for(cohort):
    """Files, DICOM series and Analyze pairs under the root, counted by other means than the index's."""
    entries = set()
    for path in (p for p in cohort.tree.root.rglob("*") if p.is_file()):
        relative = path.relative_to(cohort.tree.root)
        if path.suffix == ".dcm":
            entries.add(relative.parent.as_posix())
        elif path.suffix == ".img" and path.with_suffix(".hdr").exists():
            continue
        else:
            entries.add(relative.as_posix())
    assert set(cohort.ledger.index) == entries
    assert cohort.ledger.index.is_unique
    assert set(cohort.ledger["status"]) <= {"kept", "excluded", "failed"}
    assert (cohort.ledger.loc[cohort.ledger["status"] != "kept", "reason"] != "").all()


def test_order_of_files_changes_nothing(cohort):
    found = walk(cohort.tree.root)
    random.Random(len(found)).shuffle(found)
    shuffled = assemble(cohort.definition, cohort.tree.root, found)
    pd.testing.assert_frame_equal(shuffled.rows, cohort.scan.rows)
    pd.testing.assert_frame_equal(shuffled.ledger, cohort.scan.ledger)
    assert shuffled.notes == cohort.scan.notes


def test_one_image_a_session_and_modality(cohort):
    assert not cohort.rows.duplicated(["subject_id", "session_id", "modality"]).any()


def test_paper_counts_come_out_of_a_layout_of_that_size(tmp_path):
    """The smallest cohort at its full size; benchmarks/index.py does it for all eighteen."""
    from braing3n.cohorts.definition import load_definition
    from braing3n.cohorts.scan import scan_cohort
    from braing3n.cohorts.summary import corpus_summary
    from braing3n.phantom.layouts import write_layout

    definition = load_definition("NKI-RS2")
    write_layout("NKI-RS2", tmp_path, definition.paper.volumes, definition.paper.subjects)
    line = corpus_summary(scan_cohort(definition, tmp_path).rows).iloc[0]
    assert (line["volumes"], line["subjects"], line["modalities"]) == (222, 222, "T1")
    assert line["equal"]


@pytest.mark.parametrize("name", ["ADNI", "PPMI"])
def test_nothing_of_the_dicom_header_that_identifies_gets_out(scanned, name):
    cohort = scanned(name)
    text = cohort.scan.rows.to_csv() + cohort.scan.ledger.to_csv() + "".join(cohort.scan.notes)
    for secret in ("Doe", "SECRET-4711", "19480229"):
        assert secret not in text
