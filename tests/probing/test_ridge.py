"""Ridge regression against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from braing3n.probing.linear import Covariance
from braing3n.probing.ridge import FoldSums, ridge, ridge_path, ridge_path_exact

ALPHAS = np.array([1e-2, 1.0, 1e2, 1e4])


def data(n: int, d: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    X = (random.normal(size=(n, d)) @ (random.normal(size=(d, d)) * np.arange(1, d + 1) ** -0.5)).astype(np.float32)
    y = 50 + X @ random.normal(size=d) + random.normal(size=n)
    return X - X.mean(0), y, np.arange(n) % 5


@pytest.mark.parametrize(("n", "d"), [(200, 30), (20, 30)])
def test_fixed_penalty_equals_scikit_learn(n, d):
    X, y, fold = data(n, d)
    found = ridge(FoldSums.of(X, y, fold, 5).training((1,)), 1.0, np.ones(d))[:, 0]
    expected = Ridge(alpha=1.0).fit(X[fold != 1].astype(np.float64), y[fold != 1])
    np.testing.assert_allclose(found[:-1], expected.coef_, rtol=1e-6, atol=1e-8)
    assert found[-1] == pytest.approx(expected.intercept_)


@pytest.mark.parametrize(("n", "d"), [(200, 30), (20, 30)])
def test_exact_path_equals_scikit_learn_on_standardised_features(n, d):
    X, y, _ = data(n, d)
    path = ridge_path_exact(X, y, ALPHAS)
    for k, alpha in enumerate(ALPHAS):
        expected = make_pipeline(StandardScaler(), Ridge(alpha=alpha)).fit(X.astype(np.float64), y).predict(X)
        np.testing.assert_allclose(X @ path[:-1, k] + path[-1, k], expected, rtol=1e-4)


def test_iterative_path_agrees_with_direct_solutions():
    X, y, fold = data(600, 40)
    sums = FoldSums.of(X, y, fold, 5)
    training = [sums.training(pair) for pair in ((0, 1), (2, 4))]
    everything = sums.training(())
    covariance = Covariance.of_scatter(everything.scatter, everything.scale(), 600)
    path = ridge_path(training, ALPHAS, [t.scale() for t in training], covariance)
    for t, part in enumerate(training):
        for k, alpha in enumerate(ALPHAS):
            expected = ridge(part, alpha, part.scale())[:, 0]
            difference = X @ (path[:-1, t, k] - expected[:-1])
            assert difference.std() < 2e-3 * (X @ expected[:-1]).std()


def test_constant_features_are_left_alone():
    X, y, fold = data(50, 4)
    X[:, 2] = 0
    found = ridge_path_exact(X, y, ALPHAS)
    assert np.isfinite(found).all()
    assert (found[2] == 0).all()
    assert FoldSums.of(X, y, fold, 5).training((0,)).scale()[2] == 1
