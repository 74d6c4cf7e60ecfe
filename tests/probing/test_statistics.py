from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from braing3n.probing.statistics import (
    calibration_slope,
    corrected_resampled_t,
    expected_calibration_error,
    holm,
    instability,
    paired_difference,
    without_regression_to_the_mean,
)


def test_holm_by_hand():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, np.nan, 0.005]), [0.03, 0.06, 0.06, np.nan, 0.02])
    assert holm([0.9, 0.8]).tolist() == [1.0, 1.0]


def models_on_folds(effect: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores (n, 5, 1) of nearest-mean models of five folds in 40 dimensions, and the folds."""
    random = np.random.default_rng(seed)
    X, labels, fold = random.normal(size=(2000, 40)), np.arange(2000) % 2, np.arange(2000) // 2 % 5
    X[:, 0] += effect * labels
    directions = [X[(fold != f) & (labels == 1)].mean(0) - X[(fold != f) & (labels == 0)].mean(0) for f in range(5)]
    return np.stack([X @ d for d in directions], axis=1)[..., None].astype(np.float32), fold


def test_models_of_noise_are_unstable_and_models_of_an_effect_are_not():
    noise = np.mean([instability(*models_on_folds(0.0, seed)) for seed in range(5)])
    assert noise > 0.9
    assert instability(*models_on_folds(3.0)) < 0.1
    assert 0.1 < instability(*models_on_folds(0.3)) < 0.9


def test_models_that_were_not_asked_for_do_not_count():
    scores, fold = models_on_folds(3.0)
    scores[:, 2:] = np.nan
    assert instability(scores, fold) < 0.1
    scores[:, 1:] = np.nan
    assert instability(scores, fold) == 0


def test_paired_difference_is_narrower_than_the_scores():
    random = np.random.default_rng(0)
    common = random.normal(size=2001) * 0.1
    first, second = 0.8 + common + 0.01 * random.normal(size=2001), 0.75 + common
    first[0], second[0] = 0.8, 0.75
    interval, p = paired_difference(first, second)
    assert interval.value == pytest.approx(0.05)
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * 0.01, rel=0.1)
    assert p == pytest.approx(2 / 2001)
    assert paired_difference(second, second)[1] == 1


def test_corrected_t_by_hand():
    """Differences 1, 2, 3 of three folds: t = 2 / sqrt((1/3 + 1/2) 1) on 2 degrees of freedom."""
    from scipy import stats

    expected = 2 * stats.t.sf(2 / np.sqrt(5 / 6), 2)
    assert corrected_resampled_t(np.array([1.0, 2.0, 3.0, np.nan]), 0.5) == pytest.approx(expected)
    assert corrected_resampled_t(np.zeros(5), 0.25) == 1
    assert np.isnan(corrected_resampled_t(np.array([1.0]), 0.25))


def test_calibration_slope_is_a_logistic_regressions():
    random = np.random.default_rng(0)
    z = random.normal(size=2000) * 2
    labels = random.random(2000) < 1 / (1 + np.exp(-z))
    for overconfidence in (1.0, 2.0):
        p = 1 / (1 + np.exp(-overconfidence * z))
        expected = LogisticRegression(C=1e9).fit(overconfidence * z[:, None], labels).coef_[0, 0]
        assert calibration_slope(labels, p) == pytest.approx(expected, rel=1e-3)
        assert calibration_slope(labels, p) == pytest.approx(1 / overconfidence, rel=0.1)


def test_separated_labels_have_no_calibration_slope():
    assert np.isnan(calibration_slope(np.array([True, False]), np.array([0.9, 0.1])))
    assert np.isnan(calibration_slope(np.array([True, False]), np.array([0.5, 0.5])))


def test_calibration_error():
    labels = np.repeat([True, False], [30, 70])
    assert expected_calibration_error(labels, np.full(100, 0.3), bins=1) == pytest.approx(0)
    assert expected_calibration_error(labels, np.full(100, 0.8), bins=1) == pytest.approx(0.5)


def test_bias_correction_undoes_a_planted_shrinkage():
    random = np.random.default_rng(0)
    values, fold = random.uniform(20, 80, 400), np.arange(400) % 4
    shrunk = 30 + 0.4 * values + random.normal(size=400)
    inner = np.where(fold[None] == np.arange(4)[:, None], np.nan, shrunk)
    corrected = without_regression_to_the_mean(shrunk, values, fold, inner)
    assert np.polyfit(values, corrected, 1) == pytest.approx([1, 0], abs=0.6)
    assert np.polyfit(values, corrected, 1)[0] == pytest.approx(1, abs=0.02)
    assert without_regression_to_the_mean(shrunk, values, fold, np.full((4, 400), np.nan)) is None
    assert without_regression_to_the_mean(shrunk, values, fold, np.where(np.isnan(inner), np.nan, 5.0)) is None
