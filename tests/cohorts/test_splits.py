"""Splits by hash of the person: proportions, stability, and the leakage check."""

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from braing3n.cohorts.splits import assert_no_leakage, split_of
from braing3n.config.data import IndexSettings
from braing3n.errors import BrainG3NError

SETTINGS = IndexSettings()


def test_proportions():
    """Binomial: 20,000 persons, standard deviation 0.21 percent, tolerance five of them."""
    splits = pd.Series([split_of(f"ADNI:{i}", SETTINGS) for i in range(20000)]).value_counts(normalize=True)
    assert splits["val"] == pytest.approx(0.1, abs=0.0106)
    assert splits["test"] == pytest.approx(0.1, abs=0.0106)


@settings(max_examples=50, deadline=None)
@given(st.text(min_size=1))
def test_a_person_stays_when_the_held_out_parts_grow(person):
    """Test comes first, so a larger validation part takes from training only."""
    small, large = split_of(person, SETTINGS), split_of(person, IndexSettings(val_fraction=0.3))
    assert (small == "test") == (large == "test")
    if small == "val":
        assert large == "val"


def test_seed_moves_persons_and_is_the_only_state():
    persons = [f"P{i}" for i in range(200)]
    first = [split_of(p, SETTINGS) for p in persons]
    assert first == [split_of(p, SETTINGS) for p in persons]
    assert first != [split_of(p, IndexSettings(split_seed=1)) for p in persons]


def test_known_values():
    """Splits must never move between versions: these were computed once."""
    splits = [split_of(f"IXI:IXI{i:03d}", SETTINGS) for i in range(17, 28)]
    assert [i for i, split in zip(range(17, 28), splits, strict=True) if split == "test"] == [20, 25, 27]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([("P1", "a:1", "train"), ("P1", "b:1", "val")], "same person is in several splits"),
        ([("P1", "a:1", "train"), ("P2", "a:1", "train")], "same subject belongs to several persons"),
    ],
)
def test_leakage_is_an_error(rows, words):
    table = pd.DataFrame(rows, columns=["person_id", "subject_id", "split"])
    with pytest.raises(BrainG3NError, match=words):
        assert_no_leakage(table, "table.parquet")


def test_clean_tables_pass():
    assert_no_leakage(
        pd.DataFrame([("P1", "a:1", "val"), ("P1", "b:1", "val")], columns=["person_id", "subject_id", "split"])
    )
