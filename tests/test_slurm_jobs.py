"""Orphaned SLURM jobs, against stand-ins for squeue and scancel on the PATH (tests/slurm has the real ones)."""

import os
import time

import pytest

from braing3n import slurm
from braing3n.errors import BrainG3NError


@pytest.fixture
def clients(tmp_path, monkeypatch):
    """Puts an executable on the PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin")

    def add(name: str, script: str) -> None:
        path = folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    return add


def test_only_this_folders_workflow_jobs_are_listed(tmp_path, clients):
    lines = [
        f"7|braing3n_1-2|RUNNING|{tmp_path}|rule_n4_wildcards_IXI_0000",
        f"8|braing3n_1-2|PENDING|{tmp_path}|rule_train_mae",
        f"9|another|RUNNING|{tmp_path}|rule_n4",
        "10|braing3n_3-4|RUNNING|/elsewhere|rule_n4",
    ]
    clients("squeue", "cat <<'END'\n" + "\n".join(lines) + "\nEND")
    jobs = slurm.jobs_of(tmp_path)
    assert [(job.id, job.rule, job.state) for job in jobs] == [("7", "n4", "RUNNING"), ("8", "train_mae", "PENDING")]


def test_cancel_names_each_job(tmp_path, clients):
    clients("scancel", f'echo "$@" > {tmp_path}/cancelled')
    slurm.cancel([slurm.SlurmJob(number, "run", "n4", "RUNNING") for number in ("7", "8")])
    assert (tmp_path / "cancelled").read_text().split() == ["7", "8"]


def test_missing_client_is_one_clear_error(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BrainG3NError, match="squeue is not installed here"):
        slurm.jobs_of(tmp_path)


def test_failing_client_is_quoted(tmp_path, clients):
    clients("squeue", "echo 'Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(BrainG3NError, match="Unable to contact slurm controller"):
        slurm.jobs_of(tmp_path)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2:55", 175), ("1:02:03", 3723), ("3-23:59:55", 345595), ("UNLIMITED", None), ("INVALID", None), ("", None)],
)
def test_times_left_are_read(text, seconds):
    assert slurm.seconds_of(text) == seconds


def test_the_end_of_the_job_is_asked_for_where_the_environment_lacks_it(clients, monkeypatch):
    monkeypatch.delenv("SLURM_JOB_END_TIME", raising=False)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert slurm.job_end() is None
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    clients("squeue", '[ "$2" = --jobs=7 ] && echo 10:00')
    assert slurm.job_end() == pytest.approx(time.time() + 600, abs=30)
    monkeypatch.setenv("SLURM_JOB_END_TIME", "1800000000")
    assert slurm.job_end() == 1.8e9


def test_without_an_answer_the_end_is_not_known_and_said(clients, monkeypatch, caplog):
    monkeypatch.delenv("SLURM_JOB_END_TIME", raising=False)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    clients("squeue", "exit 1")
    assert slurm.job_end() is None
    assert "end of SLURM job 7 is not known" in caplog.text


def test_a_step_on_every_node_needs_a_job_and_keeps_only_what_is_the_jobs(monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with pytest.raises(BrainG3NError, match="2 nodes need a SLURM job"):
        slurm.step_on_every_node(2)
    monkeypatch.setenv("SLURM_JOB_ID", "20007")
    monkeypatch.setenv("SLURM_NTASKS", "1")
    command, meeting_point = slurm.step_on_every_node(2)
    assert "--unset=SLURM_NTASKS" in command[: command.index("srun")]
    assert "--unset=SLURM_JOB_ID" not in command
    assert "--nodes=2" in command
    assert meeting_point.endswith(":20007")
