"""The results folder of one run, as the report sees it: tables, files and settings, each read once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from braing3n.config import Config, merge, read_yaml, validate_settings
from braing3n.config.data import QCSettings
from braing3n.config.training import ReportSettings
from braing3n.errors import BrainG3NError
from braing3n.files import read_json

ACQUIRED = ("SRI24",)
"""Written beside the simulated cohorts, and a real head: the atlas' own average of acquired scans."""
STEPS = ("convert", "n4", "mask", "register", "crop")
MODELS = ("mae", "tokenizer", "dit", "longitudinal")


class AbsentError(BrainG3NError):
    """Something that the report can do without: the stage that writes it has not run, or had nothing to write."""


@dataclass
class Run:
    """A results folder with the settings that made it.

    Args:
        results: the results folder (docs/data-contract.md).
        settings: the report's own section of the configuration.
        config: the merged configuration as plain data, or None if no file was given.
        benchmarks: folder of Snakemake's benchmark TSVs; default `<results>/benchmarks`.
        atlas: folder of the conformed SRI24, for its outline; None leaves the outline out.
        phantom: names of simulated cohorts.
        figures: folder that figures are drawn into and read from; default `<results>/figures`.
    """

    results: Path
    settings: ReportSettings = field(default_factory=ReportSettings)
    config: dict[str, Any] | None = None
    benchmarks: Path | None = None
    atlas: Path | None = None
    phantom: tuple[str, ...] = ()
    figures: Path | None = None
    _tables: dict[str, pd.DataFrame] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.results = Path(self.results)
        if not self.results.is_dir():
            raise BrainG3NError("results folder does not exist", file=self.results, remedy="give --results")
        self.benchmarks = self.benchmarks or self.results / "benchmarks"
        self.figures = self.figures or self.results / "figures"

    def path(self, relative: str) -> Path:
        """Absolute path of a file of the contract.

        Raises:
            AbsentError: it does not exist.
        """
        path = self.results / relative
        if not path.exists():
            raise AbsentError("has not been written by this run", file=relative)
        return path

    def table(self, relative: str) -> pd.DataFrame:
        """A Parquet table, read once; treat as read-only.

        Raises:
            AbsentError: the file is missing.
            BrainG3NError: it is there and cannot be read.
        """
        if relative not in self._tables:
            path = self.path(relative)
            try:
                self._tables[relative] = pd.read_parquet(path)
            except (OSError, ValueError) as error:
                raise BrainG3NError("is not a readable Parquet table", file=relative, found=one_line(error)) from error
        return self._tables[relative]

    def rows(self, relative: str) -> pd.DataFrame:
        """As `table`, and AbsentError if it has no row."""
        table = self.table(relative)
        if table.empty:
            raise AbsentError("has no row", file=relative)
        return table

    def json(self, relative: str) -> Any:
        return read_json(self.path(relative))

    def relative(self, path: Path) -> str:
        try:
            return path.relative_to(self.results).as_posix()
        except ValueError:
            return path.as_posix()

    @property
    def volumes(self) -> pd.DataFrame:
        return self.rows("metadata/volumes.parquet")

    @property
    def ledger(self) -> pd.DataFrame:
        return self.rows("metadata/ledger.parquet")

    @property
    def cards(self) -> dict[str, dict[str, Any]]:
        """The cards of the trained models, in the order of training; a broken card is left to its own section."""
        cards = {}
        for name in MODELS:
            path = self.results / "models" / name / "card.json"
            if path.exists():
                cards[name] = read_json(path)
        return cards

    @property
    def qc_settings(self) -> QCSettings | None:
        """QC thresholds, if the configuration was given."""
        if self.config is None:
            return None
        return QCSettings.model_validate(self.config.get("preprocess", {}).get("qc", {}))

    def status(self, step: str | None = None) -> pd.DataFrame:
        """All status tables (of one step), one row a volume and step, with the columns `step` and `shard` added.

        Raises:
            AbsentError: no step has finished a shard.
        """
        key = f"status/{step or '*'}"
        if key not in self._tables:
            self._tables[key] = pd.concat(list(self._status_tables(step)) or [pd.DataFrame()], ignore_index=True)
        if self._tables[key].empty:
            raise AbsentError("no shard has finished", file=f"status/{step or ''}")
        return self._tables[key]

    def _status_tables(self, step: str | None) -> Iterable[pd.DataFrame]:
        for name in [step] if step else STEPS:
            for path in sorted((self.results / "status" / name).glob("*/*.parquet")):
                if path.name.endswith(".failed.parquet"):  # a shard that stopped; its table is not the status
                    continue
                yield pd.read_parquet(path).assign(step=name, shard=path.stem)


def read_config(files: Iterable[Path]) -> dict[str, Any] | None:
    """Merge configuration files (YAML or JSON) in order, validated; None if there are none."""
    content: dict[str, Any] = {}
    files = list(files)
    for file in files:
        content = merge(content, read_yaml(file))
    if not files:
        return None
    return validate_settings(Config, content, " + ".join(map(str, files))).model_dump(mode="json")


def one_line(error: BaseException, limit: int = 300) -> str:
    """An exception as one line that a reader can act on."""
    text = " ".join(str(error).split())
    if not isinstance(error, BrainG3NError):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"


def pick(table: pd.DataFrame, count: int, seed: int, worst_by: str | None) -> pd.DataFrame:
    """Up to `count` rows: a third the worst by a QC column (lowest first), the rest a seeded random draw.

    The column `chosen` says which of the two a row is.
    """
    count = min(count, len(table))
    worst = table.iloc[:0]
    if worst_by in table.columns and table[worst_by].notna().any():
        n_worst = max(1, count // 3) if len(table) > count else 0
        worst = table.sort_values(worst_by, na_position="first").head(n_worst)
    rest = table.drop(worst.index).sort_values("volume_id")
    order = np.random.default_rng(seed).permutation(len(rest))[: count - len(worst)]
    return pd.concat([worst.assign(chosen="worst"), rest.iloc[np.sort(order)].assign(chosen="random")])


def phantom_cohorts(config: dict[str, Any] | None) -> tuple[str, ...]:
    """Cohorts whose folder lies under `phantom.root` and which `braing3n phantom make` simulates."""
    if config is None:
        return ()
    root = Path(config["phantom"]["root"]).resolve()
    beside = [name for name, source in config["cohorts"].items() if Path(source["root"]).resolve().is_relative_to(root)]
    return tuple(name for name in beside if name not in ACQUIRED)
