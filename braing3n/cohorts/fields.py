"""Harmonised clinical columns of the kept images, from the sources that a cohort's definition names."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from braing3n.cohorts.candidates import Candidate
from braing3n.cohorts.definition import FIELDS, CohortDefinition
from braing3n.cohorts.derive import DAYS_PER_YEAR, DERIVATIONS, UnknownValueError
from braing3n.cohorts.schema import CLINICAL, INDEX_COLUMNS, Column
from braing3n.cohorts.table_models import Condition, Cut, FieldSource
from braing3n.cohorts.tables import (
    ALWAYS_MISSING,
    DATE,
    FILE,
    KEY,
    LoadedTable,
    canonical,
    is_missing,
    load_tables,
    require_columns,
)
from braing3n.cohorts.template import fill
from braing3n.errors import BrainG3NError

_VENDORS = {"siemens": "Siemens", "ge": "GE", "general electric": "GE", "philips": "Philips"}
_FIELD_STRENGTHS = np.array([0.35, 0.5, 1.0, 1.5, 3.0, 4.0, 4.7, 7.0, 9.4])


@dataclass
class Harmonised:
    """`columns`: the clinical columns, one row an image; `excluded`: position -> reason; `notes`: for a person;
    `tables_read`: paths of the clinical tables."""

    columns: pd.DataFrame
    excluded: dict[int, str]
    notes: list[str]
    tables_read: set[str]


def harmonise(definition: CohortDefinition, root: Path, candidates: list[Candidate], paths: list[str]) -> Harmonised:
    """Clinical columns of `candidates`, in their order.

    Args:
        paths: what lies under `root`, relative to it: where the clinical tables are looked for.

    Raises:
        BrainG3NError: a table lacks a column or holds a code that the definition does not know.
    """
    tables, notes = load_tables(definition, root, paths)
    return _Harmoniser(definition, tables, candidates, notes).run()


class _Harmoniser:
    """Holds what the fields share: the images as a table, the loaded clinical tables, the columns so far."""

    def __init__(
        self,
        definition: CohortDefinition,
        tables: dict[str, LoadedTable],
        candidates: list[Candidate],
        notes: list[str],
    ):
        self.definition, self.tables, self.notes = definition, tables, notes
        self.candidates = candidates
        self.images = pd.DataFrame(
            {
                "subject": pd.Series([c.subject for c in candidates], dtype="str"),
                "session": pd.Series([c.session for c in candidates], dtype="str"),
                "date": pd.to_datetime(pd.Series([c.date for c in candidates], dtype="str")).astype("datetime64[s]"),
                "path": pd.Series([c.found.first for c in candidates], dtype="str"),
            }
        )
        self.columns = pd.DataFrame(index=self.images.index)
        self.excluded: dict[int, str] = {}
        self.delta = self._nothing(numeric=True)

    def run(self) -> Harmonised:
        # The site names lookups and the age decides on other fields, so these two come first.
        for name in sorted(FIELDS, key=lambda field: {"site": 0, "age_at_scan": 1}.get(field, 2)):
            self._field(name)
        self.columns["session_date"] = pd.Series([c.date for c in self.candidates], dtype="str")
        self.columns["score_date_delta_days"] = self.delta
        dtypes = {name: INDEX_COLUMNS[name].dtype for name in CLINICAL}
        columns = self.columns.reindex(columns=list(CLINICAL)).astype(dtypes)
        tables_read = {file for table in self.tables.values() for file in table.files}
        return Harmonised(columns, self.excluded, self.notes, tables_read)

    def _field(self, name: str) -> None:
        """Evaluate a field's sources in order; a later one fills what the earlier ones left open."""
        numeric = INDEX_COLUMNS[name].dtype == "float64"
        result = self._nothing(numeric)
        is_age = name == "age_at_scan"
        if is_age:
            self.columns["age_source"] = pd.Series(None, index=self.images.index, dtype="object")
            self.columns["age_is_binned"] = pd.Series(pd.NA, index=self.images.index, dtype="boolean")
        for source in self.definition.fields.get(name, ()):
            values, delta = self._values(name, source, numeric)
            if source.when is not None:
                values = values.where(self._holds(source.when))
            new = result.isna() & values.notna()
            result = result.where(~new, values)
            farther = new & delta.notna() & ~(delta.abs() <= self.delta.abs())
            self.delta = self.delta.where(~farther, delta)
            if is_age:
                self.columns.loc[new, "age_source"] = source.source or "reported"
                self.columns.loc[new, "age_is_binned"] = source.binned
        if name == "vendor":
            result = result.map(_vendor, na_action="ignore")
        if name == "field_strength":
            result = result.map(_field_strength, na_action="ignore")
        self.columns[name] = result

    def _values(self, name: str, source: FieldSource, numeric: bool) -> tuple[pd.Series, pd.Series]:
        """One source's values, decoded, and the days from the scan to the visit that each stems from."""
        if source.table is not None:
            return self._from_table(name, source, numeric)
        if source.constant is not None:
            values = pd.Series(source.constant, index=self.images.index, dtype="float64" if numeric else "object")
        elif source.lookup is not None:
            values = self._looked_up(name, source)
        elif source.group is not None:
            raw = pd.Series([c.groups.get(source.group, "") for c in self.candidates], dtype="object")
            where = f"group '{source.group}' of the path"
            values = self._decode(name, source, raw, numeric, ALWAYS_MISSING, where, self.images["path"])
        else:
            raw = pd.Series([getattr(c.header, source.header) for c in self.candidates], dtype="object").fillna("")
            where = f"'{source.header}' of header or sidecar"
            values = self._decode(name, source, raw.astype(str), numeric, ALWAYS_MISSING, where, self.images["path"])
        return values, self._nothing(numeric=True)

    def _nothing(self, numeric: bool) -> pd.Series:
        return pd.Series(np.nan if numeric else None, index=self.images.index, dtype="float64" if numeric else "object")

    def _looked_up(self, name: str, source: FieldSource) -> pd.Series:
        table, aliases = self.definition.lookups[source.lookup], self.definition.aliases
        keys = self.columns[source.by]
        unknown = sorted({str(key) for key in keys.dropna() if aliases.get(key, key) not in table})
        if unknown:
            raise BrainG3NError(
                f"'{source.by}' has values that lookup '{source.lookup}' does not know",
                file=f"definition of {self.definition.name}",
                expected=", ".join(table),
                found=", ".join(unknown),
                remedy="add them to the lookup or to aliases in the cohort's definition",
            )
        return keys.map(lambda key: table[aliases.get(key, key)].get(name), na_action="ignore")

    def _from_table(self, name: str, source: FieldSource, numeric: bool) -> tuple[pd.Series, pd.Series]:
        table = self.tables.get(source.table)
        present = [column for column in source.columns if table is not None and column in table.rows.columns]
        enough = bool(present) if source.derive is None else len(present) == len(source.columns)
        if table is None or (source.optional and not enough):
            return self._nothing(numeric), self._nothing(numeric=True)
        columns = source.columns if source.derive is not None else tuple(present[:1]) or source.columns
        file = ", ".join(sorted(set(table.rows[FILE]))[:2]) or source.table
        require_columns(table.rows, columns, file)
        missing = table.missing | frozenset(map(canonical, source.missing))
        if source.derive is None and len(present) > 1:
            table = _coalesced(table, present, missing)
        if source.derive is None:
            # The whole column is checked, not only the rows that some image needs: a code that nobody knows means that
            # the table is not what the definition takes it for.
            self._decode(
                name, source, table.rows[columns[0]], numeric, missing, f"column '{columns[0]}'", table.rows[FILE]
            )
        joined, delta = self._join(table, columns, missing)
        if source.derive is not None:
            return self._derived(source, joined, missing, file), delta
        raw = joined[columns[0]].fillna("")
        self._note_exclusions(source, raw)
        values = self._decode(name, source, raw, numeric, missing, f"column '{columns[0]}'")
        if source.advance:
            return values - delta.fillna(0) / DAYS_PER_YEAR, self._nothing(numeric=True)
        return values, delta

    def _derived(self, source: FieldSource, joined: pd.DataFrame, missing: frozenset[str], file: str) -> pd.Series:
        try:
            return DERIVATIONS[source.derive](joined, self.images, missing, **source.args)
        except UnknownValueError as error:
            raise BrainG3NError(
                error.problem,
                file=f"{file}: column '{error.column}'",
                expected=error.expected,
                found=error.found,
                remedy=f"look the values up; `{source.derive}` reads them for the definition of {self.definition.name}",
            ) from error

    def _join(
        self, table: LoadedTable, columns: tuple[str, ...], missing: frozenset[str]
    ) -> tuple[pd.DataFrame, pd.Series]:
        """Each image's row of `table` (text columns, NaN without a row) and the days from scan to visit."""
        rows, definition = table.rows, table.definition
        parts = [c.groups | {"subject": c.subject, "session": c.session} for c in self.candidates]
        keys = pd.Series([fill(definition.match, part) for part in parts], dtype="str")
        if definition.within_days is None:
            joined = rows.set_index(KEY)[list(columns)].reindex(keys)
            return joined.set_axis(self.images.index), pd.Series(np.nan, index=self.images.index)
        if self.images["date"].isna().all():
            self._note(f"table '{table.name}' is joined by date, but no pattern finds a date in a path (group 'date')")
        # Visits without an answer must not hide a near visit with one.
        answered = ~np.logical_and.reduce([is_missing(rows[column], missing) for column in columns])
        visits = rows[answered & rows[DATE].notna()].drop_duplicates([KEY, DATE]).sort_values(DATE, kind="stable")
        left = pd.DataFrame({KEY: keys, DATE: self.images["date"], "row": self.images.index}).dropna(subset=[DATE])
        merged = pd.merge_asof(
            left.sort_values(DATE, kind="stable"),
            visits[[KEY, DATE, *columns]].assign(visit=visits[DATE]),
            on=DATE,
            by=KEY,
            direction="nearest",
            tolerance=pd.Timedelta(days=definition.within_days),
        ).set_index("row")
        delta = (merged["visit"] - merged[DATE]).dt.days.astype("float64")
        return merged[list(columns)].reindex(self.images.index), delta.reindex(self.images.index)

    def _decode(
        self,
        name: str,
        source: FieldSource,
        raw: pd.Series,
        numeric: bool,
        missing: frozenset[str],
        where: str,
        files: pd.Series | None = None,
    ) -> pd.Series:
        """Text -> harmonised values; decides each distinct text once. `files` says which file each text stands in."""
        codes = {canonical(code): value for code, value in (source.codes or {}).items()}
        decided, unknown = {}, []
        for text in raw.unique():
            try:
                decided[text] = _decide(text, source, codes, numeric, missing, INDEX_COLUMNS[name])
            except ValueError:
                unknown.append(text)
        if unknown:
            known = ", ".join(f"{code!r}" for code in [*(source.codes or {}), *source.pattern_codes, *source.exclude])
            limits, steps = source.range or INDEX_COLUMNS[name].range, INDEX_COLUMNS[name].steps
            numbers = ", ".join(f"{step:g}" for step in steps) if steps else None
            if files is not None:
                where = f"{', '.join(sorted(set(files[raw.isin(unknown)]))[:3])}: {where}"
            raise BrainG3NError(
                f"unknown values for '{name}'",
                file=where,
                expected=known or numbers or f"numbers{f' from {limits[0]:g} to {limits[1]:g}' if limits else ''}",
                found=", ".join(repr(text) for text in sorted(unknown)[:10]),
                remedy=f"look the codes up and add them to fields.{name} of the definition of {self.definition.name}",
            )
        return raw.map(decided).astype("float64" if numeric else "object")

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def _note_exclusions(self, source: FieldSource, raw: pd.Series) -> None:
        reasons = {canonical(code): reason for code, reason in source.exclude.items()}
        for position, text in enumerate(raw.map(canonical)):
            if text in reasons:
                self.excluded.setdefault(position, reasons[text])

    def _holds(self, condition: Condition) -> pd.Series:
        values = self.images["session"] if condition.field == "session_id" else self.columns[condition.field]
        result = pd.Series(True, index=values.index)
        if condition.values is not None:
            result &= values.isin(condition.values)
        if condition.below is not None:
            result &= values < condition.below
        if condition.at_least is not None:
            result &= values >= condition.at_least
        return result


def _coalesced(table: LoadedTable, columns: list[str], missing: frozenset[str]) -> LoadedTable:
    """The first column takes the others' values in rows where it has none: files of one table may name it otherwise."""
    first = table.rows[columns[0]]
    for column in columns[1:]:
        first = first.where(~is_missing(first, missing), table.rows[column])
    return replace(table, rows=table.rows.assign(**{columns[0]: first}))


def _decide(
    text: str,
    source: FieldSource,
    codes: dict[str, str | None],
    numeric: bool,
    missing: frozenset[str],
    column: Column,
):
    """Harmonised value of one text, None for a missing one; ValueError if nobody knows what it means."""
    code = canonical(text)
    if code in codes:
        value = codes[code]
        return float(value) if numeric and value is not None else value
    if code in missing or code in {canonical(excluded) for excluded in source.exclude}:
        return None
    for expression, value in source.pattern_codes.items():
        if re.search(expression, text):
            return float(value) if numeric and value is not None else value
    if source.cut is not None:
        return _cut(float(text), source.cut)
    if source.codes is not None or source.pattern_codes:
        raise ValueError(text)
    if not numeric:
        return text.strip()
    number = float(text)
    low, high = source.range or column.range or (-np.inf, np.inf)
    if not low <= number <= high and source.out_of_range == "missing":
        return None
    if not low <= number <= high or (column.steps and number not in column.steps):
        raise ValueError(text)
    return number


def _cut(number: float, cut: Cut) -> str:
    """Class of a number; a number on the lowest cut belongs below it, one on any other cut above it."""
    if number <= cut.at[0]:
        return cut.labels[0]
    return cut.labels[sum(number >= edge for edge in cut.at[1:]) + 1]


def _vendor(text: str) -> str:
    """One spelling a manufacturer; others stay as they are written."""
    folded = text.strip().casefold()
    return next((name for start, name in _VENDORS.items() if re.match(rf"{start}\b", folded)), text.strip())


def _field_strength(tesla: float) -> float:
    """Nominal field strength: scanners report 2.89 or 1.494, and some give gauss."""
    tesla = tesla / 1e4 if tesla > 100 else tesla
    nominal = _FIELD_STRENGTHS[np.abs(_FIELD_STRENGTHS - tesla).argmin()]
    return float(nominal) if abs(nominal - tesla) <= 0.1 * nominal else float(tesla)
