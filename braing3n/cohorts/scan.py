"""One cohort, from its folder to index rows and the ledger of every file found."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from braing3n.cohorts.candidates import Candidate, Verdict, check_headers, choose, match_all
from braing3n.cohorts.definition import CohortDefinition, person_of
from braing3n.cohorts.duplicates import FOR_ANOTHER, OF_ANOTHER, drop_duplicates
from braing3n.cohorts.fields import harmonise
from braing3n.cohorts.identity import labels
from braing3n.cohorts.ratings import rate
from braing3n.cohorts.schema import CLINICAL, LEDGER_COLUMNS
from braing3n.cohorts.tables import KEY, is_missing, load_tables
from braing3n.cohorts.template import fill
from braing3n.cohorts.walk import Found, walk
from braing3n.errors import BrainG3NError
from braing3n.files import short_hash


@dataclass
class Scan:
    """`rows`: index columns but `split` and `shard`, sorted; `ledger`: LEDGER_COLUMNS; `notes`: for a person."""

    rows: pd.DataFrame
    ledger: pd.DataFrame
    notes: list[str] = field(default_factory=list)


def scan_cohort(definition: CohortDefinition, root: str | Path) -> Scan:
    """Scan `root` by `definition`.

    Raises:
        BrainG3NError: the folder is missing or empty, no image pattern matches, or a clinical table is not as declared.
    """
    root = Path(root)
    try:
        found = walk(root)
    except BrainG3NError as error:
        raise _nothing(definition, root, error.problem) from None
    return assemble(definition, root, found)


def assemble(definition: CohortDefinition, root: Path, found: list[Found]) -> Scan:
    """Index rows and ledger of what was found; the order of `found` makes no difference."""
    found = sorted(found, key=lambda item: item.path)
    candidates, verdicts = match_all(definition, found)
    if not candidates:
        raise _nothing(definition, root, _closest(found, verdicts))
    paths = {item.path for item in found}
    for stage in (
        lambda remaining: check_headers(root, remaining, paths),
        lambda remaining: drop_duplicates(root, remaining),
        lambda remaining: choose(definition, rate(definition, root, remaining, paths)),
    ):
        candidates, left_out = stage(candidates)
        verdicts += left_out
    harmonised = harmonise(definition, root, candidates, sorted(paths))
    verdicts = [
        replace(v, reason="clinical table, read") if v.found.path in harmonised.tables_read else v for v in verdicts
    ]
    verdicts += [Verdict(candidates[i].found, "excluded", reason) for i, reason in harmonised.excluded.items()]
    kept = [i for i in range(len(candidates)) if i not in harmonised.excluded]
    identities = _identities(definition, root, [candidates[i] for i in kept], found)
    clinical = harmonised.columns.iloc[kept].reset_index(drop=True)
    rows = pd.concat([identities, clinical], axis=1).assign(licence=definition.licence.name)
    notes = [*harmonised.notes, *_unknown_notes(definition, rows), *_duplicate_notes(verdicts)]
    return Scan(rows, _ledger(definition, rows, verdicts), notes)


def _identities(
    definition: CohortDefinition, root: Path, candidates: list[Candidate], found: list[Found]
) -> pd.DataFrame:
    """Identity, source, entry state and label columns of the kept candidates, in their order."""
    persons = _persons(definition, root, candidates, found)
    subjects = labels({c.subject for c in candidates}, definition.prefix)
    sessions_of: dict[str, set[str]] = defaultdict(set)
    for candidate in candidates:
        sessions_of[candidate.subject].add(candidate.session)
    sessions = {subject: labels(names) for subject, names in sessions_of.items()}
    paths = {item.path for item in found}
    rows = []
    for candidate in candidates:
        item, entry = candidate.found, candidate.entry
        mask = fill(candidate.pattern.mask, candidate.groups) if candidate.pattern.mask else None
        series = (item.series_uid,) if item.series_uid else ()
        rows.append(
            {
                "volume_id": short_hash(definition.name, item.path, *series),
                "cohort": definition.name,
                "subject_id": f"{definition.name}:{candidate.subject}",
                "person_id": persons[candidate.subject],
                "session_id": candidate.session,
                "run": candidate.run,
                "modality": candidate.modality,
                "source_path": item.path,
                "source_format": item.kind,
                "source_series": item.series_uid,
                "source_bytes": item.n_bytes,
                "mask_path": mask if mask in paths else None,
                "source_variant": candidate.variant,
                "entry_stripped": entry.stripped,
                "entry_bias_corrected": entry.bias_corrected,
                "entry_defaced": entry.defaced,
                "entry_space": entry.space,
                "entry_axes": entry.axes,
                "shares_grid": entry.shares_grid,
                "bids_subject": subjects[candidate.subject],
                "bids_session": sessions[candidate.subject][candidate.session],
            }
        )
    return pd.DataFrame(rows)


def _persons(
    definition: CohortDefinition, root: Path, candidates: list[Candidate], found: list[Found]
) -> dict[str, str]:
    """Subject -> person_id; with a family table at hand, relatives share one, so that no split parts them."""
    subjects = {candidate.subject for candidate in candidates}
    persons = {subject: person_of(definition, subject) for subject in subjects}
    family = definition.persons.family
    if family is not None:
        only = definition.model_copy(update={"tables": {family.table: definition.tables[family.table]}, "fields": {}})
        tables, _ = load_tables(only, root, [item.path for item in found])
        if family.table in tables:
            table = tables[family.table]
            known = table.rows[~is_missing(table.rows[family.column], table.missing)]
            of = dict(zip(known[KEY], known[family.column], strict=True))
            persons |= {s: f"{definition.name}:family:{of[s]}" for s in subjects if s in of}
    return persons


def _ledger(definition: CohortDefinition, rows: pd.DataFrame, verdicts: list[Verdict]) -> pd.DataFrame:
    """One line for everything found: kept rows and verdicts."""
    kept = pd.DataFrame(
        {"path": rows["source_path"], "status": "kept", "reason": "", "volume_id": rows["volume_id"]}
        if len(rows)
        else {"path": [], "status": [], "reason": [], "volume_id": []}
    )
    left_out = pd.DataFrame(
        [(v.found.path, v.status, v.reason, None) for v in verdicts], columns=["path", "status", "reason", "volume_id"]
    )
    ledger = pd.concat([kept, left_out], ignore_index=True).assign(cohort=definition.name)
    ledger = ledger.sort_values(["path", "volume_id", "reason"], kind="stable", ignore_index=True)
    return ledger.reindex(columns=list(LEDGER_COLUMNS)).astype("str")


def _unknown_notes(definition: CohortDefinition, rows: pd.DataFrame) -> list[str]:
    unknown = [name for name in CLINICAL if name in definition.fields and len(rows) and rows[name].isna().all()]
    return [f"no image has a value for: {', '.join(unknown)}"] if unknown else []


def _duplicate_notes(verdicts: list[Verdict]) -> list[str]:
    """Images under several names, for a person to settle."""
    torn = sorted({v.reason for v in verdicts if v.reason.startswith((OF_ANOTHER, FOR_ANOTHER))})
    return [f"left out, since nobody can tell whose it is: {reason}" for reason in torn]


def _closest(found: list[Found], verdicts: list[Verdict]) -> str:
    if not found:
        return "the cohort's folder is empty"
    reasons = defaultdict(list)
    for verdict in verdicts:
        reasons[verdict.reason].append(verdict.found.first)
    most = max(reasons, key=lambda reason: len(reasons[reason]))
    examples = ", ".join(reasons[most][:3])
    return f"no image of the cohort among {len(found)} entries; most are left out as '{most}', such as {examples}"


def _nothing(definition: CohortDefinition, root: Path, problem: str) -> BrainG3NError:
    return BrainG3NError(
        problem,
        file=root,
        expected=f"{definition.name} as downloaded, for example "
        + " or ".join(p.example for p in definition.images[:2]),
        remedy=f"point cohorts.{definition.name}.root at the folder that holds these; "
        f"`braing3n cohorts check {definition.name} --root DIR` shows what is found",
    )
