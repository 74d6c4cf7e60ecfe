"""Scores of pooled out-of-fold predictions under scan weights, so that a bootstrap resample is one row of weights.

Shapes: n scans, B resamples, k classes. A scorer takes weights (B, n), float32 counts of how often a resample drew the
scan's person, and returns every metric as (B,). A resample in which a metric is undefined (a class is missing) gives
NaN. Counts and their running sums are whole numbers far below 2^24, hence exact in float32.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Scorer = Callable[[np.ndarray], dict[str, np.ndarray]]


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Quotient, NaN where the denominator is zero."""
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator != 0)


def ranking_scorer(scores: np.ndarray, positive: np.ndarray) -> Scorer:
    """Area under the ROC curve (ties count half) and average precision of scores (n,) against a boolean label (n,)."""
    above = np.flatnonzero(positive)[np.argsort(-scores[positive], kind="stable")]  # positives, best first
    below = np.flatnonzero(~positive)[np.argsort(-scores[~positive], kind="stable")]  # negatives, best first
    p, q = -scores[above], -scores[below]
    better = np.searchsorted(q, p, side="left")  # negatives that outrank each positive
    not_worse = np.searchsorted(q, p, side="right")  # and with those that tie with it
    same = np.searchsorted(p, p, side="right") - 1  # last positive of the same score
    tied = bool((better != not_worse).any() or (same != np.arange(len(p))).any())

    def score(weights: np.ndarray) -> dict[str, np.ndarray]:
        positives = weights[:, above]  # (B, positives)
        running = np.zeros((len(weights), len(below) + 1), dtype=np.float32)
        np.cumsum(weights[:, below], axis=1, out=running[:, 1:])
        total = running[:, -1].astype(np.float64)
        false = running[:, not_worse]  # called positive wrongly when each positive's score is the threshold
        true = np.cumsum(positives, axis=1)
        lost = false
        if tied:
            lost, true = (false + running[:, better]) / 2, true[:, same]
        mass = positives.sum(1, dtype=np.float64)
        auc = 1 - ratio(_dot(positives, lost), mass * total)
        precision = np.divide(true, true + false, out=np.zeros_like(true), where=true > 0)
        return {
            "auc": np.where((mass > 0) & (total > 0), auc, np.nan),
            "auprc": ratio(_dot(positives, precision), mass),
        }

    return score


def classification_scorer(labels: np.ndarray, probabilities: np.ndarray) -> Scorer:
    """Metrics of class probabilities.

    Args:
        labels: (n,) class indices.
        probabilities: (n, k); of two classes the last is the positive one, of more the mean over one-vs-rest is taken.

    Returns:
        Scorer of auc, auprc, balanced_accuracy (mean recall of the most probable class), brier (two classes: of the
        positive one; more: summed over classes) and log_loss.
    """
    k = probabilities.shape[1]
    ranked = [ranking_scorer(probabilities[:, c], labels == c) for c in ([1] if k == 2 else range(k))]
    correct = probabilities.argmax(1) == labels
    own = np.clip(probabilities[np.arange(len(labels)), labels], 1e-12, 1)
    brier = ((probabilities - np.eye(k)[labels]) ** 2).sum(1) / (2 if k == 2 else 1)
    member = np.eye(k)[labels]
    sums = np.column_stack([brier, -np.log(own), np.ones(len(labels)), member, member * correct[:, None]])

    def score(weights: np.ndarray) -> dict[str, np.ndarray]:
        one_vs_rest = [scorer(weights) for scorer in ranked]
        totals = weights.astype(np.float64) @ sums  # (B, 3 + 2k)
        return {
            "auc": np.mean([part["auc"] for part in one_vs_rest], axis=0),
            "auprc": np.mean([part["auprc"] for part in one_vs_rest], axis=0),
            "balanced_accuracy": ratio(totals[:, 3 + k :], totals[:, 3 : 3 + k]).mean(1),
            "brier": ratio(totals[:, 0], totals[:, 2]),
            "log_loss": ratio(totals[:, 1], totals[:, 2]),
        }

    return score


def regression_scorer(values: np.ndarray, predictions: np.ndarray) -> Scorer:
    """Metrics of predicted numbers (n,) against the true ones.

    Returns:
        Scorer of mae; r2 against the mean of the same scans (negative when worse than it); r, Pearson's; slope of
        prediction on truth, below 1 where predictions shrink to the mean.
    """
    truth, guess = values - values.mean(), predictions - values.mean()  # centred: the sums below cancel less
    sums = np.stack(
        [np.ones_like(truth), truth, guess, truth**2, guess**2, truth * guess, np.abs(truth - guess)], axis=1
    )

    def score(weights: np.ndarray) -> dict[str, np.ndarray]:
        total, *parts = (weights.astype(np.float64) @ sums).T  # seven of (B,)
        t, g, tt, gg, tg, absolute = (ratio(part, total) for part in parts)
        variance, spread, covariance = _positive(tt - t * t), _positive(gg - g * g), tg - t * g
        return {
            "mae": absolute,
            "r2": 1 - ratio(tt - 2 * tg + gg, variance),
            "r": ratio(covariance, np.sqrt(variance * spread)),
            "slope": ratio(covariance, variance),
        }

    return score


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Row-wise inner product, summed in float64."""
    return (a * b).sum(1, dtype=np.float64)


def _positive(variance: np.ndarray) -> np.ndarray:
    """Variances with what rounding left of a zero one removed."""
    return np.where(variance > 1e-12, variance, 0.0)
