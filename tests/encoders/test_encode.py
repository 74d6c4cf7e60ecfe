from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from braing3n.encoders.encode import encode_cohort, encode_rows
from braing3n.encoders.ours import BlockIntensities, MAEEncoder
from braing3n.encoders.protocol import z_score_brain
from braing3n.encoders.registry import ENCODERS, encoder_of, load_encoder
from braing3n.errors import BrainG3NError
from braing3n.volumes.feed import VolumeFeed


def test_z_score_equals_the_feeds(small_store):
    feed = VolumeFeed(small_store.metadata, small_store.results)
    stored = feed.stored(np.arange(2))[:, None].float()
    scale = torch.tensor(small_store.metadata["scale"].to_numpy()[:2], dtype=torch.float32).view(-1, 1, 1, 1, 1)
    torch.testing.assert_close(z_score_brain(stored * scale, stored > 0), feed.batch([0, 1]), atol=1e-4, rtol=0)


def test_mae_features_are_the_means_of_its_tokens(small_store):
    found = encode_rows(MAEEncoder.load(small_store.mae, "cpu"), small_store.metadata, small_store.results, "cpu")
    volumes = VolumeFeed(small_store.metadata, small_store.results).batch([0, 1, 2])
    with torch.no_grad():
        tokens = small_store.model.eval().encode(volumes).numpy()
    np.testing.assert_allclose(found["all"], tokens.mean(1), atol=1e-5)
    patches = volumes[:, 0].numpy().reshape(3, 10, 16, 12, 16, 10, 16)
    brain = (patches != 0).any(axis=(2, 4, 6)).reshape(3, 1200, 1)
    np.testing.assert_allclose(found["brain"], (tokens * brain).sum(1) / brain.sum(1), atol=1e-5)
    assert not np.allclose(found["all"], found["brain"], atol=1e-3)


def test_features_do_not_depend_on_the_batch(small_store, monkeypatch):
    encoder = MAEEncoder.load(small_store.mae, "cpu")
    together = encode_rows(encoder, small_store.metadata, small_store.results, "cpu")["all"]
    monkeypatch.setattr("braing3n.encoders.encode.BATCH", 1)
    one_by_one = encode_rows(encoder, small_store.metadata, small_store.results, "cpu")["all"]
    np.testing.assert_allclose(together, one_by_one, atol=1e-5)


def test_untrained_twin_has_the_same_shape_and_other_weights(small_store):
    twin, again = (MAEEncoder.untrained(small_store.mae, "cpu").model.state_dict() for _ in range(2))
    trained = small_store.model.state_dict()
    assert {k: v.shape for k, v in twin.items()} == {k: v.shape for k, v in trained.items()}
    assert not torch.equal(twin["embed.weight"], trained["embed.weight"])
    assert all(torch.equal(twin[k], again[k]) for k in twin)


def test_blocks_are_means_of_eight_voxels_cubed(small_store):
    found = encode_rows(BlockIntensities(), small_store.metadata, small_store.results, "cpu")["blocks"]
    volume = VolumeFeed(small_store.metadata, small_store.results).batch([1])[0, 0].numpy()
    expected = volume.reshape(20, 8, 24, 8, 20, 8).mean(axis=(1, 3, 5)).ravel()
    np.testing.assert_allclose(found[1], expected, atol=1e-4)
    assert found.shape == (3, BlockIntensities.dimension)


def test_cohort_becomes_a_table_a_shard_with_every_pooling(small_store, tmp_path):
    out = tmp_path / "features/untrained/IXI.parquet"
    encode_cohort("untrained", small_store.metadata, small_store.results, "IXI", small_store.mae, out)
    listed = pd.read_parquet(out)
    assert list(listed.columns) == ["shard", "volumes", "key"]
    assert listed.iloc[0, :2].tolist() == ["0000", 3]
    table = pd.read_parquet(tmp_path / "features/untrained/IXI/0000.parquet")
    assert list(table.columns) == ["volume_id", "feature", "feature_brain"]
    assert table["volume_id"].tolist() == small_store.metadata["volume_id"].tolist()
    assert len(table["feature"][0]) == 24


def test_published_architecture_encodes_the_store_at_its_own_size(small_store, tmp_path):
    """BrainIAC's ViT-B as it is, untrained: resampled to 96^3, both poolings."""
    out = tmp_path / "features/IXI.parquet"
    encode_cohort("brainiac-untrained", small_store.metadata, small_store.results, "IXI", small_store.mae, out)
    table = pd.read_parquet(tmp_path / "features/IXI/0000.parquet")
    assert list(table.columns) == ["volume_id", "feature", "feature_mean"]
    pooled = np.stack(table["feature_mean"].to_list())
    assert pooled.shape == (3, 768)
    assert np.ptp(pooled, axis=0).max() > 1e-3


def test_unknown_encoder_is_named(small_store):
    with pytest.raises(BrainG3NError, match="there is no encoder 'clip'"):
        load_encoder("clip", small_store.mae)


def test_features_that_are_not_finite_are_refused(small_store, tmp_path, monkeypatch):
    monkeypatch.setattr(
        BlockIntensities, "features", lambda self, batch: {"blocks": torch.full((len(batch), 4), np.nan)}
    )
    out = tmp_path / "features/pca/IXI.parquet"
    with pytest.raises(BrainG3NError, match="pca gave features that are not finite; found: 0000000000000000"):
        encode_cohort("pca", small_store.metadata, small_store.results, "IXI", small_store.mae, out)
    assert not out.exists()


def test_every_source_names_its_encoder():
    assert encoder_of("mae-brain") == "mae"
    assert encoder_of("untrained") == "untrained"
    assert [encoder_of(name) for name in ("tokenizer", "demographics", "site")] == [None] * 3
    assert all(encoder_of(name) == name for name in ENCODERS)
    assert encoder_of("tokenizer-128") is None
    assert encoder_of("brainsegfounder-first") == "brainsegfounder-first"  # an encoder, not a pooling of one
