"""Orphaned SLURM jobs, against stand-ins for squeue and scancel on the PATH (tests/slurm has the real ones)."""

import os

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
