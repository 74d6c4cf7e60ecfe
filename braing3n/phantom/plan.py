"""A cohort before it is rendered: every scan with its truth and its place, and the clinical tables as bytes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from braing3n.phantom.truth import Grid, ScanTruth, SubjectTruth


@dataclass(frozen=True, eq=False)
class PlannedScan:
    source_path: str
    """POSIX, relative to the cohort's root; a folder where `dicom` is given."""
    subject: SubjectTruth
    scan: ScanTruth
    grid: Grid
    known: dict[str, Any]
    """Further columns of the truth table: subject, session, age, sex, diagnosis, ..."""
    dicom: dict[str, Any] | None = None
    """Attributes of every DICOM file of the series, keyword -> value; None writes NIfTI."""


@dataclass(frozen=True, eq=False)
class CohortPlan:
    name: str
    scans: list[PlannedScan]
    tables: dict[str, bytes] = field(default_factory=dict)
    """File name below the cohort's root -> content."""


def csv_bytes(rows: list[dict[str, Any]], columns: list[str]) -> bytes:
    """Rows as CSV in the order of `columns`; absent values are blank."""
    return pd.DataFrame(rows, columns=columns).to_csv(index=False, lineterminator="\n").encode()


def rng_of(seed: int, *parts: str | int) -> np.random.Generator:
    """An independent stream for each part of a cohort, so that counts of one do not move another."""
    numbers = [part if isinstance(part, int) else int.from_bytes(part.encode()[:8], "little") for part in parts]
    return np.random.default_rng((seed, *numbers))
