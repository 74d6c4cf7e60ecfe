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
        for step in filter(None, format_spec.split("|")):
            if step == "digits":
                text = re.sub(r"\D", "", text)
            elif step == "int":
                text = str(int(text)) if text.isdigit() else text
            elif step.startswith("zfill"):
                text = text.zfill(int(step.removeprefix("zfill"))) if text else text
            else:
                raise ValueError(f"unknown format '{step}' in a template; known: digits, int, zfillN")
        return text


_FORMATTER = _Formatter()


def fill(template: str, parts: Mapping[str, Any]) -> str:
    """Fill a template. Formats: `zfill7`, `int` (no leading zeros), `digits` (digits only); chained: `digits|zfill5`.

    Raises:
        KeyError: the template names a part that is not there.
    """
    return _FORMATTER.vformat(template, (), parts)


def parts_of(template: str) -> tuple[str, ...]:
    """Names used in a template."""
    return tuple(name for _, name, _, _ in _FORMATTER.parse(template) if name is not None)
