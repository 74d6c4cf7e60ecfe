"""What a diffusion transformer is conditioned on: classes and numbers, each known, unknown or null.

Unknown means that the value is missing in the data: the model learns what such scans look like. Null means that
guidance or an arm asks for no condition at all: it replaces known and unknown values alike during training, so that its
velocity is the average over them. The two have embeddings of their own.

Shapes: B batch, C conditions in the order of the vocabulary's names, D width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from braing3n.config.models import ConditionVocabulary
from braing3n.errors import BrainG3NError
from braing3n.models.transformer import sincos_scalar

KNOWN, UNKNOWN, NULL = 0, 1, 2
SINUSOIDS = 256  # width of the sinusoidal embedding of times and numbers, as in DiT


@dataclass(frozen=True)
class Conditions:
    """Conditions of B samples.

    Attributes:
        values: (B, C) float32, a class's index or a number; 0 where it is not known.
        state: (B, C) int64, `KNOWN`, `UNKNOWN` or `NULL`.
    """

    values: Tensor
    state: Tensor

    def __len__(self) -> int:
        return len(self.values)

    def to(self, device: torch.device | str) -> Conditions:
        return Conditions(self.values.to(device), self.state.to(device))

    def take(self, indices: np.ndarray) -> Conditions:
        """Samples by index, in that order."""
        chosen = torch.as_tensor(indices)
        return Conditions(self.values[chosen], self.state[chosen])

    def join(self, other: Conditions) -> Conditions:
        """Both sets of samples, one behind the other."""
        return Conditions(torch.cat([self.values, other.values]), torch.cat([self.state, other.state]))

    def digest(self) -> str:
        """Hash of the content, in hex."""
        return hashlib.sha256(self.values.numpy().tobytes() + self.state.numpy().tobytes()).hexdigest()

    def nulled(self, null: Tensor) -> Conditions:
        """Null where the mask (B, C) or (C,) says so."""
        return Conditions(self.values, torch.where(null.to(self.state.device), NULL, self.state))


def encode_conditions(table: pd.DataFrame, vocabulary: ConditionVocabulary) -> Conditions:
    """Conditions of the rows of a table; missing values and classes outside the vocabulary are unknown.

    Raises:
        BrainG3NError: a column that the vocabulary names is absent.
    """
    specs = {**vocabulary.categorical, **vocabulary.continuous}
    absent = sorted({spec.column for spec in specs.values()} - set(table.columns))
    if absent:
        raise BrainG3NError("table lacks columns of the conditions", found=f"no {', '.join(absent)}")
    columns = [
        table[spec.column].map({name: index for index, name in enumerate(spec.classes)})
        for spec in vocabulary.categorical.values()
    ]
    columns += [table[spec.column] for spec in vocabulary.continuous.values()]
    values = torch.from_numpy(np.stack([column.to_numpy(dtype=np.float32) for column in columns], axis=1))
    known = values.isfinite()
    return Conditions(values.where(known, torch.zeros(())), torch.where(known, KNOWN, UNKNOWN))


def requested_conditions(
    requests: Iterable[Mapping[str, Any]], vocabulary: ConditionVocabulary, never_dropped: Iterable[str] = ()
) -> Conditions:
    """Conditions by name: a value asks for it, None asks for the null embedding, an absent name means unknown.

    Raises:
        BrainG3NError: a name or a class that the vocabulary does not have, a number that is none, or no value for a
            condition that is never dropped.
    """
    requests = list(requests)
    names = vocabulary.names
    values = torch.zeros(len(requests), len(names))
    state = torch.full((len(requests), len(names)), UNKNOWN)
    for row, request in enumerate(requests):
        unknown = set(request) - set(names)
        if unknown:
            raise BrainG3NError(
                "no such condition", found=", ".join(sorted(map(str, unknown))), expected=", ".join(names)
            )
        unset = [name for name in never_dropped if request.get(name) is None]
        if unset:
            raise BrainG3NError("conditions that are never dropped need a value", found=f"none for {', '.join(unset)}")
        for name, value in request.items():
            column = names.index(name)
            state[row, column] = NULL if value is None else KNOWN
            if value is not None:
                values[row, column] = _number(name, value, vocabulary)
    return Conditions(values, state)


def _number(name: str, value: Any, vocabulary: ConditionVocabulary) -> float:
    """A class's index, or the number itself."""
    if name in vocabulary.categorical:
        classes = vocabulary.categorical[name].classes
        if value not in classes:
            raise BrainG3NError(f"no such class of {name}", found=repr(value), expected=", ".join(classes))
        return classes.index(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
        raise BrainG3NError(f"{name} must be a number", found=repr(value))
    return float(value)


def droppable(vocabulary: ConditionVocabulary, never_dropped: Iterable[str]) -> Tensor:
    """Which conditions may be null: (C,) bool."""
    never = set(never_dropped)
    return torch.tensor([name not in never for name in vocabulary.names])


def drop_conditions(
    conditions: Conditions, may_drop: Tensor, independent: float, joint: float, generator: torch.Generator
) -> Conditions:
    """Replace droppable conditions by null, each on its own and all at once, with the given probabilities.

    The paper drops each on its own at 0.1; all of its five are then null once in 100,000 samples. `joint` trains that
    branch, which guidance relies on.

    Args:
        may_drop: (C,) bool, see `droppable`.
        generator: on the conditions' device.
    """
    shape, device = conditions.state.shape, conditions.state.device
    each = torch.rand(shape, generator=generator, device=device) < independent  # (B, C)
    together = torch.rand(shape[0], 1, generator=generator, device=device) < joint  # (B, 1)
    return conditions.nulled((each | together) & may_drop.to(device))


def null_frequencies(conditions: Conditions, vocabulary: ConditionVocabulary, may_drop: Tensor) -> dict[str, Tensor]:
    """Share of samples with each droppable condition null, and with all of them: scalars named `null_<condition>`.

    Args:
        may_drop: (C,) bool on the CPU, see `droppable`.
    """
    null = conditions.state == NULL  # (B, C)
    shares = null.float().mean(dim=0)
    frequencies = {f"null_{vocabulary.names[i]}": shares[i] for i in torch.nonzero(may_drop).flatten().tolist()}
    return frequencies | {"null_all": (null | ~may_drop.to(null.device)).all(dim=1).float().mean()}


class ConditionEmbedding(nn.Module):
    """Sum of the embeddings of all conditions. (B, C) values and states -> (B, D).

    A class has a learned embedding; a number passes through sinusoids and an MLP. Each condition has a further
    embedding for unknown and, if it may be dropped, one for null (the paper's K+1st slot).
    """

    def __init__(self, vocabulary: ConditionVocabulary, never_dropped: Iterable[str], hidden: int):
        super().__init__()
        self.vocabulary = vocabulary
        never = set(never_dropped)
        self.absent = nn.ModuleDict(  # unknown, and null for those that may be dropped
            {name: nn.Embedding(1 if name in never else 2, hidden) for name in vocabulary.names}
        )
        self.classes = nn.ModuleDict(
            {name: nn.Embedding(len(spec.classes), hidden) for name, spec in vocabulary.categorical.items()}
        )
        self.numbers = nn.ModuleDict(
            {
                name: nn.Sequential(nn.Linear(SINUSOIDS, hidden), nn.SiLU(), nn.Linear(hidden, hidden))
                for name in vocabulary.continuous
            }
        )

    def forward(self, values: Tensor, state: Tensor) -> Tensor:
        total = 0
        for column, name in enumerate(self.vocabulary.names):
            value, known = values[:, column], state[:, column] == KNOWN
            if name in self.classes:
                present = self.classes[name](value.long())  # (B, D)
            else:
                scaled = value * self.vocabulary.continuous[name].scale
                present = self.numbers[name](sincos_scalar(scaled, SINUSOIDS))  # (B, D)
            absent = self.absent[name]((state[:, column] - UNKNOWN).clamp(min=0))  # (B, D)
            total = total + torch.where(known[:, None], present, absent)
        return total
