"""Regional volumes and moments against volumes whose tissue is known."""

from __future__ import annotations

import numpy as np
import torch
from scipy import stats

from braing3n.encoders.regions import RegionalVolumes, moments, otsu_thresholds


def test_volumes_of_three_tissues_are_counted_where_they_lie():
    """One box of 32 mm dark, two middling, one bright, each with a little noise; the rest is background."""
    random = np.random.default_rng(0)
    volume = np.zeros((160, 192, 160), dtype=np.float32)
    for level, box in ((200, (1, 2, 2)), (500, (2, 2, 2)), (500, (2, 3, 2)), (900, (3, 3, 1))):
        at = tuple(slice(32 * i, 32 * i + 32) for i in box)
        volume[at] = level + random.normal(scale=20, size=(32, 32, 32))
    encoder = RegionalVolumes()
    batch = torch.from_numpy(volume)[None, None]
    found = encoder.features(encoder.preprocess(batch, batch > 0))["regions"][0].numpy()
    assert found.shape == (encoder.dimension,)
    boxes, whole, means = found[:450].reshape(3, 5, 6, 5), found[450:453], found[453:456]
    millilitres = 32**3 / 1000
    for tissue, box in ((0, (1, 2, 2)), (1, (2, 2, 2)), (1, (2, 3, 2)), (2, (3, 3, 1))):
        assert boxes[(tissue, *box)] == np.float32(millilitres)
    np.testing.assert_allclose(boxes.sum(axis=(1, 2, 3)), whole, rtol=1e-5)
    np.testing.assert_allclose(whole, [millilitres, 2 * millilitres, millilitres], rtol=1e-5)
    np.testing.assert_allclose(means, [200, 500, 900], atol=2)


def test_moments_are_scipys():
    values = np.random.default_rng(0).gamma(2.0, size=5000)
    found = moments(torch.from_numpy(values)).numpy()
    np.testing.assert_allclose(found[:2], [values.mean(), values.std()], rtol=1e-9)
    np.testing.assert_allclose(found[2:4], [stats.skew(values), stats.kurtosis(values)], rtol=1e-6)
    np.testing.assert_allclose(found[4:], np.quantile(values, [0.05, 0.5, 0.95]), rtol=1e-2)


def test_thresholds_leave_the_least_variance_within_classes():
    """Otsu's criterion in its other form, over every pair of candidate thresholds."""
    random = np.random.default_rng(1)
    values = np.concatenate([random.normal(m, 40, n) for m, n in ((200, 60), (500, 100), (800, 80))])
    found = [float(t) for t in otsu_thresholds(torch.from_numpy(values))]

    def within(low: float, high: float) -> float:
        parts = (values[values <= low], values[(values > low) & (values <= high)], values[values > high])
        return sum(((part - part.mean()) ** 2).sum() for part in parts if len(part))

    candidates = np.linspace(values.min(), values.max(), 65)
    best = min(within(low, high) for i, low in enumerate(candidates) for high in candidates[i + 1 :])
    assert within(*found) < 1.01 * best


def test_empty_volume_has_finite_features():
    assert RegionalVolumes().features(torch.zeros(1, 1, 160, 192, 160))["regions"].abs().sum() == 0
