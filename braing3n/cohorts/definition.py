"""What a cohort looks like as downloaded: the model behind `config/cohorts/<NAME>.yaml`.

Everything a cohort needs is declared there: image layouts as regular expressions over paths, entry states, clinical
tables and their codings. docs/cohorts.md shows how to write one.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

import braing3n
from braing3n.cohorts.schema import AGE_SOURCES, CLINICAL, INDEX_COLUMNS
from braing3n.cohorts.template import fill, parts_of
from braing3n.config import merge, read_yaml, validate_settings
from braing3n.config.base import Settings
from braing3n.errors import BrainG3NError

Modality = Literal["T1", "T2", "FLAIR", "T1c"]
Confidence = Literal["confirmed", "high", "medium", "low", "unconfirmed"]
# Set beside the fields that they belong to, never by a definition of their own.
DERIVED_COLUMNS = ("age_source", "age_is_binned", "session_date", "score_date_delta_days")
FIELDS = tuple(name for name in CLINICAL if name not in DERIVED_COLUMNS)


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"is not a regular expression: {error}") from error
    return pattern


class Entry(Settings):
    """What has been done to an image before it reaches us; steps it has had are skipped."""

    stripped: bool = False
    bias_corrected: bool = False
    defaced: bool = False
    space: Literal["native", "sri24", "mni"] = "native"
    axes: str | None = Field(None, pattern="^[LRAPIS]{3}$")
    """Axis codes (as `nibabel.aff2axcodes` gives them) of formats whose header carries no orientation."""
    shares_grid: bool = False
    """The modalities of a session lie on one grid."""


class Variant(Settings):
    """A processing state told by the path; the first that matches holds, and earlier ones are preferred."""

    name: str
    match: str
    entry: dict[str, Any] = Field(default_factory=dict)
    """Keys of `Entry` that differ from the image pattern's."""

    _match = field_validator("match")(_compiles)


class ModalityRules(Settings):
    """Modality from a named group of the path. Patterns are searched in order, exclusions first."""

    group: str
    exclude: dict[str, str] = Field(default_factory=dict)
    """Regular expression -> reason."""
    rules: dict[str, Modality]
    """Regular expression -> modality."""

    @field_validator("exclude", "rules", mode="before")
    @classmethod
    def _patterns(cls, value: dict[str, str | None]) -> dict[str, str]:
        return {_compiles(pattern): result for pattern, result in value.items() if result is not None}


class Require(Settings):
    """What an image's header must say."""

    min_slices: int | None = None
    """Voxels along every axis, at least."""
    max_spacing_mm: float | None = None
    acquisition: Literal["2D", "3D"] | None = None
    """DICOM MRAcquisitionType."""


class ImagePattern(Settings):
    """One layout of images. Earlier layouts are preferred where several give the same session and modality."""

    name: str
    """The layout's key under `images`."""
    pattern: str
    """Searched in the path relative to the root; for DICOM in the path of the series' first file."""
    example: str
    format: Literal["nifti", "dicom", "analyze", "mgz"] = "nifti"
    subject: str = "{subject}"
    session: str = "{session}"
    default_session: str = "1"
    session_names: dict[str, str] = Field(default_factory=dict)
    """Sessions as this layout calls them -> as the tables and the other layouts do."""
    run: str = "{run}"
    date: str = "{date}"
    modality: Modality | ModalityRules
    entry: Entry = Entry()
    variants: tuple[Variant, ...] = ()
    prefer: tuple[str, ...] = ()
    """Regular expressions over the path, best first, that choose between repeats of one session and modality."""
    mask: str | None = None
    """Template of the delivered brain mask's path, over the pattern's groups."""
    split_series: bool = False
    """Folders hold several DICOM series each: every header is read to tell them apart."""
    require: Require = Require()

    _pattern = field_validator("pattern")(_compiles)

    @model_validator(mode="after")
    def _groups(self):
        groups = set(re.compile(self.pattern).groupindex)
        known = groups | {"path"}
        wanted = set(parts_of(self.subject)) | set(parts_of(self.mask or ""))
        if isinstance(self.modality, ModalityRules):
            wanted.add(self.modality.group)
        if wanted - known:
            raise ValueError(f"pattern '{self.name}' has no group {sorted(wanted - known)}, only {sorted(groups)}")
        if not re.search(self.pattern, self.example):
            raise ValueError(f"pattern '{self.name}' does not match its own example '{self.example}'")
        for variant in self.variants:
            Entry.model_validate(self.entry.model_dump() | variant.entry)
        return self


class PathRule(Settings):
    """Paths to leave out, with the reason that the ledger records."""

    match: str
    reason: str

    _match = field_validator("match")(_compiles)


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
    format: Literal["auto", "adni_xml"] = "auto"
    """`auto` reads `.xls` and `.xlsx` as Excel and everything else as delimited text."""
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
    """Column -> values; other rows are left out."""
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
            _compiles(pattern)
        return self

    @field_validator("missing", mode="before")
    @classmethod
    def _text(cls, value: Any) -> Any:
        return tuple(str(item) for item in value)

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


class PersonRule(Settings):
    """Subjects whose id matches are the person that the template names."""

    match: str
    person: str

    _match = field_validator("match")(_compiles)


class Family(Settings):
    """Relatives that must stay on one side of every split: they share a person_id where the table is at hand."""

    table: str
    column: str


class Persons(Settings):
    """Who is who across cohorts. Subjects that it does not name are persons of their own."""

    same_as: dict[str, str] = Field(default_factory=dict)
    """Subject -> person_id elsewhere."""
    rules: tuple[PersonRule, ...] = ()
    family: Family | None = None

    @field_validator("same_as", mode="before")
    @classmethod
    def _text_keys(cls, value: Any) -> Any:
        return {str(key): str(item) for key, item in value.items()} if isinstance(value, dict) else value


class Licence(Settings):
    name: str
    non_commercial: bool = True
    access: str
    url: str | None = None


class PaperCounts(Settings):
    """The cohort's row of the paper's Table 3."""

    volumes: int
    subjects: int
    modalities: tuple[Modality, ...]
    diagnoses: tuple[str, ...]


class AsPublished(Settings):
    """Choices behind the paper's table that differ from the cohort's own documentation (`as_published: true`)."""

    why: tuple[str, ...]
    """Each difference, explained."""
    changes: dict[str, Any]
    """Keys of the definition to replace, merged in depth; null takes a layout or a modality rule out."""


class CohortDefinition(Settings):
    name: str
    title: str
    prefix: str = Field(..., pattern="^[A-Za-z0-9]+$")
    """Opens the cohort's BIDS subject labels."""
    licence: Licence
    paper: PaperCounts | None = None
    confidence: Confidence = "confirmed"
    """How sure the whole definition is; nothing here was checked on the cohort itself unless it says so."""
    unconfirmed: tuple[str, ...] = ()
    """Statements that no source confirms; look at them on the first real download."""
    notes: tuple[str, ...] = ()
    images: tuple[ImagePattern, ...] = Field(..., min_length=1)
    exclude: tuple[PathRule, ...] = ()
    repeats: Literal["first", "all"] = "first"
    """Images of one session and modality: keep the preferred one, or all as runs of their own."""
    persons: Persons = Persons()
    tables: dict[str, ClinicalTable] = Field(default_factory=dict)
    missing: tuple[str, ...] = ()
    """Codes that mean missing in every table of the cohort, beside blank and n/a."""
    lookups: dict[str, dict[str, dict[str, str | float | None]]] = Field(default_factory=dict)
    """Name -> key (such as a site) -> field -> value."""
    aliases: dict[str, str] = Field(default_factory=dict)
    """Spellings of a site -> the spelling of the lookups."""
    fields: dict[str, tuple[FieldSource, ...]] = Field(default_factory=dict)
    as_published: AsPublished | None = None

    @field_validator("missing", mode="before")
    @classmethod
    def _text(cls, value: Any) -> Any:
        return tuple(str(item) for item in value)

    @field_validator("images", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            raise ValueError("is a mapping from the layout's name to its pattern")
        return tuple({"name": name, **pattern} for name, pattern in value.items() if pattern is not None)

    @field_validator("fields", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return {name: source if isinstance(source, list | tuple) else [source] for name, source in value.items()}

    @model_validator(mode="after")
    def _names_known(self):
        unknown = set(self.fields) - set(FIELDS)
        if unknown:
            raise ValueError(f"unknown fields {sorted(unknown)}; known: {', '.join(FIELDS)}")
        for name, sources in self.fields.items():
            for source in sources:
                self._check_source(name, source)
        for name, table in self.tables.items():
            if table.date_from is not None and table.date_from.table not in self.tables:
                raise ValueError(f"tables.{name}.date_from: no table '{table.date_from.table}'")
        if self.persons.family is not None and self.persons.family.table not in self.tables:
            raise ValueError(f"persons.family: no table '{self.persons.family.table}'")
        return self

    def _check_source(self, name: str, source: FieldSource) -> None:
        from braing3n.cohorts.derive import DERIVATIONS

        if source.table is not None and source.table not in self.tables:
            raise ValueError(f"fields.{name}: no table '{source.table}' among {sorted(self.tables)}")
        if source.lookup is not None and source.lookup not in self.lookups:
            raise ValueError(f"fields.{name}: no lookup '{source.lookup}' among {sorted(self.lookups)}")
        if source.derive is not None and source.derive not in DERIVATIONS:
            raise ValueError(f"fields.{name}: no derivation '{source.derive}' among {sorted(DERIVATIONS)}")
        allowed = INDEX_COLUMNS[name].values
        given = [
            *(source.codes or {}).values(),
            *source.pattern_codes.values(),
            *(source.cut.labels if source.cut else ()),
        ]
        wrong = [value for value in given if allowed and value is not None and value not in allowed]
        if wrong:
            raise ValueError(f"fields.{name}: {wrong} are not among {allowed}")


def definition_path(name: str) -> Path:
    """`config/cohorts/<NAME>.yaml` in the working folder, else in the checkout that this package runs from."""
    relative = Path("config/cohorts") / f"{name}.yaml"
    return relative if relative.exists() else Path(braing3n.__file__).parents[1] / relative


def known_cohorts() -> list[str]:
    """Names of the cohorts with a definition beside this package or in the working folder, sorted."""
    folders = {Path("config/cohorts"), Path(braing3n.__file__).parents[1] / "config/cohorts"}
    return sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})


def load_definition(name: str, path: str | Path | None = None, *, as_published: bool = False) -> CohortDefinition:
    """Read and check one cohort's definition.

    Args:
        path: the file; default `config/cohorts/<name>.yaml`.
        as_published: apply the definition's `as_published` changes.

    Raises:
        BrainG3NError: no such file, or the file is wrong; the message names the key.
    """
    path = Path(path) if path is not None else definition_path(name)
    if not path.exists():
        raise BrainG3NError(
            f"no definition of cohort '{name}'",
            file=path,
            expected=f"one of {', '.join(known_cohorts())}, or a file of your own",
            remedy="write config/cohorts/<NAME>.yaml as docs/cohorts.md shows, or set cohorts.<NAME>.definition",
        )
    content = read_yaml(path)
    if content.get("layout") == "bids":
        from braing3n.cohorts.bids_layout import bids_defaults

        content = merge(bids_defaults(), {key: value for key, value in content.items() if key != "layout"})
    if as_published and content.get("as_published"):
        content = merge(content, content["as_published"]["changes"])
    return validate_settings(CohortDefinition, content, path)


def person_of(definition: CohortDefinition, subject: str) -> str:
    """person_id of a subject, by the definition's `persons`; `<cohort>:<subject>` where it says nothing."""
    if subject in definition.persons.same_as:
        return definition.persons.same_as[subject]
    for rule in definition.persons.rules:
        if re.search(rule.match, subject):
            return fill(rule.person, {"subject": subject, "cohort": definition.name})
    return f"{definition.name}:{subject}"
