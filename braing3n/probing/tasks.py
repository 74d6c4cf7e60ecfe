"""The probing panel: what is predicted, from which column, on which scans (`config/tasks.yaml`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from braing3n.config import Settings, read_yaml, validate_settings
from braing3n.errors import BrainG3NError
from braing3n.geometry import MODALITIES

POOLED = "pooled"
Value = bool | float | str


class Stated(Settings):
    """A score that the paper's text gives."""

    encoder: str = "mae"
    metric: Literal["auc", "mae", "r2"]
    value: float
    slice: str | None = None
    """Modality, where the text says it."""
    at_least: bool = False
    """The text says "exceeds"."""


class Task(Settings):
    id: str
    name: str
    """What results are filed under."""
    title: str
    kind: Literal["classification", "regression"]
    field: str
    """Column of the metadata table."""
    classes: dict[str, tuple[Value, ...]] | Literal["all"] | None = None
    """Class -> values that make it, in order; the last class of two is the positive one. `all`: every value."""
    bins: dict[str, tuple[float, float]] | None = None
    """Class -> range of a number, both ends included."""
    max_classes: int = Field(20, ge=2)
    """The most populous values that `classes: all` takes."""
    where: dict[str, tuple[Value, ...]] = Field(default_factory=dict)
    """Column -> accepted values; other scans do not take part."""
    slices: tuple[str, ...] = (POOLED, *MODALITIES)
    status: Literal["named", "inferred", "extra"]
    evidence: str
    unit: str = ""
    paper: tuple[Stated, ...] = ()
    """What the paper reports, to stand beside the run's own."""

    @model_validator(mode="after")
    def _kind_fits(self):
        if self.kind == "regression" and (self.classes or self.bins):
            raise ValueError("a regression has neither classes nor bins")
        if self.kind == "classification" and bool(self.classes) == bool(self.bins):
            raise ValueError("a classification has either classes or bins")
        listed = self.bins or (self.classes if isinstance(self.classes, dict) else None)
        if listed is not None and len(listed) < 2:
            raise ValueError("a classification has at least two classes")
        unknown = set(self.slices) - {POOLED, *MODALITIES}
        if unknown:
            raise ValueError(f"slices are {POOLED} or a modality, not {', '.join(sorted(unknown))}")
        return self


class TaskPanel(Settings):
    version: Literal[1]
    tasks: tuple[Task, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_differ(self):
        for key in ("id", "name"):
            values = [getattr(task, key) for task in self.tasks]
            twice = sorted({value for value in values if values.count(value) > 1})
            if twice:
                raise ValueError(f"two tasks share the {key} {', '.join(twice)}")
        return self


@dataclass(frozen=True)
class Target:
    """What a task asks of each scan.

    Attributes:
        values: (n,) float64; the class's index or the number itself, NaN for scans that do not take part.
        classes: the classes' names, empty for a regression.
    """

    values: np.ndarray
    classes: tuple[str, ...]

    @property
    def takes_part(self) -> np.ndarray:
        return np.isfinite(self.values)


def load_tasks(path: str | Path) -> tuple[Task, ...]:
    """Read and validate a panel.

    Raises:
        BrainG3NError: the file is missing or does not fit the schema.
    """
    return validate_settings(TaskPanel, read_yaml(path), path).tasks


def as_text(value: Any) -> str | None:
    """One spelling for values however they are stored: 4, 4.0 and "4" are "4", True is "true", missing is None."""
    if value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
        return None
    if isinstance(value, bool | np.bool_):
        return str(bool(value)).lower()
    if isinstance(value, int | float | np.integer | np.floating):
        return f"{float(value):g}"
    return str(value)


def column(metadata: pd.DataFrame, name: str, task: Task) -> pd.Series:
    if name not in metadata:
        raise BrainG3NError(
            f"task {task.name} needs the column '{name}'",
            file="metadata/volumes.parquet",
            expected="a column of docs/data-contract.md",
            remedy="correct the task in config/tasks.yaml",
        )
    return metadata[name]


def target(task: Task, metadata: pd.DataFrame) -> Target:
    """The task's value for every row of the metadata table."""
    accepted = np.ones(len(metadata), dtype=bool)
    for name, values in task.where.items():
        wanted = {as_text(value) for value in values}
        accepted &= column(metadata, name, task).map(as_text).isin(wanted).to_numpy()

    field = column(metadata, task.field, task)
    if task.kind == "regression":
        values, classes = pd.to_numeric(field, errors="coerce").to_numpy(float, na_value=np.nan), ()
    elif task.bins is not None:
        values, classes = _binned(pd.to_numeric(field, errors="coerce").to_numpy(float, na_value=np.nan), task.bins)
    else:
        values, classes = _classified(field, task, metadata["person_id"], accepted)
    return Target(np.where(accepted, values, np.nan), classes)


def _binned(numbers: np.ndarray, bins: dict[str, tuple[float, float]]) -> tuple[np.ndarray, tuple[str, ...]]:
    values = np.full(len(numbers), np.nan)
    for index, (low, high) in enumerate(bins.values()):
        values[(numbers >= low) & (numbers <= high)] = index
    return values, tuple(bins)


def _classified(
    field: pd.Series, task: Task, persons: pd.Series, accepted: np.ndarray
) -> tuple[np.ndarray, tuple[str, ...]]:
    texts = field.map(as_text)
    if task.classes == "all":
        by_persons = persons[accepted].groupby(texts[accepted]).nunique()
        largest = by_persons.sort_values(ascending=False, kind="stable").index[: task.max_classes]
        classes = {name: (name,) for name in sorted(largest)}
    else:
        classes = task.classes
    index_of = {as_text(value): index for index, values in enumerate(classes.values()) for value in values}
    return texts.map(index_of).to_numpy(float, na_value=np.nan), tuple(classes)
