"""Inside a worker process of the shard runner: one volume after another, exceptions turned into reasons."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from braing3n.errors import BrainG3NError, ExcludeVolume
from braing3n.preprocess.steps import Context, Job, Step

logger = logging.getLogger(__name__)
READY = "ready"
PR_SET_PDEATHSIG = 1  # linux/prctl.h
MIN_FREE_BYTES = 1 << 20
OUT_OF_MEMORY = "ran out of memory; remedy: more memory (mem_mb) or fewer threads"


@dataclass(frozen=True)
class Failure:
    """A volume that did not come through: `excluded` or `failed`, and why."""

    status: str
    error_class: str
    reason: str
    seconds: float


@dataclass(frozen=True)
class StepBroken:
    """The step cannot do any volume, such as when its model is missing."""

    error: str


def main(descriptor: int, runner: int) -> None:
    """A worker's life: jobs in, records or failures out, until None comes or the runner is gone."""
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # schedulers signal the whole job; the runner decides what is finished
    die_with(runner)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")  # short of memory, Linux is to kill a worker, not the runner
    os.set_inheritable(descriptor, False)
    connection = Connection(descriptor)
    sys.path[:] = connection.recv()
    step, context, execute = connection.recv()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    model = Lazy(lambda: step.load(context))
    connection.send(READY)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while (job := connection.recv()) is not None:
            connection.send(attempt(step, job, model, execute))


class Lazy:
    """A model that is loaded when first needed, and kept."""

    def __init__(self, load: Callable[[], Any]):
        self.load, self.loaded, self.value, self.error = load, False, None, None

    def __call__(self) -> Any:
        if not self.loaded:
            try:
                self.value = self.load()
            except Exception as error:
                self.error = error
                raise
            self.loaded = True
        return self.value


def attempt(step: Step, job: Job, model: Lazy, execute: Callable[..., Any]) -> Any:
    """One volume; exceptions become a `Failure`, or `StepBroken` if the model could not be loaded."""
    start = time.monotonic()
    try:
        return execute(step, job, model)
    except ExcludeVolume as decision:
        return Failure("excluded", "ExcludeVolume", str(decision), time.monotonic() - start)
    except Exception as error:
        if error is model.error:
            return StepBroken(f"its model cannot be loaded: {explain(error, job.context)}")
        if disk_full(error, job.context.results):
            return StepBroken(f"{job.context.results}: no space left on the disk; remedy: free some and run it again")
        if not isinstance(error, BrainG3NError):
            logger.exception("%s failed at %s", job.volume, step.name)
        return Failure("failed", type(error).__name__, explain(error, job.context), time.monotonic() - start)


def disk_full(error: Exception, folder: Path) -> bool:
    """Whether an error came from a full disk or quota; some writers do not say, so the free space is asked too."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return folder.exists() and shutil.disk_usage(folder).free < MIN_FREE_BYTES


def explain(error: Exception, context: Context) -> str:
    """An exception as one line for the status table, with paths relative to the results or the cohort's root."""
    text = str(error) if isinstance(error, BrainG3NError) else f"{type(error).__name__}: {error}"
    if isinstance(error, MemoryError):
        text = OUT_OF_MEMORY
    if isinstance(error, PermissionError):
        text = f"{error.filename}: no right to read or write it; remedy: correct its permissions, or its folder's"
    for folder in (context.results, context.root):
        for form in {str(folder), str(folder.absolute())} - {".", "/"}:
            text = text.replace(form + "/", "")
    return " ".join(text.split())[:1000]


def die_with(runner: int) -> None:
    """Ask Linux to kill this process when the runner dies, so that a killed run leaves no workers behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != runner:  # it died before we asked
        os._exit(1)
