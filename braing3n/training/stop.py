"""Leaving in time: before a job's limit or when asked to, with a checkpoint, so that the scheduler's retry resumes."""

from __future__ import annotations

import logging
import signal
import threading
import time

from braing3n.slurm import job_end

logger = logging.getLogger(__name__)


class StopRequest:
    """Context in which SIGTERM and SIGUSR1 are remembered instead of ending the process at once.

    Args:
        before_s: seconds before SLURM's end of the job (`braing3n.slurm.job_end`) at which to stop.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGUSR1)

    def __init__(self, before_s: float):
        end = job_end()
        self.deadline = None if end is None else end - before_s
        if self.deadline is not None:
            logger.info(
                "stopping at %s at the latest, the job's limit", time.strftime("%F %T", time.localtime(self.deadline))
            )
        self.reason: str | None = None
        self._previous: dict[int, object] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():  # handlers can be set nowhere else
            self._previous = {number: signal.signal(number, self._note) for number in self.SIGNALS}
        return self

    def __exit__(self, *exception) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number, frame) -> None:
        self.reason = signal.Signals(number).name

    def requested(self) -> bool:
        if self.reason is None and self.deadline is not None and time.time() >= self.deadline:
            self.reason = "the job's time limit is near"
        return self.reason is not None
