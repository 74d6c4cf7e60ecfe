"""Latents along a learned flow, with everything that training and sampling must share read from the model's card."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from braing3n.config.training import SamplerSettings
from braing3n.errors import BrainG3NError
from braing3n.files import sha256_of
from braing3n.flow.guidance import guided
from braing3n.flow.solvers import integrate
from braing3n.flow.times import sampling_grid
from braing3n.geometry import PATCH_SIZE
from braing3n.models.conditions import Conditions, droppable
from braing3n.models.dit import DiT, load_dit
from braing3n.models.tokenizer import Tokenizer, load_tokenizer
from braing3n.models.weights import WEIGHTS, load_card

ENDS = {"linear": (1.0, 0.0), "bridge": (0.0, 1.0)}  # times at which sampling starts and ends, by path


@dataclass(frozen=True)
class LatentFlow:
    """A diffusion transformer and the tokenizer whose latents it speaks."""

    dit: DiT
    tokenizer: Tokenizer
    path: str
    shift: float
    dit_autocast: torch.autocast
    decoder_autocast: torch.autocast

    @torch.no_grad()
    def sample(self, start: Tensor, conditions: Conditions, sampler: SamplerSettings) -> Tensor:
        """From noise to data, or from baseline to follow-up: normalised latents (n, N, L) -> (n, N, L), on the CPU."""
        parts = zip(start.split(sampler.batch_size), split_conditions(conditions, sampler.batch_size), strict=True)
        return torch.cat([self._sample_batch(x, part, sampler) for x, part in parts])

    def normalise(self, latents: Tensor) -> Tensor:
        """Raw latents (n, N, L), as the latent cache holds them -> normalised ones, on the CPU."""
        return self.tokenizer.normalise(latents.to(self.device)).cpu()

    def denormalise(self, latents: Tensor) -> Tensor:
        """Inverse of `normalise`."""
        return self.tokenizer.denormalise(latents.to(self.device)).cpu()

    def decode(self, latents: Tensor) -> Iterator[np.ndarray]:
        """Raw latents (n, N, L) -> z-scored volumes (X, Y, Z) float32, one at a time."""
        for one in latents:
            with torch.no_grad(), self.decoder_autocast:
                voxels = self.tokenizer.decode(one[None].float().to(self.device))  # (1, 1, X, Y, Z)
            yield voxels[0, 0].float().cpu().numpy()

    @property
    def device(self) -> torch.device:
        return self.dit.positions.device

    @property
    def volume_shape(self) -> tuple[int, int, int]:
        return tuple(n * PATCH_SIZE for n in self.tokenizer.grid)

    def _sample_batch(self, x: Tensor, conditions: Conditions, sampler: SamplerSettings) -> Tensor:
        conditions = conditions.to(self.device)
        unconditional = conditions.nulled(droppable(self.dit.vocabulary, self.dit.never_dropped))

        def model(x: Tensor, t: Tensor, conditions: Conditions) -> Tensor:
            with self.dit_autocast:
                return self.dit(x, t, conditions.values, conditions.state).float()

        velocity = guided(model, conditions, unconditional, Conditions.join, sampler.guidance)
        times = sampling_grid(sampler.steps, *ENDS[self.path], self.shift)
        return integrate(velocity, x.to(self.device), times, sampler.solver).cpu()


def split_conditions(conditions: Conditions, size: int) -> list[Conditions]:
    parts = zip(conditions.values.split(size), conditions.state.split(size), strict=True)
    return [Conditions(values, state) for values, state in parts]


def load_flow(dit: str | Path, tokenizer: str | Path, device: torch.device) -> LatentFlow:
    """Both models, after a check that they belong together; sampling runs in the precision of the training.

    Raises:
        BrainG3NError: the diffusion transformer was trained on another tokenizer's latents.
    """
    card = load_card(dit)
    expected, found = card["architecture"]["tokenizer_sha256"], sha256_of(Path(tokenizer) / WEIGHTS)
    if found != expected:
        raise BrainG3NError(
            "the diffusion transformer was trained on another tokenizer's latents",
            file=dit,
            expected=f"tokenizer weights {expected[:12]}",
            found=f"{found[:12]} in {tokenizer}",
            remedy="encode the shards and train again",
        )
    flow = card["architecture"]["flow"]
    return LatentFlow(
        load_dit(dit, device),
        load_tokenizer(tokenizer, device),
        flow["path"],
        flow["time"]["shift"],
        trained_precision(dit, device),
        trained_precision(tokenizer, device),
    )


def trained_precision(folder: str | Path, device: torch.device) -> torch.autocast:
    bf16 = load_card(folder)["settings"]["precision"] == "bf16"
    return torch.autocast(device.type, torch.bfloat16, enabled=bf16)
