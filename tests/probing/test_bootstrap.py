from __future__ import annotations

import numpy as np
import pytest

from braing3n.probing.bootstrap import (
    Interval,
    bootstrap,
    never_degenerate,
    percentile_interval,
    resamples,
    widened,
)


def mean_scorer(values):
    return lambda weights: {"mean": weights @ values / weights.sum(1)}


def test_persons_are_drawn_whole_and_as_often_as_there_are_persons():
    persons = np.array(["a", "b", "b", "c", "c", "c"])
    weights = np.concatenate(list(resamples(persons, 500, 0)))
    assert weights.shape == (500, 6)
    assert (weights[:, 1] == weights[:, 2]).all()
    assert (weights[:, 3] == weights[:, 5]).all()
    assert (weights[:, [0, 1, 3]].sum(1) == 3).all()
    assert weights.mean() == pytest.approx(1, abs=0.05)


def test_resamples_follow_from_seed_and_persons_alone():
    persons = np.repeat(np.arange(50), 2)
    first, again, other = (np.concatenate(list(resamples(persons, 20, seed))) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


def test_repeated_scans_do_not_narrow_the_interval():
    """Ten copies of each person's scan carry no more information than one."""
    values = np.random.default_rng(0).normal(size=100)
    once = bootstrap(mean_scorer(values), np.arange(100), 2000, 0)["mean"]
    copied = bootstrap(mean_scorer(np.repeat(values, 10)), np.repeat(np.arange(100), 10), 2000, 0)["mean"]
    assert copied.std() == pytest.approx(once.std(), rel=1e-3)
    assert once[1:].std() == pytest.approx(values.std() / 10, rel=0.06)


def test_percentile_interval_leaves_undefined_resamples_out():
    interval = percentile_interval(np.array([5.0, *range(1, 101), np.nan]))
    assert (interval.value, interval.low, interval.high) == (5.0, pytest.approx(3.475), pytest.approx(97.525))


def test_widening_keeps_the_estimate():
    assert widened(np.array([5.0, 4.0, 8.0]), 1.5).tolist() == [5.0, 3.5, 9.5]


def test_perfect_separation_keeps_an_honest_interval():
    widened = never_degenerate(Interval(1.0, 1.0, 1.0), 5)
    assert widened.high == pytest.approx(1.0)
    assert widened.low == pytest.approx(5 / (5 + 1.959964**2), abs=1e-6)  # Wilson at p = 1
    kept = Interval(0.8, 0.7, 0.9)
    assert never_degenerate(kept, 5) is kept
