"""How a definition declares clinical tables and what the harmonised fields take from them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from braing3n.cohorts.image_models import compiles
from braing3n.cohorts.schema import AGE_SOURCES
from braing3n.config.base import Settings

Confidence = Literal["confirmed", "high", "medium", "low", "unconfirmed"]


class VisitDates(Settings):
    """Dates for a table without them: looked up in another table of the cohort by a visit code."""

    table: str
    by: str
    column: str


class ClinicalTable(Settings):
    """One clinical table: where it lies, how it is written, and which rows belong to which image."""

    files: tuple[str, ...]
    """Glob patterns relative to the root; `**` spans folders."""
    combine: Literal["newest", "all"] = "newest"
    """Of several files: the latest release by the date in its name, or all one after the other."""
    path: str | None = None
    """Regular expression over the file's path, whose groups join the columns (the site, for one)."""
    optional: bool = False
    """Not every download has it: no note if it is not there."""
    format: Literal["auto", "headerless", "adni_xml"] = "auto"
    """`auto` reads `.xls` and `.xlsx` as Excel and everything else as delimited text; `headerless` tells the columns
    subject, age, sex and handedness by what they hold."""
    delimiter: str | None = None
    """Default: told from the header line (comma, tab, semicolon or blanks)."""
    encoding: str = "utf-8-sig"
    columns: tuple[str, ...] | None = None
    """Names for a table without a header."""
    skip_rows: int = 0
    """Rows to leave out below the header."""
    copies: dict[str, str] = Field(default_factory=dict)
    """New column -> column it repeats."""
    recode: dict[str, dict[str, str | None]] = Field(default_factory=dict)
    """Column -> code -> text, such as names of visits; rows recoded to null are left out, unknown codes are errors."""
    extract: dict[str, str] = Field(default_factory=dict)
    """Column -> regular expression whose groups become columns; rows that do not match are left out."""
    where: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Column -> values; other rows are left out. Null takes a condition away (`as_published`)."""
    key: tuple[str, ...]
    """Template over the columns that names what a row is about; of several the first whose columns a file has."""
    match: str = "{subject}"
    """Template over an image's parts that must equal `key`."""
    prefer: tuple[str, ...] = ()
    """Among rows of one key, those with a value in these columns come first."""
    agree: tuple[str, ...] = ()
    """Columns whose values must agree between rows of one key; where they do not, they are taken as missing."""
    fill_down: tuple[str, ...] = ()
    """Columns given once: rows without a value take it from the first row of the same `fill_by` that has one."""
    fill_by: str | None = None
    """Template over the columns; default the key."""
    date: str | None = None
    date_formats: tuple[str, ...] = ("%Y-%m-%d",)
    date_from: VisitDates | None = None
    within_days: int | None = None
    """Dated tables: farthest visit that still speaks for a scan. Required with `date` or `date_from`."""
    missing: tuple[str, ...] = ()
    note: str | None = None

    @model_validator(mode="after")
    def _dated(self):
        if (self.date is not None or self.date_from is not None) != (self.within_days is not None):
            raise ValueError("a dated table needs both a date and within_days, an undated one neither")
        for pattern in (*self.extract.values(), self.path or ""):
            compiles(pattern)
        return self

    @field_validator("missing", mode="before")
    @classmethod
    def _text(cls, value: Any) -> Any:
        return tuple(str(item) for item in value)

    @field_validator("where", mode="before")
    @classmethod
    def _conditions(cls, value: dict[str, Any]) -> dict[str, Any]:
        return {column: values for column, values in value.items() if values is not None}

    @field_validator("key", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("recode", mode="before")
    @classmethod
    def _text_codes(cls, value: Any) -> Any:
        return {
            column: {str(code): None if text is None else str(text) for code, text in codes.items()}
            for column, codes in value.items()
        }


class Rating(Settings):
    """A column of a quality-control table that orders repeats of one session and modality."""

    table: str
    column: str
    order: tuple[str, ...]
    """Every value that may occur, best first; `''` is the place of images that are not rated."""

    @field_validator("order", mode="before")
    @classmethod
    def _text(cls, value: Any) -> Any:
        return tuple(str(item) for item in value)

    @model_validator(mode="after")
    def _unrated(self):
        if "" not in self.order:
            raise ValueError("order must say with '' where images without a rating stand")
        return self


class Cut(Settings):
    """Classes of a number: `labels[i]` from `at[i - 1]` on and below `at[i]`; the outer classes include their cuts."""

    at: tuple[float, ...]
    labels: tuple[str, ...]

    @model_validator(mode="after")
    def _lengths(self):
        if len(self.labels) != len(self.at) + 1 or list(self.at) != sorted(self.at):
            raise ValueError("labels are one more than the rising cuts")
        return self


class Condition(Settings):
    """Holds for images whose `field` (or `session_id`) is one of `values`, or a number `below` or `at_least` that."""

    field: str
    values: tuple[str, ...] | None = None
    below: float | None = None
    at_least: float | None = None


class FieldSource(Settings):
    """Where a harmonised field comes from. Of several sources the first that gives a value holds."""

    constant: str | float | None = None
    group: str | None = None
    """A named group of the image's path."""
    header: Literal["vendor", "model", "field_strength"] | None = None
    """Of the DICOM header or the JSON sidecar; no field that could identify a person is ever read."""
    table: str | None = None
    columns: tuple[str, ...] = ()
    """Of the table; without `derive`, each row takes the first of them in which it has a value."""
    optional: bool = False
    """The table may lack the columns (they differ between releases)."""
    lookup: str | None = None
    """One of the cohort's `lookups`, by the value of `by`."""
    by: str = "site"
    derive: str | None = None
    """A function of braing3n/cohorts/derive.py over the columns."""
    args: dict[str, Any] = Field(default_factory=dict)
    codes: dict[str, str | float | None] | None = None
    """Every code that may occur -> harmonised value (null: known, no value). Case does not matter."""
    pattern_codes: dict[str, str | None] = Field(default_factory=dict)
    """Regular expression -> value, for free text; tried after `codes`."""
    exclude: dict[str, str] = Field(default_factory=dict)
    """Code -> reason: images of these rows are left out."""
    missing: tuple[str, ...] = ()
    cut: Cut | None = None
    """Numbers that are no code become classes."""
    range: tuple[float, float] | None = None
    out_of_range: Literal["error", "missing"] = "error"
    advance: bool = False
    """An age at the joined visit: moved on to the scan date by the days in between."""
    when: Condition | None = None
    source: str | None = None
    """Of an age: how it came about (schema.AGE_SOURCES)."""
    binned: bool = False
    confidence: Confidence = "confirmed"
    note: str | None = None

    @field_validator("codes", "exclude", mode="before")
    @classmethod
    def _text_keys(cls, value: Any) -> Any:
        return {str(key): item for key, item in value.items()} if isinstance(value, dict) else value

    @field_validator("missing", mode="before")
    @classmethod
    def _text(cls, value: Any) -> Any:
        return tuple(str(item) for item in value)

    @model_validator(mode="after")
    def _one_origin(self):
        origins = [
            name for name in ("constant", "group", "header", "table", "lookup") if getattr(self, name) is not None
        ]
        if len(origins) != 1:
            raise ValueError(f"needs exactly one of constant, group, header, table and lookup, has {origins or 'none'}")
        if (self.table is not None) != bool(self.columns):
            raise ValueError("table and columns go together")
        if self.source is not None and self.source not in AGE_SOURCES:
            raise ValueError(f"source must be one of {', '.join(AGE_SOURCES)}")
        return self
