"""The few facts that a cohort's tables do not hold in one column: functions that definitions name with `derive`.

Each takes the joined columns (text, one row an image, index as the images'), the images (columns `subject`,
`session`, `date` as datetime64 and the like), the codes that mean missing, and its own arguments; and returns one
value an image, missing where it cannot be known; or raises UnknownValueError.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import pandas as pd

from braing3n.cohorts.tables import canonical, is_missing, parse_dates

DAYS_PER_YEAR = 365.25


class UnknownValueError(Exception):
    """Values that nobody knows the meaning of; the caller knows the file."""

    def __init__(self, problem: str, column: str, expected: str, found: Iterable[object]):
        super().__init__(problem, column, expected)
        self.problem, self.column, self.expected = problem, column, expected
        self.found = ", ".join(repr(value) for value in sorted(set(map(str, found)))[:5])


def age_from_birth(
    columns: pd.DataFrame, images: pd.DataFrame, missing: frozenset[str], *, formats: Sequence[str]
) -> pd.Series:
    """Years from a birth date (first column) to the scan; a date without a day stands for the middle of its month."""
    birth = columns.iloc[:, 0].fillna("")
    dates = parse_dates(birth, tuple(formats))
    unread = birth[dates.isna() & ~is_missing(birth, missing)]
    if len(unread):
        raise UnknownValueError("birth dates cannot be read", columns.columns[0], " or ".join(formats), unread)
    return (images["date"] - dates).dt.days / DAYS_PER_YEAR


def item_sum(
    columns: pd.DataFrame,
    images: pd.DataFrame,
    missing: frozenset[str],
    *,
    reverse: Sequence[str] = (),
    recode: dict[str, dict[str, float]] | None = None,
    highest: float,
) -> pd.Series:
    """Sum of a questionnaire's items, unknown if any item is.

    Args:
        reverse: items that count `highest` minus their value.
        recode: item -> answer -> value, for answers that are not the score itself (`""` is a blank).
        highest: an item's highest value; anything outside 0..highest is an error.
    """
    total = pd.Series(0.0, index=columns.index)
    for name, answers in columns.items():
        table = {canonical(answer): value for answer, value in ((recode or {}).get(name) or {}).items()}
        text = answers.fillna("").map(canonical)
        recoded = text.map(lambda t, table=table: table.get(t, None if t in missing else t))
        values = pd.to_numeric(recoded, errors="coerce")
        wrong = text[recoded.notna() & ~values.between(0, highest)]
        if len(wrong):
            raise UnknownValueError("questionnaire item outside its scale", name, f"0 to {highest:g}", wrong)
        total = total + (highest - values if name in reverse else values)
    # A person without a row in the table joins as absent everywhere, which recoded blanks must not turn into a score.
    return total.where(columns.notna().any(axis=1))


def apoe_genotype(columns: pd.DataFrame, images: pd.DataFrame, missing: frozenset[str]) -> pd.Series:
    """Two allele columns (or one that holds both, such as `3/4` or `34.0`) -> `E3/E4`, lower allele first."""

    def genotype(alleles: Sequence[str]) -> str | None:
        values = [canonical(value) for value in alleles if value == value]
        if not values or any(value in missing for value in values):
            return None
        digits = sorted("".join(character for value in values for character in value if character in "234"))
        if len(digits) != 2 or any(set(value) - set("234/e ") for value in values):
            raise UnknownValueError(
                "APOE alleles cannot be read", ", ".join(columns.columns), "two alleles out of 2, 3, 4", values
            )
        return f"E{digits[0]}/E{digits[1]}"

    return pd.Series([genotype(row) for row in columns.itertuples(index=False)], index=columns.index, dtype="str")


def retest_age(columns: pd.DataFrame, images: pd.DataFrame, missing: frozenset[str]) -> pd.Series:
    """Baseline age (first column) plus the retest interval (second) in the units of the third: d days, m minutes."""
    years = {"d": 1 / DAYS_PER_YEAR, "m": 1 / (60 * 24 * DAYS_PER_YEAR)}
    age, interval, unit = (columns[name].fillna("").map(canonical) for name in columns.columns)
    unknown = set(unit[~unit.isin(missing)]) - set(years)
    if unknown:
        raise UnknownValueError("unknown unit of the retest interval", columns.columns[2], ", ".join(years), unknown)
    return _number(age, missing) + _number(interval, missing) * unit.map(years)


def _number(text: pd.Series, missing: frozenset[str]) -> pd.Series:
    known = text[~text.isin(missing)]
    values = pd.to_numeric(known, errors="coerce")
    if values.isna().any():
        raise UnknownValueError("not a number", str(text.name), "numbers", known[values.isna()])
    return values.reindex(text.index)


DERIVATIONS: dict[str, Callable[..., pd.Series]] = {
    "age_from_birth": age_from_birth,
    "item_sum": item_sum,
    "apoe_genotype": apoe_genotype,
    "retest_age": retest_age,
}
