"""Forecasts of held-out persons' follow-ups, decoded and set beside the scans that followed (paper, section 3.4)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from braing3n.config.training import LongitudinalSettings
from braing3n.evaluation.decoded import to_intensities
from braing3n.evaluation.latent_encoding import check_same_encoder
from braing3n.evaluation.sampling import LatentFlow, load_flow
from braing3n.files import sha256_of, short_hash, write_parquet
from braing3n.models.conditions import encode_conditions
from braing3n.models.weights import WEIGHTS
from braing3n.results import results_table
from braing3n.training.distributed import pick_device
from braing3n.training.longitudinal_task import find_pairs
from braing3n.volumes.feed import VolumeFeed
from braing3n.volumes.latents import LatentFeed, save_latents
from braing3n.volumes.store import COLUMNS as STORE_COLUMNS
from braing3n.volumes.store import write_array

logger = logging.getLogger(__name__)

HELD_OUT = ("test", "val")
NAME = "forecasts"
COLUMNS = {
    "volume_id": "str",
    "kind": "str",
    "baseline": "str",
    "follow_up": "str",
    "person_id": "str",
    "split": "str",
    "modality": "str",
    "horizon": "float64",
    "offset": "float64",
}
MEASURES = ("latent_change", "latent_error", "voxel_change", "voxel_error")
FOLLOW_UP_ERRORS = {
    "forecast_of_follow_up": "forecast",
    "baseline": "copied baseline",
    "follow_up": "tokenizer",
}


def run_forecast(
    metadata: pd.DataFrame,
    results: str | Path,
    mae: str | Path,
    tokenizer: str | Path,
    longitudinal: str | Path,
    settings: LongitudinalSettings,
    out: str | Path,
    table: str | Path,
) -> None:
    """Write `forecasts.npy`, `.parquet` and `.safetensors` into `out`, and the results table.

    Baselines are first scans of held-out persons (test, then validation). If every person with a follow-up is in the
    training split, theirs are taken, and every row says so in `split`. Without any pair, both tables are empty.

    Args:
        mae, tokenizer, longitudinal: model folders that belong together.
        out: folder of the decoded volumes.
        table: results table (docs/data-contract.md, "Results").

    Raises:
        BrainG3NError: models that do not belong together; latents or volumes missing.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    check_same_encoder(tokenizer, mae)
    chosen = choose_baselines(metadata, settings)
    if chosen.empty:
        logger.warning("no person of %s has two T1 scans: there is nothing to forecast", ", ".join(settings.cohorts))
        empty = pd.DataFrame(columns=[*COLUMNS, *STORE_COLUMNS[1:], *MEASURES])
        write_parquet(out / f"{NAME}.parquet", empty.astype(COLUMNS | dict.fromkeys(MEASURES, "float64")))
        write_parquet(table, results_table([]))
        return
    flow = load_flow(longitudinal, tokenizer, pick_device("auto"))
    tokenizer_hash = sha256_of(Path(tokenizer) / WEIGHTS)
    rows, latents = make_forecasts(chosen, metadata, results, flow, settings, tokenizer_hash)
    raw = flow.denormalise(latents)
    save_latents(out / f"{NAME}.safetensors", raw, tokenizer_hash)
    real = metadata.set_index("volume_id", drop=False).loc[chosen["follow_up"]]
    volumes = MeasuredVolumes(flow.decode(raw), rows["offset"], VolumeFeed(real, results))
    stored = write_array(out / f"{NAME}.npy", volumes, len(rows), flow.volume_shape)
    rows = pd.concat([rows, stored], axis=1).assign(**latent_measures(latents, len(chosen)), **volumes.measures)
    write_parquet(out / f"{NAME}.parquet", rows)
    write_parquet(table, results_table(summarise(rows)))


class MeasuredVolumes:
    """Decoded volumes as intensities, measured in passing: each against its baseline's reconstruction and against the
    real follow-up, by the mean absolute difference of z-scores over all voxels.

    Args:
        decoded: z-scored volumes (X, Y, Z) of n baselines first, then of their forecasts in blocks of n.
        offsets: what is added to the z-scores of each.
        follow_ups: feed of the n real follow-ups.
    """

    def __init__(self, decoded: Iterator[np.ndarray], offsets: pd.Series, follow_ups: VolumeFeed):
        self.decoded, self.offsets, self.follow_ups = decoded, offsets, follow_ups
        self.measures: dict[str, list[float]] = {"voxel_change": [], "voxel_error": []}

    def __iter__(self) -> Iterator[np.ndarray]:
        n, baselines = len(self.follow_ups), []
        for k, (z, offset) in enumerate(zip(self.decoded, self.offsets, strict=True)):
            if k < n:
                baselines.append(z)
            follow_up = self.follow_ups.batch([k % n])[0, 0].numpy()
            self.measures["voxel_change"].append(float(np.abs(z - baselines[k % n]).mean()))
            self.measures["voxel_error"].append(float(np.abs(z - follow_up).mean()))
            yield to_intensities(z, offset)


def latent_measures(latents: Tensor, n: int) -> dict[str, list[float]]:
    """Mean absolute change from the baselines (the first n rows of latents (m n, N, L)), and mean squared error from
    the real follow-ups (the second n rows), of every row.
    """
    blocks = latents.reshape(-1, n, *latents.shape[1:])  # (m, n, N, L)
    change = (blocks - blocks[0]).abs().mean(dim=(2, 3)).flatten()
    error = (blocks - blocks[1]).square().mean(dim=(2, 3)).flatten()
    return {"latent_change": change.tolist(), "latent_error": error.tolist()}


def choose_baselines(metadata: pd.DataFrame, settings: LongitudinalSettings) -> pd.DataFrame:
    """A pair a person: the first scan and the last that followed it, of at most `forecast_baselines` persons."""
    pairs = find_pairs(metadata, settings.cohorts)
    held_out = pairs[pairs["split"].isin(HELD_OUT)]
    if held_out.empty and not pairs.empty:
        logger.warning("no held-out person has a follow-up: forecasts start from training baselines")
        held_out = pairs
    longest = held_out.sort_values(["horizon", "follow_up"], ascending=[False, True], kind="stable")
    persons = longest.drop_duplicates("person_id").sort_values("person_id")
    order = np.random.default_rng(settings.train.seed).permutation(len(persons))
    tests_first = sorted(order, key=lambda i: persons["split"].iloc[i] != HELD_OUT[0])
    return persons.iloc[tests_first[: settings.forecast_baselines]].reset_index(drop=True)


def make_forecasts(
    chosen: pd.DataFrame,
    metadata: pd.DataFrame,
    results: str | Path,
    flow: LatentFlow,
    settings: LongitudinalSettings,
    tokenizer_hash: str,
) -> tuple[pd.DataFrame, Tensor]:
    """Rows of `COLUMNS` and their normalised latents (rows, N, L), in blocks of one row a baseline, by kind:
    `baseline`, `follow_up` (the real one), `forecast_of_follow_up` (at its time), and `forecast` at every horizon.
    """
    baselines, follow_ups = (
        flow.normalise(latents_of(chosen[end], metadata, results, tokenizer_hash)) for end in ("baseline", "follow_up")
    )
    rows = [table_rows(chosen.assign(horizon=0.0), "baseline"), table_rows(chosen, "follow_up")]
    latents = [baselines, follow_ups]
    at_horizons = [("forecast", chosen.assign(horizon=horizon)) for horizon in settings.horizons_years]
    for kind, request in [("forecast_of_follow_up", chosen), *at_horizons]:
        conditions = encode_conditions(request, flow.dit.vocabulary)
        latents.append(flow.sample(baselines, conditions, settings.sampler))
        rows.append(table_rows(request, kind))
    return pd.concat(rows, ignore_index=True).astype(COLUMNS), torch.cat(latents)


def latents_of(volume_ids: pd.Series, metadata: pd.DataFrame, results: str | Path, tokenizer_hash: str) -> Tensor:
    """Raw cached latents (n, N, L) of volumes, in their order."""
    rows = metadata.set_index("volume_id", drop=False).loc[volume_ids].reset_index(drop=True)
    return LatentFeed(rows, results, tokenizer_hash).batch(np.arange(len(rows)), "cpu")


def table_rows(requests: pd.DataFrame, kind: str) -> pd.DataFrame:
    rows = requests[["baseline", "follow_up", "person_id", "split", "modality", "horizon"]].assign(kind=kind)
    rows["volume_id"] = [
        short_hash("forecast", kind, row.baseline, row.follow_up, repr(float(row.horizon))) for row in rows.itertuples()
    ]
    # One offset for all volumes of a baseline, so that differences of intensities are differences of z-scores.
    return rows.assign(offset=requests["mean"] / requests["std"])[list(COLUMNS)]


def summarise(rows: pd.DataFrame) -> list[dict]:
    """Rows of the results table: means over persons of change by horizon, and of errors against the real follow-up.

    Errors of the unchanged baseline stand beside the forecast's. The voxel error of the tokenizer is that of the real
    follow-up's own reconstruction: no forecast through this tokenizer can be expected below it.
    """
    persons, splits = sorted(rows["person_id"].unique()), "+".join(sorted(rows["split"].unique()))
    blocks = [
        (
            f"horizon {horizon:g} y",
            part,
            {"latent_change": "mean absolute latent change", "voxel_change": "voxel change"},
        )
        for horizon, part in rows[rows["kind"] == "forecast"].groupby("horizon")
    ]
    for kind, name in FOLLOW_UP_ERRORS.items():
        part = rows[rows["kind"] == kind]
        errors = {"voxel_error": f"voxel L1, {name}"}
        if kind != "follow_up":
            errors["latent_error"] = f"latent mean squared error, {name}"
        blocks.append(("real follow-up", part, errors))
    return [
        {
            "table": "forecast",
            "encoder": "longitudinal",
            "task": f"{splits} baselines",
            "slice": label,
            "metric": metric,
            "value": float(part[column].mean()),
            "n_subjects": len(persons),
            "n_scans": len(part),
            "split_hash": short_hash(*persons),
        }
        for label, part, metrics in blocks
        for column, metric in metrics.items()
    ]
