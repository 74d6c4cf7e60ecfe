"""Short text templates that build ids from parts: `"{subject}"`, `"{ID:zfill7}"`, `"{site}:{subject}"`."""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

_FORMATS: dict[str, Callable[[str], str]] = {
    "digits": lambda text: re.sub(r"\D", "", text),
    "int": lambda text: str(int(text)) if text.isdigit() else text,
}


def fill(template: str, parts: Mapping[str, Any]) -> str:
    """Fill a template; an absent part (None) becomes empty text.

    Formats: `zfill7`, `int` (no leading zeros), `digits` (digits only); chained: `digits|zfill5`.

    Raises:
        KeyError: the template names a part that is not there.
        ValueError: the template is malformed or names an unknown format.
    """
    pieces = []
    for literal, name, formats in _parsed(template):
        pieces.append(literal)
        if name is not None:
            value = parts[name]
            text = "" if value is None else str(value).strip()
            for change in formats:
                text = change(text)
            pieces.append(text)
    return "".join(pieces)


def parts_of(template: str) -> tuple[str, ...]:
    """Names used in a template."""
    return tuple(name for _, name, _ in _parsed(template) if name is not None)


@cache
def _parsed(template: str) -> tuple[tuple[str, str | None, tuple[Callable[[str], str], ...]], ...]:
    return tuple(
        (literal, name, tuple(_format(step) for step in (spec or "").split("|") if step))
        for literal, name, spec, _ in string.Formatter().parse(template)
    )


def _format(step: str) -> Callable[[str], str]:
    if step.startswith("zfill") and step.removeprefix("zfill").isdigit():
        width = int(step.removeprefix("zfill"))
        return lambda text: text.zfill(width) if text else text
    if step not in _FORMATS:
        raise ValueError(f"unknown format '{step}' in a template; known: {', '.join(_FORMATS)}, zfillN")
    return _FORMATS[step]
