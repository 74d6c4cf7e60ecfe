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
from braing3n.cohorts.image_models import ImagePattern, Modality, PathRule, compiles
from braing3n.cohorts.schema import CLINICAL, INDEX_COLUMNS
from braing3n.cohorts.table_models import ClinicalTable, Confidence, FieldSource, Rating
from braing3n.cohorts.template import fill
from braing3n.config import merge, read_yaml, validate_settings
from braing3n.config.base import Settings
from braing3n.errors import BrainG3NError

# Set beside the fields that they belong to, never by a definition of their own.
DERIVED_COLUMNS = ("age_source", "age_is_binned", "session_date", "score_date_delta_days")
FIELDS = tuple(name for name in CLINICAL if name not in DERIVED_COLUMNS)


class PersonRule(Settings):
    """Subjects whose id matches are the person that the template names."""

    match: str
    person: str

    _match = field_validator("match")(compiles)


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
    """Under which terms the images may be used, and how to get them."""

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
    """Everything that the index needs to know about one cohort."""

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
    ratings: tuple[Rating, ...] = ()
    """Which repeat is the better one, the first rating first; they come before `prefer` and the number of the run."""
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
        for rating in self.ratings:
            if rating.table not in self.tables:
                raise ValueError(f"ratings: no table '{rating.table}' among {sorted(self.tables)}")
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
