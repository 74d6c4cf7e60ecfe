"""Forecasts: who is forecast, what is written, and measures against a model whose forecast is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from braing3n.evaluation.decoded import decoded_feed
from braing3n.evaluation.forecast import choose_baselines, run_forecast
from braing3n.evaluation.sampling import load_flow
from braing3n.files import read_parquet, sha256_of
from braing3n.models.weights import WEIGHTS
from braing3n.results import COLUMNS
from braing3n.volumes.feed import VolumeFeed
from braing3n.volumes.latents import LatentFeed, read_latents


def forecast(trained, tiny, out, metadata=None, longitudinal=None, **settings):
    metadata = trained.metadata if metadata is None else metadata
    run_forecast(
        metadata,
        trained.results,
        trained.mae,
        trained.tokenizer,
        longitudinal or trained.longitudinal,
        tiny.longitudinal_settings(**settings),
        out / "forecast",
        out / "tables" / "forecast.parquet",
    )
    return read_parquet(out / "forecast" / "forecasts.parquet"), read_parquet(out / "tables" / "forecast.parquet")


@pytest.fixture(scope="module")
def run(trained, tiny, tmp_path_factory):
    out = tmp_path_factory.mktemp("forecast")
    return out, *forecast(trained, tiny, out)


def test_held_out_persons_from_their_first_scan_to_their_last(trained, tiny):
    chosen = choose_baselines(trained.metadata, tiny.longitudinal_settings())
    assert chosen["split"].tolist() == ["test", "val"]
    assert chosen["baseline"].tolist() == ["ADNI-c-v0-T1", "ADNI-b-v0-T1"]
    assert chosen["follow_up"].tolist() == ["ADNI-c-v2-T1", "ADNI-b-v2-T1"]
    assert chosen["horizon"].tolist() == [4.0, 4.0]


def test_training_baselines_only_when_nobody_is_held_out(trained, tiny):
    everybody = trained.metadata.assign(split="train")
    chosen = choose_baselines(everybody, tiny.longitudinal_settings())
    assert chosen["split"].unique().tolist() == ["train"]
    assert len(chosen) == 3


def test_volumes_of_a_forecast(run, trained):
    out, rows, _ = run
    assert rows.groupby("kind").size().to_dict() == {
        "baseline": 2,
        "follow_up": 2,
        "forecast": 4,
        "forecast_of_follow_up": 2,
    }
    assert rows["volume_id"].is_unique
    assert sorted(rows.loc[rows["kind"] == "forecast", "horizon"]) == [0, 0, 2, 2]
    feed, _ = decoded_feed(out / "forecast" / "forecasts.parquet")
    assert feed.batch([0, 9]).shape == (2, 1, 32, 48, 32)
    _, latents = read_latents(out / "forecast" / "forecasts.safetensors", sha256_of(trained.tokenizer / WEIGHTS))
    baseline = trained.metadata[trained.metadata["volume_id"] == rows["baseline"].iloc[0]]
    cached = LatentFeed(baseline, trained.results, sha256_of(trained.tokenizer / WEIGHTS)).batch(np.array([0]), "cpu")
    torch.testing.assert_close(latents[0].float(), cached[0], atol=5e-3, rtol=5e-3)


def test_measures_are_those_of_the_volumes(run, trained):
    """Change against the baseline's reconstruction, error against the stored real scan; latents are stored rounded."""
    out, rows, _ = run
    flow = load_flow(trained.longitudinal, trained.tokenizer, torch.device("cpu"))
    _, latents = read_latents(out / "forecast" / "forecasts.safetensors", sha256_of(trained.tokenizer / WEIGHTS))
    z = np.stack(list(flow.decode(latents)))
    real = trained.metadata.set_index("volume_id", drop=False).loc[rows["follow_up"]]
    truth = VolumeFeed(real, trained.results).batch(np.arange(len(rows)))[:, 0].numpy()
    change = np.abs(z - z[np.arange(len(rows)) % 2]).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(rows["voxel_change"], change, atol=2e-3)
    np.testing.assert_allclose(rows["voxel_error"], np.abs(z - truth).mean(axis=(1, 2, 3)), atol=2e-3)
    baselines = rows[rows["kind"] == "baseline"]
    assert (baselines["voxel_change"] == 0).all()
    assert (baselines["latent_change"] == 0).all()
    assert (rows.loc[rows["kind"] == "follow_up", "latent_error"] == 0).all()


def test_results_table_has_change_by_horizon_and_errors_beside_the_copy(run):
    _, rows, table = run
    assert list(table.columns) == list(COLUMNS)
    assert set(table["slice"]) == {"horizon 0 y", "horizon 2 y", "real follow-up"}
    errors = table[table["slice"] == "real follow-up"].set_index("metric")["value"]
    assert set(errors.index) == {
        "voxel L1, forecast",
        "voxel L1, copied baseline",
        "voxel L1, tokenizer",
        "latent mean squared error, forecast",
        "latent mean squared error, copied baseline",
    }
    expected = rows.loc[rows["kind"] == "baseline", "latent_error"].mean()
    assert errors["latent mean squared error, copied baseline"] == pytest.approx(expected)
    assert (table["n_subjects"] == 2).all()
    assert (table["task"] == "test+val baselines").all()


def test_untrained_model_forecasts_the_baseline(trained, tiny, tmp_path):
    """adaLN-Zero starts with velocity 0: nothing changes, and the error is that of copying."""
    from braing3n.training.longitudinal_task import train_longitudinal

    folder = tmp_path / "longitudinal"
    nobody = trained.metadata[trained.metadata["split"] != "train"]
    card = train_longitudinal(nobody, trained.results, trained.tokenizer, tiny.longitudinal_settings(), folder)
    assert [check["passed"] for check in card["checks"]] == [False]
    rows, table = forecast(trained, tiny, tmp_path, longitudinal=folder)
    assert (rows.loc[rows["kind"].str.startswith("forecast"), "latent_change"] < 1e-6).all()
    errors = table[table["slice"] == "real follow-up"].set_index("metric")["value"]
    assert errors["voxel L1, forecast"] == pytest.approx(errors["voxel L1, copied baseline"], abs=1e-5)


def test_without_pairs_both_tables_are_empty(trained, tiny, tmp_path, caplog):
    rows, table = forecast(trained, tiny, tmp_path, cohorts=("IXI",))
    assert len(rows) == 0
    assert {"kind", "horizon", "scale", "latent_change"} <= set(rows.columns)
    assert len(table) == 0
    assert "nothing to forecast" in caplog.text
