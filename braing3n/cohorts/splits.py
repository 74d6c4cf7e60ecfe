"""Training, validation and test sets by person, and the check that none shares a person with another."""

from __future__ import annotations

import hashlib

import pandas as pd

from braing3n.config.data import IndexSettings
from braing3n.errors import BrainG3NError


def split_of(person_id: str, settings: IndexSettings) -> str:
    """Split of one person: a hash of seed and person, so that adding scans or cohorts moves nobody."""
    digest = hashlib.sha256(f"{settings.split_seed}\x1f{person_id}".encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64  # uniform in [0, 1)
    if position < settings.test_fraction:
        return "test"
    return "val" if position < settings.test_fraction + settings.val_fraction else "train"


def assert_no_leakage(table: pd.DataFrame, source: str = "table") -> None:
    """Every person in one split only, and every subject one person.

    Raises:
        BrainG3NError: names the first persons or subjects found on two sides.
    """
    for key, value, problem in (
        ("person_id", "split", "the same person is in several splits"),
        ("subject_id", "person_id", "the same subject belongs to several persons"),
    ):
        counts = table.groupby(key, observed=True)[value].nunique()
        broken = counts.index[counts > 1]
        if len(broken):
            raise BrainG3NError(
                problem,
                file=source,
                expected=f"one {value} per {key}",
                found=f"{len(broken)}, for example {', '.join(map(str, broken[:5]))}",
                remedy="run `braing3n index` and build the metadata again; do not edit the table by hand",
            )
