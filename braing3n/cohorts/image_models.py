"""How a definition declares images: layouts as regular expressions over paths, entry states, modality rules."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from braing3n.cohorts.template import parts_of
from braing3n.config.base import Settings

Modality = Literal["T1", "T2", "FLAIR", "T1c"]


def compiles(pattern: str) -> str:
    """The pattern itself, if it is a regular expression."""
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

    _match = field_validator("match")(compiles)


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
        return {compiles(pattern): result for pattern, result in value.items() if result is not None}


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

    _pattern = field_validator("pattern")(compiles)

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

    _match = field_validator("match")(compiles)
