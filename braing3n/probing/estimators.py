"""Cross-validated probes: out-of-fold predictions of a linear model, as published and as recommended.

As published (paper, Table 4): raw features, C = 1 or alpha = 1. As recommended: features standardised within each
training set, the penalty chosen by inner folds. The inner folds of a test fold are the other outer folds, so that the
model that leaves out folds f and g serves twice: to judge penalties for f on g's scans, and for g on f's. Folds never
share a person, hence neither do inner ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from braing3n.probing.linear import Covariance, class_probabilities, log_loss, logistic, logits, targets
from braing3n.probing.ridge import FoldSums, Scaling, ridge, ridge_path, ridge_path_exact, standard_deviation

C_GRID = 10.0 ** np.arange(-4, 3)
ALPHA_GRID = 10.0 ** np.arange(-2, 7)


@dataclass(frozen=True)
class OutOfFold:
    """Predictions of every scan by a model that saw none of its person.

    Attributes:
        predictions: (n, k) class probabilities, or (n,) numbers.
        chosen: (folds,) penalty of each outer fold, as C or alpha.
        inner_loss: (folds,) mean inner loss at the chosen penalty, NaN where nothing was chosen.
        inner_predictions: (folds, n, ...) like `predictions`, of the inner models of each outer fold at its chosen
            penalty; NaN on that fold's own scans. Empty where nothing was chosen.
        scores: (n, folds, c) float32, logits or numbers that the model of every outer fold gives to every scan; NaN for
            folds that were not asked for.
    """

    predictions: np.ndarray
    chosen: np.ndarray
    inner_loss: np.ndarray = field(default_factory=lambda: np.empty(0))
    inner_predictions: np.ndarray = field(default_factory=lambda: np.empty(0))
    scores: np.ndarray = field(default_factory=lambda: np.empty(0))


class TrainingSets:
    """Which scans train, for every set of excluded folds, with each set's feature scales."""

    def __init__(self, X: np.ndarray, fold: np.ndarray, excluded: list[tuple[int, ...]], scaling: Scaling | None):
        masks = [~np.isin(fold, folds) for folds in excluded]
        self.masks = np.array(masks, dtype=bool).reshape(len(excluded), len(fold)).T  # (n, T)
        folds = int(fold.max()) + 1
        count = np.array([(fold == f).sum() for f in range(folds)], dtype=np.float64)
        sums = np.stack([X[fold == f].sum(0, dtype=np.float64) for f in range(folds)])  # (F, d)
        squares = np.stack([np.square(X[fold == f], dtype=np.float64).sum(0) for f in range(folds)])
        scales = []
        for folds_out in excluded:
            kept = [f for f in range(folds) if f not in folds_out]
            n = count[kept].sum()
            variance = squares[kept].sum(0) / n - (sums[kept].sum(0) / n) ** 2
            scales.append(scaling(variance) if scaling else np.ones(X.shape[1]))
        self.scales = np.array(scales).reshape(len(excluded), X.shape[1]).T  # (d, T)


def centre(X: np.ndarray) -> np.ndarray:
    """Features less their mean over all scans, float32: a shift that the intercept takes up, for accuracy alone."""
    return (X - X.mean(0, dtype=np.float64)).astype(np.float32)


def class_weights(labels: np.ndarray, classes: int, masks: np.ndarray, balanced: bool) -> np.ndarray:
    """Scan weights (n, T): 1 in the training set, or scikit-learn's `balanced` n / (classes x count)."""
    if not balanced:
        return masks.astype(np.float32)
    member = np.eye(classes)[labels]  # (n, k)
    counts = member.T @ masks  # (k, T)
    weights = masks.sum(0) / (classes * np.maximum(counts, 1))  # (k, T)
    return (member @ weights * masks).astype(np.float32)


def has_all_classes(labels: np.ndarray, classes: int, masks: np.ndarray) -> np.ndarray:
    """Whether each training set (n, T) has a scan of every class. (T,)."""
    return ((np.eye(classes)[labels].T @ masks) > 0).all(0)


def published_classification(
    X: np.ndarray,
    labels: np.ndarray,
    classes: int,
    fold: np.ndarray,
    *,
    only: int | None = None,
    iterations: int = 1000,
) -> OutOfFold:
    """Logistic regression with C = 1 on raw features.

    Args:
        X: (n, d) float32.
        labels: (n,) class indices below `classes`.
        fold: (n,) test fold of each scan.
        only: predict this fold alone, the others stay NaN; None predicts all.
    """
    X, tested = centre(X), outer_folds(fold, only)
    sets = TrainingSets(X, fold, [(f,) for f in tested], scaling=None)
    covariance = Covariance.of(X, np.ones(X.shape[1]))
    weights, penalty = class_weights(labels, classes, sets.masks, balanced=False), np.ones(len(tested))
    coefficients = logistic(X, labels, classes, weights, penalty, sets.scales, covariance, iterations=iterations)
    z = logits(X, coefficients)
    return OutOfFold(own_fold(class_probabilities(z), fold, tested), penalty, scores=by_fold(z, fold, tested))


def recommended_classification(
    X: np.ndarray,
    labels: np.ndarray,
    classes: int,
    fold: np.ndarray,
    *,
    only: int | None = None,
    balanced: bool = False,
    scaling: Scaling = standard_deviation,
    grid: np.ndarray = C_GRID,
    iterations: int = 1000,
) -> OutOfFold:
    """Logistic regression on standardised features, C by the log-loss of inner folds.

    Where no inner training set holds every class (a handful of persons), the grid's middle is taken. Arguments as of
    `published_classification`; `balanced` weighs classes by the inverse of their frequency, and `scaling` gives what
    the features of a training set are divided by.
    """
    X, tested, K = centre(X), outer_folds(fold, only), len(grid)
    covariance = Covariance.of(X, scaling(X.var(0, dtype=np.float64)))
    pairs = inner_pairs(fold, only)
    sets = TrainingSets(X, fold, pairs, scaling)
    usable = np.flatnonzero(has_all_classes(labels, classes, sets.masks))
    weights = class_weights(labels, classes, sets.masks[:, usable], balanced)
    coefficients = logistic(
        X, labels, classes, np.repeat(weights, K, axis=1), np.tile(1 / grid, len(usable)),
        np.repeat(sets.scales[:, usable], K, axis=1), covariance, tolerance=1e-2, iterations=iterations,
    )  # fmt: skip
    loss, inner = no_loss(fold, K), {}
    for t, pair in enumerate(usable):
        for outer, judge in (pairs[pair], pairs[pair][::-1]):
            rows = fold == judge
            z = logits(X[rows], coefficients[:, t * K : (t + 1) * K])
            loss[outer, judge] = log_loss(z, targets(labels[rows], classes)).mean(0)
            inner[outer, judge] = class_probabilities(z)
    chosen, inner_loss = choose(loss, fold)

    sets = TrainingSets(X, fold, [(f,) for f in tested], scaling)
    weights = class_weights(labels, classes, sets.masks, balanced)
    penalty = 1 / grid[chosen[tested]]
    coefficients = logistic(X, labels, classes, weights, penalty, sets.scales, covariance, iterations=iterations)
    z = logits(X, coefficients)
    predictions, scores = own_fold(class_probabilities(z), fold, tested), by_fold(z, fold, tested)
    return OutOfFold(predictions, grid[chosen], inner_loss, at_chosen(inner, chosen, fold, (classes,)), scores)


def published_regression(
    X: np.ndarray, values: np.ndarray, fold: np.ndarray, *, only: int | None = None, alpha: float = 1.0
) -> OutOfFold:
    """Ridge regression with a fixed alpha on raw features. X (n, d) float32, values (n,), fold (n,)."""
    X, tested = centre(X), outer_folds(fold, only)
    sums = FoldSums.of(X, values, fold, int(fold.max()) + 1)
    models = [ridge(sums.training((f,)), alpha, np.ones(X.shape[1])) for f in tested]
    guesses = predict(X, np.hstack(models))  # (n, models)
    scores = by_fold(guesses[..., None], fold, tested)
    return OutOfFold(own_fold(guesses, fold, tested), np.full(len(tested), alpha), scores=scores)


def recommended_regression(
    X: np.ndarray,
    values: np.ndarray,
    fold: np.ndarray,
    *,
    only: int | None = None,
    scaling: Scaling = standard_deviation,
    grid: np.ndarray = ALPHA_GRID,
) -> OutOfFold:
    """Ridge regression on standardised features, alpha by the squared error of inner folds."""
    X = centre(X)
    sums = FoldSums.of(X, values, fold, int(fold.max()) + 1)
    loss, inner = no_loss(fold, len(grid)), {}
    for pair, path in inner_paths(X, values, fold, inner_pairs(fold, only), sums, scaling, grid).items():
        for outer, judge in (pair, pair[::-1]):
            rows = fold == judge
            inner[outer, judge] = predict(X[rows], path)  # (rows, K)
            loss[outer, judge] = ((inner[outer, judge] - values[rows, None]) ** 2).mean(0)
    chosen, inner_loss = choose(loss, fold)

    tested = outer_folds(fold, only)
    training = [sums.training((f,)) for f in tested]
    models = [ridge(part, grid[chosen[f]], part.scale(scaling)) for f, part in zip(tested, training, strict=True)]
    guesses = predict(X, np.hstack(models))  # (n, models)
    predictions, scores = own_fold(guesses, fold, tested), by_fold(guesses[..., None], fold, tested)
    return OutOfFold(predictions, grid[chosen], inner_loss, at_chosen(inner, chosen, fold, ()), scores)


def outer_folds(fold: np.ndarray, only: int | None) -> list[int]:
    return list(range(int(fold.max()) + 1)) if only is None else [only]


def inner_pairs(fold: np.ndarray, only: int | None) -> list[tuple[int, int]]:
    """Folds left out together; none where that would leave nothing to train on."""
    folds = int(fold.max()) + 1
    return [pair for pair in combinations(range(folds), 2) if only is None or only in pair] if folds > 2 else []


def no_loss(fold: np.ndarray, penalties: int) -> np.ndarray:
    folds = int(fold.max()) + 1
    return np.full((folds, folds, penalties), np.nan)


def inner_paths(
    X: np.ndarray,
    values: np.ndarray,
    fold: np.ndarray,
    pairs: list[tuple[int, int]],
    sums: FoldSums,
    scaling: Scaling,
    grid: np.ndarray,
) -> dict[tuple[int, int], np.ndarray]:
    """Coefficients (d + 1, K) for every pair of left-out folds."""
    if not pairs:
        return {}
    if len(X) < 3 * X.shape[1]:
        kept = {pair: ~np.isin(fold, pair) for pair in pairs}
        return {pair: ridge_path_exact(X[rows], values[rows], grid, scaling) for pair, rows in kept.items()}
    everything, training = sums.training(()), [sums.training(pair) for pair in pairs]
    covariance = Covariance.of_scatter(everything.scatter, everything.scale(scaling), len(X))
    path = ridge_path(training, grid, [part.scale(scaling) for part in training], covariance)
    return {pair: path[:, t] for t, pair in enumerate(pairs)}


def at_chosen(
    inner: dict[tuple[int, int], np.ndarray], chosen: np.ndarray, fold: np.ndarray, shape: tuple[int, ...]
) -> np.ndarray:
    """Inner predictions of each outer fold at its chosen penalty: (folds, n, *shape) float32, NaN where none."""
    result = np.full((len(chosen), len(fold), *shape), np.nan, dtype=np.float32)
    for (outer, judge), predictions in inner.items():
        result[outer, fold == judge] = predictions[:, chosen[outer]]
    return result


def predict(X: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """(n, d) float32, (d + 1, K) float64 -> (n, K) float64; the intercept is added in full precision."""
    return (X @ coefficients[:-1].astype(np.float32)).astype(np.float64) + coefficients[-1]


def own_fold(predictions: np.ndarray, fold: np.ndarray, tested: list[int]) -> np.ndarray:
    """Of predictions (n, models, ...) by the models that leave out the `tested` folds, the one that did not see the
    scan; NaN for scans of other folds. (n, ...) float64.
    """
    result = np.full((len(fold), *predictions.shape[2:]), np.nan)
    for model, f in enumerate(tested):
        result[fold == f] = predictions[fold == f, model]
    return result


def by_fold(scores: np.ndarray, fold: np.ndarray, tested: list[int]) -> np.ndarray:
    """Scores (n, models, c) of the models that leave out the `tested` folds -> (n, folds, c) float32, NaN elsewhere."""
    result = np.full((len(fold), int(fold.max()) + 1, scores.shape[-1]), np.nan, dtype=np.float32)
    result[:, tested] = scores
    return result


def choose(loss: np.ndarray, fold: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The penalty of least mean inner loss for each outer fold, scans counting alike.

    Args:
        loss: (folds, folds, K) mean loss of outer fold's inner models on each other fold, NaN where there is none.

    Returns:
        indices (folds,) into the grid, and the loss (folds,) there.
    """
    folds, _, K = loss.shape
    count = np.bincount(fold, minlength=folds)[None, :, None] * np.isfinite(loss)
    total = count.sum(1)
    mean = np.where(total > 0, (np.nan_to_num(loss) * count).sum(1) / np.maximum(total, 1), np.nan)  # (folds, K)
    best = np.array([np.nanargmin(row) if np.isfinite(row).any() else K // 2 for row in mean])
    return best, mean[np.arange(folds), best]
