"""The parts that a page is made of, and how numbers are written in it."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pandas as pd

DASH = "–"


@dataclass(frozen=True)
class Text:
    """A paragraph, plain text."""

    text: str
    kind: Literal["text"] = "text"


@dataclass(frozen=True)
class Notice:
    """What is absent (with the reason), broken, or to be kept in mind."""

    text: str
    level: Literal["absent", "problem", "warning"]
    kind: Literal["notice"] = "notice"


@dataclass(frozen=True)
class Table:
    """Rows of cells, already written out; a pair is a value with small print. `numeric` columns align to the right."""

    caption: str
    columns: list[str]
    rows: list[list[str | tuple[str, str]]]
    source: str
    numeric: frozenset[int] = frozenset()
    kind: Literal["table"] = "table"


@dataclass(frozen=True)
class Picture:
    """A figure with its caption; `body` is an inline SVG or an <img> with a data URI."""

    body: str
    caption: str
    source: str
    half: bool = False
    """Two such pictures share a row where there is room."""
    kind: Literal["picture"] = "picture"


@dataclass(frozen=True)
class Fold:
    """Blocks behind a summary line that opens on a click."""

    summary: str
    blocks: list[Block]
    open: bool = False
    kind: Literal["fold"] = "fold"


@dataclass(frozen=True)
class Checks:
    """Statements with a mark: passed, not passed, or neither."""

    items: list[tuple[Literal["yes", "no", "none"], str]]
    source: str = ""
    kind: Literal["checks"] = "checks"


@dataclass(frozen=True)
class Code:
    """Text shown as typed."""

    text: str
    kind: Literal["code"] = "code"


Block = Text | Notice | Code | Table | Picture | Fold | Checks


@dataclass
class Section:
    anchor: str
    title: str
    lead: str
    blocks: list[Block] = field(default_factory=list)


def number(value: Any, digits: int = 3) -> str:
    """A number to `digits` significant digits, integers whole with thousands separated; a dash if missing."""
    if value is None or (not isinstance(value, (str, bool)) and pd.isna(value)):
        return DASH
    if isinstance(value, str | bool):
        return str(value)
    value = float(value)
    if not math.isfinite(value):
        return str(value)
    if value == int(value) and abs(value) < 1e12:
        return f"{int(value):,}"
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.{max(digits - 3, 1)}f}"
    if abs(value) < 1e-4:
        return f"{value:.{digits - 1}e}"
    return f"{value:.{digits - 1 - math.floor(math.log10(abs(value)))}f}"


def fixed(value: Any, decimals: int) -> str:
    if value is None or pd.isna(value):
        return DASH
    text = f"{float(value):,.{decimals}f}"
    return text.lstrip("-") if float(text.replace(",", "")) == 0 else text  # no negative zero


def plain(value: Any) -> str:
    """Text as it is; a dash if missing or empty."""
    return DASH if value is None or value == "" or pd.isna(value) else str(value)


def count(value: Any) -> str:
    return DASH if value is None or pd.isna(value) else f"{int(value):,}"


def percent(part: float, whole: float) -> str:
    return DASH if not whole else f"{100 * part / whole:.0f} %"


def duration(seconds: float | None) -> str:
    """Seconds as a person says them: 12 s, 3 min 5 s, 2 h 10 min, 3 d 4 h."""
    if seconds is None or pd.isna(seconds):
        return DASH
    if seconds < 10:
        return f"{seconds:.1f} s"
    if round(seconds) < 60:
        return f"{seconds:.0f} s"
    units = ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s"))
    big, big_name, small, small_name = next(u for u in units if round(seconds) >= u[0])
    whole = round(seconds / small)
    return f"{whole * small // big} {big_name} {whole % (big // small)} {small_name}"


def plural(n: int, noun: str, many: str | None = None) -> str:
    return f"{n:,} {noun if n == 1 else many or noun + 's'}"


def table(
    frame: pd.DataFrame,
    caption: str,
    source: str,
    labels: Mapping[str, str] | None = None,
    formats: Mapping[str, Callable[[Any], str]] | None = None,
) -> Table:
    """A data frame as a block: `labels` choose, order and name the columns, `formats` write their cells."""
    labels = labels or {name: name for name in frame.columns}
    formats = {name: _default_format(frame[name]) for name in labels} | dict(formats or {})
    numeric = frozenset(i for i, name in enumerate(labels) if formats[name] is not plain)
    rows = [
        [formats[name](value) for name, value in zip(labels, row, strict=True)]
        for row in frame[list(labels)].itertuples(index=False)
    ]
    return Table(caption, list(labels.values()), rows, source, numeric)


def _default_format(column: pd.Series) -> Callable[[Any], str]:
    numeric = pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_bool_dtype(column.dtype)
    return number if numeric else plain


def picture(folder: Path, files: list[str], caption: str, alt: str, sources: list[str], half: bool = False) -> Picture:
    """A drawn figure as a block that carries its image: the SVG where there is one, else the PNG."""
    svg = next((f for f in files if f.endswith(".svg")), None)
    if svg:
        body = (folder / svg).read_text().replace("<svg ", f'<svg role="img" aria-label="{_attribute(alt)}" ', 1)
    else:
        png = next(f for f in files if f.endswith(".png"))
        content = (folder / png).read_bytes()
        width = int.from_bytes(content[16:20], "big") * 100 // 160  # PNG header; drawn at 160 dots, shown at 100
        data = base64.b64encode(content).decode()
        body = f'<img width="{width}" alt="{_attribute(alt)}" src="data:image/png;base64,{data}">'
    return Picture(body, caption, ", ".join(sources), half)


def _attribute(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
