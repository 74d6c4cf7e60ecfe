"""The latent cache: what a shard's files hold, how they are read back, what is refused."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from braing3n.errors import BrainG3NError
from braing3n.evaluation.latent_encoding import check_same_encoder, encode_batch, encode_cohort
from braing3n.files import read_parquet, sha256_of
from braing3n.geometry import PATCH_SIZE
from braing3n.models.mae import load_mae
from braing3n.models.tokenizer import load_tokenizer
from braing3n.models.weights import WEIGHTS
from braing3n.volumes.feed import VolumeFeed
from braing3n.volumes.latents import LatentFeed, read_latents, write_latents


@pytest.fixture
def expected(trained):
    """Latents and pooled features of all volumes, computed one volume at a time from the tokens."""
    mae, tokenizer = load_mae(trained.mae), load_tokenizer(trained.tokenizer)
    feed = VolumeFeed(trained.metadata, trained.results)
    latents, means, brain_means = [], [], []
    with torch.no_grad():
        for i in range(len(feed)):
            volume = feed.batch([i])
            tokens = mae.encode(volume)[0]  # (N, D)
            patches = volume[0, 0].unfold(0, PATCH_SIZE, PATCH_SIZE).unfold(1, PATCH_SIZE, PATCH_SIZE)
            patches = patches.unfold(2, PATCH_SIZE, PATCH_SIZE).reshape(len(tokens), -1)
            latents.append(tokens @ tokenizer.projection.weight.T)
            means.append(tokens.mean(dim=0))
            brain_means.append(tokens[(patches != 0).any(dim=1)].mean(dim=0))
    return torch.stack(latents), torch.stack(means), torch.stack(brain_means)


def test_shard_files_hold_latents_and_pooled_features(trained, expected):
    latents, means, brain_means = expected
    for cohort in ("IXI", "ADNI"):
        at = np.flatnonzero(trained.metadata["cohort"] == cohort)
        ids = trained.metadata["volume_id"].iloc[at].tolist()
        rows, stored = read_latents(
            trained.results / "latents" / cohort / "0000.safetensors", sha256_of(trained.tokenizer / WEIGHTS)
        )
        features = read_parquet(trained.results / "features" / "mae" / cohort / "0000.parquet")
        assert rows.index.tolist() == features["volume_id"].tolist() == ids
        assert stored.dtype == torch.float16
        torch.testing.assert_close(stored.float(), latents[at], atol=2e-3, rtol=2e-3)
        torch.testing.assert_close(torch.tensor(np.stack(features["feature"])), means[at], atol=1e-5, rtol=1e-4)
        assert not np.allclose(means[at], brain_means[at], atol=1e-4)
        brain = torch.tensor(np.stack(features["feature_brain"]))
        torch.testing.assert_close(brain, brain_means[at], atol=1e-5, rtol=1e-4)


def test_feed_follows_the_metadata_not_the_files(trained, expected):
    order = np.random.default_rng(0).permutation(len(trained.metadata))
    shuffled = trained.metadata.iloc[order]
    feed = LatentFeed(shuffled, trained.results, sha256_of(trained.tokenizer / WEIGHTS))
    assert len(feed) == len(order)
    batch = feed.batch(np.array([5, 0, 11]), "cpu")
    assert batch.dtype == torch.float32
    torch.testing.assert_close(batch, expected[0][order[[5, 0, 11]]], atol=2e-3, rtol=2e-3)


def test_empty_feed(trained):
    assert len(LatentFeed(trained.metadata.iloc[:0], trained.results, "")) == 0


def test_batch_size_does_not_matter(trained):
    mae, tokenizer = load_mae(trained.mae), load_tokenizer(trained.tokenizer)
    volumes = VolumeFeed(trained.metadata, trained.results).batch([0, 1, 12])
    together = encode_batch(mae, tokenizer, volumes)
    for i in range(3):
        for whole, alone in zip(together, encode_batch(mae, tokenizer, volumes[i : i + 1]), strict=True):
            torch.testing.assert_close(whole[i : i + 1], alone, atol=1e-5, rtol=1e-4)


def test_volume_without_latents_is_named(trained):
    metadata = trained.metadata.copy()
    metadata.loc[3, "volume_id"] = "new-scan"
    with pytest.raises(BrainG3NError, match=r"lacks 1 of 12 volumes.*new-scan"):
        LatentFeed(metadata, trained.results, sha256_of(trained.tokenizer / WEIGHTS))


def test_latents_of_another_tokenizer_are_refused(trained):
    with pytest.raises(BrainG3NError, match="another tokenizer's"):
        LatentFeed(trained.metadata, trained.results, "0" * 64)


def test_missing_and_damaged_latents_say_what_to_run(tmp_path):
    path = tmp_path / "0000.safetensors"
    with pytest.raises(BrainG3NError, match=r"missing.*encode"):
        read_latents(path, "hash")
    write_latents(path, ["a", "b"], torch.zeros(2, 12, 6), "hash")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(BrainG3NError, match="not a whole safetensors file"):
        read_latents(path, "hash")


def test_latents_beyond_float16_are_refused(tmp_path):
    latents = torch.zeros(3, 12, 6)
    latents[1, 0, 0] = 1e6
    with pytest.raises(BrainG3NError, match=r"not finite in float16.*\[1\]"):
        write_latents(tmp_path / "x.safetensors", ["a", "b", "c"], latents, "hash")
    assert not (tmp_path / "x.safetensors").exists()


def test_tokenizer_and_encoder_must_belong_together(trained, tiny, tmp_path):
    check_same_encoder(trained.tokenizer, trained.mae)
    other = tmp_path / "mae"
    shutil.copytree(trained.mae, other)
    content = bytearray((other / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (other / WEIGHTS).write_bytes(bytes(content))
    with pytest.raises(BrainG3NError, match="trained on another encoder"):
        check_same_encoder(trained.tokenizer, other)


def test_a_cohort_without_stored_volumes_leaves_two_empty_tables(trained, tmp_path):
    tables = tmp_path / "latents/CoRR.parquet", tmp_path / "features/mae/CoRR.parquet"
    encode_cohort(trained.metadata, trained.results, "CoRR", trained.mae, trained.tokenizer, *tables)
    assert [len(read_parquet(table)) for table in tables] == [0, 0]
