"""Solvers against flows with a closed form: a Gaussian's, in both directions."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from braing3n.flow.solvers import integrate
from braing3n.flow.times import sampling_grid

MEAN, STD = 1.5, 0.4  # of the data; noise is N(0, 1)


def deviation(t):
    return ((1 - t) ** 2 * STD**2 + t**2) ** 0.5


def gaussian_velocity(x, t):
    """E[noise - data | x_t] for data N(MEAN, STD^2)."""
    t = t.reshape(-1, 1)
    gain = (t - (1 - t) * STD**2) / ((1 - t) ** 2 * STD**2 + t**2)
    return -MEAN + gain * (x - (1 - t) * MEAN)


def exact_data(noise):
    """Its flow keeps quantiles: noise z ends at MEAN + STD z."""
    return MEAN + STD * noise


def error(solver: str, steps: int) -> float:
    noise = torch.linspace(-2, 2, 9, dtype=torch.float64).reshape(-1, 1)
    data = integrate(gaussian_velocity, noise, sampling_grid(steps, 1.0, 0.0), solver)
    return float((data - exact_data(noise)).abs().max())


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2)])
def test_order_of_convergence(solver, order):
    errors = [error(solver, steps) for steps in (40, 80, 160, 320)]
    orders = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert orders[-1] == pytest.approx(order, abs=0.1)
    assert errors[-1] < 0.01


def test_generated_gaussian_has_the_data_moments():
    noise = torch.randn(20_000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    data = integrate(gaussian_velocity, noise, sampling_grid(50, 1.0, 0.0), "heun")
    assert float(data.mean()) == pytest.approx(MEAN, abs=0.01)
    assert float(data.std()) == pytest.approx(STD, abs=0.01)


def test_constant_velocity_is_exact_in_one_step_in_both_directions():
    x = torch.tensor([[2.0], [3.0]])
    for start, end in ((1.0, 0.0), (0.0, 1.0)):
        moved = integrate(lambda x, t: torch.full_like(x, 5.0), x, sampling_grid(1, start, end))
        torch.testing.assert_close(moved, x + 5.0 * (end - start))


def bridge_velocity(target, sigma, spread):
    """E[velocity | x_t] for baseline N(0, 1), follow-up = baseline + N(0, spread^2)."""

    def velocity(x, t):
        t = t.reshape(-1, 1)
        covariance = t * spread**2 + (sigma**2 * (1 - 2 * t) / 2 if target == "exact" else 0)
        return covariance / (1 + t**2 * spread**2 + sigma**2 * t * (1 - t)) * x

    return velocity


def test_exact_bridge_carries_the_baseline_distribution_onto_the_follow_up():
    """And the plain difference does not: what it loses is known too (docs/longitudinal.md)."""
    sigma, spread = 0.5, 0.6
    baseline = torch.tensor([[1.0]], dtype=torch.float64)  # one standard deviation stays one standard deviation
    grid = sampling_grid(400, 0.0, 1.0)
    exact = integrate(bridge_velocity("exact", sigma, spread), baseline, grid, "heun")
    difference = integrate(bridge_velocity("difference", sigma, spread), baseline, grid, "heun")
    assert float(exact) == pytest.approx(math.sqrt(1 + spread**2), abs=1e-4)
    assert float(difference) < math.sqrt(1 + spread**2) - 5e-3
