"""The metadata table: one row per stored volume, and the ledger that accounts for every file found."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from braing3n.cohorts.schema import INDEX_COLUMNS, LEDGER_COLUMNS, STORE_COLUMNS, validate_table
from braing3n.cohorts.splits import assert_no_leakage
from braing3n.config.data import QCSettings
from braing3n.errors import BrainG3NError
from braing3n.files import read_json, read_parquet, write_parquet

LAST_STEP = "crop"
METADATA_LEDGER_COLUMNS = ("cohort", "path", "volume_id", "status", "stage", "reason")
_STORE_NUMBERS = ["scale", "mean", "std", "brain_voxels"]


def load_metadata(path: str | Path) -> pd.DataFrame:
    """Read `metadata/volumes.parquet`; every later stage starts here.

    Returns:
        One row per stored volume with the columns of docs/data-contract.md, in the order of the index.

    Raises:
        BrainG3NError: the file is missing, does not follow the schema, or a person is in two splits.
    """
    table = read_parquet(path)
    validate_table(table, str(path), metadata=True)
    assert_no_leakage(table, str(path))
    return table


def build_metadata(
    results: str | Path, qc: QCSettings, cohorts: Iterable[str] = ()
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Join the index with what preprocessing made of it.

    Args:
        results: the results folder.
        qc: thresholds that flag a volume for a look; they drop nothing.
        cohorts: only these; default all of the index.

    Returns:
        The metadata table and the reconciled ledger: every file found, once, with the stage and reason that ended it.

    Raises:
        BrainG3NError: a status or store table is missing or does not belong to the index, or the counts do not add up.
    """
    results, cohorts = Path(results), set(cohorts)
    shards = _shards(results, cohorts)
    index = pd.concat([read_parquet(results / "index/shards" / c / f"{s}.parquet") for c, s in shards])
    status = pd.concat([_status(results, cohort, shard) for cohort, shard in shards])
    stores = pd.concat([_store(results, cohort, shard) for cohort, shard in shards])
    _same_volumes(index, status, results)
    table = _joined(index, status, stores, qc)
    ledger = read_parquet(results / "index/ledger.parquet")
    return table, _reconciled(ledger[ledger["cohort"].isin(cohorts)] if cohorts else ledger, status, table)


def write_metadata(
    results: str | Path, out: str | Path, ledger_out: str | Path, qc: QCSettings, cohorts: Iterable[str] = ()
) -> str:
    """Build, check and write the metadata table and the ledger; returns one line of counts."""
    table, ledger = build_metadata(results, qc, cohorts)
    validate_table(table, str(out), metadata=True)
    assert_no_leakage(table, str(out))
    write_parquet(out, table)
    write_parquet(ledger_out, ledger)
    ends = ledger["status"].value_counts()
    counts = ", ".join(f"{int(ends.get(end, 0))} {end}" for end in ("kept", "excluded", "failed"))
    return (
        f"{len(ledger)} files found: {counts}; {int((table['qc_flags'] != '').sum())} kept volumes flagged for a look"
    )


def _shards(results: Path, cohorts: set[str]) -> list[tuple[str, str]]:
    path = results / "index/shards.json"
    if not path.exists():
        raise BrainG3NError("there is no index", file=path, remedy="run `braing3n index --config FILE` first")
    content = read_json(path)["cohorts"]
    unknown = sorted(cohorts - set(content))
    if unknown:
        raise BrainG3NError(
            f"cohorts not in the index: {', '.join(unknown)}",
            file=path,
            expected=", ".join(content),
            remedy="run `braing3n index` with these cohorts in its configuration",
        )
    shards = [(c, s) for c in sorted(cohorts or content) for s in sorted(content[c]["shards"])]
    if not shards:
        raise BrainG3NError("the index holds no volume", file=path, remedy="see what `braing3n index` printed")
    return shards


def _status(results: Path, cohort: str, shard: str) -> pd.DataFrame:
    columns = ["volume_id", "status", "reason", "failed_step", "qc"]
    return read_parquet(results / "status" / LAST_STEP / cohort / f"{shard}.parquet", columns)


def _store(results: Path, cohort: str, shard: str) -> pd.DataFrame:
    store = read_parquet(results / "volumes" / cohort / f"{shard}.parquet", ["volume_id", "row", *_STORE_NUMBERS])
    return store.rename(columns={"row": "store_row"}).assign(store_file=f"volumes/{cohort}/{shard}.npy")


def _same_volumes(index: pd.DataFrame, status: pd.DataFrame, results: Path) -> None:
    indexed, stepped = set(index["volume_id"]), set(status["volume_id"])
    if indexed != stepped or len(status) != len(index):
        raise BrainG3NError(
            "status tables do not belong to this index",
            file=results / "status" / LAST_STEP,
            expected=f"{len(indexed)} volumes",
            found=f"{len(indexed - stepped)} without a status, {len(stepped - indexed)} that the index does not know",
            remedy="run the preprocessing again for the index as it is now",
        )


def _joined(index: pd.DataFrame, status: pd.DataFrame, stores: pd.DataFrame, qc: QCSettings) -> pd.DataFrame:
    """Index rows of the stored volumes with their store columns and flattened QC, in the order of the index."""
    good = status[status["status"].isin(["ok", "skipped"])]
    unstored = sorted(set(good["volume_id"]) ^ set(stores["volume_id"]))
    if unstored:
        raise BrainG3NError(
            "status tables and volume stores disagree about which volumes are stored",
            file="volumes",
            found=f"{len(unstored)} volumes on one side only, for example {', '.join(unstored[:3])}",
            remedy=f"run the step {LAST_STEP} again for their shards",
        )
    numbers = pd.DataFrame([_numbers(text) for text in good["qc"]], index=good["volume_id"].to_numpy())
    numbers = numbers.reindex(sorted(numbers.columns), axis=1).add_prefix("qc_").astype("float64")
    flags = pd.Series(_flags(numbers, qc), index=numbers.index, name="qc_flags")
    table = index.merge(stores, on="volume_id", validate="one_to_one")
    table = table.merge(numbers.assign(qc_flags=flags), left_on="volume_id", right_index=True, validate="one_to_one")
    columns = {**INDEX_COLUMNS, **STORE_COLUMNS}
    table = table.astype({name: column.dtype for name, column in columns.items()})
    names = [*INDEX_COLUMNS, *(n for n in STORE_COLUMNS if n != "qc_flags"), *numbers.columns, "qc_flags"]
    order = ["cohort", "subject_id", "session_id", "modality", "run", "volume_id"]
    return table[names].sort_values(order, kind="stable", ignore_index=True)


def _numbers(text: str) -> dict[str, float]:
    """The QC object of one volume; what is not a number is missing."""
    content: dict[str, Any] = json.loads(text) if text else {}
    return {
        name: float(value) if isinstance(value, int | float) else math.nan for name, value in sorted(content.items())
    }


def _flags(numbers: pd.DataFrame, qc: QCSettings) -> Sequence[str]:
    """Per volume the comma-separated names of measures outside their thresholds; an absent measure flags nothing."""
    bounds = qc.bounds()
    outside = {}
    for name, (low, high) in bounds.items():
        values = numbers.get(f"qc_{name}", pd.Series(np.nan, index=numbers.index))
        outside[name] = values.notna() & ~values.between(low, high)
    return [",".join(name for name in bounds if outside[name].iloc[i]) for i in range(len(numbers))]


def _reconciled(ledger: pd.DataFrame, status: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Ledger of the index with the kept files' final status; asserts that nothing appears or disappears."""
    final = status.set_index("volume_id")[["status", "reason", "failed_step"]]
    ended = final[final["status"].isin(["excluded", "failed"])]
    result = ledger[list(LEDGER_COLUMNS)].copy()
    result["stage"] = np.where(result["status"] == "kept", "", "index")
    late = result["volume_id"].isin(ended.index)
    for column, source in (("status", "status"), ("reason", "reason"), ("stage", "failed_step")):
        result.loc[late, column] = result.loc[late, "volume_id"].map(ended[source])
    kept = set(result.loc[result["status"] == "kept", "volume_id"])
    if kept != set(table["volume_id"]) or len(result) != len(ledger) or (result["status"] == "kept").sum() != len(kept):
        raise BrainG3NError(
            "the ledger does not add up",
            file="index/ledger.parquet",
            expected=f"{len(table)} kept files, as many as stored volumes",
            found=f"{len(kept)}",
            remedy="run `braing3n index` and the preprocessing again",
        )
    return result[list(METADATA_LEDGER_COLUMNS)].astype("str").reset_index(drop=True)
