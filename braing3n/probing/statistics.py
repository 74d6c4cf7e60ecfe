"""Comparing encoders and reading predictions: paired differences, multiplicity, calibration, bias of predicted ages."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from scipy import stats

from braing3n.probing.bootstrap import Interval, percentile_interval


def paired_difference(first: np.ndarray, second: np.ndarray) -> tuple[Interval, float]:
    """Difference of two encoders' scores on the same resamples, with its two-sided bootstrap p-value.

    Args:
        first, second: replicates (count + 1,) of `bootstrap` with one seed and split.
    """
    replicates = first - second
    drawn = replicates[1:][np.isfinite(replicates[1:])]
    below, above = (drawn <= 0).sum(), (drawn >= 0).sum()
    p = min(1.0, 2 * (1 + min(below, above)) / (1 + len(drawn)))
    return percentile_interval(replicates), float(p)


def instability(scores: np.ndarray, fold: np.ndarray) -> float:
    """How far the folds' models are from being one and the same, 0 to 1: 1 is what models of pure noise show.

    Out-of-fold predictions of one fold depend on the scans of all others, so that a bootstrap that holds the models
    fixed is too narrow (Bates, Hastie and Tibshirani 2024, JASA 119:1434). By how much follows from how much the models
    owe to chance: linear models of pure noise on k folds share k - 2 of k - 1 parts of their training sets, so that
    their scores correlate by (k - 2) / (k - 1), and the variance of a pooled score is then twice the bootstrap's.
    Models of a strong effect correlate by 1, and the bootstrap's is right. In between, the share of chance is
    (1 - r) (k - 1), and the variance is multiplied by 1 + that.

    Args:
        scores: (n, k, c) of every fold's model for every scan; folds whose models are NaN do not count.
        fold: (n,). Two models are compared on the scans of their two folds, each of which one of them has not seen.
    """
    models = np.flatnonzero(np.isfinite(scores).all(axis=(0, 2)))
    correlations = []
    for f, g in combinations(models, 2):
        rows = (fold == f) | (fold == g)
        a, b = (scores[rows, model] - scores[rows, model].mean(0) for model in (f, g))  # (m, c)
        norms = np.sqrt((a.astype(np.float64) ** 2).sum(0) * (b.astype(np.float64) ** 2).sum(0))
        known = norms > 1e-12
        correlations += list((a * b).sum(0, dtype=np.float64)[known] / norms[known])
    if not correlations:
        return 0.0
    return float(np.clip((1 - np.mean(correlations)) * (len(models) - 1), 0, 1))


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's step-down adjustment of p-values (n,) for n hypotheses; NaN are no hypotheses and stay NaN."""
    p = np.asarray(p, dtype=np.float64)
    adjusted, known = np.full(len(p), np.nan), np.flatnonzero(np.isfinite(p))
    order = known[np.argsort(p[known], kind="stable")]
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def corrected_resampled_t(differences: np.ndarray, test_share: float) -> float:
    """Two-sided p-value of Nadeau and Bengio's t-test for differences of fold scores.

    Training sets of folds overlap, so that the folds' variance over the number of folds is far too small; it is
    multiplied by 1 / k + n_test / n_train instead (Nadeau and Bengio 2003).

    Args:
        differences: (k,) one a fold; undefined ones are left out.
        test_share: n_test / n_train.
    """
    known = differences[np.isfinite(differences)]
    k = len(known)
    if k < 2 or known.std(ddof=1) == 0:
        return float("nan") if k < 2 or known.mean() != 0 else 1.0
    t = known.mean() / np.sqrt((1 / k + test_share) * known.var(ddof=1))
    return float(2 * stats.t.sf(abs(t), k - 1))


def expected_calibration_error(labels: np.ndarray, p: np.ndarray, bins: int = 10) -> float:
    """Mean distance of predicted and observed frequency over bins of equally many scans. (n,) bool, (n,)."""
    parts = np.array_split(np.argsort(p, kind="stable"), min(bins, len(p)))
    return float(sum(len(part) * abs(p[part].mean() - labels[part].mean()) for part in parts) / len(p))


def calibration_slope(labels: np.ndarray, p: np.ndarray, iterations: int = 50) -> float:
    """Slope of a logistic regression of the label on the predicted log-odds; below 1 means overconfident.

    NaN where it does not exist: labels that the predictions separate, or predictions that are all alike.
    """
    z = np.log(np.clip(p, 1e-6, 1 - 1e-6) / np.clip(1 - p, 1e-6, 1 - 1e-6))
    if z.std() < 1e-9 or z[labels].min() > z[~labels].max() or z[labels].max() < z[~labels].min():
        return float("nan")
    X, w = np.stack([np.ones_like(z), z], axis=1), np.zeros(2)
    for _ in range(iterations):
        q = 1 / (1 + np.exp(-np.clip(X @ w, -30, 30)))
        step = np.linalg.lstsq((X * (q * (1 - q))[:, None]).T @ X, X.T @ (labels - q), rcond=None)[0]
        w += step
        if np.abs(step).max() < 1e-8:
            return float(w[1])
    return float("nan")


def without_regression_to_the_mean(
    predictions: np.ndarray, values: np.ndarray, fold: np.ndarray, inner: np.ndarray
) -> np.ndarray | None:
    """Predictions with the linear bias of each training set taken out (Cole 2020): (prediction - a) / b.

    a and b are fitted to the inner out-of-fold predictions of the training set, so that no test value is used.

    Args:
        inner: (folds, n), NaN on each fold's own scans.

    Returns:
        (n,), or None where inner predictions are missing or do not rise with the truth.
    """
    result = np.empty_like(predictions)
    for f in range(len(inner)):
        known = np.isfinite(inner[f])
        if known.sum() < 3:
            return None
        b, a = np.polyfit(values[known], inner[f, known], 1)
        if b < 0.05:  # nothing to rescale by
            return None
        result[fold == f] = (predictions[fold == f] - a) / b
    return result
