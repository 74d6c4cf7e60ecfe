"""The packed store gives back what went in, up to half a quantisation step."""

from __future__ import annotations

import hashlib

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from braing3n.errors import BrainG3NError
from braing3n.files import read_parquet, write_nifti
from braing3n.geometry import VOLUME_SHAPE, cropped_affine
from braing3n.volumes import store

HALF = 0.51  # half a scale, and float32: two roundings of at most 0.004 scales at the top


def brain(seed: int, shape=(12, 14, 10), top: float = 800.0) -> np.ndarray:
    volume = np.random.default_rng(seed).uniform(0, top, shape).astype(np.float32)
    volume[: shape[0] // 2] = 0
    return volume


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 1000), exponent=st.floats(-6, 9))
def test_packing_rounds_by_at_most_half_a_scale(seed, exponent):
    volume = brain(seed) * np.float32(10**exponent)
    packed, scale = store.pack(volume)
    assert packed.dtype == np.uint16
    assert packed.max() == 65535
    assert np.abs(store.unpack(packed, scale).astype(np.float64) - volume).max() <= HALF * scale
    assert not store.unpack(packed, scale)[volume == 0].any()


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
def test_what_cannot_be_packed_is_refused(value):
    volume = brain(0)
    volume[3, 3, 3] = value
    with pytest.raises(BrainG3NError, match="cannot be packed"):
        store.pack(volume)
    with pytest.raises(BrainG3NError, match="cannot be packed"):
        store.pack(np.zeros((3, 3, 3)))


def test_statistics_are_of_the_brain_voxels_in_units_of_intensity():
    volume = brain(1)
    packed, scale = store.pack(volume)
    found = store.brain_statistics(packed, scale)
    inside = volume[packed > 0]
    assert found["brain_voxels"] == inside.size
    assert found["mean"] == pytest.approx(inside.mean(), rel=1e-4)
    assert found["std"] == pytest.approx(inside.std(), rel=1e-4)


def test_a_store_row_is_memory_mapped_and_equals_the_archived_nifti(tmp_path):
    archived = []
    for seed in range(2):
        archived.append(tmp_path / f"{seed}.nii.gz")
        write_nifti(archived[-1], brain(seed, VOLUME_SHAPE), cropped_affine())
    volumes = (nib.load(path).get_fdata(dtype=np.float32) for path in archived)
    path = tmp_path / "results" / "volumes" / "IXI" / "0000.npy"
    table = store.write_store(path, ["aa", "bb"], volumes)

    stored = np.load(path, mmap_mode="r")
    assert isinstance(stored, np.memmap)
    assert stored.shape == (2, *VOLUME_SHAPE)
    assert stored.dtype == np.uint16
    assert read_parquet(path.with_suffix(".parquet")).equals(table)
    assert list(table.columns) == list(store.COLUMNS)
    for row in table.to_dict("records"):
        metadata_row = {"store_file": "volumes/IXI/0000.npy", "store_row": row["row"], "scale": row["scale"]}
        volume = store.read_volume(tmp_path / "results", metadata_row)
        truth = nib.load(archived[row["row"]]).get_fdata(dtype=np.float32)
        assert volume.dtype == np.float32
        assert np.abs(volume.astype(np.float64) - truth).max() <= HALF * row["scale"]
        assert row["sha256"] == hashlib.sha256(stored[row["row"]].tobytes()).hexdigest()


def test_an_empty_shard_has_an_empty_store(tmp_path):
    table = store.write_store(tmp_path / "0000.npy", [], [])
    assert store.open_store(tmp_path / "0000.npy").shape == (0, *VOLUME_SHAPE)
    assert list(table.columns) == list(store.COLUMNS)


def test_a_failure_while_writing_leaves_no_store(tmp_path):
    volumes = [brain(0, VOLUME_SHAPE), brain(0)]
    with pytest.raises(BrainG3NError, match="volume 1 does not fit"):
        store.write_store(tmp_path / "0000.npy", ["aa", "bb"], volumes)
    with pytest.raises(BrainG3NError, match="wrong number"):
        store.write_array(tmp_path / "0000.npy", [brain(0)], 2, (12, 14, 10))
    assert not list(tmp_path.iterdir())


def test_opening_what_is_not_a_store_says_so(tmp_path):
    with pytest.raises(BrainG3NError, match="missing"):
        store.open_store(tmp_path / "none.npy")
    np.save(tmp_path / "float.npy", np.zeros((2, 3)))
    with pytest.raises(BrainG3NError, match="is not a volume store"):
        store.open_store(tmp_path / "float.npy")
