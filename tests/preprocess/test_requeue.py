"""Requeueing removes the tables of exactly those shards in which something failed at that step."""

from __future__ import annotations

import pytest

from braing3n.errors import BrainG3NError
from braing3n.files import write_json, write_parquet
from braing3n.preprocess.requeue import requeue


@pytest.fixture
def results(tmp_path):
    write_json(
        tmp_path / "index/shards.json", {"cohorts": {"A": {"shards": {"0000": 2, "0001": 1}}, "B": {"shards": {}}}}
    )

    def table(step: str, shard: str, rows: list[tuple[str, str, str, str]]) -> None:
        import pandas as pd

        columns = ["volume_id", "status", "failed_step", "error_class"]
        write_parquet(tmp_path / f"status/{step}/A/{shard}.parquet", pd.DataFrame(rows, columns=columns))

    table("convert", "0000", [("v1", "failed", "convert", "BrainG3NError"), ("v2", "ok", "", "")])
    table("convert", "0001", [("v3", "excluded", "convert", "ExcludeVolume")])
    table("n4", "0000", [("v1", "failed", "convert", "BrainG3NError"), ("v2", "ok", "", "")])
    table("mask", "0000", [("v1", "failed", "convert", "BrainG3NError"), ("v2", "failed", "mask", "AnchorFailed")])
    return tmp_path


def left(results) -> list[str]:
    return sorted(path.relative_to(results / "status").as_posix() for path in results.rglob("*.parquet"))


def test_only_the_shard_and_step_that_failed(results):
    before = left(results)
    assert [path.name for path in requeue(results, dry_run=True)] == ["0000.parquet"]
    assert left(results) == before
    assert requeue(results, step="n4") == {}
    assert requeue(results, "B") == {}
    assert requeue(results) == {results / "status/convert/A/0000.parquet": ["v1"]}
    assert left(results) == ["convert/A/0001.parquet", "mask/A/0000.parquet", "n4/A/0000.parquet"]


def test_all_shards_of_a_step(results):
    assert len(requeue(results, "A", "convert", only_failed=False)) == 2
    assert left(results) == ["mask/A/0000.parquet", "n4/A/0000.parquet"]


def test_what_does_not_exist(results, tmp_path):
    with pytest.raises(BrainG3NError, match="cohort not in the index: C"):
        requeue(results, "C")
    with pytest.raises(BrainG3NError, match="no preprocessing step 'fly'"):
        requeue(results, step="fly")
    with pytest.raises(BrainG3NError, match="there is no index"):
        requeue(tmp_path / "other")
