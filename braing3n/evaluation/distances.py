"""Distances between two sets of feature vectors: Fréchet's, and the kernel distance (KID)."""

from __future__ import annotations

import numpy as np
from scipy import linalg


def frechet_distance(x: np.ndarray, y: np.ndarray) -> float:
    """Squared Fréchet (2-Wasserstein) distance of the Gaussians fitted to two sets (Dowson and Landau 1982).

    |m_x - m_y|^2 + tr(S_x) + tr(S_y) - 2 tr((S_x S_y)^1/2), in float64, without a matrix square root of a product that
    is not symmetric: with S = A'A the last trace is the sum of the singular values of A_x A_y'. That holds for singular
    covariances too, which fewer vectors than dimensions give.

    Args:
        x, y: (n, d) and (m, d), at least two vectors each.
    """
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if min(len(x), len(y)) < 2 or x.shape[1] != y.shape[1]:
        raise ValueError(f"expected two sets of at least two vectors of one width, found {x.shape} and {y.shape}")
    a, b = factor(x), factor(y)
    shared = linalg.svdvals(a @ b.T).sum()
    gap = ((x.mean(0) - y.mean(0)) ** 2).sum()
    return float(max(gap + (a * a).sum() + (b * b).sum() - 2 * shared, 0.0))


def factor(x: np.ndarray) -> np.ndarray:
    """A with A'A = the sample covariance of (n, d) vectors: (min(n, d), d)."""
    centred = (x - x.mean(0)) / np.sqrt(len(x) - 1)
    if len(x) <= x.shape[1]:
        return centred
    values, vectors = linalg.eigh(centred.T @ centred)
    return np.sqrt(np.maximum(values, 0))[:, None] * vectors.T


def covariance_rank(x: np.ndarray) -> int:
    """Rank of the sample covariance of (n, d) vectors: at most n - 1, and the reason to distrust a distance below d."""
    return int(np.linalg.matrix_rank(factor(np.asarray(x, dtype=np.float64))))


def volume_kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Mean of KID's polynomial kernel (x.y / d + 1)^3 (Binkowski et al. 2018) over all pairs of slices of two volumes.

    Args:
        x, y: (n, s, d) and (m, s, d): s slices of each volume.

    Returns:
        (n, m) float64.
    """
    n, s, d = x.shape
    flat = y.reshape(-1, d).astype(np.float32)
    result = np.empty((n, len(y)))
    for i in range(n):
        kernel = (x[i].astype(np.float32) @ flat.T / d + 1) ** 3  # (s, m s)
        result[i] = kernel.reshape(s, len(y), -1).mean(axis=(0, 2), dtype=np.float64)
    return result


class KernelDistance:
    """Unbiased squared maximum mean discrepancy of two sets of volumes, under weights of their units.

    Pairs of volumes of one unit (a person, or a volume with itself) are left out of the terms within a set: their
    likeness says nothing about the distribution, and a bootstrap draws units repeatedly.

    Args:
        x, y: (n, s, d) and (m, s, d) slice features.
        x_units, y_units: (n,) and (m,) codes of the units, below `units`.
    """

    def __init__(self, x: np.ndarray, y: np.ndarray, x_units: np.ndarray, y_units: np.ndarray, units: int):
        self.x_units, self.y_units, self.units = x_units, y_units, units
        self.xx = volume_kernel(x, x) * (x_units[:, None] != x_units[None, :])
        self.yy = volume_kernel(y, y) * (y_units[:, None] != y_units[None, :])
        self.xy = volume_kernel(x, y)

    def __call__(self, x_counts: np.ndarray, y_counts: np.ndarray) -> np.ndarray:
        """Distances when each unit counts as often as given: (B, units) for either set -> (B,), NaN where undefined."""
        w, v = x_counts[:, self.x_units], y_counts[:, self.y_units]
        with np.errstate(invalid="ignore", divide="ignore"):
            between = ((w @ self.xy) * v).sum(1) / (w.sum(1) * v.sum(1))
            within = self.within(self.xx, x_counts, w, self.x_units) + self.within(self.yy, y_counts, v, self.y_units)
        return within - 2 * between

    def within(self, kernel: np.ndarray, counts: np.ndarray, weights: np.ndarray, units: np.ndarray) -> np.ndarray:
        own = counts * np.bincount(units, minlength=self.units)  # (B, units) weight of each unit's volumes
        pairs = weights.sum(1) ** 2 - (own**2).sum(1)
        return np.where(pairs > 0, ((weights @ kernel) * weights).sum(1), np.nan) / pairs


def kid(
    x: np.ndarray, y: np.ndarray, x_units: np.ndarray, y_units: np.ndarray, resamples: int, seed: int
) -> tuple[float, float, float]:
    """Kernel distance of two sets of volumes with a 95 % interval from a bootstrap over persons.

    Where the sets share persons (real scans and their reconstructions), a resample draws them for both at once.

    Args:
        x, y: (n, s, d), (m, s, d) slice features.
        x_units, y_units: (n,), (m,) person of each volume.

    Returns:
        estimate, low, high.
    """
    names, codes = np.unique(np.concatenate([x_units, y_units]), return_inverse=True)
    a, b = codes[: len(x)], codes[len(x) :]
    distance = KernelDistance(x, y, a, b, len(names))
    shared = bool(set(a) & set(b))
    random = np.random.default_rng(seed)

    def drawn(members: np.ndarray) -> np.ndarray:
        """How often each unit is drawn from those of a set, in each resample. (resamples, units)."""
        own = np.unique(members)
        return np.stack(
            [np.bincount(random.choice(own, len(own)), minlength=len(names)) for _ in range(resamples)]
        ).astype(np.float64)

    once = np.ones((1, len(names)))
    estimate = float(distance(once, once)[0])
    if not resamples:
        return estimate, np.nan, np.nan
    first = drawn(codes if shared else a)
    replicates = distance(first, first if shared else drawn(b))
    if not np.isfinite(replicates).any():
        return estimate, np.nan, np.nan
    low, high = np.nanquantile(replicates, [0.025, 0.975])
    return estimate, float(low), float(high)
