"""Quality-control tables of a cohort that say which of several repeats is the better one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from braing3n.cohorts.candidates import Candidate
from braing3n.cohorts.definition import CohortDefinition
from braing3n.cohorts.table_models import Rating
from braing3n.cohorts.tables import FILE, KEY, LoadedTable, canonical, is_missing, load_tables, require_columns
from braing3n.cohorts.template import fill
from braing3n.errors import BrainG3NError


def rate(definition: CohortDefinition, root: Path, candidates: list[Candidate], paths: set[str]) -> list[Candidate]:
    """Candidates whose rank heeds the definition's ratings: after layout and variant, before every other preference.

    Raises:
        BrainG3NError: a table holds a value that the rating does not know.
    """
    names = {rating.table for rating in definition.ratings}
    if not names:
        return candidates
    only = {name: table for name, table in definition.tables.items() if name in names}
    tables, _ = load_tables(definition.model_copy(update={"tables": only, "fields": {}}), root, paths)
    places = [_places(rating, tables[rating.table]) for rating in definition.ratings if rating.table in tables]
    return [
        replace(c, rank=(*c.rank[:2], *(_place(c, table, of, unrated) for table, of, unrated in places), *c.rank[2:]))
        for c in candidates
    ]


def _places(rating: Rating, table: LoadedTable) -> tuple[LoadedTable, dict[str, int], int]:
    """The table, its key -> place in the rating's order, and the place of what is not rated."""
    require_columns(table.rows, (rating.column,), ", ".join(table.files[:2]))
    order = [canonical(value) for value in rating.order]
    values = table.rows[rating.column].map(canonical).mask(is_missing(table.rows[rating.column], table.missing), "")
    unknown = sorted(set(values) - set(order))
    if unknown:
        raise BrainG3NError(
            "unknown values in a rating",
            file=f"{', '.join(sorted(set(table.rows[FILE][values.isin(unknown)]))[:2])}: column '{rating.column}'",
            expected=", ".join(repr(value) for value in rating.order),
            found=", ".join(repr(value) for value in unknown[:10]),
            remedy="put them into the rating's order in the cohort's definition",
        )
    return table, dict(zip(table.rows[KEY], values.map(order.index), strict=True)), order.index("")


def _place(candidate: Candidate, table: LoadedTable, places: dict[str, int], unrated: int) -> int:
    return places.get(fill(table.definition.match, candidate.groups | {"subject": candidate.subject}), unrated)
