"""The long results tables (`braing3n.results`) as blocks."""

from __future__ import annotations

import pandas as pd

from braing3n.reporting.page import DASH, Table, count, number, plain, table
from braing3n.results import COLUMNS


def interval(row: pd.Series) -> str:
    """`0.812 [0.702, 0.901]`, without brackets where there is no interval, a dash where there is no value."""
    if pd.isna(row["value"]):
        return DASH
    text = number(row["value"])
    if pd.isna(row["ci_low"]) or pd.isna(row["ci_high"]):
        return text
    return f"{text} [{number(row['ci_low'])}, {number(row['ci_high'])}]"


def long_table(rows: pd.DataFrame, caption: str, source: str, labels: dict[str, str] | None = None) -> Table:
    """Rows of a results table, leaving out columns that say nothing; value and interval in one cell.

    Tables with other columns are shown as they are.
    """
    if not set(COLUMNS) <= set(rows.columns):
        return table(rows, caption, source)
    frame = rows.assign(shown=rows.apply(interval, axis=1))
    labels = labels or {"encoder": "encoder", "task": "task", "slice": "slice", "metric": "metric"}
    keep = {name: label for name, label in labels.items() if frame[name].fillna("").ne("").any()}
    keep["shown"] = "value [95 % interval]"
    for name, label in {"n_subjects": "persons", "n_scans": "scans"}.items():
        if frame[name].notna().any():
            keep[name] = label
    formats = {"n_subjects": count, "n_scans": count, **{name: plain for name in labels}}
    return table(frame, caption, source, keep, formats)
