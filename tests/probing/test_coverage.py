"""Repeated simulations against known truth: coverage, level, recovery, through the panel's own fitting and scoring."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from braing3n.config.training import ProbeSettings
from braing3n.probing.bootstrap import bootstrap, percentile_interval
from braing3n.probing.cells import Cell
from braing3n.probing.compare import compare
from braing3n.probing.estimators import recommended_regression
from braing3n.probing.folds import stratified_group_folds
from braing3n.probing.metrics import classification_scorer, regression_scorer
from braing3n.probing.scores import Scored, fit_and_score
from braing3n.probing.sources import Source
from braing3n.probing.statistics import paired_difference
from braing3n.probing.tasks import load_tasks

REPEATS, PERSONS, SCANS = 200, 120, 2
TASK = next(task for task in load_tasks("config/tasks.yaml") if task.name == "hc-vs-ad")
SETTINGS = ProbeSettings(bootstrap=200)


def simulate(seed: int, shift: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features (n, 3) of two scans a person, of which the first tells two classes `shift` deviations apart."""
    random = np.random.default_rng(seed)
    persons = np.repeat(np.arange(PERSONS), SCANS)
    labels = np.repeat(random.permutation(PERSONS) % 2, SCANS)
    X = np.sqrt(0.7) * random.normal(size=(PERSONS, 3))[persons] + np.sqrt(0.3) * random.normal(size=(len(persons), 3))
    X[:, 0] += shift * labels
    return X.astype(np.float32), labels, persons


def probed(seed: int, shift: float, encoders: int) -> list[Scored]:
    """Independent encoders of the same persons, on the same folds."""
    _, labels, persons = simulate(seed, shift)
    n = len(labels)
    fold = stratified_group_folds(labels, persons, 5, seed)
    cell = Cell(TASK, "pooled", "published", np.arange(n), labels, ("HC", "AD"), persons, fold, "", None, 60)
    cell = Cell(**vars(cell) | {"sites": np.zeros(n, dtype=int)})
    scored = []
    for encoder in range(encoders):
        random = np.random.default_rng([seed, encoder])
        X = np.sqrt(0.7) * random.normal(size=(PERSONS, 3))[persons] + np.sqrt(0.3) * random.normal(size=(n, 3))
        X[:, 0] += shift * labels
        source = Source(f"e{encoder}", np.ones(n, dtype=bool), lambda task: np.empty((0, 0)))
        scored.append(fit_and_score(cell, source, X.astype(np.float32), SETTINGS))
    return scored


@pytest.fixture(scope="module")
def without_effect() -> list[list[Scored]]:
    return [probed(seed, 0.0, 2) for seed in range(REPEATS)]


def test_planted_auc_is_covered_at_the_nominal_rate():
    """95 % less three standard errors of 200 repeats. The truth is what such probes reach, 0.016 below Bayes' AUC."""
    bayes = stats.norm.cdf(1.2 / np.sqrt(2))
    found = [percentile_interval(probed(seed, 1.2, 1)[0].replicates["auc"]) for seed in range(REPEATS)]
    truth = np.mean([i.value for i in found])
    assert truth == pytest.approx(bayes, abs=0.025)
    assert 0.90 <= np.mean([i.low <= truth <= i.high for i in found]) <= 0.995


def test_no_effect_covers_one_half_at_the_nominal_rate(without_effect):
    found = [percentile_interval(scored[0].replicates["auc"]) for scored in without_effect]
    assert 0.90 <= np.mean([i.low <= 0.5 <= i.high for i in found]) <= 0.995
    assert np.mean([i.low > 0.5 for i in found]) <= 0.05
    assert np.mean([i.value for i in found]) == pytest.approx(0.5, abs=0.02)


def test_fixed_models_alone_would_not_cover(without_effect):
    """Why intervals are widened by what the models owe to chance."""
    narrow = []
    for scored in without_effect:
        interval = percentile_interval(scored[0].replicates["auc"])
        low, high = (
            interval.value + (end - interval.value) / scored[0].widening for end in (interval.low, interval.high)
        )
        narrow.append(low <= 0.5 <= high)
    assert np.mean(narrow) < 0.88
    assert 1.2 < np.mean([scored[0].widening for scored in without_effect]) <= np.sqrt(2)


def test_p_values_without_an_effect_are_uniform(without_effect):
    """Two encoders of noise, each fitted: their difference is significant at the stated rate."""
    p = [row["value"] for scored in without_effect for row in compare(scored) if row["metric"].endswith("_p")]
    assert len(p) == REPEATS
    assert stats.kstest(p, "uniform").pvalue > 0.001
    assert np.mean(np.array(p) < 0.05) <= 0.10


def test_p_values_of_equally_good_encoders_are_uniform():
    """Two noisy views of one signal, given and not fitted."""
    p = []
    for seed in range(REPEATS):
        random = np.random.default_rng(seed)
        persons = np.repeat(np.arange(PERSONS), SCANS)
        values = random.normal(size=PERSONS)[persons]
        errors = []
        for _ in range(2):
            view = values + random.normal(size=PERSONS)[persons] + 0.5 * random.normal(size=len(persons))
            errors.append(bootstrap(regression_scorer(values, view), persons, 200, seed)["mae"])
        p.append(paired_difference(*errors)[1])
    assert stats.kstest(p, "uniform").pvalue > 0.001
    assert np.mean(np.array(p) < 0.05) <= 0.1


def test_ignoring_persons_would_not_cover():
    """The reason for drawing persons: scans drawn one by one give intervals that miss far too often."""
    truth = stats.norm.cdf(1.2 / np.sqrt(2))
    missed = []
    for seed in range(REPEATS):
        X, labels, persons = simulate(seed, 1.2)
        p = 1 / (1 + np.exp(-X[:, 0]))
        scorer = classification_scorer(labels, np.stack([1 - p, p], axis=1))
        widths = []
        for units in (persons, np.arange(len(persons))):
            i = percentile_interval(bootstrap(scorer, units, 100, seed)["auc"])
            widths.append(i.high - i.low)
            covered = i.low <= truth <= i.high
        missed.append((widths[0] / widths[1], not covered))
    ratio, naive_misses = np.mean(missed, axis=0)
    assert ratio > 1.15
    assert naive_misses > 0.08


def test_planted_correlation_is_recovered():
    random = np.random.default_rng(0)
    persons = np.repeat(np.arange(400), 2)
    values = random.normal(size=400)[persons] * 10 + 50
    X = np.stack([values / 10 + 0.75 * random.normal(size=len(persons)), random.normal(size=len(persons))], axis=1)
    fold = stratified_group_folds((values > 50).astype(int), persons, 5, 0)
    out = recommended_regression(X.astype(np.float32), values, fold)
    found = percentile_interval(bootstrap(regression_scorer(values, out.predictions), persons, 300, 0)["r2"])
    assert found.low < 1 / (1 + 0.75**2) < found.high
