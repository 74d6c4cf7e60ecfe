"""The one truth about every setting: pydantic models, loaded from YAML files that are merged in order.

`config/config.yaml` holds the paper's values; later files (such as `config/demo.yaml`) override single keys.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from braing3n.config.base import Settings
from braing3n.config.root import Config
from braing3n.errors import BrainG3NError

__all__ = ["Config", "Settings", "load_config", "merge", "validate_settings"]

T = TypeVar("T", bound=Settings)


def merge(base: dict[str, Any], override: dict[str, Any]) -> dict[str, Any]:
    """Recursive merge: mappings are merged key by key, everything else is replaced."""
    result = dict(base)
    for key, value in override.items():
        if isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merge(result[key], value)
        else:
            result[key] = value
    return result


def read_yaml(path: str | Path) -> dict[str, Any]:
    path = Path(path)
    if not path.exists():
        raise BrainG3NError("configuration file does not exist", file=path)
    try:
        content = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as error:
        raise BrainG3NError("is not valid YAML", file=path, found=str(error)) from error
    if not isinstance(content, dict):
        raise BrainG3NError("must be a mapping at its top level", file=path, found=type(content).__name__)
    return content


def validate_settings(model: type[T], content: Any, source: str | Path) -> T:
    """Validate `content` as `model`; errors name the file, the key, the value found and what was expected."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        lines = [
            f"{'.'.join(str(part) for part in item['loc']) or '(top level)'}: {item['msg']} (found {item['input']!r})"
            for item in error.errors()
        ]
        raise BrainG3NError(
            "settings are not valid", file=source, found=" | ".join(lines), remedy="see config/README.md"
        ) from error


def load_config(files: Iterable[str | Path]) -> Config:
    """Merge YAML files in order and validate the result."""
    content: dict[str, Any] = {}
    files = list(files)
    for file in files:
        content = merge(content, read_yaml(file))
    return validate_settings(Config, content, " + ".join(str(file) for file in files))
