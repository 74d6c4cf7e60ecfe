"""Volumes for named sets of conditions, the arms: noise -> latents -> voxels (paper, section 3.3)."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pandas as pd
import torch
from pydantic import Field
from torch import Tensor

from braing3n.config import read_yaml, validate_settings
from braing3n.config.base import Settings
from braing3n.config.training import GenerateSettings, SamplerSettings
from braing3n.errors import BrainG3NError
from braing3n.evaluation.decoded import to_intensities, typical_offset, write_decoded
from braing3n.evaluation.latent_encoding import check_same_encoder
from braing3n.evaluation.sampling import LatentFlow, load_flow
from braing3n.files import sha256_of, short_hash
from braing3n.models.conditions import requested_conditions
from braing3n.models.weights import WEIGHTS
from braing3n.training import seeds
from braing3n.training.distributed import pick_device
from braing3n.volumes.latents import save_latents

logger = logging.getLogger(__name__)

Request = dict[str, float | str | None]


class Arms(Settings):
    """Content of an arms file (`config/arms.yaml`)."""

    arms: dict[str, Request] = Field(min_length=1)
    """Arm -> conditions by name. A value asks for it, null asks for no condition (guidance's null embedding), and a
    condition that is not named is unknown."""


def load_arms(path: str | Path) -> dict[str, Request]:
    """Arms by name, checked but for their conditions, which the model's vocabulary decides on.

    Raises:
        BrainG3NError: the file is missing or not of this form, or a name is no file name.
    """
    arms = validate_settings(Arms, read_yaml(path), path).arms
    bad = [name for name in arms if not name.replace("_", "").replace("-", "").isalnum()]
    if bad:
        raise BrainG3NError("arms name files", file=path, expected="letters, digits, - and _", found=", ".join(bad))
    return arms


def generate_arms(
    arms: str | Path,
    mae: str | Path,
    tokenizer: str | Path,
    dit: str | Path,
    metadata: pd.DataFrame,
    settings: GenerateSettings,
    sampler: SamplerSettings,
    out: str | Path,
) -> None:
    """Write `<arm>.npy`, `<arm>.parquet` and `<arm>.safetensors` into `out` for every arm (docs/data-contract.md).

    Sample k of every arm starts from the same noise, so that arms differ by their conditions alone.

    Args:
        arms: file of the arms.
        mae, tokenizer, dit: model folders that belong together.
        metadata: the metadata table; its training volumes give the typical offset of intensities.

    Raises:
        BrainG3NError: models that do not belong together, or an arm that asks for what the model does not know.
    """
    requests = load_arms(arms)
    check_same_encoder(tokenizer, mae)
    flow = load_flow(dit, tokenizer, pick_device("auto"))
    vocabulary, never_dropped = flow.dit.vocabulary, flow.dit.never_dropped
    n, noise = settings.samples_per_arm, starting_noise(flow, settings)
    # Conditions of all arms first, so that a wrong one is refused before hours are spent on the others.
    conditions = {name: requested_conditions([arm] * n, vocabulary, never_dropped) for name, arm in requests.items()}
    tokenizer_hash = sha256_of(Path(tokenizer) / WEIGHTS)
    for name, request in requests.items():
        latents = flow.denormalise(flow.sample(noise, conditions[name], sampler))  # (n, N, L)
        table = arm_table(name, request, settings, sampler)
        offset = typical_offset(metadata, request.get("modality"))
        volumes = (to_intensities(z, offset) for z in flow.decode(latents))
        save_latents(Path(out) / f"{name}.safetensors", latents, tokenizer_hash)
        write_decoded(Path(out) / f"{name}.npy", table, volumes, flow.volume_shape)
        logger.info("arm %s: %d volumes", name, n)


def starting_noise(flow: LatentFlow, settings: GenerateSettings) -> Tensor:
    """(samples, N, L) on the CPU; sample k depends on the seed and k only."""
    shape = (flow.dit.tokens, flow.dit.arch.latent)
    draws = [seeds.generator("cpu", settings.seed, k) for k in range(settings.samples_per_arm)]
    return torch.stack([torch.randn(shape, generator=draw) for draw in draws])


def arm_table(name: str, request: Request, settings: GenerateSettings, sampler: SamplerSettings) -> pd.DataFrame:
    """What is known about an arm's samples before they are drawn."""
    n = settings.samples_per_arm
    asked = json.dumps(request, sort_keys=True)
    sampling = f"{sampler.solver} {sampler.steps} {sampler.guidance}"
    ids = [short_hash("generated", name, asked, sampling, str(settings.seed), str(k)) for k in range(n)]
    return pd.DataFrame(
        {
            "volume_id": ids,
            "arm": name,
            "conditions": asked,
            "modality": request.get("modality"),
            "sample": range(n),
            "seed": settings.seed,
            "guidance": sampler.guidance,
            "solver": sampler.solver,
            "steps": sampler.steps,
        }
    )
