"""Published weights into our modules: found or explained, opened without running code, matched key by key."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from braing3n.encoders.publications import Publication
from braing3n.errors import BrainG3NError
from braing3n.models.weights import compare_keys, load_state


@dataclass(frozen=True)
class Loaded:
    """Strict report of a loading: nothing was missing, unexpected or of another shape, or it would not have loaded."""

    used: int
    heads: tuple[str, ...]
    """Keys of the published network's heads, which features do not need."""

    def __str__(self) -> str:
        left = f"; left out, of heads: {', '.join(self.heads)}" if self.heads else ""
        return f"{self.used} weights loaded, none missing or unexpected{left}"


def open_checkpoint(path: Path | None, publication: Publication) -> dict[str, Tensor]:
    """State dict of a published file: `.safetensors`, or a torch file opened with `weights_only=True`.

    A torch file may hold the state dict itself or have it under `state_dict`.

    Raises:
        BrainG3NError: the file is missing (with where to get it), is not a checkpoint, or needs code to be run.
    """
    remedy = publication.remedy
    if path is None:
        raise BrainG3NError(f"the weights of {publication.name} are not configured", remedy=remedy)
    if not path.exists():
        raise BrainG3NError(f"the weights of {publication.name} are missing", file=path, remedy=remedy)
    if path.suffix == ".safetensors":
        return load_state(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise BrainG3NError(
            "holds pickled objects beside its weights, which are not run here",
            file=path,
            found=str(error).splitlines()[0],
            remedy="convert it once to safetensors, see docs/encoders.md",
        ) from error
    except Exception as error:  # foreign bytes lead the unpickler to errors of any kind
        raise BrainG3NError("is not a torch checkpoint", file=path, found=f"{type(error).__name__}: {error}") from error
    state = content.get("state_dict", content) if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise BrainG3NError("holds no state dict", file=path, found=type(content).__name__)
    return dict(state)


def under_prefix(state: Mapping[str, Tensor], prefixes: tuple[str, ...]) -> dict[str, Tensor]:
    """The weights under the first prefix that any key starts with, without it; all of them when none does."""
    for prefix in prefixes:
        part = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        if part:
            return part
    return dict(state)


def load_strictly(
    module: nn.Module, state: Mapping[str, Tensor], path: Path | None, heads: tuple[str, ...] = ()
) -> Loaded:
    """Load weights of which every one is used, but for named heads and counters, and report what was left out.

    Args:
        heads: prefixes of the published network's heads, which features do not need.

    Raises:
        BrainG3NError: keys are missing, unexpected or of another shape.
    """
    left = sorted(key for key in state if key.startswith(heads)) if heads else []
    used = {key: value for key, value in state.items() if key not in left}
    own = module.state_dict()
    counters = {key for key in own if key.endswith("num_batches_tracked")}  # not always saved; eval does not read them
    report = compare_keys({k: v for k, v in own.items() if k not in counters or k in used}, used)
    if not report.matches:
        raise BrainG3NError("weights do not fit the published network", file=path, found=str(report))
    module.load_state_dict(used, strict=False)
    return Loaded(len(used), tuple(left))
