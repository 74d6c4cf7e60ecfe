"""Person-cluster bootstrap: persons are drawn with replacement, each with all of its scans.

The persons that a resample draws follow from the seed and the persons alone, so that every encoder is scored on the
same resamples and differences between encoders are paired.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from braing3n.probing.metrics import Scorer

BLOCK_ELEMENTS = 2_000_000  # weights held at a time; 8 MB, which stays in the cache


@dataclass(frozen=True)
class Interval:
    value: float
    low: float
    high: float


def resamples(persons: np.ndarray, count: int, seed: int) -> Iterator[np.ndarray]:
    """Blocks of weights (b, n) float32: how often each scan's person was drawn.

    Args:
        persons: (n,) person of each scan.
        count: resamples in all.
    """
    codes = np.unique(persons, return_inverse=True)[1]
    n_persons = int(codes.max()) + 1
    generator = np.random.default_rng(seed)
    done = 0
    while done < count:
        block = min(count - done, max(1, BLOCK_ELEMENTS // len(persons)))
        drawn = generator.integers(n_persons, size=(block, n_persons))
        drawn += np.arange(block)[:, None] * n_persons
        counts = np.bincount(drawn.ravel(), minlength=block * n_persons).reshape(block, n_persons)
        yield counts.astype(np.float32)[:, codes]
        done += block


def bootstrap(scorer: Scorer, persons: np.ndarray, count: int, seed: int) -> dict[str, np.ndarray]:
    """Replicates (count + 1,) of every metric; the first is the estimate on all scans."""
    blocks = [scorer(np.ones((1, len(persons)), dtype=np.float32))]
    blocks += [scorer(weights) for weights in resamples(persons, count, seed)]
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def widened(replicates: np.ndarray, factor: float) -> np.ndarray:
    """Replicates (count + 1,) with their distances from the estimate multiplied."""
    return replicates[0] + factor * (replicates - replicates[0])


def percentile_interval(replicates: np.ndarray, level: float = 0.95) -> Interval:
    """Estimate with its percentile interval, from `bootstrap`'s replicates; undefined resamples are left out."""
    drawn = replicates[1:][np.isfinite(replicates[1:])]
    if not len(drawn):
        return Interval(float(replicates[0]), np.nan, np.nan)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(replicates[0]), float(low), float(high))


def never_degenerate(interval: Interval, persons: int, z: float = 1.959964) -> Interval:
    """Widen an interval of zero width, as perfect separation gives, to Wilson's for a proportion of `persons`.

    A handful of persons that are all ranked rightly do not prove an AUC of 1, but every resample of them says so.
    """
    if not interval.high - interval.low < 1e-9:
        return interval
    p, n = interval.value, max(persons, 1)
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(max(p * (1 - p), 0) / n + z * z / (4 * n * n))
    return Interval(p, min(p, centre - half), max(p, centre + half))
