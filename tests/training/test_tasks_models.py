"""The three trainings from files to cards, in miniature."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from braing3n.errors import BrainG3NError
from braing3n.evaluation.latent_encoding import encode_cohort
from braing3n.files import sha256_of
from braing3n.models.mae import load_mae
from braing3n.models.tokenizer import Tokenizer, load_tokenizer
from braing3n.models.weights import WEIGHTS, load_card
from braing3n.training.dit_task import train_dit
from braing3n.training.longitudinal_task import train_longitudinal
from braing3n.training.tokenizer_task import TokenizerTask, psnr, train_tokenizer
from braing3n.volumes.feed import VolumeFeed


@pytest.fixture(scope="module")
def tiny():
    path = Path(__file__).parents[1] / "evaluation" / "tiny.py"
    spec = importlib.util.spec_from_file_location("tiny_results", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def results(tiny, tmp_path_factory):
    """(folder, metadata) with a tokenizer trained for a moment, and every shard encoded."""
    folder = tmp_path_factory.mktemp("results")
    metadata = tiny.write_results(folder)
    models = folder / "models"
    settings = tiny.tokenizer_settings(epochs=4, learning_rate=1e-2)
    train_tokenizer(metadata, folder, models / "mae", settings, models / "tokenizer")
    for cohort in ("IXI", "ADNI"):
        tables = (folder / kind / f"{cohort}.parquet" for kind in ("latents", "features/mae"))
        encode_cohort(metadata, folder, cohort, models / "mae", models / "tokenizer", *tables)
    return folder, metadata


def test_tokenizer_learns(results):
    history = pd.read_parquet(results[0] / "models" / "tokenizer" / "history.parquet")
    losses = history.query("split == 'train' and metric == 'loss'")["value"].tolist()
    assert losses[-1] < 0.9 * losses[0]


def test_checks_are_errors_of_the_saved_weights(results):
    folder, metadata = results
    mae, tokenizer = load_mae(folder / "models" / "mae"), load_tokenizer(folder / "models" / "tokenizer")
    feed = VolumeFeed(metadata[metadata["split"] == "val"], folder)
    volumes = feed.batch(np.arange(len(feed)))
    error = float((tokenizer(mae.encode(volumes)) - volumes).abs().mean())
    check, ratio = load_card(folder / "models" / "tokenizer")["checks"]
    assert check["value"] == pytest.approx(error, rel=1e-4)
    assert check["passed"] == (check["value"] < check["baseline"])
    assert ratio["passed"] == (ratio["value"] > ratio["baseline"])
    assert f"{len(feed)} validation volumes" in check["detail"]


def test_mean_volume_baseline_is_computed_from_training_volumes(results):
    folder, metadata = results
    feeds = {s: VolumeFeed(metadata[metadata["split"] == s], folder) for s in ("train", "val")}
    train, val = (feeds[s].batch(np.arange(len(feeds[s]))) for s in ("train", "val"))
    error, ratio = load_card(folder / "models" / "tokenizer")["checks"]
    mean = train.mean(dim=0, keepdim=True)
    assert error["baseline"] == pytest.approx(float((val - mean).abs().mean()), rel=1e-4)
    assert ratio["baseline"] == pytest.approx(float(psnr(mean.expand_as(val), val).mean()), rel=1e-4)


def test_psnr_of_a_known_error():
    volumes = torch.zeros(1, 1, 4, 4, 4)
    volumes[0, 0, 0, 0, 0] = 10.0
    assert float(psnr(volumes + 1.0, volumes)) == pytest.approx(20.0)  # 20 log10(10 / 1)


def test_statistics_are_those_of_the_training_latents(results):
    """Estimated with the saved weights, over training volumes only, in the weights file itself."""
    folder, metadata = results
    mae, tokenizer = load_mae(folder / "models" / "mae"), load_tokenizer(folder / "models" / "tokenizer")
    feed = VolumeFeed(metadata[metadata["split"] == "train"], folder)
    latents = tokenizer.project(mae.encode(feed.batch(np.arange(len(feed))))).double()
    torch.testing.assert_close(tokenizer.latent_mean.double(), latents.mean(dim=(0, 1)), atol=1e-5, rtol=1e-4)
    std = latents.std(dim=(0, 1), correction=0)
    torch.testing.assert_close(tokenizer.latent_std.double(), std, atol=1e-5, rtol=1e-4)


def test_tokenizer_names_its_encoder(results):
    folder, _ = results
    card = load_card(folder / "models" / "tokenizer")
    assert card["architecture"]["mae_sha256"] == sha256_of(folder / "models" / "mae" / WEIGHTS)


def test_same_seed_same_weights(results, tiny, tmp_path):
    folder, metadata = results
    hashes = []
    for name in "ab":
        train_tokenizer(metadata, folder, folder / "models" / "mae", tiny.tokenizer_settings(epochs=1), tmp_path / name)
        hashes.append(sha256_of(tmp_path / name / WEIGHTS))
    assert hashes[0] == hashes[1]


def test_latent_noise_is_used(results, tiny, tmp_path):
    folder, metadata = results
    settings = tiny.tokenizer_settings(epochs=1)
    noisy = settings.model_copy(update={"latent_noise": 0.5})
    losses = [
        train_tokenizer(metadata, folder, folder / "models" / "mae", s, tmp_path / str(i))["metrics"]["train_loss"]
        for i, s in enumerate((settings, noisy))
    ]
    assert losses[0] != losses[1]


def test_dit_from_files_to_card(results, tiny, tmp_path):
    folder, metadata = results
    card = train_dit(metadata, folder, folder / "models" / "tokenizer", tiny.dit_settings(epochs=20), tmp_path)
    assert {check["name"] for check in card["checks"]} == {
        "velocity error below that of the mean velocity",
        "training loss fell",
    }
    assert card["architecture"]["flow"]["time"] == {"distribution": "uniform", "shift": 1.0}
    assert card["training_samples"] == int((metadata["split"] == "train").sum())
    assert card["weights_from"].endswith("(averaged weights)")


def test_changed_conditions_are_changed_data(results, tiny, tmp_path):
    folder, metadata = results
    hashes = [
        train_dit(table, folder, folder / "models" / "tokenizer", tiny.dit_settings(epochs=1), tmp_path / str(i))[
            "data_hash"
        ]
        for i, table in enumerate((metadata, metadata.assign(sex="F")))
    ]
    assert hashes[0] != hashes[1]


def test_longitudinal_from_files_to_card(results, tiny, tmp_path):
    folder, metadata = results
    settings = tiny.longitudinal_settings(epochs=20)
    card = train_longitudinal(metadata, folder, folder / "models" / "tokenizer", settings, tmp_path)
    assert card["training_samples"] == 3  # one training person with three scans
    assert [check["name"] for check in card["checks"]] == [
        "velocity error below that of the mean velocity",
        "velocity error below that of the copied baseline (velocity 0)",
        "training loss fell",
    ]
    assert card["architecture"]["flow"]["path"] == "bridge"


def test_longitudinal_without_pairs_says_so_and_writes_the_initial_weights(results, tiny, tmp_path):
    folder, metadata = results
    settings = tiny.longitudinal_settings(cohorts=("IXI",))
    card = train_longitudinal(metadata, folder, folder / "models" / "tokenizer", settings, tmp_path)
    assert load_card(tmp_path) == card
    assert "nothing was trained" in card["checks"][0]["detail"]
    assert not card["checks"][0]["passed"]
    assert pd.read_parquet(tmp_path / "history.parquet").empty
    assert (tmp_path / WEIGHTS).exists()


def test_no_training_volume_is_an_error(results, tiny, tmp_path):
    folder, metadata = results
    held_out = metadata.assign(split="test")
    with pytest.raises(BrainG3NError, match="no volume has split == train"):
        train_dit(held_out, folder, folder / "models" / "tokenizer", tiny.dit_settings(), tmp_path)
    with pytest.raises(BrainG3NError, match="no volume has split == train"):
        train_tokenizer(held_out, folder, folder / "models" / "mae", tiny.tokenizer_settings(), tmp_path)


def test_projection_starts_at_the_whitened_principal_axes(results, tiny):
    """Latents of the training tokens are decorrelated with unit variance, strongest axis first."""
    folder, metadata = results
    train = VolumeFeed(metadata[metadata["split"] == "train"].reset_index(drop=True), folder)
    encoder = load_mae(folder / "models" / "mae")
    model = Tokenizer(tiny.tokenizer_settings().model, encoder.arch.hidden, encoder.grid)
    task = TokenizerTask(model, encoder, train, train, latent_noise=0.0, batch_size=2, seed=0)
    task.initialise(torch.device("cpu"))
    with torch.no_grad():
        latents = model.project(task.tokens(train.batch(np.arange(len(train)))))
    covariance = torch.cov(latents.flatten(0, 1).double().T, correction=0)  # (L, L)
    assert torch.allclose(covariance, torch.eye(len(covariance), dtype=torch.float64), atol=1e-3)
