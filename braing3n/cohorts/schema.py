"""The columns of the index and the metadata table: types, units, allowed values (docs/data-contract.md).

Text columns are pandas `str` (missing is NaN), numbers `float64`, counts `Int64`, and yes/no columns `bool`, or
`boolean` where a value may be unknown. Fixed types make equal tables equal bytes on disk, whatever rows they hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import pandas as pd

from braing3n.errors import BrainG3NError
from braing3n.geometry import MODALITIES

# The paper's ten classes, then labels that it leaves out of them (paper, Appendix A).
DIAGNOSES = ("HC", "MCI", "AD", "PD", "GBM", "Glioma", "ASD", "ADHD", "SCZ", "Pediatric-Mixed")
OTHER_DIAGNOSES = ("SWEDD", "Prodromal", "SCZ-spectrum", "BP", "Other")
APOE = ("E2/E2", "E2/E3", "E2/E4", "E3/E3", "E3/E4", "E4/E4")
# Where an age comes from; only the first two are ages measured at the scan itself.
AGE_SOURCES = ("reported", "birth_date", "nearest_visit", "baseline", "baseline_plus_interval", "bin", "other_study")


@dataclass(frozen=True)
class Column:
    """One column: pandas type, whether every row must have a value, allowed values, range or steps of a scale, and what
    it means."""

    dtype: str
    meaning: str
    required: bool = False
    values: tuple[str, ...] | None = None
    range: tuple[float, float] | None = None
    steps: tuple[float, ...] | None = None
    unit: str | None = None


INDEX_COLUMNS: dict[str, Column] = {
    "volume_id": Column("str", "hash of cohort and source path, 16 hex digits", True),
    "cohort": Column("str", "name of the cohort", True),
    "subject_id": Column("str", "<cohort>:<id>, with the site in between where ids repeat across sites", True),
    "person_id": Column("str", "one per human being over all cohorts; the key of splits and folds", True),
    "session_id": Column("str", "visit, unique within a subject", True),
    "run": Column("Int64", "repeat within the session and modality", True, range=(1, 999)),
    "modality": Column("str", "image contrast", True, values=MODALITIES),
    "source_path": Column("str", "POSIX path relative to the cohort's root; a folder for DICOM", True),
    "source_format": Column("str", "format as delivered", True, values=("nifti", "dicom", "analyze", "mgz")),
    "source_series": Column("str", "hash of the series instance UID where a folder holds several series"),
    "source_bytes": Column("Int64", "size as delivered", True, unit="byte"),
    "mask_path": Column("str", "brain mask as delivered, relative to the cohort's root"),
    "source_variant": Column("str", "which of the cohort's layouts and processing variants this is", True),
    "entry_stripped": Column("bool", "delivered without skull", True),
    "entry_bias_corrected": Column("bool", "delivered bias-field corrected", True),
    "entry_defaced": Column("bool", "delivered with the face removed", True),
    "entry_space": Column("str", "grid as delivered", True, values=("native", "sri24", "mni")),
    "entry_axes": Column("str", "axis codes forced on a header that has none, as nibabel.aff2axcodes writes them"),
    "shares_grid": Column("bool", "the session's modalities are aligned on one grid as delivered", True),
    "bids_subject": Column("str", "BIDS subject label", True),
    "bids_session": Column("str", "BIDS session label", True),
    "age_at_scan": Column("float64", "age", range=(0, 120), unit="year"),
    "age_source": Column("str", "where the age comes from", values=AGE_SOURCES),
    "age_is_binned": Column("boolean", "the age is the centre of a published bin"),
    "sex": Column("str", "sex", values=("M", "F")),
    "diagnosis": Column("str", "diagnosis at the scan", values=DIAGNOSES + OTHER_DIAGNOSES),
    "diagnosis_detail": Column("str", "finer label as the cohort gives it"),
    "cdr": Column("float64", "Clinical Dementia Rating, global", steps=(0, 0.5, 1, 2, 3)),
    "mmse": Column("float64", "Mini-Mental State Examination", range=(0, 30)),
    "moca": Column("float64", "Montreal Cognitive Assessment", range=(0, 30)),
    "gds": Column("float64", "Geriatric Depression Scale, 15 items", range=(0, 15)),
    "updrs3": Column("float64", "MDS-UPDRS part III total", range=(0, 132)),
    "scopa_aut": Column("float64", "SCOPA-AUT total", range=(0, 69)),
    "apoe": Column("str", "APOE genotype", values=APOE),
    "tumour_grade": Column("float64", "WHO CNS grade", range=(1, 4)),
    "idh1": Column("str", "IDH1 status", values=("wildtype", "mutant")),
    "mgmt": Column("str", "MGMT promoter", values=("methylated", "unmethylated")),
    "site": Column("str", "acquisition site"),
    "vendor": Column("str", "scanner manufacturer"),
    "scanner_model": Column("str", "scanner model"),
    "field_strength": Column("float64", "field strength", range=(0.1, 12), unit="tesla"),
    "education_years": Column("float64", "years of education", range=(0, 40), unit="year"),
    "handedness": Column("str", "handedness", values=("R", "L", "A")),
    "session_date": Column("str", "scan date, ISO 8601"),
    "score_date_delta_days": Column("float64", "farthest joined visit minus the scan date", unit="day"),
    "licence": Column("str", "licence of the image", True),
    "split": Column("str", "split by person_id", True, values=("train", "val", "test")),
    "shard": Column("str", "shard of the session", True),
}

# What volumes/metadata.py adds to an index row; qc_* numbers follow, as many as the preprocessing measured.
STORE_COLUMNS: dict[str, Column] = {
    "store_file": Column("str", "volume store, relative to the results folder", True),
    "store_row": Column("Int64", "row of the store", True, range=(0, 1e9)),
    "scale": Column("float64", "intensity per stored unit", True),
    "mean": Column("float64", "mean of the brain voxels", True),
    "std": Column("float64", "standard deviation of the brain voxels", True),
    "brain_voxels": Column("Int64", "voxels above 0", True, range=(0, 1e9)),
    "qc_flags": Column("str", "comma-separated thresholds that the volume fails; empty if none", True),
}

LEDGER_COLUMNS = ("cohort", "path", "status", "reason", "volume_id")
CLINICAL = tuple(INDEX_COLUMNS)[list(INDEX_COLUMNS).index("age_at_scan") : list(INDEX_COLUMNS).index("licence")]


def typed(table: pd.DataFrame, columns: dict[str, Column] = INDEX_COLUMNS) -> pd.DataFrame:
    """Order `table`'s columns as `columns`, add absent ones as missing, and cast to the schema's types."""
    table = table.reindex(columns=list(columns))
    return table.astype({name: column.dtype for name, column in columns.items()})


@cache
def _pandera_schema(metadata: bool) -> Any:
    import pandera.pandas as pa

    columns = INDEX_COLUMNS | (STORE_COLUMNS if metadata else {})
    checked = {
        name: pa.Column(
            column.dtype,
            nullable=not column.required,
            unique=name == "volume_id",
            checks=([pa.Check.isin(column.values)] if column.values else [])
            + ([pa.Check.in_range(*column.range)] if column.range else [])
            + ([pa.Check.isin(column.steps)] if column.steps else []),
        )
        for name, column in columns.items()
    }
    if metadata:
        checked["^qc_(?!flags$).*"] = pa.Column("float64", nullable=True, regex=True, required=False)
    return pa.DataFrameSchema(checked, strict=True)


def validate_table(table: pd.DataFrame, file: str, *, metadata: bool = False) -> pd.DataFrame:
    """Check an index table (or, with `metadata`, the metadata table) against the schema and return it.

    Raises:
        BrainG3NError: a column is missing, of the wrong type, or holds values that are not allowed.
    """
    import pandera.errors

    try:
        return _pandera_schema(metadata).validate(table, lazy=True)
    except pandera.errors.SchemaErrors as error:
        cases = error.failure_cases.drop_duplicates(["column", "check", "failure_case"]).head(5)
        raise BrainG3NError(
            "table does not follow its schema",
            file=file,
            found=" | ".join(f"{row.column}: {row.check}: {row.failure_case!r}" for row in cases.itertuples()),
            remedy="see docs/data-contract.md; build the table again with this version of braing3n",
        ) from error
