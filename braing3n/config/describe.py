"""The configuration described from its own models: a Markdown reference and a JSON schema."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

from pydantic.fields import FieldInfo

from braing3n.config.base import Settings
from braing3n.config.root import Config


def describe(shipped: dict[str, Any]) -> str:
    """Markdown reference of every key: the value in `config/config.yaml`, what is allowed, and what it means.

    Args:
        shipped: the content of `config/config.yaml`.
    """
    lines = ["| key | value shipped | meaning |", "|---|---|---|"]
    for path, model, name, field in _fields(Config, ()):
        value = _lookup(shipped, path)
        if value is _ABSENT:
            value = field.get_default(call_default_factory=True) if not field.is_required() else "required"
        lines.append(f"| `{'.'.join(path)}` | `{_plain(value)}` | {_meaning(model, name, field)} |")
    return "\n".join(lines) + "\n"


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of the whole configuration."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Config.model_json_schema()}


def _fields(model: type[Settings], path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], type, str, FieldInfo]]:
    for name, field in model.model_fields.items():
        section = _section(field.annotation)
        if section is not None:
            yield from _fields(section, (*path, name))
        else:
            yield (*path, name), model, name, field


def _section(annotation: Any) -> type[Settings] | None:
    return annotation if isinstance(annotation, type) and issubclass(annotation, Settings) else None


def _meaning(model: type[Settings], name: str, field: FieldInfo) -> str:
    limits = " and ".join(
        f"{sign} {getattr(item, attribute)}"
        for item in field.metadata
        for attribute, sign in _LIMITS.items()
        if hasattr(item, attribute)
    )
    allowed = get_args(field.annotation)
    if allowed and all(isinstance(item, str) for item in allowed):
        limits = " or ".join(allowed)
    text = " ".join((field.description or "").split())
    return f"{text} ({limits})".strip() if limits else text


_ABSENT = object()
_LIMITS = {"gt": ">", "ge": "at least", "lt": "<", "le": "at most", "multiple_of": "a multiple of"}


def _lookup(content: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        if not isinstance(content, dict) or key not in content:
            return _ABSENT
        content = content[key]
    return content


def _plain(value: Any) -> str:
    if isinstance(value, tuple | list):
        return "[" + ", ".join(_plain(item) for item in value) + "]"
    if isinstance(value, dict) and value:
        return ", ".join(value)  # the content stands in the file itself
    return str(value).replace("|", "\\|")
