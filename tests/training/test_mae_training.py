"""Tests of braing3n.training.mae: tiny networks, on small volumes and on the paper's geometry."""

import numpy as np
import pandas as pd
import pytest
import torch

from braing3n.config.models import MAEArchitecture
from braing3n.config.training import MAESettings, TrainSettings
from braing3n.errors import BrainG3NError
from braing3n.geometry import VOLUME_SHAPE
from braing3n.models.mae import MaskedAutoencoder, load_mae
from braing3n.models.weights import load_state
from braing3n.training.loop import fit
from braing3n.training.mae import MAETask, split_batches, train_mae
from braing3n.training.seeds import seeded
from braing3n.volumes.feed import VolumeFeed
from braing3n.volumes.store import write_array

MODEL = {
    "hidden": 24,
    "depth": 1,
    "heads": 2,
    "mlp": 24,
    "decoder_hidden": 24,
    "decoder_depth": 1,
    "decoder_heads": 2,
    "decoder_mlp": 24,
}
TRAIN = {"epochs": 1, "batch_size": 2, "learning_rate": 1e-2, "precision": "fp32", "device": "cpu", "stop_before_s": 0}
SMALL = (32, 48, 32)  # 12 tokens
SPLITS = ["train", "train", "train", "train", "val", "val", "test"]


def ramp(seed: int, shape: tuple[int, int, int]) -> np.ndarray:
    """A box, two thirds of the width, that brightens along the second axis or the other way round."""
    x, y, z = (n // 6 for n in shape)
    volume = np.zeros(shape, dtype=np.float32)
    slope = np.linspace(1, 3, shape[1] - 2 * y) if seed % 2 else np.linspace(3, 1, shape[1] - 2 * y)
    volume[x:-x, y:-y, z:-z] = slope[None, :, None] * np.random.default_rng(seed).uniform(0.9, 1.1)
    return volume


def store(results, shape, splits) -> pd.DataFrame:
    """A store of ramps of `shape` -> its metadata."""
    file = "volumes/TOY/0000.npy"
    table = write_array(results / file, (ramp(n, shape) for n in range(len(splits))), len(splits), shape)
    table = table.assign(volume_id=[f"{n:016x}" for n in range(len(splits))])
    table.to_parquet((results / file).with_suffix(".parquet"))
    return table.rename(columns={"row": "store_row"}).assign(store_file=file, split=splits)


def task(metadata, results, batch_size: int = 3) -> MAETask:
    with seeded(0):
        model = MaskedAutoencoder(MAEArchitecture(**MODEL), SMALL)
    parts = [VolumeFeed(metadata[metadata["split"] == split], results) for split in ("train", "val")]
    return MAETask(model, *parts, batch_size, seed=1)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    results = tmp_path_factory.mktemp("small")
    return store(results, SMALL, SPLITS * 2), results


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    results = tmp_path_factory.mktemp("full")
    return store(results, VOLUME_SHAPE, ["train", "train", "val"]), results


def test_training_reconstructs_better_than_the_means(small, tmp_path):
    settings = TrainSettings(**{**TRAIN, "epochs": 40, "batch_size": 4})
    card = fit(task(*small), settings, tmp_path, name="mae", data_hash="", architecture={})
    by_mean, by_volume = card["checks"]
    assert by_mean["passed"]
    assert by_volume["passed"]  # only a network can tell which way the ramp goes
    assert by_mean["value"] == pytest.approx(card["metrics"]["val_loss"], rel=1e-6)
    # z-scored: variance 1 in the box, 0 outside; half of the volumes are ramps of the other direction.
    inside = (2 / 3) ** 3
    assert by_mean["baseline"] == pytest.approx(inside, rel=0.15)
    assert by_volume["baseline"] == pytest.approx(inside, rel=0.15)
    assert "4 validation volumes" in by_mean["detail"]


def test_validation_does_not_depend_on_the_batch_size(small):
    metadata, results = small
    losses = []
    for batch_size in (1, 3, 4):
        one = task(metadata, results, batch_size)
        with torch.no_grad():
            losses.append(one.validate(one.model, torch.device("cpu"))["loss"])
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-5)


def test_mean_volume_is_the_mean_of_training_volumes(small):
    one = task(*small)
    expected = one.model.patches(one.train.batch(range(8)).mean(dim=0, keepdim=True))[0]
    torch.testing.assert_close(one.mean_volume_patches(torch.device("cpu")), expected, atol=1e-6, rtol=1e-5)


def test_paper_geometry_from_store_to_features(full, tmp_path):
    metadata, results = full
    card = train_mae(metadata, results, MAESettings(model=MODEL, train=TRAIN), tmp_path)
    assert card["training_samples"] == 2
    assert card["tflop_per_second"] > 0
    assert card["architecture"]["volume_shape"] == list(VOLUME_SHAPE)
    features = load_mae(tmp_path).encode(torch.zeros(1, 1, *VOLUME_SHAPE))
    assert features.shape == (1, 1200, 24)


def test_without_validation_volumes_the_card_says_so(full, tmp_path):
    metadata, results = full
    metadata = metadata[metadata["split"] == "train"]
    card = train_mae(metadata, results, MAESettings(model=MODEL, train=TRAIN), tmp_path)
    assert card["weights_from"] == "last step, nothing to validate on"
    assert "2 training (no validation volumes) volumes" in card["checks"][0]["detail"]


def test_no_training_volume_is_an_error(full, tmp_path):
    metadata, results = full
    with pytest.raises(BrainG3NError, match="no volume has split == train"):
        train_mae(metadata.assign(split="test"), results, MAESettings(model=MODEL, train=TRAIN), tmp_path)


def test_batches_cover_everything_once():
    assert [batch.tolist() for batch in split_batches(5, 2)] == [[0, 1], [2, 3], [4]]
    assert split_batches(0, 2) == []


@pytest.mark.slow
def test_compiled_training_agrees_with_plain(small, tmp_path):
    """Block by block, with the keys of the state dict unchanged."""
    losses, keys = [], []
    for compiled in (False, True):
        settings = TrainSettings(**{**TRAIN, "epochs": 2, "batch_size": 4, "compile": compiled})
        out = tmp_path / str(compiled)
        card = fit(task(*small), settings, out, name="mae", data_hash="", architecture={})
        losses.append([card["metrics"]["train_loss"], card["metrics"]["val_loss"]])
        keys.append(sorted(load_state(out / "model.safetensors")))
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert keys[0] == keys[1]
