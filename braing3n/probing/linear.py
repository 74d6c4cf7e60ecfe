"""Many regularised linear models of one feature matrix at once: logistic by Newton-CG, ridge by CG or factorization.

A cross-validated probe with an inner choice of its penalty is some eighty fits on subsets of the same scans. They are
solved together: every product with the features serves all of them, and one eigendecomposition of the features'
covariance preconditions them all. Objectives are scikit-learn's (`LogisticRegression`, `Ridge`), solved to convergence.

Shapes: n scans, d features, K problems, c outputs of a problem (1 for two classes and for ridge, else the classes).
Coefficients are (d + 1, K, c); the last row is the intercept, which is never penalised.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import linalg

Solve = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Covariance:
    """Eigendecomposition of the features' scatter, the preconditioner of every problem on them.

    With D the features' scales and n the scans, X'X = D Q diag(values) Q' D; directions outside Q have no scatter.
    """

    basis: np.ndarray  # (d, r), orthonormal columns
    values: np.ndarray  # (r,)
    scale: np.ndarray  # (d,)
    n: int

    @classmethod
    def of(cls, X: np.ndarray, scale: np.ndarray) -> Covariance:
        """Of centred features (n, d) float32 and the scale (d,) that makes the penalty a multiple of the identity."""
        if len(X) >= X.shape[1]:
            return cls.of_scatter(X.T @ X, scale, len(X))
        Z = X / scale  # float64: the basis must be orthonormal well beyond float32
        values, left = linalg.eigh(Z @ Z.T)  # the smaller Gram matrix has the same eigenvalues
        keep = values > 1e-10 * max(values[-1], 1e-30)
        values, left = values[keep], left[:, keep]
        return cls((Z.T @ left) / np.sqrt(values), values, scale, len(X))

    @classmethod
    def of_scatter(cls, scatter: np.ndarray, scale: np.ndarray, n: int) -> Covariance:
        """Of the centred X'X (d, d) of n scans."""
        values, basis = linalg.eigh(scatter / np.outer(scale, scale))
        return cls(basis, np.maximum(values, 0), scale, n)

    def preconditioner(self, mass: np.ndarray, penalty: np.ndarray) -> Solve:
        """Approximate inverse of mass / n X'X + penalty D^2, with the intercept on its own.

        Args:
            mass: (K, c) sum of the Hessian's scan weights.
            penalty: (K,).
        """
        inner = 1 / (self.values[:, None, None] * (mass / self.n) + penalty[:, None])  # (r, K, c)
        complete = self.basis.shape[0] == self.basis.shape[1]
        outer = 0.0 if complete else 1 / penalty[:, None]  # (K, 1)

        def solve(gradient: np.ndarray) -> np.ndarray:
            scaled = gradient[:-1] / self.scale[:, None, None]  # (d, K, c)
            flat = scaled.reshape(len(scaled), -1)
            along = (self.basis.T @ flat).reshape(inner.shape)  # (r, K, c)
            change = (self.basis @ ((inner - outer) * along).reshape(len(inner), -1)).reshape(scaled.shape)
            result = np.empty_like(gradient)
            result[:-1] = (scaled * outer + change) / self.scale[:, None, None]
            result[-1] = gradient[-1] / np.maximum(mass, 1e-12)
            return result

        return solve


def conjugate_gradient(
    apply: Solve, precondition: Solve, rhs: np.ndarray, tolerance: float, iterations: int
) -> np.ndarray:
    """Solve K positive definite systems at once, from zero, until every residual has shrunk by `tolerance`.

    Residuals are measured in the preconditioner's norm. (d + 1, K, c) -> (d + 1, K, c).
    """
    x, r = np.zeros_like(rhs), rhs.copy()
    z = precondition(r)
    p, rho = z.copy(), inner_product(r, z)
    stop = tolerance**2 * rho
    for _ in range(iterations):
        active = rho > np.maximum(stop, 1e-300)
        if not active.any():
            break
        product = apply(p)
        curvature = inner_product(p, product)
        step = np.where(active & (curvature > 0), rho / np.where(curvature > 0, curvature, 1), 0.0)  # (K,)
        x += step[:, None] * p
        r -= step[:, None] * product
        z = precondition(r)
        previous, rho = rho, inner_product(r, z)
        p = z + np.where(active, rho / np.where(previous > 0, previous, 1), 0.0)[:, None] * p
    return x


def inner_product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of each problem: (p, K, c), (p, K, c) -> (K,)."""
    return np.einsum("pkc,pkc->k", a, b)


def logits(X: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """(n, d) float32, (d + 1, K, c) -> (n, K, c) float32."""
    d1, K, c = coefficients.shape
    weights = coefficients.reshape(d1, K * c).astype(np.float32)
    return (X @ weights[:-1] + weights[-1]).reshape(len(X), K, c)


def transposed(X: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Gradient of `logits`: (n, d) float32, (n, K, c) float32 -> (d + 1, K, c) float64."""
    n, K, c = values.shape
    flat = values.reshape(n, K * c)
    total = np.vstack([X.T @ flat, flat.sum(0, dtype=np.float64)]).astype(np.float64)
    return total.reshape(-1, K, c)


def probabilities(z: np.ndarray) -> np.ndarray:
    """Logits (n, K, c) -> probabilities of the positive class (c = 1) or of every class, same shape."""
    if z.shape[-1] == 1:
        return 0.5 * np.tanh(0.5 * z) + 0.5  # never overflows
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def class_probabilities(z: np.ndarray) -> np.ndarray:
    """Logits (..., c) -> probabilities of all classes, (..., 2) when c = 1."""
    p = probabilities(z)
    return np.concatenate([1 - p, p], axis=-1) if z.shape[-1] == 1 else p


def log_loss(z: np.ndarray, one_hot: np.ndarray) -> np.ndarray:
    """Loss of each scan and problem: logits (n, K, c), targets (n, 1, c) -> (n, K)."""
    if z.shape[-1] == 1:
        return (np.maximum(z, 0) - z * one_hot + np.log1p(np.exp(-np.abs(z))))[..., 0]
    top = z.max(-1)
    return top + np.log(np.exp(z - top[..., None]).sum(-1)) - (z * one_hot).sum(-1)


def targets(labels: np.ndarray, classes: int) -> np.ndarray:
    """Class indices (n,) -> (n, 1, c) float32."""
    one_hot = np.eye(classes, dtype=np.float32)[labels]
    return (one_hot[:, 1:] if classes == 2 else one_hot)[:, None]


def logistic(
    X: np.ndarray,
    labels: np.ndarray,
    classes: int,
    weights: np.ndarray,
    penalty: np.ndarray,
    scale: np.ndarray,
    covariance: Covariance,
    *,
    tolerance: float = 1e-4,
    iterations: int = 60,
) -> np.ndarray:
    """Minimise, for each problem k, sum_i weights_ik loss_i + penalty_k / 2 sum_j (scale_jk coefficient_jk)^2.

    That is scikit-learn's objective for C = 1 / penalty: on raw features where `scale` is 1, and on features divided
    by `scale` otherwise, with coefficients that apply to the raw ones. Newton's method, each step by CG.

    Args:
        X: (n, d) float32, centred.
        labels: (n,) class indices below `classes`.
        weights: (n, K), zero for scans outside the training set. Every class needs weight in every problem.
        penalty: (K,).
        scale: (d, K).
        covariance: of the same X.
        tolerance: relative error of the coefficients in the Hessian's norm at which a problem is done.

    Returns:
        Coefficients (d + 1, K, c) float64.
    """
    one_hot = targets(labels, classes)
    c = one_hot.shape[-1]
    result = np.zeros((X.shape[1] + 1, len(penalty), c))
    # A batch of columns keeps the n x K x c temporaries under about 400 MB.
    batch = max(1, 12_000_000 // (len(X) * c))
    for start in range(0, len(penalty), batch):
        part = slice(start, start + batch)
        problem = Newton(X, one_hot, weights[:, part], penalty[part], scale[:, part], covariance)
        result[:, part] = problem.solve(tolerance, iterations)
    return result


class Newton:
    """Damped Newton iterations of a batch of logistic problems; those that have converged drop out."""

    def __init__(self, X, one_hot, weights, penalty, scale, covariance: Covariance):
        self.X, self.one_hot, self.covariance = X, one_hot, covariance
        self.weights = weights.astype(np.float32)[..., None]  # (n, K, 1)
        self.penalty = penalty
        self.ridge = np.zeros((X.shape[1] + 1, len(penalty), 1))
        self.ridge[:-1, :, 0] = penalty * scale**2

    def solve(self, tolerance: float, iterations: int) -> np.ndarray:
        K = len(self.penalty)
        result = np.zeros((self.X.shape[1] + 1, K, self.one_hot.shape[-1]))
        active = np.arange(K)
        A, z = result.copy(), np.zeros((len(self.X), K, result.shape[-1]), dtype=np.float32)
        for iteration in range(iterations):
            p = probabilities(z)
            gradient = transposed(self.X, self.weights * (p - self.one_hot)) + self.ridge * A
            curvature = self.weights * p * (1 - p)  # (n, K, c), the Hessian's diagonal blocks
            mass = curvature.sum(0, dtype=np.float64)
            precondition = self.covariance.preconditioner(mass, self.penalty)
            error = inner_product(gradient, precondition(gradient))
            # Squared size of the coefficients in the same norm, from the scatter of the logits.
            size = np.einsum("nkc,nkc->k", curvature, z**2, dtype=np.float64) + inner_product(A, self.ridge * A)
            done = error <= tolerance**2 * np.maximum(size, 1e-12)
            if iteration == iterations - 1:
                done[:] = True
            result[:, active[done]] = A[:, done]
            if done.all():
                break
            if done.any():
                left = ~done
                active, A, z, p, gradient, mass = (
                    active[left], A[:, left], z[:, left], p[:, left], gradient[:, left], mass[left],
                )  # fmt: skip
                self.weights, self.penalty, self.ridge = self.weights[:, left], self.penalty[left], self.ridge[:, left]
                precondition = self.covariance.preconditioner(mass, self.penalty)
            forcing = 0.3 if iteration == 0 else 0.1
            step = conjugate_gradient(self.hessian(p), precondition, -gradient, forcing, 30)
            A, z = self.line_search(A, z, step, gradient)
        return result

    def hessian(self, p: np.ndarray) -> Solve:
        """Product with the Hessian at probabilities p (n, K, c)."""
        weighted = self.weights * p

        def apply(v: np.ndarray) -> np.ndarray:
            u = logits(self.X, v)  # (n, K, c)
            u = weighted * (u - (p * u).sum(-1, keepdims=True)) if p.shape[-1] > 1 else weighted * (1 - p) * u
            return transposed(self.X, u) + self.ridge * v

        return apply

    def objective(self, A: np.ndarray, z: np.ndarray) -> np.ndarray:
        """(K,) float64."""
        loss = np.einsum("nk,nk->k", self.weights[..., 0], log_loss(z, self.one_hot), dtype=np.float64)
        return loss + 0.5 * inner_product(A, self.ridge * A)

    def line_search(self, A, z, step, gradient) -> tuple[np.ndarray, np.ndarray]:
        """Halve each problem's step until its objective falls enough (Armijo). The logits move along."""
        change = logits(self.X, step)
        slope = inner_product(gradient, step)
        before = self.objective(A, z)
        length = np.ones(len(slope))
        for _ in range(20):
            t = length[:, None]
            after = self.objective(A + t * step, z + t.astype(np.float32) * change)
            # float32 losses cannot show a decrease below about 1e-6 of themselves
            poor = after > before + 1e-4 * length * slope + 1e-6 * np.abs(before)
            if not poor.any():
                break
            length = np.where(poor, length / 2, length)
        t = length[:, None]
        return A + t * step, z + t.astype(np.float32) * change
