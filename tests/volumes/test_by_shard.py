"""A cohort through a network, shard by shard: what is made once, again, or not at all."""

from __future__ import annotations

import os
import signal

import pandas as pd
import pytest

from braing3n.errors import BrainG3NError, ResumeLater
from braing3n.files import read_parquet
from braing3n.preprocess.lock import shard_lock
from braing3n.volumes.by_shard import make_by_shard


class Project:
    """Three shards of two volumes each; making one writes its volume ids and is noted."""

    def __init__(self, root):
        self.root, self.made, self.table = root, [], root / "features/net/IXI.parquet"
        rows = []
        for shard in ("0000", "0001", "0002"):
            ids = [f"{shard}-{i}" for i in range(2)]
            self.store(shard, ids)
            rows += [
                {"volume_id": i, "cohort": "IXI", "shard": shard, "split": "train", "store_file": f"IXI/{shard}.npy"}
                for i in ids
            ]
        self.metadata = pd.DataFrame(rows)

    def store(self, shard: str, ids: list[str], voxels: str = "first") -> None:
        path = self.root / "IXI" / f"{shard}.parquet"
        path.parent.mkdir(exist_ok=True)
        pd.DataFrame({"volume_id": ids, "sha256": voxels}).to_parquet(path)

    def files(self, shard: str):
        return [self.root / "features/net/IXI" / f"{shard}.txt"]

    def make(self, shard: str, rows: pd.DataFrame) -> None:
        (path,) = self.files(shard)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(" ".join(rows["volume_id"]))
        self.made.append(shard)

    def run(self, made_by: str = "weights", make=None, cohort: str = "IXI") -> list[str]:
        self.made = []
        make_by_shard("net", cohort, self.metadata, self.root, made_by, self.files, make or self.make, self.table)
        return self.made


@pytest.fixture
def project(tmp_path) -> Project:
    return Project(tmp_path)


def test_every_shard_is_made_once(project):
    assert project.run() == ["0000", "0001", "0002"]
    assert project.files("0001")[0].read_text() == "0001-0 0001-1"
    table = read_parquet(project.table)
    assert table["shard"].tolist() == ["0000", "0001", "0002"]
    assert table["volumes"].tolist() == [2, 2, 2]
    assert table["key"].nunique() == 3
    assert project.run() == []


def test_what_changed_is_made_again(project):
    project.run()
    keys = read_parquet(project.table)["key"]
    project.store("0001", ["0001-0", "0001-1"], voxels="second")
    assert project.run() == ["0001"]
    assert (read_parquet(project.table)["key"] != keys).tolist() == [False, True, False]
    project.files("0002")[0].unlink()
    assert project.run() == ["0002"]
    project.files("0000")[0].write_text("0000-0 0000-9")  # damaged, and as long as it was
    assert project.run() == ["0000"]
    (project.root / "work/net/IXI/0000.json").write_text("{")
    assert project.run() == ["0000"]
    assert project.run("other weights") == ["0000", "0001", "0002"]


def test_a_failure_keeps_the_shards_before_it_and_no_table(project):
    def make(shard, rows):
        if shard == "0001":
            raise BrainG3NError("no")
        project.make(shard, rows)

    project.run()
    project.table.unlink()
    with pytest.raises(BrainG3NError, match="no"):
        project.run("other weights", make)
    assert project.made == ["0000"]
    assert not project.table.exists()
    assert project.run("other weights") == ["0001", "0002"]


def test_a_stop_finishes_the_shard_in_hand(project):
    def make(shard, rows):
        os.kill(os.getpid(), signal.SIGTERM)
        project.make(shard, rows)

    with pytest.raises(ResumeLater, match=r"net stopped \(SIGTERM\) with 2 of 6 volumes done"):
        project.run(make=make)
    assert not project.table.exists()
    assert project.run() == ["0001", "0002"]


def test_leftovers_of_a_killed_run_go(project):
    folder = project.files("0000")[0].parent
    folder.mkdir(parents=True)
    pid = next(number for number in range(2**21, 2**22) if not os.path.exists(f"/proc/{number}"))
    (folder / f".tmp{pid}-0000.parquet").write_text("half")
    project.run()
    assert sorted(path.name for path in folder.iterdir()) == ["0000.txt", "0001.txt", "0002.txt"]


def test_two_runs_at_once_are_refused(project):
    with (
        shard_lock(project.root / "work/lock/IXI/net.lock"),
        pytest.raises(BrainG3NError, match="another run is working"),
    ):
        project.run()


def test_a_cohort_without_volumes_leaves_an_empty_table(project, caplog):
    assert project.run(cohort="OASIS-1") == []
    assert read_parquet(project.table).dtypes.astype(str).tolist() == ["str", "int64", "str"]
    assert "no volume of OASIS-1 is stored" in caplog.text
