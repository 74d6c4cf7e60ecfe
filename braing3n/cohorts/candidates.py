"""From what lies under the root to the images that are kept: patterns, headers, choice among repeats."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Container, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Literal

from braing3n.cohorts.definition import CohortDefinition
from braing3n.cohorts.headers import Header, HeaderError, read_header, split_series, with_sidecar
from braing3n.cohorts.image_models import Entry, ImagePattern, ModalityRules, Require
from braing3n.cohorts.template import fill
from braing3n.cohorts.walk import Found

_IMAGE_KINDS = ("nifti", "mgz", "analyze", "dicom")
READING_THREADS = 8  # opening files over a network is waiting, not computing
_HEADER_BATCH = 32


@dataclass(frozen=True)
class Verdict:
    """Where one entry ends in the ledger, unless it is kept."""

    found: Found
    status: Literal["excluded", "failed"]
    reason: str


@dataclass(frozen=True)
class Candidate:
    """An image that a pattern claims, with everything that its path and header tell."""

    found: Found
    subject: str
    session: str
    date: str | None  # ISO
    modality: str
    pattern: ImagePattern
    variant: str
    entry: Entry
    rank: tuple
    groups: dict[str, str] = field(hash=False)
    header: Header = field(default_factory=Header)
    run: int = 1


def match_all(definition: CohortDefinition, found: Iterable[Found]) -> tuple[list[Candidate], list[Verdict]]:
    """Sort entries into candidates and verdicts by the definition's patterns alone."""
    matcher = _Matcher(definition)
    candidates, verdicts = [], []
    for item in found:
        result = matcher(item)
        (candidates if isinstance(result, Candidate) else verdicts).append(result)
    return candidates, verdicts


class _Matcher:
    """The definition's regular expressions, compiled once."""

    def __init__(self, definition: CohortDefinition):
        self.definition = definition
        self.patterns = [(re.compile(p.pattern), p) for p in definition.images]
        self.excluded = [(re.compile(rule.match), rule.reason) for rule in definition.exclude]

    def __call__(self, found: Found) -> Candidate | Verdict:
        if found.kind == "broken":
            nowhere = "link points nowhere: fetch the file or remove the link"
            return Verdict(found, "failed", found.complaint or nowhere)
        if found.kind == "hidden":
            return Verdict(found, "excluded", "hidden file")
        for expression, reason in self.excluded:
            if expression.search(found.first):
                return Verdict(found, "excluded", reason)
        if found.kind not in _IMAGE_KINDS:
            return Verdict(found, "excluded", "not an image")
        for index, (expression, pattern) in enumerate(self.patterns):
            match = expression.search(found.first) if pattern.format == found.kind else None
            if match:
                return self._candidate(found, match, pattern, index)
        return Verdict(found, "excluded", f"no image pattern of {self.definition.name} matches")

    def _candidate(self, found: Found, match: re.Match, pattern: ImagePattern, index: int) -> Candidate | Verdict:
        groups = {name: value or "" for name, value in match.groupdict().items()} | {"path": found.first}
        modality = _modality(pattern, groups)
        if isinstance(modality, tuple):
            return Verdict(found, "excluded", modality[0])
        if found.complaint:
            return Verdict(found, "failed", found.complaint)
        has_session = "session" in groups or pattern.session != "{session}"
        session = fill(pattern.session, groups) if has_session else ""
        date = _iso_date(fill(pattern.date, {"date": "", **groups}))
        if date is None and groups.get("date"):
            return Verdict(found, "failed", f"'{groups['date']}' in its path is no date")
        run = fill(pattern.run, {"run": "", **groups})
        order, variant = _variant(pattern, found.first)
        entry = pattern.entry if variant is None else Entry.model_validate(pattern.entry.model_dump() | variant.entry)
        preference = next((i for i, p in enumerate(pattern.prefer) if re.search(p, found.first)), len(pattern.prefer))
        return Candidate(
            found=found,
            subject=fill(pattern.subject, groups),
            session=pattern.session_names.get(session, session) or pattern.default_session,
            date=date,
            modality=modality,
            pattern=pattern,
            variant=pattern.name if variant is None else f"{pattern.name}: {variant.name}",
            entry=entry,
            rank=(index, order, preference, int(run) if run.isdigit() else 0, found.first),
            groups=groups,
        )


def _modality(pattern: ImagePattern, groups: dict[str, str]) -> str | tuple[str]:
    """The modality, or in a tuple the reason why there is none for us."""
    if not isinstance(pattern.modality, ModalityRules):
        return pattern.modality
    text = groups[pattern.modality.group]
    for expression, reason in pattern.modality.exclude.items():
        if re.search(expression, text):
            return (reason,)
    for expression, modality in pattern.modality.rules.items():
        if re.search(expression, text):
            return modality
    return (f"modality not recognised in '{text}'",)


def _variant(pattern: ImagePattern, path: str):
    for order, variant in enumerate(pattern.variants):
        if re.search(variant.match, path):
            return order, variant
    return len(pattern.variants), None


def _iso_date(text: str) -> str | None:
    digits = re.sub(r"\D", "", text)
    try:
        return datetime.strptime(digits, "%Y%m%d").date().isoformat() if digits else None
    except ValueError:
        return None


def check_headers(
    root: Path, candidates: list[Candidate], paths: Container[str]
) -> tuple[list[Candidate], list[Verdict]]:
    """Read every candidate's header; leave out what is not one 3D MR image, split folders of several series.

    Args:
        paths: what lies under `root`, where JSON sidecars are looked for.
    """

    def check(candidate: Candidate) -> list[Candidate | Verdict]:
        try:
            split = candidate.pattern.split_series and candidate.found.kind == "dicom"
            parts = split_series(root, candidate.found) if split else [candidate.found]
        except HeaderError as error:
            return [Verdict(candidate.found, "failed", str(error))]
        return [_checked(root, replace(candidate, found=part), paths) for part in parts]

    batches = [candidates[i : i + _HEADER_BATCH] for i in range(0, len(candidates), _HEADER_BATCH)]
    with ThreadPoolExecutor(READING_THREADS) as pool:
        checked = pool.map(lambda batch: [item for candidate in batch for item in check(candidate)], batches)
        results = [item for batch in checked for item in batch]
    return [r for r in results if isinstance(r, Candidate)], [r for r in results if isinstance(r, Verdict)]


def _checked(root: Path, candidate: Candidate, paths: Container[str]) -> Candidate | Verdict:
    sidecar = re.sub(r"\.nii(?:\.gz)?$", ".json", candidate.found.first)
    try:
        header = read_header(root, candidate.found)
        if sidecar != candidate.found.first and sidecar in paths:
            header = with_sidecar(header, root / sidecar)
    except HeaderError as error:
        return Verdict(candidate.found, "failed", str(error))
    reason = _not_wanted(header, candidate.pattern.require)
    if reason is not None:
        return Verdict(candidate.found, "excluded", reason)
    rank = (*candidate.rank, candidate.found.series_uid or "")
    return replace(candidate, header=header, rank=rank)


def _not_wanted(header: Header, require: Require) -> str | None:
    if header.n_volumes > 1:
        return f"4D series of {header.n_volumes} volumes"
    if header.dicom_modality not in (None, "MR"):
        return f"not MR but {header.dicom_modality}"
    if require.acquisition and header.acquisition not in (None, require.acquisition):
        return f"acquired {header.acquisition}, not {require.acquisition}"
    if require.min_slices and header.shape and min(header.shape) < require.min_slices:
        return f"{min(header.shape)} slices along one axis, fewer than {require.min_slices}"
    if require.max_spacing_mm and header.spacing and max(header.spacing) > require.max_spacing_mm:
        return f"slices {max(header.spacing):g} mm apart, more than {require.max_spacing_mm:g}"
    return None


def choose(definition: CohortDefinition, candidates: list[Candidate]) -> tuple[list[Candidate], list[Verdict]]:
    """One image per subject, session and modality, or with `repeats: all` the runs of the preferred layout."""
    groups: dict[tuple, list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        groups[candidate.subject, candidate.session, candidate.modality].append(candidate)
    kept, verdicts = [], []
    for group in groups.values():
        ranked = sorted(group, key=lambda candidate: candidate.rank)
        best = ranked[0]
        chosen = [c for c in ranked if c.rank[0] == best.rank[0]] if definition.repeats == "all" else [best]
        kept += [replace(candidate, run=number) for number, candidate in enumerate(chosen, start=1)]
        verdicts += [
            Verdict(c.found, "excluded", f"repeat: {best.found.path} ({best.variant}) is preferred")
            for c in ranked[len(chosen) :]
        ]
    return sorted(kept, key=lambda c: (c.subject, c.session, c.modality, c.run)), verdicts
