"""Logistic regression against scikit-learn's, converged."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from braing3n.probing.linear import Covariance, class_probabilities, conjugate_gradient, inner_product, logistic, logits


def correlated(n: int, d: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features with a power-law spectrum in a random basis, as encoders give, and labels that follow from them."""
    random = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(random.normal(size=(d, d)))
    X = (random.normal(size=(n, d)) * np.arange(1, d + 1) ** -0.7) @ basis.T
    z = X @ basis @ random.normal(size=(d, classes))
    return (X - X.mean(0)).astype(np.float32), (2 * z / z.std() + random.gumbel(size=z.shape)).argmax(1)


def exact(X, labels, C, weights=None):
    many = labels.max() > 1
    model = LogisticRegression(C=C, tol=1e-10, max_iter=20_000, solver="newton-cg" if many else "newton-cholesky")
    return model.fit(X.astype(np.float64), labels, sample_weight=weights)


@pytest.mark.parametrize("n", [50, 400], ids=["fewer scans than features", "more"])
@pytest.mark.parametrize("C", [0.01, 1.0, 100.0])
def test_two_classes_equal_scikit_learn(n, C):
    X, labels = correlated(n, 80, 2)
    ones = np.ones((80, 1))
    found = logistic(X, labels, 2, np.ones((n, 1)), np.array([1 / C]), ones, Covariance.of(X, ones[:, 0]))[:, 0, 0]
    expected = exact(X, labels, C)
    error = np.linalg.norm(found[:-1] - expected.coef_[0]) / np.linalg.norm(expected.coef_)
    assert error < 1e-3
    assert found[-1] == pytest.approx(expected.intercept_[0], abs=1e-3)


def test_many_classes_equal_scikit_learn():
    X, labels = correlated(500, 30, 4)
    ones = np.ones(30)
    found = logistic(X, labels, 4, np.ones((500, 1)), np.array([1.0]), ones[:, None], Covariance.of(X, ones))[:, 0]
    expected = exact(X, labels, 1.0).coef_.T
    centred = found[:-1] - found[:-1].mean(1, keepdims=True)  # softmax leaves a common shift open
    expected = expected - expected.mean(1, keepdims=True)
    assert np.linalg.norm(centred - expected) / np.linalg.norm(expected) < 1e-3


def test_problems_of_a_batch_are_independent():
    """Different training sets, weights, penalties and scales at once equal each on its own in scikit-learn."""
    X, labels = correlated(300, 20, 2)
    random = np.random.default_rng(1)
    weights = np.stack([np.ones(300), random.random(300) < 0.6, random.uniform(0.5, 2, 300)], axis=1)
    C, scale = np.array([1.0, 0.1, 10.0]), random.uniform(0.5, 2, (20, 3))
    found = logistic(X, labels, 2, weights, 1 / C, scale, Covariance.of(X, scale[:, 0]))
    for k in range(3):
        expected = exact(X / scale[:, k], labels, C[k], weights[:, k])
        w = found[:-1, k, 0] * scale[:, k]
        assert np.linalg.norm(w - expected.coef_[0]) / np.linalg.norm(expected.coef_) < 1e-3


def test_separable_classes_converge():
    X = np.concatenate([np.full((10, 3), -1.0), np.full((10, 3), 1.0)]).astype(np.float32)
    labels = np.repeat([0, 1], 10)
    found = logistic(X, labels, 2, np.ones((20, 1)), np.array([0.01]), np.ones((3, 1)), Covariance.of(X, np.ones(3)))
    expected = exact(X, labels, 100.0)
    np.testing.assert_allclose(found[:-1, 0, 0], expected.coef_[0], rtol=2e-3)


def test_conjugate_gradient_solves_each_problem():
    random = np.random.default_rng(0)
    A = [(lambda m: m @ m.T + np.eye(12))(random.normal(size=(12, 12))) for _ in range(3)]
    b = random.normal(size=(12, 3, 1))

    def apply(v):
        return np.stack([A[k] @ v[:, k] for k in range(3)], axis=1)

    x = conjugate_gradient(apply, lambda r: r, b, 1e-10, 100)
    for k in range(3):
        np.testing.assert_allclose(x[:, k], np.linalg.solve(A[k], b[:, k]), rtol=1e-6)
    assert inner_product(b, b).shape == (3,)


def test_probabilities_sum_to_one_and_do_not_overflow():
    for c in (1, 3):
        z = np.array([[[1e4] * c], [[-1e4] * c]], dtype=np.float32)
        p = class_probabilities(z)
        assert p.shape == (2, 1, max(c, 2))
        np.testing.assert_allclose(p.sum(-1), 1)


def test_logits_add_the_intercept():
    X = np.eye(2, dtype=np.float32)
    coefficients = np.array([1.0, 2.0, 10.0]).reshape(3, 1, 1)
    np.testing.assert_allclose(logits(X, coefficients)[:, 0, 0], [11, 12])
