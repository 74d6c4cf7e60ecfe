"""The metadata as BIDS tables: participants.tsv, sessions.tsv and their JSON dictionaries, for sharing.

Ages above 89 are capped there, since such an age can identify a person (BIDS specification, participants file; US
Code of Federal Regulations 45, 164.514). The Parquet table keeps the true value.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

import braing3n
from braing3n.cohorts.schema import INDEX_COLUMNS
from braing3n.files import write_json, write_text

AGE_CAP = 89.0
BIDS_VERSION = "1.10.0"
# Facts about a person, one value each, and facts about a visit; column names of the two must differ (BIDS).
PARTICIPANT_COLUMNS = ("sex", "handedness", "education_years", "apoe")
SESSION_COLUMNS = (
    "age_at_scan", "age_source", "age_is_binned", "diagnosis", "diagnosis_detail", "cdr", "mmse", "moca", "gds",
    "updrs3", "scopa_aut", "tumour_grade", "idh1", "mgmt", "site", "vendor", "scanner_model", "field_strength",
    "score_date_delta_days",
)  # fmt: skip
_LEVELS = {"sex": {"M": "male", "F": "female"}, "handedness": {"R": "right", "L": "left", "A": "ambidextrous"}}


def export_bids(table: pd.DataFrame, out: str | Path, *, dates: bool = False) -> list[Path]:
    """Write the BIDS tables of an index or metadata table, one dataset a cohort under `out`.

    Args:
        dates: write scan dates (`acq_time`); left out by default, since dates can identify a person.

    Returns:
        The files written, sorted.
    """
    written = []
    for cohort, rows in table.groupby("cohort"):
        written += _dataset(str(cohort), rows, Path(out) / str(cohort), dates)
    return sorted(written)


def _dataset(cohort: str, rows: pd.DataFrame, folder: Path, dates: bool) -> list[Path]:
    description = {
        "Name": cohort,
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "License": rows["licence"].iloc[0],
        "GeneratedBy": [{"Name": "BrainG3N", "Version": braing3n.__version__}],
    }
    written = [folder / "dataset_description.json"]
    write_json(written[0], description)
    participants, sessions = _participants(rows), _sessions(rows, dates)
    written += _write(folder / "participants.tsv", participants)
    written += _write_sidecar(folder / "participants.json", participants.columns[1:])
    written += _write_sidecar(folder / "sessions.json", [c for c in sessions.columns[2:] if c != "acq_time"])
    for subject, visits in sessions.groupby("participant_id"):
        path = folder / str(subject) / f"{subject}_sessions.tsv"
        written += _write(path, visits.drop(columns="participant_id"))
    return written


def _participants(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a subject: the age of the first visit, and what does not change between visits."""
    ordered = rows.sort_values(["bids_subject", "session_date", "session_id", "modality"], kind="stable")
    groups = ordered.groupby("bids_subject", sort=True)
    # GroupBy.first takes the first value that is known.
    table = groups[["age_at_scan", *PARTICIPANT_COLUMNS]].first().reset_index()
    table = table.rename(columns={"bids_subject": "participant_id", "age_at_scan": "age"})
    table["participant_id"] = "sub-" + table["participant_id"]
    table["age"] = table["age"].clip(upper=AGE_CAP)
    return table.assign(species="homo sapiens")


def _sessions(rows: pd.DataFrame, dates: bool) -> pd.DataFrame:
    keys = ["bids_subject", "bids_session"]
    columns = [*SESSION_COLUMNS, *(["session_date"] if dates else [])]
    table = rows.sort_values([*keys, "modality"], kind="stable").groupby(keys)[columns].first().reset_index()
    table["age_at_scan"] = table["age_at_scan"].clip(upper=AGE_CAP)
    if dates:
        table["session_date"] += "T00:00:00"  # BIDS wants a time too; the day is all that is known
    table["bids_subject"], table["bids_session"] = "sub-" + table["bids_subject"], "ses-" + table["bids_session"]
    names = {"bids_subject": "participant_id", "bids_session": "session_id", "session_date": "acq_time"}
    return table.rename(columns=names)


def _write(path: Path, table: pd.DataFrame) -> list[Path]:
    """Tab-separated, missing values as n/a, numbers without trailing zeros."""
    text = table.astype(object).map(_cell).to_csv(sep="\t", index=False, lineterminator="\n")
    write_text(path, text)
    return [path]


def _cell(value: Any) -> str:
    if pd.isna(value):
        return "n/a"
    return f"{value:.10g}" if isinstance(value, float) else str(value).replace("\t", " ").replace("\n", " ")


def _write_sidecar(path: Path, columns: Iterable[str]) -> list[Path]:
    write_json(path, {column: _description(column) for column in columns})
    return [path]


def _description(name: str) -> dict[str, Any]:
    if name == "species":
        return {"Description": "binomial species name"}
    column = INDEX_COLUMNS["age_at_scan" if name == "age" else name]
    result: dict[str, Any] = {"Description": column.meaning}
    if name in ("age", "age_at_scan"):
        first = "age at the first visit" if name == "age" else "age"
        result["Description"] = f"{first}; ages above {AGE_CAP:g} are given as {AGE_CAP:g}"
    if column.unit is not None:
        result["Units"] = column.unit
    if column.values is not None:
        result["Levels"] = _LEVELS.get(name) or {value: value for value in column.values}
    return result
