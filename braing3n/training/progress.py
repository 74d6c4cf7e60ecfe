"""Progress of a training: a bar at a terminal, a log line every few seconds elsewhere, and one log of all its runs."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

logger = logging.getLogger(__name__)


class ProgressLog:
    """Bar or log lines with epoch, loss, volumes a second and the time left, and metrics for TensorBoard.

    Args:
        name: of the training.
        total: optimizer steps in all.
        done: of them, before this run.
        batch: samples a step.
        events: folder for TensorBoard, written where its package is installed; None shows and writes nothing at all.
        every_s: seconds between log lines.
    """

    def __init__(self, name: str, total: int, done: int, batch: int, events: Path | None, every_s: float = 10.0):
        self.name, self.total, self.batch, self.every_s = name, total, batch, every_s
        self.shown = events is not None
        self.first, self.began = done, time.monotonic()
        self.logged = self.began
        # `disable=None` leaves the bar out where stderr is no terminal.
        self.bar = tqdm(total=total, initial=done, desc=name, unit="step", disable=None if self.shown else True)
        self.events = open_events(events, done) if events is not None else None

    def __enter__(self) -> ProgressLog:
        return self

    def __exit__(self, *exception) -> None:
        self.bar.close()
        if self.events is not None:
            self.events.close()

    def step(self, step: int, loss: float) -> None:
        """After `step` optimizer steps."""
        rate = (step - self.first) * self.batch / max(time.monotonic() - self.began, 1e-9)
        self.bar.update(step - self.bar.n)
        self.bar.set_postfix_str(f"loss {loss:.4g}, {rate:.1f} volumes/s", refresh=False)
        if self.shown and self.bar.disable and time.monotonic() - self.logged >= self.every_s:
            self.logged = time.monotonic()
            left = timedelta(seconds=round((self.total - step) * self.batch / rate))
            text = "%s: step %d/%d, loss %.4g, %.1f volumes/s, %s left"
            logger.info(text, self.name, step, self.total, loss, rate, left)

    def epoch(self, epoch: int, rows: list[dict]) -> None:
        """After an epoch, with the rows that it added to the history."""
        if self.events is not None:
            for row in rows:
                self.events.add_scalar(f"{row['metric']}/{row['split']}", row["value"], row["step"])
        loss = {row["split"]: row["value"] for row in rows if row["metric"] == "loss"}
        if self.shown and "val" in loss:
            text = "%s: epoch %d, train loss %.4g, validation loss %.4g"
            logger.info(text, self.name, epoch, loss["train"], loss["val"])


@contextmanager
def kept_log(path: Path | None) -> Iterator[None]:
    """Write what this package logs to a file too, after what earlier runs wrote; None writes nothing.

    Snakemake empties a rule's log at every attempt, and a training of many jobs is read as one.
    """
    if path is None:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    package = logging.getLogger("braing3n")
    package.addHandler(handler)
    try:
        yield
    finally:
        package.removeHandler(handler)
        handler.close()


def open_events(folder: Path, step: int) -> SummaryWriter | None:
    """A TensorBoard log that goes on after `step`; None where the package `tensorboard` is not installed."""
    if find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=step + 1)
