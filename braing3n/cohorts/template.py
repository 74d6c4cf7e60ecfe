"""Short text templates that build ids from parts: `"{subject}"`, `"{ID:zfill7}"`, `"{site}:{subject}"`."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping
from typing import Any


class _Formatter(string.Formatter):
    """`str.format` with the format specifications that ids need; an absent part becomes empty text."""

    def get_field(self, field_name: str, args: Any, kwargs: Mapping[str, Any]) -> tuple[Any, str]:
        return kwargs[field_name], field_name  # names of columns may hold dots and spaces, so nothing is parsed

    def format_field(self, value: Any, format_spec: str) -> str:
        text = "" if value is None else str(value).strip()
        if not format_spec or not text:
            return text
        if format_spec == "digits":
            return re.sub(r"\D", "", text)
        if format_spec == "int":
            return str(int(text)) if text.isdigit() else text
        if format_spec.startswith("zfill"):
            return text.zfill(int(format_spec.removeprefix("zfill")))
        raise ValueError(f"unknown format '{format_spec}' in a template; known: digits, int, zfillN")


_FORMATTER = _Formatter()


def fill(template: str, parts: Mapping[str, Any]) -> str:
    """Fill a template. Format specifications: `zfill7`, `int` (no leading zeros), `digits` (digits only).

    Raises:
        KeyError: the template names a part that is not there.
    """
    return _FORMATTER.vformat(template, (), parts)


def parts_of(template: str) -> tuple[str, ...]:
    """Names used in a template."""
    return tuple(name for _, name, _, _ in _FORMATTER.parse(template) if name is not None)
