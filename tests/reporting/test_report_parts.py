"""What sections compute from tables, against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from braing3n.config.data import QCSettings
from braing3n.errors import BrainG3NError
from braing3n.reporting import page
from braing3n.reporting.run import AbsentError, Run, one_line, phantom_cohorts, pick
from braing3n.reporting.topics import cost, intake, people, quality


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1234567, "1,234,567"),
        (0.12345, "0.123"),
        (12.345, "12.3"),
        (123.45, "123.5"),
        (1234.5, "1,234"),
        (1.0, "1"),
        (-0.0567, "-0.0567"),
        (0.00001234, "1.23e-05"),
        (None, "–"),
        (float("nan"), "–"),
        (float("inf"), "inf"),
        (0, "0"),
        (True, "True"),
    ],
)
def test_numbers_are_written_to_three_digits(value, text):
    assert page.number(value) == text


def test_fixed_decimals_show_no_negative_zero():
    assert [page.fixed(v, 2) for v in (-0.001, -0.01, 1234.5, None)] == ["0.00", "-0.01", "1,234.50", "–"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (2.34, "2.3 s"),
        (59.4, "59 s"),
        (59.7, "1 min 0 s"),
        (185, "3 min 5 s"),
        (7800, "2 h 10 min"),
        (273600, "3 d 4 h"),
    ],
)
def test_durations_are_written_as_said(seconds, text):
    assert page.duration(seconds) == text


def test_table_keeps_order_formats_and_alignment():
    frame = pd.DataFrame({"b": [1, 2], "a": ["x", None], "c": [0.5, np.nan]})
    block = page.table(frame, "caption", "file", {"a": "name", "c": "share", "b": "n"}, {"c": page.number})
    assert block.columns == ["name", "share", "n"]
    assert block.rows == [["x", "0.500", "1"], ["–", "–", "2"]]
    assert block.numeric == {1, 2}


def test_ledger_counts_add_up_to_what_was_found(whole_results):
    counts = intake.cohort_counts(Run(whole_results).ledger).set_index("cohort")
    assert counts.loc["IXI"].to_dict() == {"found": 7, "kept": 6, "excluded": 0, "failed": 1}
    assert counts.loc["ADNI"].to_dict() == {"found": 5, "kept": 4, "excluded": 1, "failed": 0}


def test_step_counts_put_a_failure_where_it_happened_and_not_again_later(whole_results):
    counts = intake.step_counts(Run(whole_results).status()).set_index(["cohort", "step"])
    assert counts.loc[("IXI", "convert"), "failed"] == 0
    assert counts.loc[("IXI", "n4"), ["entered", "ok", "failed", "earlier"]].tolist() == [7, 6, 1, 0]
    assert counts.loc[("IXI", "mask"), ["entered", "ok", "failed", "earlier"]].tolist() == [6, 6, 0, 1]
    assert counts.loc[("ADNI", "crop"), ["entered", "ok"]].tolist() == [4, 4]


def test_an_indexed_volume_without_a_ledger_row_is_reported(results):
    index = pd.DataFrame({"volume_id": [*Run(results).volumes["volume_id"], "lost"]})
    (results / "index").mkdir(exist_ok=True)
    index.to_parquet(results / "index/volumes.parquet")
    (notice,) = intake.reconciliation(Run(results))
    assert notice.level == "problem"
    assert "lost" in notice.text


def test_visits_count_once_however_many_modalities(whole_results):
    volumes = Run(whole_results).volumes
    assert len(people.visits(volumes)) == 7
    row = people._describe("IXI", volumes[volumes["cohort"] == "IXI"])
    assert (row["persons"], row["visits"], row["volumes"], row["T1"], row["T2"]) == (3, 3, 6, 3, 3)
    assert row["age, mean (range)"] == "45.0 (40–50)"


def test_thresholds_of_qc_columns_follow_their_names():
    settings = QCSettings()
    assert quality.limits("qc_brain_ml", settings) == settings.brain_ml
    assert quality.limits("qc_atlas_dice", settings) == (settings.atlas_dice, None)
    assert quality.limits("qc_scale_x", settings) == settings.scale
    assert quality.limits("qc_unheard_of", settings) == (None, None)
    assert quality.limits("qc_brain_ml", None) == (None, None)


def test_pick_takes_the_worst_and_is_the_same_for_the_same_seed(whole_results):
    volumes = Run(whole_results).volumes
    chosen = pick(volumes, 6, 1, "qc_atlas_correlation")
    worst = chosen[chosen["chosen"] == "worst"]
    assert sorted(worst["qc_atlas_correlation"]) == sorted(volumes["qc_atlas_correlation"])[:2]
    assert chosen["volume_id"].is_unique
    assert len(chosen) == 6
    assert chosen.equals(pick(volumes.sample(frac=1, random_state=3), 6, 1, "qc_atlas_correlation"))
    assert (pick(volumes, 99, 1, "qc_atlas_correlation")["chosen"] == "random").all()
    assert len(pick(volumes, 6, 1, None)) == 6


def test_benchmarks_are_summed_by_rule_and_broken_files_skipped(results):
    (results / "benchmarks/broken.tsv").write_bytes(b"")
    rules = cost.by_rule(cost.read_benchmarks(results / "benchmarks")).set_index("rule")
    assert rules.loc["n4", ["jobs", "s", "longest", "cpu", "max_rss"]].tolist() == [2, 90.0, 60.0, 135.0, 512.0]
    assert rules.loc["train_mae", "s"] == 600.0
    assert "broken" not in rules.index


def test_missing_and_broken_tables_are_told_apart(results):
    run = Run(results)
    with pytest.raises(AbsentError, match=r"tables/none\.parquet"):
        run.table("tables/none.parquet")
    (results / "tables/probes.parquet").write_bytes(b"PAR1 cut short")
    with pytest.raises(BrainG3NError, match="not a readable Parquet table") as caught:
        run.table("tables/probes.parquet")
    assert not isinstance(caught.value, AbsentError)


def test_one_line_names_the_class_of_a_foreign_error_and_stays_short():
    assert one_line(KeyError("slice")) == "KeyError: 'slice'"
    assert one_line(BrainG3NError("is gone", file="a.parquet")) == "a.parquet: is gone"
    assert len(one_line(ValueError("x" * 1000))) == 300


def test_simulated_cohorts_are_those_under_the_phantoms_folder():
    roots = {"IXI": "demo/raw/IXI", "ADNI": "/data/adni", "SRI24": "demo/raw/SRI24"}
    config = {
        "phantom": {"root": "demo/raw"},
        "cohorts": {name: {"root": root} for name, root in roots.items()},
    }
    assert phantom_cohorts(config) == ("IXI",)
    assert phantom_cohorts(None) == ()
