"""Jobs that a killed Snakemake left running on SLURM: they would write beside the ones that a rerun submits."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from braing3n.errors import BrainG3NError

PREFIX = "braing3n_"  # slurm-jobname-prefix of profiles/slurm, as the executor plugin joins it to the run's id


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
