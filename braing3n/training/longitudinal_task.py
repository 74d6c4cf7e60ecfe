"""The longitudinal diffusion transformer: baseline latents to follow-up latents of a person (paper, section 3.4)."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from braing3n.config.training import LongitudinalSettings
from braing3n.files import sha256_of, short_hash, write_parquet
from braing3n.flow.interpolants import bridge
from braing3n.models.conditions import encode_conditions
from braing3n.models.dit import DiT, dit_card_architecture
from braing3n.models.tokenizer import Tokenizer, load_tokenizer
from braing3n.models.weights import WEIGHTS, save_model
from braing3n.training import seeds
from braing3n.training.card import versions
from braing3n.training.flow_task import Ends, FlowSamples, FlowTask
from braing3n.training.loop import fit
from braing3n.volumes.feed import data_hash
from braing3n.volumes.latents import LatentFeed

logger = logging.getLogger(__name__)

MODALITY = "T1"  # paper, section 3.4
DAYS_A_YEAR = 365.25


def find_pairs(metadata: pd.DataFrame, cohorts: tuple[str, ...]) -> pd.DataFrame:
    """All ordered pairs of T1 volumes of one person in one cohort, the baseline earlier than the follow-up.

    The time between them comes from the session dates, or from the ages at scan where a date is missing. Binned ages
    tell no time; such pairs are left out.

    Args:
        metadata: the metadata table.
        cohorts: whose pairs are taken.

    Returns:
        One row a pair: every column of the baseline's row, `horizon` (years), `baseline` and `follow_up`
        (volume_id), in the order of the metadata. Empty, with these columns, if there is no pair.
    """
    rows = metadata[metadata["cohort"].isin(cohorts) & (metadata["modality"] == MODALITY)]
    times = pd.DataFrame(
        {
            "person_id": rows["person_id"],
            "cohort": rows["cohort"],
            "volume_id": rows["volume_id"],
            "date": pd.to_datetime(rows["session_date"]),
            "age": rows["age_at_scan"].where(~rows["age_is_binned"].fillna(False).astype(bool)),
        }
    )
    pairs = times.merge(times, on=["person_id", "cohort"], suffixes=("", "_later"))
    by_date = (pairs["date_later"] - pairs["date"]).dt.days / DAYS_A_YEAR
    pairs["horizon"] = by_date.fillna(pairs["age_later"] - pairs["age"])
    undated = int(pairs["horizon"].isna().sum()) // 2
    if undated:
        logger.warning("%d pairs of scans have neither dates nor ages to tell which came first", undated)
    pairs = pairs[pairs["horizon"] > 0].rename(columns={"volume_id": "baseline", "volume_id_later": "follow_up"})
    keys = pairs[["baseline", "follow_up", "horizon"]]
    return keys.merge(rows, left_on="baseline", right_on="volume_id").drop(columns="volume_id").reset_index(drop=True)


def pair_samples(
    pairs: pd.DataFrame, metadata: pd.DataFrame, results: str | Path, tokenizer: Path, model: Tokenizer, dit: DiT
) -> FlowSamples:
    """Samples of one split: normalised latents of both ends and the conditions of the pairs."""
    used = metadata[metadata["volume_id"].isin({*pairs["baseline"], *pairs["follow_up"]})]
    feed = LatentFeed(used, results, sha256_of(tokenizer / WEIGHTS))
    position = pd.Series(np.arange(len(used)), index=used["volume_id"])
    at = [position.loc[pairs[end]].to_numpy() for end in ("baseline", "follow_up")]

    def ends(indices: np.ndarray, device: torch.device) -> Ends:
        baseline, follow_up = (model.normalise(feed.batch(rows[indices], "cpu")).to(device) for rows in at)
        return baseline, follow_up

    return FlowSamples(ends, encode_conditions(pairs, dit.vocabulary))


def train_longitudinal(
    metadata: pd.DataFrame, results: str | Path, tokenizer: str | Path, settings: LongitudinalSettings, out: str | Path
) -> dict[str, Any]:
    """Train on pairs of persons with split == train, validate on those with split == val (docs/data-contract.md).

    Without any training pair there is nothing to learn: the weights written are the initial ones, whose forecast is the
    baseline itself, and the card's only check says so and has failed.

    Args:
        tokenizer: folder of the tokenizer that made the latents; its statistics normalise them.

    Returns:
        The card. Its architecture also holds the flow's settings, which sampling must share.

    Raises:
        BrainG3NError: latents missing or another tokenizer's; and what `fit` raises.
    """
    pairs = find_pairs(metadata, settings.cohorts)
    parts = {split: pairs[pairs["split"] == split].reset_index(drop=True) for split in ("train", "val")}
    tokenizer = Path(tokenizer)
    latents, tokenizer_hash = load_tokenizer(tokenizer), sha256_of(tokenizer / WEIGHTS)
    with seeds.seeded(settings.train.seed):
        model = DiT(settings.model, settings.conditions, settings.never_dropped, latents.grid)
    architecture = longitudinal_architecture(model, settings, tokenizer_hash)
    if parts["train"].empty:
        return write_untrained(model, architecture, settings, len(pairs), out)
    if parts["val"].empty:
        logger.warning("no pair has split == val: training goes by the training loss alone")
    train, val = (pair_samples(part, metadata, results, tokenizer, latents, model) for part in parts.values())

    def baseline_to_follow_up(ends: Ends, noise: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return bridge(*ends, noise, t, settings.bridge_sigma, settings.bridge_target)

    task = FlowTask(
        model,
        baseline_to_follow_up,
        train,
        val,
        time=settings.time,
        dropout=settings.dropout,
        batch_size=settings.train.micro_batch_size or settings.train.batch_size,
        seed=settings.train.seed,
        constants={"copied baseline (velocity 0)": 0.0},
    )
    used = pd.concat(parts.values())
    volumes = metadata[metadata["volume_id"].isin({*used["baseline"], *used["follow_up"]})]
    order = short_hash(*used["baseline"], *used["follow_up"])
    return fit(
        task,
        settings.train,
        out,
        name="longitudinal",
        data_hash=short_hash(
            data_hash(volumes, results), order, tokenizer_hash, train.conditions.digest(), val.conditions.digest()
        ),
        architecture=architecture,
    )


def longitudinal_architecture(model: DiT, settings: LongitudinalSettings, tokenizer_hash: str) -> dict[str, Any]:
    flow = {
        "path": "bridge",
        "sigma": settings.bridge_sigma,
        "target": settings.bridge_target,
        "time": settings.time.model_dump(),
        "dropout": settings.dropout.model_dump(),
    }
    return dit_card_architecture(model) | {"flow": flow, "tokenizer_sha256": tokenizer_hash}


def write_untrained(
    model: DiT, architecture: dict[str, Any], settings: LongitudinalSettings, n_pairs: int, out: str | Path
) -> dict[str, Any]:
    """Model folder of a training that had no pairs to learn from."""
    detail = (
        f"no pair of T1 scans of one person in {', '.join(settings.cohorts)} has split == train "
        f"({n_pairs} pairs in all): nothing was trained, and the forecast is the baseline"
    )
    logger.warning("%s", detail)
    card = {
        "name": "longitudinal",
        "architecture": architecture,
        "parameters": sum(p.numel() for p in model.parameters()),
        "settings": settings.train.model_dump(mode="json"),
        "data_hash": "",
        "training_samples": 0,
        "steps": 0,
        "epochs": 0,
        "weights_from": "initial weights",
        "metrics": {},
        "checks": [{"name": "training pairs", "value": 0, "baseline": 1, "passed": False, "detail": detail}],
        "device": "none",
        "versions": versions(),
        "seconds": 0.0,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    types = {"step": "int64", "epoch": "int64", "split": "str", "metric": "str", "value": "float64"}
    write_parquet(Path(out) / "history.parquet", pd.DataFrame(columns=list(types)).astype(types))
    save_model(model, card, out)
    return card
