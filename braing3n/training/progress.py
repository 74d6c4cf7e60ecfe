"""Progress of a training: a bar at a terminal, a log line every few seconds elsewhere."""

from __future__ import annotations

import logging
import time
from datetime import timedelta

from tqdm import tqdm

logger = logging.getLogger(__name__)


class ProgressLog:
    """Bar or log lines with epoch, loss, volumes a second and the time left; silent where `shown` is False.

    Args:
        name: of the training.
        total: optimizer steps in all.
        done: of them, before this run.
        batch: samples a step.
    """

    def __init__(self, name: str, total: int, done: int, batch: int, shown: bool = True, every_s: float = 10.0):
        self.name, self.total, self.batch, self.shown, self.every_s = name, total, batch, shown, every_s
        self.first, self.began = done, time.monotonic()
        self.logged = self.began
        # `disable=None` leaves the bar out where stderr is no terminal.
        self.bar = tqdm(total=total, initial=done, desc=name, unit="step", disable=None if shown else True)

    def __enter__(self) -> ProgressLog:
        return self

    def __exit__(self, *exception) -> None:
        self.bar.close()

    def step(self, step: int, loss: float) -> None:
        """After `step` optimizer steps."""
        self.bar.update(step - self.bar.n)
        self.bar.set_postfix_str(f"loss {loss:.4g}, {self._rate(step):.1f} volumes/s", refresh=False)
        if self.shown and self.bar.disable and time.monotonic() - self.logged >= self.every_s:
            self.logged = time.monotonic()
            left = timedelta(seconds=round((self.total - step) * self.batch / self._rate(step)))
            rate = self._rate(step)
            logger.info(
                "%s: step %d/%d, loss %.4g, %.1f volumes/s, %s left", self.name, step, self.total, loss, rate, left
            )

    def epoch(self, epoch: int, train_loss: float, val_loss: float | None) -> None:
        """After a validation."""
        if self.shown:
            val = "none" if val_loss is None else f"{val_loss:.4g}"
            logger.info("%s: epoch %d, train loss %.4g, validation loss %s", self.name, epoch, train_loss, val)

    def _rate(self, step: int) -> float:
        return (step - self.first) * self.batch / max(time.monotonic() - self.began, 1e-9)
