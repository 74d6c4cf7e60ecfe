"""ComBat: differences between sites taken out of features, estimated on training scans alone.

Location and scale of every feature at every site are shrunk towards what the site does to all features (empirical
Bayes, Johnson et al. 2007, Biostatistics 8:118; for imaging Fortin et al. 2017, NeuroImage 161:149). No covariate is
kept: age and sex are targets of the panel, and a test scan's target must not reach its features. What is confounded
with site is therefore taken out with it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LEAST = 2  # training scans of a site whose effect is estimated


@dataclass(frozen=True)
class SiteEffects:
    """Of S sites on d features; a site's row applies to its scans, scans of other sites are left as they are.

    Attributes:
        sites: (S,) codes.
        mean, std: (d,) over all training scans, within sites; std is 1 for features that do not vary.
        shift: (S, d) in units of std.
        spread: (S, d) standard deviation of the site in units of std.
    """

    sites: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    shift: np.ndarray
    spread: np.ndarray

    def remove(self, X: np.ndarray, sites: np.ndarray) -> np.ndarray:
        """Harmonised features of scans (n, d) at `sites` (n,). (n, d) float32."""
        result = X.astype(np.float32)
        for row, site in enumerate(self.sites):
            own = sites == site
            z = (X[own] - self.mean) / self.std
            result[own] = (z - self.shift[row]) / self.spread[row] * self.std + self.mean
        return result


def site_effects(X: np.ndarray, sites: np.ndarray) -> SiteEffects:
    """Estimate the effects of sites with two training scans or more.

    Args:
        X: (n, d) features of the training scans.
        sites: (n,) integer codes.
    """
    codes, counts = np.unique(sites, return_counts=True)
    codes, counts = codes[counts >= LEAST], counts[counts >= LEAST].astype(np.float64)
    known = np.isin(sites, codes)
    X, sites = X[known].astype(np.float64), sites[known]
    if len(codes) < 2:
        d = X.shape[1]
        return SiteEffects(codes[:0], np.zeros(d), np.ones(d), np.ones((0, d)), np.ones((0, d)))
    means = np.stack([X[sites == code].mean(0) for code in codes])  # (S, d)
    within = np.stack([X[sites == code].var(0) for code in codes])  # (S, d)
    mean, variance = counts @ means / counts.sum(), counts @ within / counts.sum()
    varies = variance > 1e-12 * max(variance.max(), 1e-30)
    std = np.where(varies, np.sqrt(np.maximum(variance, 0)), 1.0)
    shift, variances = shrunk((means - mean) / std, within * (counts / (counts - 1))[:, None] / std**2, counts, varies)
    return SiteEffects(codes, mean, std, shift, np.sqrt(variances))


def shrunk(
    shift: np.ndarray, variance: np.ndarray, counts: np.ndarray, varies: np.ndarray, iterations: int = 200
) -> tuple[np.ndarray, np.ndarray]:
    """Posterior means of the sites' shifts and variances (S, d), with priors over the features of each site.

    Shifts have a normal prior, variances an inverse gamma one, both by moments. Features that do not vary (`varies`, d)
    keep shift 0 and variance 1.
    """
    n = counts[:, None]
    centre, width = shift[:, varies].mean(1, keepdims=True), shift[:, varies].var(1, keepdims=True)
    m, s = variance[:, varies].mean(1, keepdims=True), variance[:, varies].var(1, keepdims=True)
    s = np.maximum(s, 1e-6 * m**2 + 1e-12)
    shape, scale = 2 + m**2 / s, m + m**3 / s
    gamma, delta = shift[:, varies], variance[:, varies]
    squares = (n - 1) * delta
    start = gamma
    for _ in range(iterations):
        new_gamma = (n * width * start + delta * centre) / np.maximum(n * width + delta, 1e-12)
        new_delta = (scale + 0.5 * (squares + n * (start - new_gamma) ** 2)) / (n / 2 + shape - 1)
        change = max(np.abs(new_gamma - gamma).max(initial=0), np.abs(new_delta - delta).max(initial=0))
        gamma, delta = new_gamma, new_delta
        if change < 1e-6:
            break
    full_shift, full_variance = np.zeros_like(shift), np.ones_like(variance)
    full_shift[:, varies], full_variance[:, varies] = gamma, np.maximum(delta, 1e-6)
    return full_shift, full_variance
