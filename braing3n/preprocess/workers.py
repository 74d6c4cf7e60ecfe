"""Worker processes of the shard runner: what one volume does to its process stays with that volume.

A worker that dies (segmentation fault, out-of-memory kill) or runs over the time limit costs the volume it was working
on; it is replaced and the others go on.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import multiprocessing
import os
import shutil
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from braing3n.errors import BrainG3NError, ExcludeVolume
from braing3n.preprocess.steps import Context, Job, Step

logger = logging.getLogger(__name__)

# Read by ITK, OpenMP and the BLAS libraries when they are loaded, so they are set before a worker starts.
THREAD_VARIABLES = (
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
PR_SET_PDEATHSIG = 1  # linux/prctl.h
MIN_FREE_BYTES = 1 << 20
OUT_OF_MEMORY = "ran out of memory; remedy: more memory (mem_mb) or fewer threads"
POLL_S = 0.5  # how often a stop request and the time limits are looked at


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


# ---------------------------------------------------------------------------------------------------- in the worker


def work(connection: Connection, step: Step, context: Context, execute: Callable[..., Any]) -> None:
    """A worker's life: jobs in, status records or failures out, until None comes or the runner is gone."""
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # schedulers signal the whole job; the runner decides what is finished
    os.setpgid(0, 0)  # so that a kill also reaches the programs that a step starts
    die_with_parent()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    model = Lazy(lambda: step.load(context))
    connection.send("ready")
    with contextlib.suppress(EOFError, BrokenPipeError):
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
    for folder in (context.results, context.root):
        for form in {str(folder), str(folder.absolute())} - {".", "/"}:
            text = text.replace(form + "/", "")
    return " ".join(text.split())[:1000]


def die_with_parent() -> None:
    """Ask Linux to kill this process when the runner dies, so that a killed run leaves no workers behind."""
    runner = multiprocessing.parent_process()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if runner is not None and os.getppid() != runner.pid:  # it died before we asked
        os._exit(1)


# ---------------------------------------------------------------------------------------------------- in the runner


class Worker:
    """One worker process and what it is doing."""

    def __init__(self, step: Step, context: Context, execute: Callable[..., Any]):
        spawn = multiprocessing.get_context("spawn")  # a fork would inherit ITK's and torch's threads half-dead
        self.connection, theirs = spawn.Pipe()
        self.process = spawn.Process(target=work, args=(theirs, step, context, execute))
        with environment(dict.fromkeys(THREAD_VARIABLES, str(context.threads))):
            self.process.start()
        theirs.close()
        self.ready, self.gone, self.job, self.since = False, False, None, time.monotonic()

    def give(self, job: Job) -> None:
        self.job, self.since = job, time.monotonic()
        self.connection.send(job)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.since

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.join()
        self.connection.close()
        self.gone = True

    def leave(self) -> None:
        """Let an idle worker end."""
        with contextlib.suppress(BrokenPipeError):
            self.connection.send(None)
        self.process.join(timeout=5)
        self.kill()


@contextlib.contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    """Environment variables that processes started inside the block inherit."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def run_jobs(
    queue: deque[Job],
    step: Step,
    context: Context,
    execute: Callable[..., Any],
    *,
    n_workers: int,
    timeout_s: float,
    stopping: Callable[[], bool],
) -> Iterator[tuple[Job, Any]]:
    """Do the jobs of `queue`, to which the caller may add while iterating; yield each with its result or `Failure`.

    When `stopping()` turns true, jobs in flight are finished and the rest stay in the queue.

    Raises:
        BrainG3NError: the step cannot do any volume, or workers cannot start.
    """
    workers: list[Worker] = []
    try:
        while True:
            idle = [worker for worker in workers if worker.ready and worker.job is None]
            while queue and idle and not stopping():
                idle.pop().give(queue.popleft())
            starting = sum(not worker.ready for worker in workers)
            if not stopping():
                wanted = min(n_workers - len(workers), len(queue) - starting)
                workers += [Worker(step, context, execute) for _ in range(wanted)]
            busy = any(worker.job is not None for worker in workers)
            if not busy and (stopping() or not queue):
                return
            wait([end for worker in workers for end in (worker.connection, worker.process.sentinel)], timeout=POLL_S)
            for worker in list(workers):
                reply = receive(worker, timeout_s)
                if worker.gone:
                    workers.remove(worker)
                if reply is None:
                    continue
                hurt = stopping()  # the signal that stops us may also have hit what a worker had started
                if isinstance(reply, StepBroken) and not hurt:
                    raise BrainG3NError(f"{step.name} stopped: {reply.error}")
                job, worker.job = worker.job, None
                if not (hurt and isinstance(reply, Failure | StepBroken)):
                    yield job, reply
    finally:
        for worker in workers:
            worker.kill() if worker.job is not None or not worker.ready else worker.leave()


def receive(worker: Worker, timeout_s: float) -> Any:
    """What a worker has to say: None for nothing (yet), else a record, a `Failure` or `StepBroken`."""
    dead = worker.process.exitcode is not None  # asked before the last look at what it sent
    if worker.connection.poll():
        with contextlib.suppress(EOFError, ConnectionResetError):
            reply = worker.connection.recv()
            if reply != "ready":
                return reply
            worker.ready = True
            return None
        dead = True
    if dead:
        return bury(worker)
    if (worker.job is not None or not worker.ready) and worker.seconds > timeout_s:
        worker.kill()
        if worker.job is None:
            return StepBroken(f"a worker did not start within {timeout_s:g} s")
        reason = f"took longer than {timeout_s:g} s and was stopped; remedy: raise preprocess.volume_timeout_s"
        return Failure("failed", "TimeoutError", reason, worker.seconds)
    return None


def bury(worker: Worker) -> Failure | StepBroken | None:
    """Say what a dead worker died of; one that was idle is of no interest."""
    worker.process.join(timeout=5)
    code = worker.process.exitcode
    worker.kill()
    if worker.job is None:
        return None if worker.ready else StepBroken(f"a worker ended with exit status {code} before it took a volume")
    name = signal.Signals(-code).name if code is not None and code < 0 else f"exit status {code}"
    if name == "SIGKILL":
        cause = f"it most likely {OUT_OF_MEMORY}"
    elif code is not None and code < 0:
        cause = "a crash in native code; remedy: look at the scan, it may be malformed in a way the checks do not know"
    else:
        cause = "the process left by itself"
    return Failure("failed", name, f"worker ended with {name}: {cause}", worker.seconds)
