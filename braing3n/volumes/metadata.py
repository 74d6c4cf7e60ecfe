"""The metadata table: one row per stored volume, and the ledger that accounts for every file found."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from braing3n.cohorts.schema import validate_table
from braing3n.cohorts.splits import assert_no_leakage
from braing3n.files import read_parquet


def load_metadata(path: str | Path) -> pd.DataFrame:
    """Read `metadata/volumes.parquet`; every later stage starts here.

    Returns:
        One row per stored volume with the columns of docs/data-contract.md, in the order of the index.

    Raises:
        BrainG3NError: the file is missing, does not follow the schema, or a person is in two splits.
    """
    table = read_parquet(path)
    validate_table(table, str(path), metadata=True)
    assert_no_leakage(table, str(path))
    return table
