"""Tests of braing3n.volumes.augment."""

import pytest
import torch

from braing3n.config.training import AugmentSettings
from braing3n.volumes.augment import augment, move

SHAPE = (20, 24, 28)


def brains(n: int = 2) -> torch.Tensor:
    """A box with a brighter corner in each volume, noise inside, 0 outside."""
    volumes = torch.zeros(n, 1, *SHAPE)
    volumes[:, :, 5:15, 6:18, 7:21] = 2 + 0.1 * torch.randn(
        n, 1, 10, 12, 14, generator=torch.Generator().manual_seed(0)
    )
    volumes[:, :, 5:8, 6:9, 7:10] += 3
    return volumes


def apply(seed: int = 1, **settings) -> torch.Tensor:
    return augment(brains(), AugmentSettings(**settings), torch.Generator().manual_seed(seed))


def test_default_changes_nothing():
    assert torch.equal(apply(), brains())


def test_same_seed_same_volumes():
    everything = {"flip": 0.5, "rotation_deg": 10, "contrast": 0.2, "bias": 0.2, "intensity_shift": 0.1, "noise": 0.1}
    assert torch.equal(apply(**everything), apply(**everything))
    assert not torch.equal(apply(**everything), apply(seed=2, **everything))


def test_flip_swaps_left_and_right_as_often_as_asked():
    assert torch.equal(apply(flip=1.0), brains().flip(2))
    small = torch.arange(4.0).reshape(1, 1, 4, 1, 1).expand(4000, 1, 4, 1, 1)
    flipped = augment(small, AugmentSettings(flip=0.3), torch.Generator().manual_seed(0))[:, 0, 0, 0, 0] == 3
    assert flipped.float().mean() == pytest.approx(0.3, abs=5 * (0.21 / 4000) ** 0.5)


@pytest.mark.parametrize(
    "settings", [{"contrast": 0.3}, {"bias": 0.3}, {"intensity_shift": 0.5}, {"noise": 0.2}], ids=str
)
def test_intensities_change_in_the_brain_only(settings):
    before, after = brains(), apply(**settings)
    assert (after[before == 0] == 0).all()
    assert (after[before != 0] != before[before != 0]).float().mean() > 0.99


def test_sizes_of_intensity_changes():
    before = brains()
    inside = before != 0
    noise = (apply(noise=0.2) - before)[inside]
    assert noise.std() == pytest.approx(0.2, rel=0.05)
    bias = (apply(bias=0.3) / before)[inside] - 1
    assert bias.abs().max() <= 0.3 + 1e-5
    assert bias.std() > 0.02


@pytest.mark.parametrize(
    ("draws", "settings", "expected"),
    [
        ([0, 0, 0, 0, 0, 0, 1, 0, 0], {"shift_voxels": 2}, lambda v: v.roll(-2, dims=2)),
        ([0, 0, 0, 0, 0, 0, 0, -1, 0], {"shift_voxels": 3}, lambda v: v.roll(3, dims=3)),
        ([0, 0, 0, 0, 0, 0, 0, 0, 1], {"shift_voxels": 1}, lambda v: v.roll(-1, dims=4)),
    ],
)
def test_shifts_are_in_voxels_along_their_axis(draws, settings, expected):
    moved = move(brains(), torch.tensor([draws, draws], dtype=torch.float32), AugmentSettings(**settings))
    torch.testing.assert_close(moved, expected(brains()), atol=1e-4, rtol=0)


def test_rotation_turns_about_the_centre_by_the_angle():
    volume = torch.zeros(1, 1, 21, 21, 21)
    volume[0, 0, 10, 10, 18] = 1.0
    draws = torch.zeros(1, 9)
    draws[0, 0] = 1.0
    moved = move(volume, draws, AugmentSettings(rotation_deg=45))[0, 0]
    # 45 degrees about x: the point 8 along z comes to lie at 8 (sin, cos) 45 = (5.66, 5.66) from the centre.
    x, y, z = (int(position) for position in torch.unravel_index(moved.argmax(), moved.shape))
    assert x == 10
    assert (abs(y - 10), z - 10) in {(5, 6), (6, 5), (6, 6), (5, 5)}


def test_scaling_keeps_the_volume_in_proportion():
    draws = torch.zeros(2, 9)
    draws[:, 3:6] = -1.0  # a step of one output voxel is 0.8 input voxels: the box grows by 1 / 0.8
    moved = move((brains() != 0).float(), draws, AugmentSettings(scale=0.2))
    assert moved.sum() / (brains() != 0).sum() == pytest.approx(1 / 0.8**3, rel=0.05)
