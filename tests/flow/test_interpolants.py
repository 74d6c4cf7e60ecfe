"""Endpoints of both paths, and their velocities against Gaussians whose velocities are known."""

from __future__ import annotations

import pytest
import torch

from braing3n.errors import BrainG3NError
from braing3n.flow.interpolants import bridge, linear


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def regression(x: torch.Tensor, y: torch.Tensor) -> tuple[float, float]:
    """Slope and intercept of the least squares line of y on x."""
    slope = ((x - x.mean()) * (y - y.mean())).mean() / x.var(unbiased=False)
    return float(slope), float(y.mean() - slope * x.mean())


def test_linear_is_data_at_zero_and_noise_at_one():
    data, noise = draw(0, 3, 7, 2), draw(1, 3, 7, 2)
    at_data, velocity = linear(data, noise, torch.zeros(3))
    at_noise, _ = linear(data, noise, torch.ones(3))
    assert torch.equal(at_data, data)
    assert torch.equal(at_noise, noise)
    torch.testing.assert_close(at_data + velocity, noise)


def test_each_sample_has_its_own_time():
    data, noise = draw(0, 2, 5), draw(1, 2, 5)
    x, _ = linear(data, noise, torch.tensor([0.0, 0.25]))
    assert torch.equal(x[0], data[0])
    torch.testing.assert_close(x[1], 0.75 * data[1] + 0.25 * noise[1])


def test_bridge_is_baseline_at_zero_and_follow_up_at_one():
    baseline, follow_up, noise = draw(0, 4, 6), draw(1, 4, 6), draw(2, 4, 6)
    at_start, velocity = bridge(baseline, follow_up, noise, torch.zeros(4), sigma=0.5)
    at_end, _ = bridge(baseline, follow_up, noise, torch.ones(4), sigma=0.5)
    assert torch.equal(at_start, baseline)
    assert torch.equal(at_end, follow_up)
    torch.testing.assert_close(at_start + velocity, follow_up)


def test_bridge_is_noisiest_in_the_middle():
    noise, zero = draw(0, 1, 50_000), torch.zeros(1, 50_000, dtype=torch.float64)
    middle, _ = bridge(zero, zero, noise, torch.tensor([0.5]), sigma=0.5)
    assert float(middle.std()) == pytest.approx(0.25, rel=0.02)  # sigma sqrt(1/4)


def test_exact_bridge_velocity_is_the_time_derivative():
    baseline, follow_up, noise = draw(0, 1, 8), draw(1, 1, 8), draw(2, 1, 8)
    t, h = torch.tensor([0.3], dtype=torch.float64), 1e-6
    _, velocity = bridge(baseline, follow_up, noise, t, 0.5, "exact")
    later, _ = bridge(baseline, follow_up, noise, t + h, 0.5)
    earlier, _ = bridge(baseline, follow_up, noise, t - h, 0.5)
    torch.testing.assert_close(velocity, (later - earlier) / (2 * h), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("end", [0.0, 1.0])
def test_exact_bridge_velocity_is_refused_at_the_ends(end):
    x = torch.zeros(1, 2)
    with pytest.raises(BrainG3NError, match="does not exist at the ends"):
        bridge(x, x, x, torch.tensor([end]), 0.5, "exact")


def test_linear_velocity_of_a_gaussian():
    """Data N(mean, std^2): E[v | x_t] is a line with known slope and intercept."""
    mean, std, t, n = 1.5, 0.4, 0.35, 400_000
    data, noise = mean + std * draw(0, n), draw(1, n)
    x, velocity = linear(data, noise, torch.full((n,), t))
    variance = (1 - t) ** 2 * std**2 + t**2
    slope, intercept = regression(x, velocity)
    expected = (t - (1 - t) * std**2) / variance
    assert slope == pytest.approx(expected, abs=0.01)
    assert intercept == pytest.approx(-mean - expected * (1 - t) * mean, abs=0.01)


@pytest.mark.parametrize("target", ["difference", "exact"])
def test_bridge_velocity_of_a_gaussian(target):
    """Baseline N(0, 1), follow-up = baseline + N(0, spread^2): E[v | x_t] has a known slope under either target."""
    sigma, spread, t, n = 0.5, 0.6, 0.2, 400_000
    baseline = draw(0, n)
    follow_up = baseline + spread * draw(1, n)
    x, velocity = bridge(baseline, follow_up, draw(2, n), torch.full((n,), t), sigma, target)
    variance = 1 + t**2 * spread**2 + sigma**2 * t * (1 - t)
    covariance = t * spread**2 + (sigma**2 * (1 - 2 * t) / 2 if target == "exact" else 0)
    slope, intercept = regression(x, velocity)
    assert slope == pytest.approx(covariance / variance, abs=0.01)
    assert intercept == pytest.approx(0, abs=0.01)
