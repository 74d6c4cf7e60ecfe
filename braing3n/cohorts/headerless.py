"""Tables without a header whose columns differ from file to file: what a column is, is told by what it holds."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from braing3n.errors import BrainG3NError

_SUBJECT = re.compile(r"sub-?\d+", re.IGNORECASE)
_WORDS = {
    "sex": {"m", "f", "male", "female"},
    "handedness": {"r", "l", "a", "b", "u", "right", "left", "ambidextrous", "both", "unknown"},
}
_NAMES = {
    "subject": ("subject", "participant_id", "id"),
    "age": ("age",),
    "sex": ("sex", "gender"),
    "handedness": ("handedness", "handed", "hand"),
}
_AGES = (4, 100)
_MOST = (
    0.8  # a column is what most of it is; the rest is left to the codes of the definition, which know it or complain
)


def read_headerless(file: Path, encoding: str) -> pd.DataFrame:
    """Columns `subject, age, sex` and, where the file has it, `handedness`, as text; blanks or tabs between them.

    A first line that names columns is heeded, whatever else stands in it.

    Raises:
        BrainG3NError: a line names no subject, or it cannot be told which column is the age or the sex.
    """
    lines = [line for line in file.read_text(encoding=encoding).splitlines() if line.strip()]
    mark = "\t" if any("\t" in line for line in lines) else None
    cells = [[cell.strip() for cell in line.split(mark)] for line in lines]
    header = cells.pop(0) if cells and not any(map(_SUBJECT.fullmatch, cells[0])) else []
    rows = pd.DataFrame(cells, dtype=str).fillna("")
    roles = _told_by_content(rows) | _told_by_name(header)
    for role in ("subject", "age", "sex"):
        if role not in roles:
            raise BrainG3NError(
                f"it cannot be told which column is the {role}",
                file=file,
                expected="lines such as `sub00440 21 m r`, in any order",
                found=f"{len(rows)} lines of {rows.shape[1]} columns",
                remedy="put a line above the others that names the columns: subject, age, sex, handedness, "
                "and any other name for the rest",
            )
    return pd.DataFrame({role: rows[roles[role]] for role in _NAMES if role in roles})


def _told_by_name(header: list[str]) -> dict[str, int]:
    return {role: i for i, name in enumerate(header) for role, names in _NAMES.items() if name.casefold() in names}


def _told_by_content(rows: pd.DataFrame) -> dict[str, int]:
    """Role -> column, for the roles that one column alone can have."""
    found = {"subject": [c for c in rows if rows[c].map(lambda text: bool(_SUBJECT.fullmatch(text))).all()]}
    for role, words in _WORDS.items():
        found[role] = [c for c in rows if _mostly(rows[c][rows[c] != ""].str.casefold().isin(words))]
    found["age"] = _ages(rows)
    return {role: columns[0] for role, columns in found.items() if len(columns) == 1}


def _ages(rows: pd.DataFrame) -> list[int]:
    """Columns that can be ages; of several, those with fractions of years."""
    numbers = {c: pd.to_numeric(rows[c], errors="coerce") for c in rows}
    lives = {c: v[v.between(0, 120)] for c, v in numbers.items()}  # 9999 and -1 stand for unknown ages
    plausible = [c for c, v in lives.items() if _mostly(v.between(*_AGES)) and not _counts(v)]
    fractional = [c for c in plausible if (lives[c] % 1 > 0).any()]
    return fractional or plausible


def _mostly(true: pd.Series) -> bool:
    return len(true) > 0 and true.mean() >= _MOST


def _counts(values: pd.Series) -> bool:
    """Running numbers, or one number all over: the place in a list, or of a session."""
    steps = values.diff().dropna()
    return len(values) > 2 and (steps.eq(1).all() or steps.eq(0).all())
