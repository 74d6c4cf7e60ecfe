"""Making Snakemake run shards again: their status tables are removed, what is finished in them is reused."""

from __future__ import annotations

from pathlib import Path

from braing3n.errors import BrainG3NError
from braing3n.files import read_json, read_parquet
from braing3n.preprocess.shard import ANCHOR_FAILED
from braing3n.preprocess.steps import get_step

CHAIN = ("convert", "n4", "mask", "register", "crop")


def requeue(
    results: Path,
    cohort: str | None = None,
    step: str | None = None,
    *,
    only_failed: bool = True,
    dry_run: bool = False,
) -> dict[Path, list[str]]:
    """Remove the status tables of shards, so that the workflow makes them again.

    Args:
        cohort: only this one.
        step: only this one; default all five.
        only_failed: only tables of shards in which volumes failed at that very step.
        dry_run: remove nothing.

    Returns:
        The tables, each with the ids of the volumes that failed there.

    Raises:
        BrainG3NError: there is no index, or no such cohort or step.
    """
    index = results / "index" / "shards.json"
    if not index.exists():
        raise BrainG3NError("there is no index", file=index, remedy="run `braing3n index` first")
    cohorts = read_json(index)["cohorts"]
    if cohort is not None and cohort not in cohorts:
        raise BrainG3NError(f"cohort not in the index: {cohort}", file=index, expected=", ".join(sorted(cohorts)))
    steps = CHAIN if step is None else (get_step(step).name,)
    removed = {}
    for name in sorted(cohorts) if cohort is None else [cohort]:
        for shard in sorted(cohorts[name]["shards"]):
            for each in steps:
                table = results / "status" / each / name / f"{shard}.parquet"
                failed = failed_volumes(table, each)
                if failed or (table.exists() and not only_failed):
                    removed[table] = failed
                    if not dry_run:
                        table.unlink()
    return removed


def failed_volumes(table: Path, step: str) -> list[str]:
    """Ids of the volumes that failed at `step` itself, not with an anchor that failed before."""
    if not table.exists():
        return []
    rows = read_parquet(table, ["volume_id", "status", "failed_step", "error_class"])
    own = (rows["status"] == "failed") & (rows["failed_step"] == step) & (rows["error_class"] != ANCHOR_FAILED)
    return rows.loc[own, "volume_id"].tolist()
