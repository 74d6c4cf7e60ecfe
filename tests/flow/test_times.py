"""Distributions of training times and the grid of sampling times."""

from __future__ import annotations

import pytest
import torch

from braing3n.flow.times import sample_times, sampling_grid, shift_times


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("distribution", ["uniform", "logit-normal"])
@pytest.mark.parametrize("shift", [1.0, 3.06])
def test_times_are_inside_the_open_interval(distribution, shift):
    t = sample_times(100_000, generator(), distribution, shift)
    assert float(t.min()) > 0
    assert float(t.max()) < 1


def test_uniform_times_are_uniform():
    t = sample_times(100_000, generator())
    quantiles = torch.quantile(t, torch.tensor([0.1, 0.25, 0.5, 0.75, 0.9]))
    torch.testing.assert_close(quantiles, torch.tensor([0.1, 0.25, 0.5, 0.75, 0.9]), atol=0.01, rtol=0)


def test_logit_normal_times_have_a_normal_logit():
    logit = sample_times(100_000, generator(), "logit-normal").logit()
    assert float(logit.mean()) == pytest.approx(0, abs=0.02)
    assert float(logit.std()) == pytest.approx(1, abs=0.02)


def test_shift_moves_the_median_to_its_formula():
    t = sample_times(100_000, generator(), shift=3.0)
    assert float(t.median()) == pytest.approx(3 * 0.5 / (1 + 2 * 0.5), abs=0.01)


def test_same_seed_same_times():
    assert torch.equal(sample_times(16, generator(7)), sample_times(16, generator(7)))
    assert not torch.equal(sample_times(16, generator(7)), sample_times(16, generator(8)))


@pytest.mark.parametrize(("start", "end"), [(1.0, 0.0), (0.0, 1.0)])
@pytest.mark.parametrize("shift", [1.0, 3.06])
def test_grid_meets_its_ends_and_is_monotonic(start, end, shift):
    grid = sampling_grid(50, start, end, shift)
    assert grid.shape == (51,)
    assert float(grid[0]) == start
    assert float(grid[-1]) == end
    steps = grid.diff()
    assert bool((steps * (end - start) > 0).all())


def test_unshifted_grid_is_equidistant():
    torch.testing.assert_close(sampling_grid(4, 1.0, 0.0), torch.tensor([1, 0.75, 0.5, 0.25, 0], dtype=torch.float64))
    assert float(shift_times(torch.tensor(0.25), 1.0)) == 0.25
