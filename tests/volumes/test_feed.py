"""Tests of braing3n.volumes.feed."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import torch

from braing3n.errors import BrainG3NError
from braing3n.geometry import VOLUME_SHAPE
from braing3n.volumes.feed import VolumeFeed, balanced_weights, brain_fraction, brain_tokens, data_hash, standardise
from braing3n.volumes.store import read_volume, write_store


def brain(seed: int) -> np.ndarray:
    """An ellipsoid of noise around 500, zero outside."""
    rng = np.random.default_rng(seed)
    axes = np.ogrid[tuple(slice(-1, 1, complex(0, n)) for n in VOLUME_SHAPE)]
    inside = sum((axis / (0.6 + 0.05 * seed)) ** 2 for axis in axes) < 1
    return np.where(inside, rng.normal(500, 80, VOLUME_SHAPE).clip(1), 0).astype(np.float32)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Results folder and metadata of four volumes in two stores."""
    results, rows = tmp_path_factory.mktemp("results"), []
    for shard, members in enumerate(([0, 1, 2], [3])):
        file = f"volumes/TOY/{shard:04d}.npy"
        ids = [f"{member:016x}" for member in members]
        table = write_store(results / file, ids, (brain(member) for member in members))
        rows.append(table.rename(columns={"row": "store_row"}).assign(store_file=file, split="train"))
    return results, pd.concat(rows, ignore_index=True)


def test_batches_are_the_stored_volumes_z_scored_over_the_brain(stored):
    results, metadata = stored
    batch = VolumeFeed(metadata, results).batch([3, 0, 3])
    assert batch.shape == (3, 1, *VOLUME_SHAPE)
    assert batch.dtype == torch.float32
    assert torch.equal(batch[0], batch[2])
    for volume, index in zip(batch[:2], (3, 0), strict=True):
        raw = read_volume(results, metadata.iloc[index]).astype(np.float64)
        inside = raw > 0
        expected = np.where(inside, (raw - raw[inside].mean()) / raw[inside].std(), 0)
        np.testing.assert_allclose(volume[0].numpy(), expected, atol=2e-5)
        assert (volume[0].numpy()[~inside] == 0).all()
        assert volume[0].numpy()[inside].mean() == pytest.approx(0, abs=1e-4)
        assert volume[0].numpy()[inside].std() == pytest.approx(1, abs=1e-4)


def test_a_batch_may_reuse_the_memory_of_another(stored):
    results, metadata = stored
    feed = VolumeFeed(metadata, results)
    first = feed.batch([2, 3])
    second = feed.batch([0, 1], out=first)  # smaller brains: what the larger ones left must go
    assert second.data_ptr() == first.data_ptr()
    assert torch.equal(second, feed.batch([0, 1]))


def test_device_arithmetic_agrees_with_the_cpu_path(stored):
    results, metadata = stored
    feed = VolumeFeed(metadata, results)
    values = feed.stored(np.array([1, 3])).float()  # what lies on a device after the copy
    for volume, index in zip(values, (1, 3), strict=True):
        standardise(volume, float(feed.gain[index]), float(feed.offset[index]))
    assert torch.equal(values, feed.batch([1, 3])[:, 0])


def test_threads_read_what_one_reader_reads(stored):
    results, metadata = stored
    alone, shared = VolumeFeed(metadata, results), VolumeFeed(metadata, results)
    wanted = [[0], [3], [1, 2], [3, 0]] * 2
    with ThreadPoolExecutor(4) as pool:
        batches = list(pool.map(shared.batch, wanted))
    for indices, batch in zip(wanted, batches, strict=True):
        assert torch.equal(batch, alone.batch(indices))


def test_files_stay_on_disk(stored):
    results, metadata = stored
    feed = VolumeFeed(metadata, results)
    feed.batch([0])
    assert [type(store) for store in feed._stores.values()] == [np.memmap]


def test_brain_fraction_counts_voxels_of_every_token(stored):
    results, metadata = stored
    volumes = VolumeFeed(metadata, results).batch([1])
    fraction = brain_fraction(volumes)
    assert fraction.shape == (1, 1200)
    n = 5 * 120 + 6 * 10 + 2
    cube = volumes[0, 0, 80:96, 96:112, 32:48]
    assert fraction[0, n] == (cube != 0).float().mean()
    assert fraction.mean() == pytest.approx(metadata["brain_voxels"][1] / np.prod(VOLUME_SHAPE), rel=1e-4)
    assert torch.equal(brain_tokens(volumes), fraction > 0)
    assert 0 < brain_tokens(volumes).float().mean() < 1


def test_hash_follows_voxels_and_split_and_nothing_else(stored):
    results, metadata = stored
    before = data_hash(metadata, results)
    assert data_hash(metadata.sample(frac=1, random_state=1).assign(qc_dice=0.9), results) == before
    assert data_hash(metadata.assign(split=["val", "train", "train", "train"]), results) != before
    assert data_hash(metadata.iloc[:3], results) != before


def test_hash_sees_changed_voxels(stored, tmp_path):
    results, metadata = stored
    for file in metadata["store_file"].unique():
        rows = metadata[metadata["store_file"] == file]
        write_store(tmp_path / file, rows["volume_id"].tolist(), (brain(7) for _ in range(len(rows))))
    assert data_hash(metadata, tmp_path) != data_hash(metadata, results)


def test_balanced_weights_draw_groups_evenly():
    cohorts = ["A"] * 8 + ["B"] * 2 + [None] * 2
    metadata = pd.DataFrame({"volume_id": range(12), "cohort": cohorts, "modality": ["T1"] * 4 + ["T2"] * 8})
    even = balanced_weights(metadata, ["cohort"], 1.0)
    assert [even[:8].sum(), even[8:10].sum(), even[10:].sum()] == pytest.approx([1, 1, 1])
    assert balanced_weights(metadata, ["cohort"], 0.0) == pytest.approx(np.ones(12))
    assert balanced_weights(metadata, ["cohort", "modality"], 0.5)[:8] == pytest.approx(np.full(8, 0.5))
    with pytest.raises(BrainG3NError, match=r"balance.*vendor"):
        balanced_weights(metadata, ["cohort", "vendor"], 0.5)


def test_what_is_missing_is_named(stored, tmp_path):
    results, metadata = stored
    with pytest.raises(BrainG3NError, match="no scale, std"):
        VolumeFeed(metadata.drop(columns=["scale", "std"]), results)
    with pytest.raises(BrainG3NError, match=r"0000\.npy: volume store is missing"):
        VolumeFeed(metadata, tmp_path).batch([0])
