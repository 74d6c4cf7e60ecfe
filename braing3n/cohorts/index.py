"""The frozen index of all cohorts, in sticky shards, and its ledger (docs/data-contract.md)."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from braing3n.cohorts.definition import load_definition
from braing3n.cohorts.scan import Scan, scan_cohort
from braing3n.cohorts.schema import INDEX_COLUMNS, LEDGER_COLUMNS, typed, validate_table
from braing3n.cohorts.splits import assert_no_leakage, split_of
from braing3n.config import Config
from braing3n.config.data import IndexSettings
from braing3n.errors import BrainG3NError
from braing3n.files import read_json, read_parquet, short_hash, write_json, write_parquet

logger = logging.getLogger(__name__)
VERSION = 1
_ORDER = ["cohort", "subject_id", "session_id", "modality", "run", "volume_id"]


@dataclass
class IndexResult:
    """`volumes` and `ledger` as written; `errors`: cohort -> what went wrong; `changed`: files rewritten or removed."""

    volumes: pd.DataFrame
    ledger: pd.DataFrame
    errors: dict[str, BrainG3NError] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)
    changed: list[str] = field(default_factory=list)


def build_index(config: Config, cohorts: Iterable[str] = ()) -> IndexResult:
    """Scan cohorts and write `<results>/index/`.

    Args:
        cohorts: scan only these and keep the others as an earlier index has them; default all of the configuration.

    A cohort that cannot be scanned is reported in `errors` and keeps its earlier rows; the others are indexed.

    Raises:
        BrainG3NError: a cohort is not configured, or the written tables would break the schema or leak persons.
    """
    names = list(cohorts) or list(config.cohorts)
    unknown = [name for name in names if name not in config.cohorts]
    if unknown or not names:
        raise BrainG3NError(
            f"cohorts not in the configuration: {', '.join(unknown)}" if unknown else "no cohort is configured",
            file="cohorts",
            expected=", ".join(config.cohorts) or "cohorts: {IXI: {root: /data/ixi}}",
            remedy="add `cohorts: {<NAME>: {root: DIR}}` to a configuration file and give it with --config",
        )
    folder = config.pathvars.results / "index"
    earlier = _Earlier(folder)
    result = IndexResult(earlier.volumes, earlier.ledger)
    volumes, ledgers = {}, {}
    for name in config.cohorts:
        scan = _scan(config, name, result) if name in names else None
        if scan is not None:
            volumes[name], ledgers[name] = scan.rows, scan.ledger
        elif name in earlier.names:
            volumes[name] = earlier.volumes[earlier.volumes["cohort"] == name]
            ledgers[name] = earlier.ledger[earlier.ledger["cohort"] == name]
    shards = {name: _n_shards(len(rows), config.index, earlier.shards.get(name)) for name, rows in volumes.items()}
    result.volumes = _finished(volumes, shards, config.index)
    result.ledger = pd.concat([ledgers[name] for name in sorted(ledgers)], ignore_index=True) if ledgers else _empty()
    if not result.errors or volumes:
        _write(folder, result, shards)
    return result


def _scan(config: Config, name: str, result: IndexResult) -> Scan | None:
    source = config.cohorts[name]
    try:
        definition = load_definition(name, source.definition, as_published=source.as_published)
        scan = scan_cohort(definition, source.root)
    except BrainG3NError as error:
        result.errors[name] = error
        return None
    result.notes[name] = scan.notes
    return scan


class _Earlier:
    """What an earlier index holds; empty if there is none."""

    def __init__(self, folder: Path):
        present = (folder / "shards.json").exists()
        content: dict[str, Any] = read_json(folder / "shards.json") if present else {"cohorts": {}}
        if content.get("version", VERSION) != VERSION:
            raise BrainG3NError(
                "index was written by another version of braing3n",
                file=folder / "shards.json",
                expected=f"version {VERSION}",
                found=str(content.get("version")),
                remedy="remove the index folder and run `braing3n index` again",
            )
        self.shards = {name: entry["n_shards"] for name, entry in content["cohorts"].items()}
        self.names = set(self.shards)
        self.volumes = read_parquet(folder / "volumes.parquet") if present else typed(pd.DataFrame())
        self.ledger = read_parquet(folder / "ledger.parquet") if present else _empty()


def _empty() -> pd.DataFrame:
    return pd.DataFrame(columns=list(LEDGER_COLUMNS)).astype("str")


def _n_shards(n_volumes: int, settings: IndexSettings, earlier: int | None) -> int:
    """Buckets of a cohort: fixed when it first has a volume, so that adding scans moves no session."""
    return earlier or -(-n_volumes // settings.shard_size)


def shard_of(cohort: str, subject_id: str, session_id: str, n_shards: int) -> str:
    """Shard of a session: all its modalities together, since they follow one transform."""
    return f"{int(short_hash(cohort, subject_id, session_id), 16) % n_shards:04d}"


def _finished(volumes: dict[str, pd.DataFrame], shards: dict[str, int], settings: IndexSettings) -> pd.DataFrame:
    """All rows with split and shard, sorted, typed and checked."""
    filled = [rows for rows in volumes.values() if len(rows)]
    table = pd.concat(filled, ignore_index=True) if filled else pd.DataFrame(columns=list(INDEX_COLUMNS))
    table["split"] = [split_of(person, settings) for person in table["person_id"]]
    table["shard"] = [
        shard_of(cohort, subject, session, shards[cohort])
        for cohort, subject, session in zip(table["cohort"], table["subject_id"], table["session_id"], strict=True)
    ]
    table = typed(table).sort_values(_ORDER, kind="stable", ignore_index=True)
    validate_table(table, "index/volumes.parquet")
    assert_no_leakage(table, "index/volumes.parquet")
    owners = table.groupby("bids_subject")["subject_id"].nunique()
    if (owners > 1).any():
        raise BrainG3NError(
            "two subjects share a BIDS label",
            file="index/volumes.parquet",
            found=", ".join(owners.index[owners > 1][:5]),
            remedy="give the cohorts different prefixes in their definitions",
        )
    return table


def _write(folder: Path, result: IndexResult, n_shards: dict[str, int]) -> None:
    """Write what changed; `shards.json` last, since it is what the workflow reads."""
    contents: dict[str, Any] = {
        name: {"n_shards": n_shards[name], "shards": {}} for name in sorted(n_shards) if n_shards[name]
    }
    expected = set()
    for (cohort, shard), rows in result.volumes.groupby(["cohort", "shard"]):
        path = folder / "shards" / cohort / f"{shard}.parquet"
        expected.add(path)
        contents[cohort]["shards"][shard] = len(rows)
        _record(result, path, write_parquet(path, rows.reset_index(drop=True), only_if_changed=True))
    for name, table in (("volumes", result.volumes), ("ledger", result.ledger)):
        path = folder / f"{name}.parquet"
        _record(result, path, write_parquet(path, table, only_if_changed=True))
    path = folder / "shards.json"
    _record(result, path, write_json(path, {"version": VERSION, "cohorts": contents}, only_if_changed=True))
    for path in sorted(set(folder.glob("shards/*/*.parquet")) - expected):
        path.unlink()
        _record(result, path, True)


def _record(result: IndexResult, path: Path, changed: bool) -> None:
    if changed:
        result.changed.append(path.as_posix())


def summary(result: IndexResult) -> pd.DataFrame:
    """One row a cohort: volumes, subjects, sessions, modalities, and how every file found ended."""
    rows = []
    for cohort, lines in result.ledger.groupby("cohort"):
        volumes = result.volumes[result.volumes["cohort"] == cohort]
        ends = lines["status"].value_counts()
        rows.append(
            {
                "cohort": cohort,
                "volumes": len(volumes),
                "subjects": volumes["subject_id"].nunique(),
                "sessions": len(volumes[["subject_id", "session_id"]].drop_duplicates()),
                "modalities": " ".join(
                    f"{name}:{n}" for name, n in volumes["modality"].value_counts().sort_index().items()
                ),
                "kept": int(ends.get("kept", 0)),
                "excluded": int(ends.get("excluded", 0)),
                "failed": int(ends.get("failed", 0)),
            }
        )
    return pd.DataFrame(rows)
