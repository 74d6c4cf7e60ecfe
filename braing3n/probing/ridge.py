"""Ridge regression on many subsets of the same scans, from sums that are computed once a fold.

Objective, as scikit-learn's `Ridge`: sum_i (y_i - x_i w - b)^2 + alpha sum_j (scale_j w_j)^2, intercept unpenalised.
Shapes: n scans, d features, T training sets, K alphas. Coefficients are (d + 1, ...), the last row is the intercept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import linalg

from braing3n.probing.linear import Covariance, conjugate_gradient

Scaling = Callable[[np.ndarray], np.ndarray]
"""Variances of a training set's features (d,) -> the scales (d,) that they are divided by."""


def standard_deviation(variance: np.ndarray) -> np.ndarray:
    """Square roots, 1 for features that do not vary, as scikit-learn's StandardScaler has it."""
    return np.where(variance > 1e-12 * max(variance.max(), 1e-30), np.sqrt(np.maximum(variance, 0)), 1.0)


def common_deviation(variance: np.ndarray) -> np.ndarray:
    """The root of the mean variance for every feature: what principal components need.

    Each divided by its own deviation, about as many components as scans are all orthogonal to one another, and inner
    folds see nothing of their training scans.
    """
    return np.full(len(variance), np.sqrt(variance.mean()) if variance.max() > 0 else 1.0)


@dataclass(frozen=True)
class FoldSums:
    """Sums over the scans of each of F folds, in float64; a training set's are the sum over its folds."""

    count: np.ndarray  # (F,)
    x: np.ndarray  # (F, d)
    xx: np.ndarray  # (F, d, d)
    xy: np.ndarray  # (F, d)
    y: np.ndarray  # (F,)

    @classmethod
    def of(cls, X: np.ndarray, y: np.ndarray, fold: np.ndarray, folds: int) -> FoldSums:
        """Of features (n, d) float32, best centred, and numbers (n,)."""
        d = X.shape[1]
        count, sums, cross, total = np.zeros(folds), np.zeros((folds, d)), np.zeros((folds, d)), np.zeros(folds)
        products = np.zeros((folds, d, d))
        for f in range(folds):
            part, values = X[fold == f].astype(np.float64), y[fold == f]
            count[f], sums[f], total[f] = len(part), part.sum(0), values.sum()
            products[f], cross[f] = part.T @ part, part.T @ values
        return cls(count, sums, products, cross, total)

    def training(self, excluded: tuple[int, ...]) -> TrainingSums:
        """Centred sums of all folds but the excluded ones."""
        kept = [f for f in range(len(self.count)) if f not in excluded]
        n = self.count[kept].sum()
        mean, y_mean = self.x[kept].sum(0) / n, self.y[kept].sum() / n
        scatter = self.xx[kept].sum(0) - n * np.outer(mean, mean)
        cross = self.xy[kept].sum(0) - n * mean * y_mean
        return TrainingSums(n, mean, y_mean, scatter, cross)


@dataclass(frozen=True)
class TrainingSums:
    n: float
    mean: np.ndarray  # (d,)
    y_mean: float
    scatter: np.ndarray  # (d, d)
    cross: np.ndarray  # (d,)

    def scale(self, scaling: Scaling = standard_deviation) -> np.ndarray:
        """Standard deviation of each feature, or another scaling of it. (d,)."""
        return scaling(np.diag(self.scatter) / self.n)

    def with_intercept(self, w: np.ndarray) -> np.ndarray:
        """(d, K) -> (d + 1, K)."""
        return np.vstack([w, self.y_mean - self.mean @ w])


def ridge(sums: TrainingSums, alpha: float, scale: np.ndarray) -> np.ndarray:
    """Exact solution for one penalty. (d + 1, 1)."""
    matrix = sums.scatter + np.diag(alpha * scale**2)
    return sums.with_intercept(linalg.solve(matrix, sums.cross[:, None], assume_a="pos"))


def ridge_path_exact(
    X: np.ndarray, y: np.ndarray, alphas: np.ndarray, scaling: Scaling = standard_deviation
) -> np.ndarray:
    """Standardised solutions for every alpha by one eigendecomposition of the smaller Gram matrix.

    Args:
        X: (n, d) float32 and y (n,) of one training set; the means need not be zero.

    Returns:
        (d + 1, K) float64.
    """
    sums = FoldSums.of(X, y, np.zeros(len(X), dtype=int), 1).training(()) if len(X) >= X.shape[1] else None
    mean, scale = X.mean(0, dtype=np.float64), scaling(X.var(0, dtype=np.float64))
    centred = y - y.mean()
    if sums is not None:
        values, basis = linalg.eigh(sums.scatter / np.outer(scale, scale))
        along = basis.T @ (sums.cross / scale)
    else:
        Z = (X - mean) / scale  # (n, d)
        values, left = linalg.eigh(Z @ Z.T)
        basis, along = Z.T @ left, left.T @ centred
    w = basis @ (along[:, None] / (np.maximum(values, 0)[:, None] + alphas)) / scale[:, None]  # (d, K)
    return np.vstack([w, y.mean() - mean @ w])


def ridge_path(
    sums: list[TrainingSums], alphas: np.ndarray, scales: list[np.ndarray], covariance: Covariance
) -> np.ndarray:
    """Standardised solutions for every training set and alpha by preconditioned CG, good to about 1e-3.

    That is enough to choose an alpha by, and at many scans far cheaper than a factorization a training set. With
    fewer than twice as many scans as features it converges slowly for small alphas: use `ridge_path_exact` there.

    Args:
        sums, scales: of T training sets.
        covariance: of all their scans together, the preconditioner.

    Returns:
        (d + 1, T, K) float64.
    """
    T, K, d = len(sums), len(alphas), len(scales[0])
    penalty = np.tile(alphas, T)  # (T K,)
    ridges = np.stack(scales, axis=1)[:, :, None] ** 2 * alphas  # (d, T, K)

    def apply(v: np.ndarray) -> np.ndarray:
        w = v[:-1].reshape(d, T, K)
        product = np.stack([s.scatter @ w[:, t] for t, s in enumerate(sums)], axis=1) + ridges * w
        return np.concatenate([product.reshape(d, -1), np.zeros((1, T * K))])[..., None]

    mass = np.repeat([s.n for s in sums], K)[:, None]
    cross = np.repeat(np.stack([s.cross for s in sums], axis=1), K, axis=1)  # (d, T K)
    rhs = np.concatenate([cross, np.zeros((1, T * K))])[..., None]  # the intercept follows from the means
    w = conjugate_gradient(apply, covariance.preconditioner(mass, penalty), rhs, 1e-4, 60)[:-1, :, 0]
    w = w.reshape(d, T, K)
    return np.stack([s.with_intercept(w[:, t]) for t, s in enumerate(sums)], axis=1)
