"""Worker processes of the shard runner: what one volume does to its process stays with that volume.

A worker that dies (segmentation fault, out-of-memory kill) or runs over the time limit costs the volume it was working
on; it is replaced and the others go on.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from multiprocessing import Pipe
from multiprocessing.connection import wait
from typing import Any

from braing3n.errors import BrainG3NError
from braing3n.preprocess.steps import Context, Job, Step
from braing3n.preprocess.worker import OUT_OF_MEMORY, READY, Failure, StepBroken

# Read by ITK, OpenMP and the BLAS libraries when they are loaded, so they are set before a worker starts.
THREAD_VARIABLES = (
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
START_LIMIT_S = 300.0  # to import what a step needs, on a cold network disk too
POLL_S = 0.5  # how often a stop request and the time limits are looked at


class Worker:
    """One worker process and what it is doing.

    A fresh interpreter rather than a fork, which would inherit ITK's and torch's threads half-dead; in a process group
    of its own, so that a kill also reaches the programs that a step starts.
    """

    def __init__(self, step: Step, context: Context, execute: Callable[..., Any]):
        self.connection, theirs = Pipe()
        code = f"from braing3n.preprocess.worker import main; main({theirs.fileno()}, {os.getpid()})"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            pass_fds=[theirs.fileno()],
            env=os.environ | dict.fromkeys(THREAD_VARIABLES, str(context.threads)),
            process_group=0,
        )
        theirs.close()
        self.ready, self.gone, self.job, self.since = False, False, None, time.monotonic()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.connection.send(list(sys.path))
            self.connection.send((step, context, execute))

    def give(self, job: Job) -> bool:
        """Hand over a job; False if the worker has died meanwhile."""
        try:
            self.connection.send(job)
        except (BrokenPipeError, ConnectionResetError):
            return False
        self.job, self.since = job, time.monotonic()
        return True

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.since

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.connection.close()
        self.gone = True

    def leave(self) -> None:
        """Let an idle worker end."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.connection.send(None)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=5)
        self.kill()


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

    A volume whose worker was killed, as for memory, is tried again alone: it may not be the one that took it all.
    When `stopping()` turns true, jobs in flight are finished and the rest stay in the queue.

    Raises:
        BrainG3NError: the step cannot do any volume, or workers cannot start.
    """
    workers: list[Worker] = []
    killed: deque[Job] = deque()
    alone: Job | None = None
    try:
        while True:
            busy = any(worker.job is not None for worker in workers)
            if not busy and (stopping() or not (queue or killed)):
                return
            if not busy and not queue:
                alone = killed.popleft()
                queue.append(alone)
                while workers:
                    workers.pop().leave()
            if not stopping():
                hand_out(queue, workers)
                wanted = min(n_workers - len(workers), len(queue) - sum(not worker.ready for worker in workers))
                workers += [Worker(step, context, execute) for _ in range(wanted)]
            for job, reply in collect(workers, timeout_s):
                # The signal that stops the run may also have hit what a worker had started.
                if stopping() and isinstance(reply, Failure | StepBroken):
                    continue
                if isinstance(reply, StepBroken):
                    raise BrainG3NError(f"{step.name} stopped: {reply.error}")
                if isinstance(reply, Failure) and reply.error_class == "SIGKILL" and job is not alone:
                    killed.append(job)
                    continue
                yield job, reply
    finally:
        for worker in workers:
            worker.kill() if worker.job is not None or not worker.ready else worker.leave()


def hand_out(queue: deque[Job], workers: list[Worker]) -> None:
    """Give jobs to idle workers."""
    idle = [worker for worker in workers if worker.ready and worker.job is None]
    while queue and idle:
        if idle.pop().give(queue[0]):
            queue.popleft()


def collect(workers: list[Worker], timeout_s: float) -> Iterator[tuple[Job | None, Any]]:
    """Wait a little; yield what workers have to say, with the jobs they had, and remove the dead from the list."""
    wait([worker.connection for worker in workers], timeout=POLL_S)
    for worker in list(workers):
        reply = receive(worker, timeout_s)
        if worker.gone:
            workers.remove(worker)
        if reply is not None:
            job, worker.job = worker.job, None
            yield job, reply


def receive(worker: Worker, timeout_s: float) -> Any:
    """What a worker has to say: None for nothing (yet), else a record, a `Failure` or `StepBroken`."""
    dead = worker.process.poll() is not None  # asked before the last look at what it sent
    if worker.connection.poll():
        with contextlib.suppress(EOFError, ConnectionResetError):
            reply = worker.connection.recv()
            if reply != READY:
                return reply
            worker.ready = True
            return None
        dead = True
    if dead:
        return bury(worker)
    if not worker.ready and worker.seconds > START_LIMIT_S:
        worker.kill()
        return StepBroken(f"a worker did not start within {START_LIMIT_S:g} s")
    if worker.job is not None and worker.seconds > timeout_s:
        worker.kill()
        reason = f"took longer than {timeout_s:g} s and was stopped; remedy: raise preprocess.volume_timeout_s"
        return Failure("failed", "TimeoutError", reason, worker.seconds)
    return None


def bury(worker: Worker) -> Failure | StepBroken | None:
    """Say what a dead worker died of; one that was idle is of no interest."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        worker.process.wait(timeout=5)
    code = worker.process.poll()
    worker.kill()
    if worker.job is None:
        return None if worker.ready else StepBroken(f"a worker ended with exit status {code} before it took a volume")
    name = signal.Signals(-code).name if code is not None and code < 0 else f"exit status {code}"
    if name == "SIGKILL":
        cause = f"it most likely {OUT_OF_MEMORY} (it was tried again alone)"
    elif code is not None and code < 0:
        cause = "a crash in native code; remedy: look at the scan, it may be malformed in a way the checks do not know"
    else:
        cause = "the process left by itself"
    return Failure("failed", name, f"worker ended with {name}: {cause}", worker.seconds)
