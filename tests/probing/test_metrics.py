"""Against scikit-learn, with weights as repeated scans."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as reference

from braing3n.probing.metrics import classification_scorer, ranking_scorer, regression_scorer

N = 300
RANDOM = np.random.default_rng(0)
COUNTS = RANDOM.integers(0, 4, N)
REPEATED = np.repeat(np.arange(N), COUNTS)
WEIGHTS = np.stack([np.ones(N), COUNTS]).astype(np.float32)
SAMPLES = (np.arange(N), REPEATED)


@pytest.mark.parametrize("decimals", [16, 1], ids=["distinct", "tied"])
def test_two_classes(decimals):
    labels = RANDOM.integers(0, 2, N)
    p = np.round(1 / (1 + np.exp(-(labels + RANDOM.normal(size=N)))), decimals)
    found = classification_scorer(labels, np.stack([1 - p, p], axis=1))(WEIGHTS)
    for k, rows in enumerate(SAMPLES):
        y, s = labels[rows], np.clip(p[rows], 1e-12, 1 - 1e-12)
        expected = {
            "auc": reference.roc_auc_score(y, s),
            "auprc": reference.average_precision_score(y, s),
            "balanced_accuracy": reference.balanced_accuracy_score(y, s > 0.5),
            "brier": reference.brier_score_loss(y, s),
            "log_loss": reference.log_loss(y, s),
        }
        for name, value in expected.items():
            assert found[name][k] == pytest.approx(value, abs=1e-6), name


def test_many_classes_are_averaged_one_versus_rest():
    labels = RANDOM.integers(0, 4, N)
    p = RANDOM.dirichlet(np.ones(4), N) + np.eye(4)[labels] * 0.3
    p /= p.sum(1, keepdims=True)
    found = classification_scorer(labels, p)(WEIGHTS)
    for k, rows in enumerate(SAMPLES):
        y, s = labels[rows], p[rows]
        one_hot = np.eye(4)[y]
        assert found["auc"][k] == pytest.approx(reference.roc_auc_score(y, s, multi_class="ovr"), abs=1e-6)
        assert found["auprc"][k] == pytest.approx(reference.average_precision_score(one_hot, s), abs=1e-6)
        assert found["balanced_accuracy"][k] == pytest.approx(reference.balanced_accuracy_score(y, s.argmax(1)))
        assert found["brier"][k] == pytest.approx(((s - one_hot) ** 2).sum(1).mean(), abs=1e-6)


def test_regression():
    truth = RANDOM.normal(50, 10, N)
    guess = 20 + 0.6 * truth + RANDOM.normal(size=N) * 5
    found = regression_scorer(truth, guess)(WEIGHTS)
    for k, rows in enumerate(SAMPLES):
        y, g = truth[rows], guess[rows]
        assert found["mae"][k] == pytest.approx(np.abs(y - g).mean())
        assert found["r2"][k] == pytest.approx(reference.r2_score(y, g))
        assert found["r"][k] == pytest.approx(np.corrcoef(y, g)[0, 1])
        assert found["slope"][k] == pytest.approx(np.polyfit(y, g, 1)[0])


def test_resample_without_a_class_is_undefined():
    labels = np.array([0, 0, 1])
    weights = np.array([[1, 1, 0]], dtype=np.float32)
    found = ranking_scorer(np.array([0.1, 0.2, 0.3]), labels == 1)(weights)
    assert np.isnan(found["auc"][0])
    assert np.isnan(found["auprc"][0])


def test_constant_target_has_no_r2():
    found = regression_scorer(np.ones(4), np.arange(4.0))(np.ones((1, 4), dtype=np.float32))
    assert np.isnan(found["r2"][0])
    assert np.isnan(found["slope"][0])
