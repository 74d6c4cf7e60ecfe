"""Progress over volumes: a bar at a terminal, log lines elsewhere."""

from __future__ import annotations

import logging
import time
from datetime import timedelta

from tqdm import tqdm

logger = logging.getLogger(__name__)


class Progress:
    """A bar at a terminal, elsewhere a log line every ten seconds, with volumes a second and the time left."""

    def __init__(self, name: str, total: int, done: int, every_s: float = 10.0):
        self.name, self.total, self.first, self.done, self.every_s = name, total, done, done, every_s
        self.began = self.logged = time.monotonic()
        self.shown = -1
        self.bar = tqdm(total=total, initial=done, desc=name, unit="volume", disable=None)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception) -> None:
        self.bar.close()
        if self.shown != self.done:
            self._log()

    def update(self, done: int) -> None:
        self.bar.update(done - self.done)
        self.done = done
        if time.monotonic() - self.logged >= self.every_s:
            self._log()

    def _log(self) -> None:
        self.logged, self.shown = time.monotonic(), self.done
        if not self.bar.disable:
            return
        rate = (self.done - self.first) / max(self.logged - self.began, 1e-9)
        left = str(timedelta(seconds=round((self.total - self.done) / rate))) if rate else "unknown time"
        logger.info("%s: %d/%d volumes, %.3g a second, %s left", self.name, self.done, self.total, rate, left)
