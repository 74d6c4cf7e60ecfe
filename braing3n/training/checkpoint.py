"""Resume state: whole or absent, refused when it belongs to another training."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from braing3n.errors import BrainG3NError
from braing3n.files import atomic_path
from braing3n.models.weights import load_state, save_state

logger = logging.getLogger(__name__)

# Settings that change how a training runs, and not what comes out of it: free to differ on resume.
FREE_SETTINGS = {"device", "workers", "compile", "stop_before_s", "keep_last", "checkpoint_every"}


class Checkpoints:
    """A folder of `step-<n>.pt`, of which the last few are kept, and `best-<n>.safetensors`.

    Args:
        folder: where they lie.
        keep_last: resume checkpoints kept.
        identity: nested dict that must be equal for a resume: settings, architecture, data hash.
    """

    def __init__(self, folder: Path, keep_last: int, identity: dict[str, Any]):
        self.folder, self.keep_last, self.identity = folder, keep_last, identity

    def save(self, step: int, state: dict[str, Any], best_step: int | None) -> None:
        """Write the state of `step`; then drop older ones, and best weights that the state no longer refers to."""
        with atomic_path(self._path(step)) as temporary:
            torch.save({"identity": self.identity, **state}, temporary)
        for old in sorted(self.folder.glob("step-*.pt"))[: -self.keep_last]:
            old.unlink()
        for best in self.folder.glob("best-*.safetensors"):
            if best_step is None or best != self._best_path(best_step):
                best.unlink()

    def load(self) -> dict[str, Any] | None:
        """The newest state, on the CPU; None if there is none, or if it ended a training of other settings or data.

        Raises:
            BrainG3NError: the newest state belongs to an unfinished training of other settings, architecture or data.
        """
        paths = sorted(self.folder.glob("step-*.pt"))
        if not paths:
            return None
        try:
            state = torch.load(paths[-1], map_location="cpu", weights_only=True)
        except Exception as error:
            raise BrainG3NError(
                "checkpoint cannot be read", file=paths[-1], found=str(error)[:200], remedy="delete it and run again"
            ) from error
        differing = list(differences(state.pop("identity"), self.identity))
        if not differing:
            return state
        if state["progress"]["finished"]:
            logger.info("%s ended a training of other settings or data; starting anew", paths[-1])
            return None
        raise BrainG3NError(
            "an unfinished training of other settings or data lies here",
            file=self.folder,
            found="; ".join(differing[:6]),
            remedy="restore the settings to resume it, or delete this folder to start anew",
        )

    def clear(self) -> None:
        """Remove all checkpoints, before a training starts from nothing."""
        for path in [*self.folder.glob("step-*.pt"), *self.folder.glob("best-*.safetensors")]:
            path.unlink()

    def save_best(self, step: int, weights: dict[str, Tensor]) -> None:
        save_state(weights, self._best_path(step))

    def load_best(self, step: int) -> dict[str, Tensor]:
        return load_state(self._best_path(step))

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:09d}.pt"

    def _best_path(self, step: int) -> Path:
        return self.folder / f"best-{step:09d}.safetensors"


def differences(saved: Any, current: Any, key: str = "") -> list[str]:
    """`key: saved value, now value` of every leaf at which two nested dicts differ."""
    if isinstance(saved, dict) and isinstance(current, dict):
        lines = []
        for name in sorted({*saved, *current}):
            lines += differences(saved.get(name), current.get(name), f"{key}.{name}" if key else name)
        return lines
    return [] if saved == current else [f"{key}: was {saved!r}, now {current!r}"]
