"""Cross-validated predictions against scikit-learn's, fold by fold."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from braing3n.probing.estimators import (
    ALPHA_GRID,
    C_GRID,
    choose,
    published_classification,
    published_regression,
    recommended_classification,
    recommended_regression,
)


@pytest.fixture(scope="module")
def data():
    random = np.random.default_rng(0)
    X = (random.normal(size=(180, 12)) * np.linspace(3, 0.1, 12) + 5).astype(np.float32)
    score = (X - 5) @ random.normal(size=12)
    labels = (score / score.std() + random.logistic(size=180) * 0.7 > 0).astype(int)
    return X, labels, 50 + score + random.normal(size=180), np.arange(180) % 4


def test_published_classification_is_scikit_learns_default(data):
    X, labels, _, fold = data
    found = published_classification(X, labels, 2, fold).predictions
    for f in range(4):
        model = LogisticRegression(max_iter=1000, tol=1e-8).fit(X[fold != f].astype(float), labels[fold != f])
        np.testing.assert_allclose(found[fold == f], model.predict_proba(X[fold == f].astype(float)), atol=1e-3)


def test_published_regression_is_scikit_learns_default(data):
    X, _, values, fold = data
    found = published_regression(X, values, fold).predictions
    for f in range(4):
        model = Ridge(alpha=1.0).fit(X[fold != f].astype(float), values[fold != f])
        np.testing.assert_allclose(found[fold == f], model.predict(X[fold == f].astype(float)), rtol=1e-5)


def test_recommended_classification_is_a_nested_search_over_c(data):
    X, labels, _, fold = data
    found = recommended_classification(X, labels, 2, fold, balanced=True)
    X = X.astype(float)

    def model(C):
        return make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=5000, class_weight="balanced"))

    for f in range(4):
        losses = []
        for C in C_GRID:
            parts = []
            for g in set(range(4)) - {f}:
                train, judge = ~np.isin(fold, (f, g)), fold == g
                parts.append(log_loss(labels[judge], model(C).fit(X[train], labels[train]).predict_proba(X[judge])))
            losses.append(np.mean(parts))  # folds are of one size
        best = C_GRID[int(np.argmin(losses))]
        assert found.chosen[f] == best
        assert found.inner_loss[f] == pytest.approx(min(losses), rel=2e-3)
        expected = model(best).fit(X[fold != f], labels[fold != f]).predict_proba(X[fold == f])
        np.testing.assert_allclose(found.predictions[fold == f], expected, atol=2e-3)


def test_recommended_regression_is_a_nested_search_over_alpha(data):
    X, _, values, fold = data
    found = recommended_regression(X, values, fold)
    X = X.astype(float)

    def model(alpha):
        return make_pipeline(StandardScaler(), Ridge(alpha=alpha))

    for f in range(4):
        errors = []
        for alpha in ALPHA_GRID:
            parts = []
            for g in set(range(4)) - {f}:
                train, judge = ~np.isin(fold, (f, g)), fold == g
                guess = model(alpha).fit(X[train], values[train]).predict(X[judge])
                parts.append(((guess - values[judge]) ** 2).mean())
            errors.append(np.mean(parts))
        best = ALPHA_GRID[int(np.argmin(errors))]
        assert found.chosen[f] == best
        expected = model(best).fit(X[fold != f], values[fold != f]).predict(X[fold == f])
        np.testing.assert_allclose(found.predictions[fold == f], expected, rtol=1e-4)


def test_one_fold_alone_equals_its_part_of_all(data):
    X, labels, values, fold = data
    for fit, y in (
        (lambda **k: recommended_classification(X, labels, 2, fold, **k), labels),
        (lambda **k: published_classification(X, labels, 2, fold, **k), labels),
        (lambda **k: recommended_regression(X, values, fold, **k), values),
        (lambda **k: published_regression(X, values, fold, **k), values),
    ):
        everything, alone = fit(only=None).predictions, fit(only=2).predictions
        assert len(alone) == len(y)
        np.testing.assert_allclose(alone[fold == 2], everything[fold == 2], rtol=1e-3, atol=1e-4)
        assert np.isnan(alone[fold != 2]).all()


def test_inner_predictions_leave_the_outer_fold_out(data):
    X, labels, values, fold = data
    for inner in (
        recommended_classification(X, labels, 2, fold).inner_predictions[..., 1],
        recommended_regression(X, values, fold).inner_predictions,
    ):
        for f in range(4):
            assert np.isnan(inner[f, fold == f]).all()
            assert np.isfinite(inner[f, fold != f]).all()


def test_two_folds_take_the_middle_of_the_grid(data):
    X, labels, values, _ = data
    fold = np.arange(180) % 2
    assert (recommended_classification(X, labels, 2, fold).chosen == C_GRID[len(C_GRID) // 2]).all()
    assert (recommended_regression(X, values, fold).chosen == ALPHA_GRID[len(ALPHA_GRID) // 2]).all()


def test_choose_weighs_folds_by_their_scans():
    loss = np.full((2, 2, 2), np.nan)
    loss[0, 1] = [1.0, 2.0]
    chosen, value = choose(loss, np.array([0, 1, 1]))
    assert chosen.tolist() == [0, 1]  # nothing known for fold 1: the grid's middle
    assert value[0] == 1.0
    three = np.full((3, 3, 2), np.nan)
    three[0, 1], three[0, 2] = [0.0, 1.0], [1.0, 0.6]
    assert choose(three, np.array([0, 1, 2, 2, 2, 2]))[0][0] == 1
