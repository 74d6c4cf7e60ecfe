"""What SLURM knows: jobs that a killed Snakemake left, which would write beside a rerun's, and when this job ends."""

from __future__ import annotations

import logging
import os
import re
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from braing3n.errors import BrainG3NError

logger = logging.getLogger(__name__)

PREFIX = "braing3n_"  # slurm-jobname-prefix of profiles/slurm, as the executor plugin joins it to the run's id

OF_THE_JOB = ("SLURM_JOB_ID", "SLURM_CLUSTER_NAME", "SLURM_CONF")


@dataclass(frozen=True)
class SlurmJob:
    id: str
    run: str
    """Name shared by all jobs of one Snakemake run."""
    rule: str
    state: str


def jobs_of(folder: Path) -> list[SlurmJob]:
    """This user's pending and running workflow jobs that were submitted from `folder`.

    Raises:
        BrainG3NError: `squeue` is not installed or does not answer.
    """
    found = []
    for line in _client("squeue", "--me", "--noheader", "--format=%i|%j|%T|%Z|%k").splitlines():
        job, name, state, directory, comment = line.split("|", 4)
        if name.startswith(PREFIX) and Path(directory) == folder.resolve():
            found.append(SlurmJob(job, name, comment.removeprefix("rule_").split("_wildcards_")[0], state))
    return found


def cancel(jobs: list[SlurmJob]) -> None:
    """Cancel jobs; trainings among them checkpoint on the signal that comes before the kill."""
    if jobs:
        _client("scancel", *(job.id for job in jobs))


def step_on_every_node(nodes: int) -> tuple[list[str], str]:
    """Command that starts one process on each node of this job, and the `host:port` where they find each other.

    Raises:
        BrainG3NError: this is no SLURM job.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        raise BrainG3NError(f"{nodes} nodes need a SLURM job", remedy="on one machine, give --nodes 1")
    # The step that this process runs in holds the job's cores and GPUs: --overlap shares them with the new one. What
    # that step was given (SLURM_NTASKS and the like) would be taken for wishes of the new one.
    drop = [f"--unset={name}" for name in sorted(os.environ) if name.startswith("SLURM_") and name not in OF_THE_JOB]
    step = ["srun", "--overlap", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1", "--cpu-bind=none"]
    port = 20000 + int(job) % 20000  # below the ports that systems hand out by themselves, one a job
    return ["env", *drop, *step], f"{socket.gethostname()}:{port}"


def job_end() -> float | None:
    """When SLURM will end the job that this process runs in, in seconds since 1970; None outside SLURM.

    Snakemake's job step drops `SLURM_JOB_END_TIME`, and SLURM before 23.02 does not set it: then `squeue` is asked.
    """
    if end := os.environ.get("SLURM_JOB_END_TIME"):
        return float(end)
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        return None
    try:
        left = seconds_of(_client("squeue", "--noheader", f"--jobs={job}", "--format=%L").strip())
    except BrainG3NError as error:
        logger.warning("the end of SLURM job %s is not known, so nothing stops before it: %s", job, error)
        return None
    return None if left is None else time.time() + left


def seconds_of(text: str) -> int | None:
    """Seconds of SLURM's `[days-]hours:minutes:seconds`, leading parts left out; None if it is no time (UNLIMITED)."""
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text)
    if match is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def _client(*command: str) -> str:
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except FileNotFoundError:
        remedy = "run this where jobs are submitted"
        raise BrainG3NError(f"{command[0]} is not installed here", remedy=remedy) from None
    except subprocess.TimeoutExpired:
        raise BrainG3NError(f"{command[0]} did not answer within a minute", remedy="is slurmctld up?") from None
    if result.returncode:
        raise BrainG3NError(f"{command[0]} failed", found=result.stderr.strip())
    return result.stdout
