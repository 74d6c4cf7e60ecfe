"""Status tables, one row a volume, and the per-volume records that make a rerun cheap (docs/data-contract.md)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from braing3n.errors import BrainG3NError
from braing3n.files import read_json, read_parquet, sha256_of, short_hash, write_json, write_parquet
from braing3n.preprocess.steps import Context, Volume

if TYPE_CHECKING:
    import pandas as pd

COPIED = ("volume_id", "cohort", "subject_id", "session_id", "modality")
STATUS_COLUMNS = {
    **dict.fromkeys(COPIED, "str"),
    "status": "str",
    "reason": "str",
    "error_class": "str",
    "failed_step": "str",
    "outputs": "str",
    "output_sha256": "str",
    "input_sha256": "str",
    "settings_hash": "str",
    "step_version": "str",
    "seconds": "float64",
    "reused": "bool",
    "run_id": "str",
    "finished_at": "str",
    "qc": "str",
    "versions": "str",
}
JSON_COLUMNS = ("outputs", "qc", "versions")


@dataclass(frozen=True)
class Key:
    """What a product was made from and by; equal keys, equal product."""

    input_sha256: str
    settings_hash: str
    step_version: str


@dataclass(frozen=True)
class Record:
    """What one step did with one volume: its own part of the status row."""

    key: Key
    status: str
    reason: str = ""
    error_class: str = ""
    outputs: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Path -> `bytes` and `sha256`, the main product first."""
    qc: Mapping[str, float] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    run_id: str = ""
    finished_at: str = ""

    @property
    def output_sha256(self) -> str:
        return next((entry["sha256"] for entry in self.files.values()), "")


def now() -> str:
    """ISO 8601, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def hash_inputs(inputs: Mapping[str, Path | str]) -> str:
    """One hash of a step's input files (by content) and facts (by value).

    Raises:
        BrainG3NError: a file is not there.
    """
    parts = []
    for name, value in sorted(inputs.items()):
        if isinstance(value, Path):
            if not value.exists():
                raise BrainG3NError(
                    f"input {name} is missing", file=value, remedy="index the cohort again, or rerun the step before"
                )
            value = sha256_of(value)
        parts += [name, value]
    return short_hash(*parts, length=64)


def describe_files(results: Path, outputs: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of products, by path relative to the results."""
    paths = [str(path) for path in outputs.values()]
    return {path: {"bytes": (results / path).stat().st_size, "sha256": sha256_of(results / path)} for path in paths}


def work_folder(results: Path, step: str, cohort: str, shard: str) -> Path:
    return results / "work" / step / cohort / shard


def record_path(context: Context, step: str, volume: Volume) -> Path:
    return work_folder(context.results, step, context.cohort, context.shard) / f"{volume.id}.json"


def write_record(path: Path, record: Record) -> None:
    write_json(path, asdict(record))


def read_reusable(path: Path, key: Key, results: Path) -> Record | None:
    """The record at `path`, if it was made with the same `key` and its products are there, unchanged."""
    try:
        content = read_json(path)
        record = Record(**{**content, "key": Key(**content["key"])})
    except (FileNotFoundError, BrainG3NError, TypeError, KeyError):
        return None  # never made, or written by another version: the volume is redone
    if record.key != key:
        return None
    for name, entry in record.files.items():
        product = results / name
        if not product.is_file() or product.stat().st_size != entry["bytes"] or sha256_of(product) != entry["sha256"]:
            return None
    return record


def status_row(volume: Volume, record: Record, step: str, *, reused: bool = False) -> dict[str, Any]:
    """The status row of a volume after a step: the record, on top of what earlier steps left."""
    lost = record.status in ("excluded", "failed")
    return {
        **{name: volume.row[name] for name in COPIED},
        "status": record.status,
        "reason": record.reason,
        "error_class": record.error_class,
        "failed_step": step if lost else "",
        "outputs": {**volume.outputs, **record.outputs},
        "output_sha256": record.output_sha256 or ("" if lost else volume.output_sha256),
        "input_sha256": record.key.input_sha256,
        "settings_hash": record.key.settings_hash,
        "step_version": record.key.step_version,
        "seconds": record.seconds,
        "reused": reused,
        "run_id": record.run_id,
        "finished_at": record.finished_at,
        "qc": {**volume.qc, **record.qc},
        "versions": {**volume.versions, **record.versions},
    }


def carried_row(volume: Volume, run_id: str) -> dict[str, Any]:
    """The status row of a volume that an earlier step excluded or failed."""
    record = Record(Key("", "", ""), volume.status, volume.reason, volume.error_class, run_id=run_id, finished_at=now())
    return status_row(volume, record, volume.failed_step)


def status_table(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Status rows -> table with exactly `STATUS_COLUMNS`; mappings become JSON text."""
    import pandas as pd

    flat = [{**row, **{name: json.dumps(row[name], sort_keys=True) for name in JSON_COLUMNS}} for row in rows]
    return pd.DataFrame(flat, columns=list(STATUS_COLUMNS)).astype(STATUS_COLUMNS)


def write_status(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    write_parquet(path, status_table(rows))


def read_volumes(shard: Path, previous: Path | None) -> list[Volume]:
    """The shard's index rows, each with what the previous step's status table says of it.

    Raises:
        BrainG3NError: a table is missing, lacks columns or volumes, or mixes shards.
    """
    import pandas as pd

    table = read_parquet(shard)
    needed = {*COPIED, "shard", "run", "source_path", "source_format", "bids_subject", "bids_session"}
    if missing := needed - set(table.columns):
        raise BrainG3NError(
            "is not a shard of the index",
            file=shard,
            found=f"no column {', '.join(sorted(missing))}",
            remedy="index again",
        )
    if table.empty or table["volume_id"].duplicated().any() or len(table[["cohort", "shard"]].drop_duplicates()) != 1:
        raise BrainG3NError(
            "is not one shard", file=shard, expected="volumes of one cohort and shard, each once", remedy="index again"
        )
    rows = [{k: None if pd.isna(v) else v for k, v in row.items()} for row in table.to_dict("records")]
    if previous is None:
        return [Volume(row) for row in rows]
    status = {row["volume_id"]: row for row in read_parquet(previous).to_dict("records")}
    if set(status) != {row["volume_id"] for row in rows}:
        raise BrainG3NError(
            f"does not hold the volumes of {shard}",
            file=previous,
            remedy="the index has changed: rerun the step before",
        )
    return [volume_after(row, status[row["volume_id"]]) for row in rows]


def volume_after(row: Mapping[str, Any], status: Mapping[str, Any]) -> Volume:
    """A volume as the next step sees it: its index row and its status row, whose mappings may be JSON text."""
    texts = ("status", "reason", "error_class", "failed_step", "output_sha256")
    mappings = {name: json.loads(v) if isinstance(v := status[name], str) else v for name in JSON_COLUMNS}
    return Volume(row, **{name: status[name] for name in texts}, **mappings)
