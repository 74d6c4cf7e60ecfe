"""What an index of one folder would keep, leave out and not know, before anything is written."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from braing3n.cohorts.bids_layout import bids_defaults
from braing3n.cohorts.candidates import match_all
from braing3n.cohorts.definition import CohortDefinition, known_cohorts, load_definition
from braing3n.cohorts.duplicates import FOR_ANOTHER, OF_ANOTHER
from braing3n.cohorts.scan import Scan, assemble
from braing3n.cohorts.schema import CLINICAL
from braing3n.cohorts.walk import Found, walk
from braing3n.errors import BrainG3NError

EXAMPLES = 10
BIDS = "a BIDS dataset (`layout: bids`, docs/cohorts.md)"
_UNKNOWN = ("no image pattern", "modality not recognised")


@dataclass
class Check:
    """Verdict on a folder.

    `kept`: paths to keep; `left_out` and `failed`: reason -> paths; `unknown`: images that no pattern or rule knows;
    `scan`: the index rows, absent if there would be none; `error`: why not. Where no image matches, `above` is a folder
    above from which on images would match, and `looks_like` which other definitions match images here -> how many.
    """

    found: int
    kept: list[str] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    failed: dict[str, list[str]] = field(default_factory=dict)
    unknown: dict[str, list[str]] = field(default_factory=dict)
    scan: Scan | None = None
    error: BrainG3NError | None = None
    above: Path | None = None
    looks_like: dict[str, int] = field(default_factory=dict)


def check_folder(definition: CohortDefinition, root: str | Path) -> Check:
    """Try `definition` on `root`.

    Raises:
        BrainG3NError: `root` is not a folder.
    """
    root = Path(root)
    found = walk(root)
    check = Check(len(found))
    try:
        check.scan = assemble(definition, root, found)
        ledger = check.scan.ledger
    except BrainG3NError as error:
        check.error = error
        ledger = _by_patterns_alone(definition, found)
    check.kept = sorted(ledger.loc[ledger["status"] == "kept", "path"])
    for line in ledger[ledger["status"] != "kept"].itertuples():
        reason = _kind_of_reason(line.reason)
        kind = check.unknown if reason.startswith(_UNKNOWN) else check.left_out
        kind = check.failed if line.status == "failed" else kind
        kind.setdefault(reason, []).append(line.path)
    if not check.kept:
        check.above = _folder_above(definition, root, found)
        check.looks_like = _other_cohorts(definition, found)
    return check


def _kind_of_reason(reason: str) -> str:
    """Reasons that name other files are one kind of reason."""
    if reason.startswith(("repeat", OF_ANOTHER, FOR_ANOTHER)):
        return reason.split(": ")[0]
    return "same content as another image" if reason.startswith("same content") else reason


def _folder_above(definition: CohortDefinition, root: Path, found: list[Found]) -> Path | None:
    """The nearest of three folders above `root` whose name the patterns need."""
    root = root.resolve()
    for folder in root.parents[:3]:
        prefix = f"{root.relative_to(folder).as_posix()}/"
        if match_all(definition, [replace(item, first=prefix + item.first) for item in found])[0]:
            return folder
    return None


def _other_cohorts(definition: CohortDefinition, found: list[Found]) -> dict[str, int]:
    """Other definitions, most matches first, and any BIDS dataset after them."""
    others = [load_definition(name) for name in known_cohorts() if name != definition.name]
    counts = sorted(((other.name, len(match_all(other, found)[0])) for other in others), key=lambda item: -item[1])
    own = {"name": BIDS, "title": BIDS, "prefix": "BIDS", "licence": {"name": "its own", "access": "its own"}}
    bids = CohortDefinition.model_validate(bids_defaults() | own)
    return {name: n for name, n in [*counts, (BIDS, len(match_all(bids, found)[0]))] if n}


def _by_patterns_alone(definition: CohortDefinition, found: list[Found]) -> pd.DataFrame:
    candidates, verdicts = match_all(definition, found)
    rows = [(c.found.path, "kept", "") for c in candidates] + [(v.found.path, v.status, v.reason) for v in verdicts]
    return pd.DataFrame(rows, columns=["path", "status", "reason"])


def describe(definition: CohortDefinition, root: str | Path, check: Check) -> str:
    """The verdict as text for a terminal: counts, reasons, and the first examples of each."""
    lines = [f"{definition.name}: {definition.title}", f"{root}: {check.found} files and series found", ""]
    if check.error is not None:
        lines += [f"error: {check.error}", ""]
    lines += _section("would be kept", {"": check.kept})
    lines += _section("left out", check.left_out)
    lines += _section("failed", check.failed)
    lines += _section("unknown (images that nothing in the definition speaks of)", check.unknown)
    if check.scan is not None:
        lines += _clinical(definition, check.scan)
    if not check.kept:
        lines += ["Images of this cohort look like this below the folder:"]
        lines += [f"  {pattern.example}  ({pattern.name})" for pattern in definition.images]
        lines += [""]
        lines += [f"They do from a folder above on: try --root {check.above}"] if check.above else []
        lines += [f"The folder looks like {name}: {n} images" for name, n in check.looks_like.items()]
        if not (check.above or check.looks_like):
            lines += ["No other definition knows these images either; docs/cohorts.md shows how to write one."]
        lines += [""]
    for title, items in (("unconfirmed", definition.unconfirmed), ("notes", definition.notes)):
        lines += [f"{title}:", *(f"  - {item}" for item in items), ""] if items else []
    return "\n".join(lines).rstrip()


def _section(title: str, groups: dict[str, list[str]]) -> list[str]:
    total = sum(len(paths) for paths in groups.values())
    lines = [f"{title}: {total}"]
    for reason, paths in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0])):
        if reason:
            lines.append(f"  {len(paths)} x {reason}")
        lines += [f"    {path}" for path in paths[:EXAMPLES]]
        lines += [f"    ... and {len(paths) - EXAMPLES} more"] if len(paths) > EXAMPLES else []
    return [*lines, ""]


def _clinical(definition: CohortDefinition, scan: Scan) -> list[str]:
    """How much is known, in numbers that a person can hold against the cohort's own publication."""
    rows = scan.rows
    counts = f"{len(rows)} volumes of {rows['subject_id'].nunique()} subjects"
    if definition.paper is not None:
        counts += f" (paper: {definition.paper.volumes} of {definition.paper.subjects})"
    lines = ["clinical columns: " + counts]
    for name in CLINICAL:
        values = rows[name].dropna()
        if name in ("session_date", "age_source", "age_is_binned") or values.empty:
            continue
        lines.append(f"  {name}: {len(values)} known, {_spread(values)}")
    unknown = [name for name in CLINICAL if rows[name].isna().all()]
    lines += [f"  unknown for all: {', '.join(unknown)}"] if unknown else []
    return [*lines, *(f"  note: {note}" for note in scan.notes), ""]


def _spread(values: pd.Series) -> str:
    if pd.api.types.is_numeric_dtype(values):
        return f"{values.min():g} to {values.max():g}, median {values.median():g}"
    counts: Iterable = values.value_counts().head(6).items()
    return ", ".join(f"{value} {count}" for value, count in counts)
