"""Clinical tables as they arrive -> text columns with one key a row, dated where the cohort gives dates."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, time
from functools import cache
from pathlib import Path

import pandas as pd

from braing3n.cohorts.definition import CohortDefinition
from braing3n.cohorts.headerless import read_headerless
from braing3n.cohorts.table_models import ClinicalTable
from braing3n.cohorts.template import fill, parts_of
from braing3n.errors import BrainG3NError

_XML_TAGS = ("subjectIdentifier", "researchGroup", "subjectSex", "subjectAge", "dateAcquired", "imageUID")
ALWAYS_MISSING = frozenset({"", "n/a"})
KEY, FILL_BY, DATE, FILE = "\x00key", "\x00fill", "\x00date", "\x00file"  # no file names a column so


@dataclass(frozen=True)
class LoadedTable:
    """`rows`: the table's columns as text, plus KEY, DATE (datetime64, NaT where unknown) and FILE (relative path)."""

    name: str
    definition: ClinicalTable
    files: tuple[str, ...]
    rows: pd.DataFrame
    missing: frozenset[str]


def canonical(value: str) -> str:
    """Text under which a code is compared: trimmed, case folded, numbers in one spelling (`1.0` is `1`)."""
    text = str(value).strip()
    try:
        return format(float(text), "g")
    except ValueError:
        return text.casefold()


def load_tables(
    definition: CohortDefinition, root: Path, paths: Iterable[str]
) -> tuple[dict[str, LoadedTable], list[str]]:
    """Read every table that is there.

    Args:
        paths: what lies under `root`, relative to it.

    Returns:
        The tables by name, and notes about what is missing or contradicts itself.
    """
    notes: list[str] = []
    loaded: dict[str, LoadedTable] = {}
    paths = sorted(paths)
    for name, table in definition.tables.items():
        files = table_files(table, paths)
        if not files and table.optional:
            continue
        if not files:
            fields = [f for f, sources in definition.fields.items() if any(s.table == name for s in sources)]
            notes.append(
                f"table '{name}': no file matches {' or '.join(table.files)}; it would give {', '.join(fields)}"
            )
            continue
        missing = frozenset(map(canonical, (*definition.missing, *table.missing))) | ALWAYS_MISSING
        loaded[name] = LoadedTable(name, table, tuple(files), _read(table, root, files), missing)
    for name, table in loaded.items():
        loaded[name] = replace(table, rows=_one_per_key(_dated(table, loaded), table, notes))
    return loaded, notes


def table_files(table: ClinicalTable, paths: list[str]) -> list[str]:
    """Files of a table: all that its globs match, or with `newest` the latest release of the first glob that does."""
    matches = [[path for path in paths if _glob_expression(p).fullmatch(path)] for p in table.files]
    if table.combine == "all":
        return sorted({path for files in matches for path in files})
    return next(([max(files, key=_release)] for files in matches if files), [])


def _release(path: str) -> tuple[str, str]:
    """Release date that a file name carries (`..._12Nov2024.csv`, `..._20241112`), then the name: newest sorts last."""
    name = path.rsplit("/", 1)[-1]
    for pattern, style in ((r"\d{1,2}[A-Z][a-z]{2}\d{4}", "%d%b%Y"), (r"(?<!\d)20\d{6}(?!\d)", "%Y%m%d")):
        if match := re.search(pattern, name):
            date = pd.to_datetime(match[0], format=style, errors="coerce")
            return ("" if pd.isna(date) else date.date().isoformat(), name)
    return "", name


@cache
def _glob_expression(pattern: str) -> re.Pattern:
    """Glob -> regular expression over POSIX paths, without regard to case: `**/` spans folders, `*` stays in one."""
    parts = re.split(r"(\*\*/|\*|\?)", pattern)
    translated = {"**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(translated.get(part, re.escape(part)) for part in parts), re.IGNORECASE)


def _read(table: ClinicalTable, root: Path, files: list[str]) -> pd.DataFrame:
    if table.format == "adni_xml":
        rows = pd.DataFrame([_adni_xml_row(root / file) for file in files], dtype=str).fillna("")
        return _keyed(table, rows, table.files[0])
    return pd.concat([_read_one(table, root, file) for file in files], ignore_index=True).fillna("")


def _read_one(table: ClinicalTable, root: Path, file: str) -> pd.DataFrame:
    """One file as text columns with its key; rows outside `extract` and `where` are left out."""
    if table.format == "headerless":
        rows = read_headerless(root / file, table.encoding)
    else:
        rows = _read_excel(root / file) if file.lower().endswith((".xls", ".xlsx")) else _read_text(table, root / file)
    rows.columns = [str(column).strip() for column in rows.columns]
    rows = rows.iloc[table.skip_rows :].reset_index(drop=True)
    if table.path is not None:
        match = re.search(table.path, file)
        for name, value in (match.groupdict() if match else {}).items():
            rows[name] = value or ""
    return _keyed(table, rows, file)


def _keyed(table: ClinicalTable, rows: pd.DataFrame, file: str) -> pd.DataFrame:
    """Copied, recoded, extracted and filtered columns, and KEY."""
    for column, original in table.copies.items():
        require_columns(rows, (original,), file)
        rows[column] = rows[original]
    for column, codes in table.recode.items():
        require_columns(rows, (column,), file)
        rows[column] = _recoded(rows[column], codes, file)
        rows = rows[rows[column].notna()].copy()
    for column, pattern in table.extract.items():
        require_columns(rows, (column,), file)
        parts = rows[column].str.strip().str.extract(pattern)
        rows = rows[parts.notna().any(axis=1)].copy()
        for name in parts.columns:
            rows[name] = parts[name].fillna("")
    for column, values in table.where.items():
        require_columns(rows, (column,), file)
        rows = rows[rows[column].map(canonical).isin([canonical(value) for value in values])]
    key = next((key for key in table.key if set(parts_of(key)) <= set(rows.columns)), table.key[0])
    require_columns(rows, parts_of(key), file)
    records = rows.to_dict("records")
    filled = [fill(table.fill_by or key, record) for record in records]
    return rows.assign(**{KEY: [fill(key, record) for record in records], FILL_BY: filled, FILE: file})


def _recoded(values: pd.Series, codes: dict[str, str | None], file: str) -> pd.Series:
    known = {canonical(code): text for code, text in codes.items()}
    unknown = sorted({value for value in values if canonical(value) not in known})
    if unknown:
        raise BrainG3NError(
            f"unknown values in column '{values.name}'",
            file=file,
            expected=", ".join(codes),
            found=", ".join(repr(value) for value in unknown[:10]),
            remedy="add them to the table's recode in the cohort's definition",
        )
    return values.map(lambda value: known[canonical(value)])


def require_columns(rows: pd.DataFrame, columns: tuple[str, ...], file: Path | str) -> None:
    """Raise an error that lists the table's columns if one of `columns` is not among them."""
    absent = [column for column in columns if column not in rows.columns]
    if absent:
        have = ", ".join(column for column in map(str, rows.columns) if not column.startswith("\x00"))
        raise BrainG3NError(
            "column missing in clinical table",
            file=file,
            expected=", ".join(absent),
            found=have,
            remedy="check that this is the release that config/cohorts describes, or adapt the definition",
        )


def _read_text(table: ClinicalTable, file: Path) -> pd.DataFrame:
    try:
        with open(file, encoding=table.encoding, newline=None) as handle:
            header = handle.readline()
    except UnicodeDecodeError as error:
        raise BrainG3NError(
            "clinical table is not in the expected encoding",
            file=file,
            expected=table.encoding,
            found=str(error),
            remedy="set the table's encoding in the cohort's definition",
        ) from error
    counts = Counter({mark: header.count(mark) for mark in ("\t", ",", ";")})
    mark, count = counts.most_common(1)[0]
    delimiter = table.delimiter or (mark if count else r"\s+")
    return pd.read_csv(
        file,
        sep=delimiter,
        engine="python" if delimiter == r"\s+" else "c",
        encoding=table.encoding,
        dtype=str,
        keep_default_na=False,
        header=None if table.columns else 0,
        names=list(table.columns) if table.columns else None,
        index_col=False,
    ).astype(str)


def _read_excel(file: Path) -> pd.DataFrame:
    """`.xls` and `.xlsx` as text: whole numbers without `.0`, days without the midnight of Excel's dates."""
    rows = pd.read_excel(file, engine="calamine", dtype=object, keep_default_na=False, na_values=[""])

    def text(value: object) -> str:
        if value is None or value != value:
            return ""
        if isinstance(value, datetime) and value.time() == time.min:
            return value.date().isoformat()
        return str(value)

    rows.columns = [str(column) for column in rows.columns]
    return pd.DataFrame({column: [text(value) for value in rows[column]] for column in rows.columns}, dtype=str)


def _adni_xml_row(file: Path) -> dict[str, str]:
    """One image's metadata as the Image and Data Archive delivers it: plain tags, protocol terms, subject items."""
    try:
        document = ElementTree.parse(file).getroot()
    except ElementTree.ParseError as error:
        raise BrainG3NError("is not valid XML", file=file, found=str(error)) from error
    row = dict.fromkeys(_XML_TAGS, "")
    for element in document.iter():
        tag = element.tag.rsplit("}", 1)[-1]  # <project xmlns=""> changes the namespace halfway
        text = (element.text or "").strip()
        if tag in _XML_TAGS:
            row[tag] = row[tag] or text
        elif tag == "protocol":
            row[element.attrib.get("term", "")] = text
        elif tag == "subjectInfo":
            row[element.attrib.get("item", "")] = text
    return row


def _dated(table: LoadedTable, loaded: dict[str, LoadedTable]) -> pd.DataFrame:
    """Add DATE: from the table's own column, or by visit code from another table."""
    rows, definition = table.rows.copy(), table.definition
    rows[DATE] = pd.NaT
    if definition.date is not None:
        require_columns(rows, (definition.date,), _files_of(rows))
        rows[DATE] = _known_dates(rows, definition.date, table)
    elif definition.date_from is not None and definition.date_from.table in loaded:
        visits = loaded[definition.date_from.table].rows
        by, column = definition.date_from.by, definition.date_from.column
        require_columns(visits, (by, column), _files_of(visits))
        require_columns(rows, (by,), _files_of(rows))
        dates = pd.Series(
            _known_dates(visits, column, loaded[definition.date_from.table]).to_numpy(),
            index=pd.MultiIndex.from_arrays([visits[KEY], visits[by]]),
        ).dropna()
        dates = dates[~dates.index.duplicated()]
        rows[DATE] = dates.reindex(pd.MultiIndex.from_arrays([rows[KEY], rows[by]])).to_numpy()
    rows[DATE] = rows[DATE].astype("datetime64[s]")
    return rows


def _known_dates(rows: pd.DataFrame, column: str, table: LoadedTable) -> pd.Series:
    """Dates of a column; what is neither a date nor missing is an error, since its row would never be joined."""
    formats = table.definition.date_formats
    dates = parse_dates(rows[column], formats)
    unread = dates.isna() & ~is_missing(rows[column], table.missing)
    if unread.any():
        raise BrainG3NError(
            f"dates in column '{column}' cannot be read",
            file=_files_of(rows[unread]),
            expected=" or ".join(formats),
            found=", ".join(repr(text) for text in sorted(set(rows.loc[unread, column]))[:5]),
            remedy=f"add the format to tables.{table.name}.date_formats, or the code to its missing codes",
        )
    return dates


def parse_dates(values: pd.Series, formats: tuple[str, ...]) -> pd.Series:
    """Text -> dates by the first format that fits; a format without a day stands for the middle of the month."""
    result = pd.Series(pd.NaT, index=values.index, dtype="datetime64[s]")
    text = values.str.strip()
    for style in formats:
        parsed = pd.to_datetime(text, format=style, errors="coerce").astype("datetime64[s]")
        if "%d" not in style:
            parsed = parsed + pd.Timedelta(days=14)
        result = result.fillna(parsed)
    return result


def _files_of(rows: pd.DataFrame) -> str:
    return ", ".join(sorted(set(rows[FILE]))[:3]) if len(rows) else "clinical table"


def is_missing(values: pd.Series, missing: frozenset[str]) -> pd.Series:
    """True where a text stands for no value."""
    return values.map(canonical).isin(missing)


def _one_per_key(rows: pd.DataFrame, table: LoadedTable, notes: list[str]) -> pd.DataFrame:
    """Order rows by preference, blank out what contradicts itself, and keep one row a key (and date)."""
    definition = table.definition
    for column in definition.agree:
        require_columns(rows, (column,), _files_of(rows))
        known = rows[~is_missing(rows[column], table.missing)]
        spellings = known[column].map(canonical).groupby(known[KEY]).nunique()
        torn = sorted(spellings.index[spellings > 1])
        if torn:
            notes.append(
                f"table '{table.name}': rows of the same person disagree in '{column}', taken as unknown for "
                f"{len(torn)}: {', '.join(torn[:10])}"
            )
            rows.loc[rows[KEY].isin(torn), column] = ""
    for column in definition.fill_down:
        require_columns(rows, (column,), _files_of(rows))
        empty = is_missing(rows[column], table.missing)
        known = rows[~empty].drop_duplicates(FILL_BY).set_index(FILL_BY)[column]
        rows.loc[empty, column] = rows.loc[empty, FILL_BY].map(known).fillna("")
    for column in reversed(definition.prefer):
        require_columns(rows, (column,), _files_of(rows))
        rows = rows.iloc[is_missing(rows[column], table.missing).to_numpy().argsort(kind="stable")]
    if definition.within_days is None:
        rows = rows.drop_duplicates(KEY)
    return rows.reset_index(drop=True)
