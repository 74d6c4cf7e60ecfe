"""A small training to test the loop with; run as a script, it is a process that can be killed or started by torchrun.

python toy.py OUT '{"settings": {...}, "pause": seconds before every batch, "signal_at": step, "diverge_at": step}'
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time

import numpy as np
import torch
from torch import nn

from braing3n.config.training import TrainSettings
from braing3n.training.loop import fit
from braing3n.training.seeds import generator, seeded
from braing3n.training.task import TrainingTask

SETTINGS = {
    "epochs": 6,
    "batch_size": 6,
    "learning_rate": 1e-2,
    "precision": "fp32",
    "device": "cpu",
    "ema_decay": 0.9,
    "clip_norm": 1.0,
    "stop_before_s": 0,
}


class ToyTask(TrainingTask):
    """Regression with noise drawn from both generators, so that a wrong seed changes every loss."""

    def __init__(self, *, n_val: int = 8, pause=0.0, diverge_at: int | None = None, signal_at: int | None = None):
        with seeded(0):
            self.model = nn.Sequential(nn.Linear(4, 16), nn.GELU(), nn.Linear(16, 1))
        self.x = torch.randn(40, 4, generator=generator("cpu", 1))
        self.n_train, self.n_val, self.pause = 32, n_val, pause
        self.diverge_at, self.signal_at = diverge_at, signal_at
        self.seen: list[np.ndarray] = []
        self.calls = 0

    def batch(self, indices, device, generator):
        time.sleep(self.pause)
        self.seen.append(indices)
        x = self.x[indices].to(device)
        return x + 0.01 * torch.randn(x.shape, generator=generator), x.sum(dim=1, keepdim=True)

    def loss(self, model, batch, generator):
        x, y = batch
        noise = 0.01 * torch.randn(x.shape, generator=generator)
        error = (model(x + noise) - y).square()
        self.calls += 1
        if self.calls == self.signal_at:
            os.kill(os.getpid(), signal.SIGTERM)
        if self.calls == self.diverge_at:
            error = error * float("nan")
        return error.mean(), {"absolute": error.detach().sqrt().mean()}

    def validate(self, model, device):
        if self.n_val == 0:
            return {}
        x = self.x[self.n_train : self.n_train + self.n_val].to(device)
        return {"loss": float((model(x) - x.sum(dim=1, keepdim=True)).square().mean())}

    def checks(self, history, model, device):
        first, last = (next(r["value"] for r in rows if r["metric"] == "loss") for rows in (history, history[::-1]))
        return [{"name": "loss fell", "value": last, "baseline": first, "passed": last < first, "detail": ""}]


def train(out, *, settings=None, data_hash="data", **task):
    """Train the toy in this process -> card, task."""
    toy = ToyTask(**task)
    settings = TrainSettings(**{**SETTINGS, **(settings or {})})
    return fit(toy, settings, out, name="toy", data_hash=data_hash, architecture={"width": 16}), toy


if __name__ == "__main__":
    torch.set_num_threads(1)
    train(sys.argv[1], **json.loads(sys.argv[2]))
