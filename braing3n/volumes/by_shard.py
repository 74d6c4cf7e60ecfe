"""A cohort's volumes through a frozen network, shard by shard: what an earlier run made of the same volumes stays."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pandas as pd

import braing3n
from braing3n.errors import BrainG3NError, ResumeLater
from braing3n.files import read_json, sha256_of, short_hash, write_json, write_parquet
from braing3n.preprocess.lock import remove_leftovers, shard_lock
from braing3n.progress import Progress
from braing3n.training.stop import StopRequest
from braing3n.volumes.feed import data_hash

logger = logging.getLogger(__name__)

STOP_BEFORE_S = 120.0  # before the scheduler's limit: the shard in hand is still finished


def make_by_shard(
    name: str,
    cohort: str,
    metadata: pd.DataFrame,
    results: str | Path,
    made_by: str,
    files: Callable[[str], list[Path]],
    make: Callable[[str, pd.DataFrame], None],
    table: str | Path,
) -> None:
    """Make the files of every shard of a cohort, and when all are there the table that says so.

    A finished shard leaves a record, `work/<name>/<cohort>/<shard>.json`. While its volumes, `made_by` and its files
    are the same, it is not made again.

    Args:
        name: of the stage, such as `encode_untrained`.
        metadata: the metadata table; rows of other cohorts are passed over.
        results: folder that its paths are relative to.
        made_by: hash of whatever else the files depend on, such as the network's weights.
        files: shard -> the files that `make` writes for it.
        make: writes them, given the shard and its rows.
        table: to write, `shard, volumes, key`; a cohort of which no volume is stored leaves it empty.

    Raises:
        BrainG3NError: another run works on this cohort.
        ResumeLater: SIGTERM or SIGUSR1 came, or the job's time limit; finished shards stay.
    """
    results = Path(results)
    rows = metadata[metadata["cohort"] == cohort]
    if rows.empty:
        logger.warning("%s: no volume of %s is stored, nothing is made", name, cohort)
    finished = []
    with (
        shard_lock(results / "work" / "lock" / cohort / f"{name}.lock"),
        StopRequest(STOP_BEFORE_S) as stop,
        Progress(f"{name} {cohort}", len(rows), 0) as progress,
    ):
        for shard, part in rows.groupby("shard", sort=True):
            record = results / "work" / name / cohort / f"{shard}.json"
            key = short_hash(made_by, braing3n.__version__, data_hash(part, results))
            if not _is_made(record, key, files(shard)):
                if stop.requested():
                    done = f"{progress.done} of {len(rows)} volumes done"
                    raise ResumeLater(f"{name} stopped ({stop.reason}) with {done}; run it again to continue")
                record.unlink(missing_ok=True)
                for folder in {path.parent for path in files(shard)}:
                    remove_leftovers(folder.glob(".tmp*"))
                make(shard, part.reset_index(drop=True))
                write_json(record, {"key": key, "sha256": _hashes(files(shard))})
            finished.append({"shard": shard, "volumes": len(part), "key": key})
            progress.update(progress.done + len(part))
    types = {"shard": "str", "volumes": "int64", "key": "str"}
    write_parquet(table, pd.DataFrame(finished, columns=list(types)).astype(types))


def _hashes(files: list[Path]) -> list[str]:
    return [sha256_of(path) for path in files]  # in order and without their paths: a results folder may move


def _is_made(record: Path, key: str, files: list[Path]) -> bool:
    if not record.exists() or not all(path.exists() for path in files):
        return False
    try:
        return read_json(record) == {"key": key, "sha256": _hashes(files)}
    except BrainG3NError:  # a damaged record
        return False
