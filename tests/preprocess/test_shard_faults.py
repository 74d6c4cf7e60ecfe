"""Faults of the machine: a full disk, and kills at any moment."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from shard_steps import ACT, Cohort

from braing3n.errors import BrainG3NError
from braing3n.files import read_json, sha256_of

MEBIBYTE = 1 << 20


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A disk of 6 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", folder], capture_output=True)
    if mount.returncode != 0:
        pytest.skip("mounting a small disk is not allowed here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def check_records(cohort: Cohort) -> set[str]:
    """Ids of finished volumes; every file that a record names is whole."""
    finished = set()
    for path in (cohort.results / "work" / "act").glob("*/*/*.json"):
        if path.name.startswith(".tmp"):
            continue
        for name, entry in read_json(path)["files"].items():
            assert sha256_of(cohort.results / name) == entry["sha256"]
        finished.add(path.stem)
    return finished


def test_a_full_disk_stops_the_shard_with_one_line_and_loses_nothing(small_disk):
    cohort = Cohort(small_disk)
    for i in range(8):
        cohort.add(f"v{i}", f"fill {MEBIBYTE}")
    run = cohort.command("act", "--max-failed-fraction", "1")
    output, _ = run.communicate(timeout=300)
    assert run.returncode == 1, output
    assert "no space left on the disk; remedy: free some" in output
    assert not cohort.status("act").exists()
    finished = check_records(cohort)
    assert 2 <= len(finished) < 8

    subprocess.run(["mount", "-o", "remount,size=20m", small_disk], check=True)
    table = cohort.run(ACT)
    assert (table["status"] == "ok").all()
    assert set(table.loc[table["reused"], "volume_id"]) == finished


def test_a_disk_that_fills_while_the_status_table_is_written(small_disk, inline):
    cohort = Cohort(small_disk)
    cohort.add("a", "ok")
    cohort.index()
    filler = small_disk / "filler"
    with open(filler, "wb", buffering=0) as handle, contextlib.suppress(OSError):
        while True:
            handle.write(bytes(4096))
    with pytest.raises(BrainG3NError, match="no space left on the disk"):
        cohort.run(ACT)
    filler.unlink()
    assert cohort.run(ACT)["status"].tolist() == ["ok"]


@pytest.mark.slow
def test_twenty_kills_at_random_moments_lose_nothing_finished(cohort):
    moments = random.Random(2025)
    for i in range(60):
        cohort.add(f"v{i:02d}", "sleep 0.25")
    finished: set[str] = set()
    for _ in range(20):
        run = cohort.command("act", "--threads", "2")
        time.sleep(moments.uniform(0.3, 4.0))
        victim = run.pid if moments.random() < 0.5 else -run.pid  # the runner alone, or the whole job
        os.kill(victim, signal.SIGKILL) if victim > 0 else os.killpg(run.pid, signal.SIGKILL)
        run.communicate()
        now = check_records(cohort)
        assert finished <= now
        finished = now
    run = cohort.command("act", "--threads", "2")
    output, _ = run.communicate(timeout=300)
    assert run.returncode == 0, output
    table = cohort.read("act")
    assert (table["status"] == "ok").all()
    assert finished <= set(table.loc[table["reused"], "volume_id"]) | check_records(cohort)
    assert set(table.loc[table["reused"], "volume_id"]) >= finished
    for _, row in table.iterrows():
        assert cohort.product(row).read_text() == "sleep 0.25 1"
    assert not list(cohort.results.rglob(".tmp*"))
