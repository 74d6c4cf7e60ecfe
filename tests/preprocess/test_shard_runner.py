"""The shard runner: every volume ends in one row, whatever happens to the others or to the run."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from pathlib import Path

import pytest
from shard_steps import ACT, CHOOSY, FOLLOW, ActSettings

from braing3n.errors import BrainG3NError
from braing3n.files import read_parquet
from braing3n.preprocess.records import STATUS_COLUMNS
from braing3n.preprocess.steps import get_step

ALL = {"max_failed_fraction": 1.0}


def test_every_fate_is_one_row_and_costs_nobody_else_anything(cohort):
    orders = {
        "good": "ok",
        "raises": "raise boom",
        "complains": "complain",
        "excluded": "exclude too small",
        "crashes": "segfault",
        "killed": "kill",
        "killed once": "kill-once",
        "exits": "exit",
        "memory": "memory",
        "hangs": "sleep 600",
        "last": "ok",
    }
    for name, order in orders.items():
        cohort.add(name, order)
    cohort.add("gone")
    table = cohort.run(ACT, timeout_s=3.0, **ALL)

    assert list(read_parquet(cohort.status("act")).columns) == list(STATUS_COLUMNS)
    expected = {
        "good": ("ok", "", ""),
        "raises": ("failed", "ValueError", "ValueError: boom"),
        "complains": ("failed", "BrainG3NError", "complains: is bad; remedy: make it good"),
        "excluded": ("excluded", "ExcludeVolume", "too small"),
        "crashes": ("failed", "SIGSEGV", "crash in native code"),
        "killed": ("failed", "SIGKILL", "ran out of memory; remedy: more memory"),
        "exits": ("failed", "exit status 3", "left by itself"),
        "memory": ("failed", "MemoryError", "ran out of memory; remedy: more memory"),
        "hangs": ("failed", "TimeoutError", "longer than 3 s"),
        "killed once": ("ok", "", ""),
        "last": ("ok", "", ""),
        "gone": ("failed", "BrainG3NError", "input source is missing"),
    }
    for name, (status, error_class, reason) in expected.items():
        row = table.loc[name]
        assert (row["status"], row["error_class"]) == (status, error_class), name
        assert reason in row["reason"], name
        assert row["failed_step"] == ("" if status == "ok" else "act")
    good = table.loc["good"]
    assert cohort.product(good).read_text() == "ok  1"
    assert good["qc"] == {"length": 0.0}
    assert good["versions"]["braing3n"]
    assert len(good["output_sha256"]) == len(good["input_sha256"]) == 64
    assert not good["reused"]
    assert str(cohort.root) not in " ".join(table["reason"])


def test_a_rerun_reuses_what_is_unchanged_and_whole(cohort, inline):
    for name in "abcde":
        cohort.add(name, f"ok {name}")
    first = cohort.run(ACT)
    (cohort.root / "b").write_text("ok changed")
    cohort.product(first.loc["c"]).write_text("damaged")
    cohort.product(first.loc["d"]).unlink()
    second = cohort.run(ACT)
    assert second["reused"].to_dict() == {"a": True, "b": False, "c": False, "d": False, "e": True}
    assert (second["status"] == "ok").all()
    unchanged = second.loc[["a", "e"]].drop(columns="reused")
    assert unchanged.equals(first.loc[["a", "e"]].drop(columns="reused"))
    assert second.loc["b", "output_sha256"] != first.loc["b", "output_sha256"]
    assert not cohort.run(ACT, settings=ActSettings(version=2))["reused"].any()
    assert not cohort.run(ACT, settings=ActSettings(version=2, suffix="x"))["reused"].any()


def test_a_failed_volume_is_tried_again(cohort, inline):
    cohort.add("a", "raise not yet")
    cohort.add("b", "ok")
    assert cohort.run(ACT).loc["a", "status"] == "failed"
    (cohort.root / "a").write_text("ok")
    again = cohort.run(ACT)
    assert again["status"].tolist() == ["ok", "ok"]
    assert again["reused"].tolist() == [False, True]
    assert again.loc["a", "failed_step"] == ""


@pytest.mark.parametrize(("n_bad", "fraction", "passes"), [(1, 0.0, True), (2, 0.25, False), (2, 0.5, True)])
def test_too_many_failures_leave_no_status_table(cohort, inline, n_bad, fraction, passes):
    for i in range(4):
        cohort.add(f"v{i}", f"raise reason{i}" if i < n_bad else "ok")
    cohort.status("act").parent.mkdir(parents=True)
    cohort.status("act").write_text("of an earlier run")
    if passes:
        assert len(cohort.run(ACT, max_failed_fraction=fraction)) == 4
        assert not cohort.status("act").with_suffix(".failed.parquet").exists()
        return
    with pytest.raises(BrainG3NError, match=r"2 of 4 volumes failed.*v0.*reason0.*v1.*reason1.*max_failed_fraction"):
        cohort.run(ACT, max_failed_fraction=fraction)
    assert not cohort.status("act").exists()
    assert cohort.read("act", failed=True)["status"].tolist() == ["failed", "failed", "ok", "ok"]


def test_steps_skip_exclude_and_carry_on(cohort, inline):
    cohort.add("t1", "ok")
    cohort.add("t2", "ok", modality="T2")
    cohort.add("flair", "ok", modality="FLAIR")
    cohort.add("bad", "raise no")
    first = cohort.run(CHOOSY)
    assert first["status"].to_dict() == {"t1": "ok", "t2": "skipped", "flair": "excluded", "bad": "failed"}
    assert first.loc["t2", "reason"] == "T2 is fine as it is"
    cohort.rows = [row for row in cohort.rows if row["source_path"] != "t2"]
    with pytest.raises(BrainG3NError, match="does not hold the volumes"):
        cohort.run(FOLLOW, "choosy")
    cohort.add("t2", "ok", subject="S9", modality="T2")
    cohort.run(CHOOSY)
    table = cohort.run(FOLLOW, "choosy", **ALL)
    assert table.loc["t1", "status"] == "ok"
    assert table.loc["t2", "error_class"] == "BrainG3NError"  # a skipped first step left it no image
    for name in ("flair", "bad"):
        kept = ["status", "reason", "error_class", "failed_step", "outputs", "qc", "versions"]
        assert table.loc[name, kept].to_dict() == first.loc[name, kept].to_dict()
        assert table.loc[name, "failed_step"] == "choosy"


def test_a_session_waits_for_its_anchor_and_fails_with_it(cohort, inline):
    cohort.add("a/flair", "ok flair", subject="A", modality="FLAIR")
    cohort.add("a/t1-2", "ok second", subject="A", run=2)
    cohort.add("a/t1-1", "ok first", subject="A")
    cohort.add("b/t1", "raise broken", subject="B")
    cohort.add("b/t2", "ok t2", subject="B", modality="T2")
    cohort.add("c/t1", "exclude slab", subject="C")
    cohort.add("c/t1c", "ok t1c", subject="C", modality="T1c")
    cohort.add("c/t2", "ok t2", subject="C", modality="T2")
    cohort.add("d/t1", "late", subject="D")
    cohort.add("d/t2", "ok t2", subject="D", modality="T2")
    cohort.run(ACT)
    table = cohort.run(FOLLOW, "act", threads=2, max_failed_fraction=0.2)

    def content(name: str) -> str:
        return cohort.product(table.loc[name]).read_text()

    assert content("a/t1-1") == "ok first 1"
    assert content("a/flair") == "ok flair 1 after ok first 1"
    assert content("a/t1-2") == "ok second 1 after ok first 1"
    assert content("c/t2") == "ok t2 1 after ok t1c 1"  # an excluded T1 is not the anchor
    assert table.loc["b/t2", "error_class"] == table.loc["d/t2", "error_class"] == "AnchorFailed"
    assert "T1" in table.loc["b/t2", "reason"]
    assert "(b/t1) failed at act: ValueError: broken" in table.loc["b/t2", "reason"]
    assert "(d/t1) failed at follow: ValueError: failed late" in table.loc["d/t2", "reason"]


def test_a_model_that_cannot_be_loaded_stops_the_shard_with_its_reason(cohort):
    cohort.add("a", "model")
    cohort.add("b", "ok")
    with pytest.raises(BrainG3NError, match=r"weights\.pth: weights are missing; remedy: fetch them"):
        cohort.run(ACT, settings=ActSettings(model=False))
    assert not cohort.status("act").exists()
    assert (cohort.run(ACT)["status"] == "ok").all()


def test_arguments_that_do_not_fit_the_step_are_refused(cohort, inline):
    cohort.add("a", "ok")
    with pytest.raises(BrainG3NError, match="--previous is needed"):
        cohort.run(FOLLOW)
    with pytest.raises(BrainG3NError, match="--store is not used"):
        cohort.run(ACT, store=cohort.results / "x.npy")
    with pytest.raises(BrainG3NError, match="--atlas is not used"):
        cohort.run(ACT, atlas=cohort.results)
    cohort.run(ACT)
    with pytest.raises(BrainG3NError, match="--atlas is needed"):
        cohort.run(get_step("register"), "act")
    with pytest.raises(BrainG3NError, match="atlas file is missing"):
        cohort.run(get_step("register"), "act", atlas=cohort.results)


# ------------------------------------------------------------------------------------- runs that end before their time


def wait_for(condition, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def records(cohort, step: str = "act") -> list[Path]:
    return list((cohort.results / "work" / step).glob("*/*/*.json"))


def temporaries(cohort) -> list[Path]:
    return [path for path in cohort.results.rglob(".tmp*")]


def test_sigkill_in_mid_shard_costs_the_volume_in_flight(cohort):
    for i in range(8):
        cohort.add(f"v{i}", "sleep 0.4")
    run = cohort.command("act")
    wait_for(lambda: len(records(cohort)) >= 3)
    os.killpg(run.pid, signal.SIGKILL)
    run.communicate()
    finished = {path.stem for path in records(cohort)}
    assert 3 <= len(finished) < 8
    assert not cohort.status("act").exists()
    leftover = cohort.results / "derivatives/TEST/sub-TESTS7/ses-1/anat" / f".tmp{run.pid}-x.nii.gz"
    leftover.parent.mkdir(parents=True)
    leftover.write_text("half")

    second = cohort.command("act")
    output, _ = second.communicate(timeout=300)
    assert second.returncode == 0, output
    table = cohort.read("act")
    assert (table["status"] == "ok").all()
    assert set(table.loc[table["reused"], "volume_id"]) == finished
    assert table.loc[table["reused"], "run_id"].nunique() == 1
    assert set(table.loc[table["reused"], "run_id"]).isdisjoint(table.loc[~table["reused"], "run_id"])
    assert not temporaries(cohort)


def test_no_worker_outlives_a_killed_run(cohort):
    cohort.add("a", "sleep 100")
    run = cohort.command("act")
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children")
    wait_for(lambda: (cohort.results / "work/lock").exists() and children.read_text().strip())
    time.sleep(1.0)
    pids = [int(pid) for pid in children.read_text().split()]
    os.kill(run.pid, signal.SIGKILL)
    run.communicate()

    def gone(pid: int) -> bool:
        with contextlib.suppress(FileNotFoundError):
            return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
        return True

    wait_for(lambda: all(gone(pid) for pid in pids), seconds=60)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_the_job_finishes_the_volume_in_flight_and_exits_75(cohort, number):
    for i in range(4):
        cohort.add(f"v{i}", "sleep 0.5")
    run = cohort.command("act")
    wait_for(lambda: len(records(cohort)) >= 1)
    before = len(records(cohort))
    os.killpg(run.pid, number)  # schedulers signal all processes of a job
    output, _ = run.communicate(timeout=300)
    assert run.returncode == 75, output
    assert "run it again to continue" in output
    assert before <= len(records(cohort)) <= before + 1
    assert not cohort.status("act").exists()


def test_two_runs_at_once_on_one_shard(cohort):
    cohort.add("a", "sleep 2")
    first = cohort.command("act")
    lock = cohort.results / "work/lock/TEST/0000.lock"
    wait_for(lambda: lock.exists() and lock.read_text())
    second = cohort.command("act")
    output, _ = second.communicate(timeout=300)
    assert second.returncode == 1
    assert "another run is working on this shard" in output
    assert f'"pid": {first.pid}' in output
    first.communicate(timeout=300)
    assert first.returncode == 0
    assert cohort.read("act")["status"].tolist() == ["ok"]


def test_the_command_says_in_one_line_what_failed(cohort):
    cohort.add("a", "raise one")
    cohort.add("b", "raise two")
    run = cohort.command("act", "--max-failed-fraction", "0.4")
    output, _ = run.communicate(timeout=300)
    assert run.returncode == 1
    line = next(line for line in output.splitlines() if line.startswith("error: "))
    assert "2 of 2 volumes failed" in line
    assert "0000.failed.parquet" in line
    assert "one" in line
    assert "two" in line
    assert not cohort.status("act").exists()
    assert json.loads((cohort.results / "derivatives/TEST/dataset_description.json").read_text())["DatasetType"]
