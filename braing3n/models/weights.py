"""Weights in and out: `model.safetensors` with its `card.json` (docs/data-contract.md, "Weights")."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from braing3n.errors import BrainG3NError
from braing3n.files import atomic_path, read_json, write_json

WEIGHTS, CARD = "model.safetensors", "card.json"


@dataclass(frozen=True)
class KeyReport:
    """How the keys of a state dict differ from those that a model expects."""

    missing: list[str]
    unexpected: list[str]
    misshapen: list[str]
    """`key: expected shape, found shape`."""

    @property
    def matches(self) -> bool:
        return not (self.missing or self.unexpected or self.misshapen)

    def __str__(self) -> str:
        parts = []
        for label in ("missing", "unexpected", "misshapen"):
            keys = getattr(self, label)
            if keys:
                shown = ", ".join(keys[:8]) + (f" and {len(keys) - 8} more" if len(keys) > 8 else "")
                parts.append(f"{len(keys)} {label}: {shown}")
        return " | ".join(parts) or "all keys match"


def compare_keys(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> KeyReport:
    return KeyReport(
        missing=sorted(set(expected) - set(found)),
        unexpected=sorted(set(found) - set(expected)),
        misshapen=[
            f"{key}: expected {tuple(expected[key].shape)}, found {tuple(found[key].shape)}"
            for key in sorted(set(expected) & set(found))
            if expected[key].shape != found[key].shape
        ],
    )


def save_state(state: Mapping[str, Tensor], path: str | Path) -> None:
    """Write a state dict atomically as safetensors, from the CPU."""
    with atomic_path(path) as temporary:
        save_file({key: value.detach().cpu().contiguous() for key, value in state.items()}, str(temporary))


def load_state(path: str | Path) -> dict[str, Tensor]:
    """Read a safetensors file onto the CPU."""
    path = Path(path)
    if not path.exists():
        raise BrainG3NError("weights are missing", file=path, remedy="train the model or copy its folder here")
    try:
        return load_file(str(path))
    except SafetensorError as error:
        raise BrainG3NError("is not a whole safetensors file", file=path, found=str(error)) from error


def save_model(model: nn.Module, card: Mapping[str, Any], out: str | Path) -> None:
    """Write `out/model.safetensors`, then `out/card.json`, each atomically: a card implies whole weights."""
    out = Path(out)
    save_state(model.state_dict(), out / WEIGHTS)
    write_json(out / CARD, dict(card))


def load_card(folder: str | Path) -> dict[str, Any]:
    """The card of a model folder: `name, architecture, settings, data_hash, metrics, checks, ...`."""
    path = Path(folder) / CARD
    if not path.exists():
        raise BrainG3NError("has no card.json", file=folder, remedy="point to a folder models/<name> of a training")
    return read_json(path)


def load_weights(model: nn.Module, folder: str | Path, strict: bool = True) -> KeyReport:
    """Load `folder/model.safetensors` into `model`.

    With `strict`, any missing, unexpected or misshapen key is an error and the model is left as it was. Without it, the
    keys that fit are loaded and the report says which did not.

    Raises:
        BrainG3NError: no such file, or keys differ under `strict`.
    """
    path = Path(folder) / WEIGHTS
    state = load_state(path)
    report = compare_keys(model.state_dict(), state)
    if strict and not report.matches:
        raise BrainG3NError(
            "weights do not fit the model", file=path, found=str(report), remedy="build the model from the card beside"
        )
    misshapen = {line.split(":")[0] for line in report.misshapen}
    fitting = {key: value for key, value in state.items() if key not in {*report.unexpected, *misshapen}}
    model.load_state_dict(fitting, strict=False)
    return report
