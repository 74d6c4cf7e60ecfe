"""The conditional diffusion transformer on cached latents (paper, section 2 and Appendix C)."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from braing3n.config.training import DiTSettings
from braing3n.errors import BrainG3NError
from braing3n.files import sha256_of, short_hash
from braing3n.flow.interpolants import linear
from braing3n.models.conditions import encode_conditions
from braing3n.models.dit import DiT, dit_card_architecture
from braing3n.models.tokenizer import Tokenizer, load_tokenizer
from braing3n.models.weights import WEIGHTS
from braing3n.training import seeds
from braing3n.training.flow_task import Ends, FlowSamples, FlowTask
from braing3n.training.loop import fit
from braing3n.volumes.feed import data_hash
from braing3n.volumes.latents import LatentFeed

logger = logging.getLogger(__name__)


def noise_to_data(ends: Ends, noise: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """The path of conditional generation: data at t = 0, noise at t = 1."""
    return linear(ends[0], noise, t)


def latent_samples(rows: pd.DataFrame, results: str | Path, tokenizer: Path, model: Tokenizer, dit: DiT) -> FlowSamples:
    """Samples of one split: normalised latents and conditions of the rows of the metadata."""
    feed = LatentFeed(rows, results, sha256_of(tokenizer / WEIGHTS))

    def ends(indices: np.ndarray, device: torch.device) -> Ends:
        return (model.normalise(feed.batch(indices, "cpu")).to(device),)

    return FlowSamples(ends, encode_conditions(rows, dit.vocabulary))


def train_dit(
    metadata: pd.DataFrame, results: str | Path, tokenizer: str | Path, settings: DiTSettings, out: str | Path
) -> dict[str, Any]:
    """Train on latents of rows with split == train, validate on split == val (docs/data-contract.md).

    Args:
        tokenizer: folder of the tokenizer that made the latents; its statistics normalise them.

    Returns:
        The card. Its architecture also holds the flow's settings, which sampling must share.

    Raises:
        BrainG3NError: no training volumes; latents missing or another tokenizer's; and what `fit` raises.
    """
    parts = {split: metadata[metadata["split"] == split].reset_index(drop=True) for split in ("train", "val")}
    if parts["train"].empty:
        raise BrainG3NError("no volume has split == train", file="metadata", found=f"{len(metadata)} rows")
    if parts["val"].empty:
        logger.warning("no volume has split == val: training goes by the training loss alone")
    tokenizer = Path(tokenizer)
    latents = load_tokenizer(tokenizer)
    with seeds.seeded(settings.train.seed):
        model = DiT(settings.model, settings.conditions, settings.never_dropped, latents.grid)
    train, val = (latent_samples(rows, results, tokenizer, latents, model) for rows in parts.values())
    task = FlowTask(
        model,
        noise_to_data,
        train,
        val,
        time=settings.time,
        dropout=settings.dropout,
        batch_size=settings.train.micro_batch_size or settings.train.batch_size,
        seed=settings.train.seed,
    )
    tokenizer_hash = sha256_of(tokenizer / WEIGHTS)
    flow = {"path": "linear", "time": settings.time.model_dump(), "dropout": settings.dropout.model_dump()}
    return fit(
        task,
        settings.train,
        out,
        name="dit",
        data_hash=short_hash(
            data_hash(pd.concat(parts.values()), results),
            tokenizer_hash,
            train.conditions.digest(),
            val.conditions.digest(),
        ),
        architecture=dit_card_architecture(model) | {"flow": flow, "tokenizer_sha256": tokenizer_hash},
    )
