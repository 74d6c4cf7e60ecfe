"""The long results table: one row a number, the only source of figures and report tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from braing3n.errors import BrainG3NError

COLUMNS = {
    "table": "string",
    "encoder": "string",
    "task": "string",
    "slice": "string",
    "metric": "string",
    "value": "float64",
    "ci_low": "float64",
    "ci_high": "float64",
    "n_subjects": "Int64",
    "n_scans": "Int64",
    "split_hash": "string",
}


def results_table(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows of numbers -> table with exactly `COLUMNS`; absent keys become missing values.

    Raises:
        BrainG3NError: a row has a key that is not a column, or no `table`, `metric` or `value`.
    """
    rows = list(rows)
    for row in rows:
        unknown = set(row) - set(COLUMNS)
        missing = {"table", "metric", "value"} - set(row)
        if unknown or missing:
            raise BrainG3NError(
                "row does not fit the results table",
                found=f"unknown {sorted(unknown)}, missing {sorted(missing)}",
                expected=", ".join(COLUMNS),
            )
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)
