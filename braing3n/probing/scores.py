"""One encoder on one cell: cross-validated predictions, their scores, and the rows that report them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA

from braing3n.config.training import ProbeSettings
from braing3n.probing import estimators
from braing3n.probing.bootstrap import Interval, bootstrap, never_degenerate, percentile_interval, widened
from braing3n.probing.cells import Cell
from braing3n.probing.cohorts import LEFT_OUT, inner_cohorts, testable
from braing3n.probing.combat import site_effects
from braing3n.probing.estimators import OutOfFold
from braing3n.probing.folds import check_disjoint
from braing3n.probing.metrics import Scorer, classification_scorer, regression_scorer
from braing3n.probing.ridge import Scaling, common_deviation, standard_deviation
from braing3n.probing.sources import Source
from braing3n.probing.statistics import (
    calibration_slope,
    expected_calibration_error,
    instability,
    without_regression_to_the_mean,
)
from braing3n.probing.tasks import POOLED, Task

MAIN = {"classification": ("auc",), "regression": ("r2", "mae")}
PROPORTIONS = ("auc", "balanced_accuracy", "auprc")
RANGES = {"r2": (-np.inf, 1), "r": (-1, 1)} | dict.fromkeys(("brier", *PROPORTIONS), (0, 1))
RANGES |= dict.fromkeys(("log_loss", "mae", "mae_bias_corrected"), (0, np.inf))
GAP = "gap_bias_corrected"
AGE_BANDS = ((0, 40), (40, 60), (60, 130))
MOST_SITES = 10  # subgroups by site: the most populous ones

Row = dict[str, Any]


@dataclass(frozen=True)
class Scored:
    """Out-of-fold predictions of one encoder on one cell.

    Attributes:
        replicates: metric -> (resamples + 1,), the estimate first.
        by_fold: metric -> (folds,).
        widening: factor by which the replicates' distances from the estimate are multiplied already.
    """

    cell: Cell
    encoder: str
    out: OutOfFold
    replicates: dict[str, np.ndarray]
    by_fold: dict[str, np.ndarray]
    widening: float

    @property
    def common(self) -> Row:
        return common(self.cell, self.encoder) | {"split_hash": self.cell.split_hash}

    def rows(self, metadata: pd.DataFrame | None, settings: ProbeSettings) -> list[Row]:
        """Every metric with its interval, what to read it beside, and with metadata the scores of subgroups."""
        rows = interval_rows(self.common, self.replicates, self.cell.smallest)
        beside = describe(self.cell) | self.calibration() | {"interval_widening": self.widening}
        rows += [self.common | {"metric": m, "value": v} for m, v in beside.items()]
        rows += self.corrected_ages(metadata, settings)
        if metadata is not None and self.cell.slice == POOLED:
            rows += self.subgroups(metadata, settings)
        return rows

    def calibration(self) -> dict[str, float]:
        if len(self.cell.classes) != 2:
            return {}
        labels, p = self.cell.values == 1, self.out.predictions[:, 1]
        return {
            "calibration_error": expected_calibration_error(labels, p),
            "calibration_slope": calibration_slope(labels, p),
        }

    def resampled(self, scorer: Scorer, persons: np.ndarray, settings: ProbeSettings) -> dict[str, np.ndarray]:
        """Replicates of other scores of these predictions, widened like its own."""
        found = bootstrap(scorer, persons, settings.bootstrap, settings.seed)
        return {name: widened(values, self.widening) for name, values in found.items()}

    def corrected_ages(self, metadata: pd.DataFrame | None, settings: ProbeSettings) -> list[Row]:
        """Brain age with the regression to the mean taken out by inner predictions; with metadata the mean gap of
        predicted and true age by diagnosis.
        """
        if self.cell.task.field != "age_at_scan" or not self.out.inner_predictions.size or self.cell.slice == LEFT_OUT:
            return []
        cell = self.cell
        ages = without_regression_to_the_mean(self.out.predictions, cell.values, cell.fold, self.out.inner_predictions)
        if ages is None:
            return []
        replicates = self.resampled(regression_scorer(cell.values, ages), cell.persons, settings)
        wanted = {f"{name}_bias_corrected": replicates[name] for name in ("mae", "slope")}
        rows = interval_rows(self.common, wanted, cell.smallest)
        for part, member in self.with_diagnoses(metadata, settings):
            gaps = self.resampled(mean_scorer(GAP, (ages - cell.values)[member]), part.persons, settings)
            rows += interval_rows(common(part, self.encoder), gaps, part.smallest)
        return rows

    def with_diagnoses(
        self, metadata: pd.DataFrame | None, settings: ProbeSettings
    ) -> Iterator[tuple[Cell, np.ndarray]]:
        """The cell, and with metadata its part of each diagnosis that has enough persons; members (n,) bool."""
        yield self.cell, np.ones(len(self.cell.rows), dtype=bool)
        if metadata is None or self.cell.slice != POOLED:
            return
        diagnoses = metadata["diagnosis"].iloc[self.cell.rows]
        for name in sorted(diagnoses.dropna().unique()):
            member = (diagnoses == name).to_numpy(dtype=bool)
            part = restricted(self.cell, member, settings.min_class_persons)
            if part is not None:
                yield replace(part, slice=f"{POOLED}, diagnosis {name}"), member

    def subgroups(self, metadata: pd.DataFrame, settings: ProbeSettings) -> list[Row]:
        """Main metrics by sex, age band and site, where a group has the persons that a cell needs."""
        rows: list[Row] = []
        for name, member in groups(metadata.iloc[self.cell.rows]):
            part = restricted(self.cell, member, settings.min_class_persons)
            if part is None:
                continue
            replicates = self.resampled(make_scorer(part, self.out.predictions[member]), part.persons, settings)
            own = common(replace(part, slice=f"{POOLED}, {name}"), self.encoder)
            rows += interval_rows(own, {m: replicates[m] for m in MAIN[self.cell.task.kind]}, part.smallest)
        return rows


def common(cell: Cell, encoder: str) -> Row:
    return {
        "table": cell.protocol,
        "encoder": encoder,
        "task": cell.task.name,
        "slice": cell.slice,
        "n_subjects": cell.n_persons,
        "n_scans": len(cell.rows),
    }


def dash(cell: Cell, encoder: str) -> list[Row]:
    """Rows of a cell that is left out."""
    own = common(cell, encoder)
    missing = [own | {"metric": metric, "value": np.nan} for metric in MAIN[cell.task.kind]]
    return [*missing, own | {"metric": "too_few", "value": cell.smallest}]


def interval_rows(own: Row, replicates: dict[str, np.ndarray], smallest: int) -> list[Row]:
    rows = []
    for name, values in replicates.items():
        interval = percentile_interval(values)
        if name in PROPORTIONS:
            interval = never_degenerate(interval, smallest)
        low, high = RANGES.get(name, (-np.inf, np.inf))
        interval = Interval(interval.value, *np.clip([interval.low, interval.high], low, high))
        rows.append(own | interval_columns(name, interval))
    return rows


def interval_columns(metric: str, interval: Interval) -> Row:
    return {"metric": metric, "value": interval.value, "ci_low": interval.low, "ci_high": interval.high}


def fit_and_score(cell: Cell, source: Source, X: np.ndarray, settings: ProbeSettings) -> Scored | None:
    """Cross-validate and score; None where leaving a cohort out leaves nothing to test.

    Raises:
        BrainG3NError: the cell's folds share a person.
    """
    check_disjoint(cell.fold, cell.persons)
    scaling = standard_deviation if source.components is None else common_deviation
    fit = estimator(cell.task, len(cell.classes), cell.protocol, settings, scaling)
    if cell.slice == LEFT_OUT:
        out = out_of_cohort(cell, X, preparation(cell, source, settings), fit)
        tested = np.isfinite(out.predictions.reshape(len(X), -1)).all(1)
        if tested.sum() < len(X):
            restricted_cell = restricted(cell, tested, 2)
            if restricted_cell is None:
                return None
            cell = restricted_cell
            out = OutOfFold(out.predictions[tested], out.chosen, scores=out.scores[tested])
    else:
        out = out_of_fold(cell, X, preparation(cell, source, settings), fit, settings.folds)
    return score(cell, source.name, out, settings, np.sqrt(1 + instability(out.scores, cell.fold)))


def score(cell: Cell, encoder: str, out: OutOfFold, settings: ProbeSettings, widening: float) -> Scored:
    """Args: widening is the factor on the bootstrap's deviations for what the models owe to chance (`instability`)."""
    scorer = make_scorer(cell, out.predictions)
    replicates = bootstrap(scorer, cell.persons, settings.bootstrap, settings.seed)
    replicates = {name: widened(values, widening) for name, values in replicates.items()}
    folds = (cell.fold[None] == np.unique(cell.fold)[:, None]).astype(np.float32)  # (F, n)
    return Scored(cell, encoder, out, replicates, scorer(folds), float(widening))


def make_scorer(cell: Cell, predictions: np.ndarray) -> Scorer:
    return (classification_scorer if cell.classes else regression_scorer)(cell.values, predictions)


Prepare = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(features (n, d), training scans (n,) bool) -> features of all scans, with nothing estimated on the others."""


def preparation(cell: Cell, source: Source, settings: ProbeSettings) -> Prepare | None:
    """What is fitted in every training set before the probe: ComBat over sites, then principal components."""
    harmonise = cell.protocol == "recommended-combat" and source.from_images
    if source.components is None and not harmonise:
        return None

    def prepare(X: np.ndarray, training: np.ndarray) -> np.ndarray:
        if harmonise:
            X = site_effects(X[training], cell.sites[training]).remove(X, cell.sites)
        return X if source.components is None else reduced(X, training, source.components, settings.seed)

    return prepare


def out_of_fold(
    cell: Cell, X: np.ndarray, prepare: Prepare | None, fit: Callable[..., OutOfFold], folds: int
) -> OutOfFold:
    """Cross-validated predictions; with `prepare`, of features prepared anew for every training set."""
    if prepare is None:
        return fit(X, cell.values, cell.fold, only=None)
    parts = [fit(prepare(X, cell.fold != f), cell.values, cell.fold, only=f) for f in range(folds)]
    predictions, scores = np.full_like(parts[0].predictions, np.nan), np.full_like(parts[0].scores, np.nan)
    for f, part in enumerate(parts):
        predictions[cell.fold == f] = part.predictions[cell.fold == f]
        scores[:, f] = part.scores[:, f]
    chosen = np.array([part.chosen[f] if len(part.chosen) == folds else part.chosen[0] for f, part in enumerate(parts)])
    if not parts[0].inner_loss.size:
        return OutOfFold(predictions, chosen, scores=scores)
    loss = np.array([part.inner_loss[f] for f, part in enumerate(parts)])
    inner = np.stack([part.inner_predictions[f] for f, part in enumerate(parts)])
    return OutOfFold(predictions, chosen, loss, inner, scores)


def out_of_cohort(cell: Cell, X: np.ndarray, prepare: Prepare | None, fit: Callable[..., OutOfFold]) -> OutOfFold:
    """Predictions for each cohort by a model of the others; NaN where these lack a class."""
    shape = (len(X), len(cell.classes)) if cell.classes else (len(X),)
    count, scores = int(cell.fold.max()) + 1, None
    predictions, chosen = np.full(shape, np.nan), np.full(count, np.nan)
    for cohort in range(count):
        if not testable(cell, cohort):
            continue
        test = cell.fold == cohort
        Z = X if prepare is None else prepare(X, ~test)
        out = fit(Z, cell.values, inner_cohorts(cell.fold, cohort), only=0)
        predictions[test] = out.predictions[test]
        scores = np.full((len(X), count, out.scores.shape[2]), np.nan, np.float32) if scores is None else scores
        scores[:, cohort] = out.scores[:, 0]
    return OutOfFold(predictions, chosen, scores=np.empty((len(X), 0, 1)) if scores is None else scores)


def reduced(X: np.ndarray, training: np.ndarray, components: int, seed: int) -> np.ndarray:
    """Principal components of the training scans, for all scans. (n, d) -> (n, k) float32."""
    k = min(components, int(training.sum()) - 1, X.shape[1])
    return PCA(k, random_state=seed).fit(X[training]).transform(X).astype(np.float32)


def estimator(
    task: Task, classes: int, protocol: str, settings: ProbeSettings, scaling: Scaling = standard_deviation
) -> Callable[..., OutOfFold]:
    """Function of (X, values, fold, only=) for a task under a protocol."""
    if task.kind == "regression":
        if protocol == "published":
            return lambda X, y, fold, only: estimators.published_regression(
                X, y, fold, only=only, alpha=settings.ridge_alpha
            )
        return lambda X, y, fold, only: estimators.recommended_regression(X, y, fold, only=only, scaling=scaling)
    if protocol == "published":
        return lambda X, y, fold, only: estimators.published_classification(
            X, y, classes, fold, only=only, iterations=settings.max_iter
        )
    return lambda X, y, fold, only: estimators.recommended_classification(
        X, y, classes, fold, only=only, balanced=settings.balanced, scaling=scaling, iterations=settings.max_iter
    )


def mean_scorer(name: str, values: np.ndarray) -> Scorer:
    """Scorer of the mean of values (n,)."""
    return lambda weights: {name: weights.astype(np.float64) @ values / weights.sum(1, dtype=np.float64)}


def describe(cell: Cell) -> dict[str, float]:
    """What a score has to be read beside: the number of sites, the positive class's share or the target's spread."""
    beside = {"sites": float(len(np.unique(cell.sites)))}
    if not cell.classes:
        return beside | {"target_sd": float(np.std(cell.values))}
    shares = np.bincount(cell.values, minlength=len(cell.classes)) / len(cell.values)
    if len(cell.classes) == 2:
        return beside | {"prevalence": float(shares[1])}
    return beside | {"classes": float(len(cell.classes)), "largest_class": float(shares.max())}


def groups(rows: pd.DataFrame) -> Iterator[tuple[str, np.ndarray]]:
    """Names and members (n,) bool of the subgroups whose scores are compared."""
    for sex in ("F", "M"):
        yield f"sex {sex}", (rows["sex"] == sex).to_numpy(dtype=bool)
    age = rows["age_at_scan"].to_numpy(dtype=float, na_value=np.nan)
    for low, high in AGE_BANDS:
        yield f"age {low} to {high}", (age >= low) & (age < high)
    for site in rows["site"].value_counts().index[:MOST_SITES]:
        yield f"site {site}", (rows["site"] == site).to_numpy(dtype=bool)


def restricted(cell: Cell, member: np.ndarray, least: int) -> Cell | None:
    """The cell's scans in a subgroup, or None with fewer than `least` persons in a class (or in all)."""
    values, persons = cell.values[member], cell.persons[member]
    parts = [persons[values == c] for c in range(len(cell.classes))] if cell.classes else [persons]
    smallest = min(len(np.unique(part)) for part in parts)
    if smallest < least:
        return None
    rows, fold, sites = cell.rows[member], cell.fold[member], cell.sites[member]
    return replace(cell, rows=rows, values=values, persons=persons, fold=fold, sites=sites, smallest=smallest)
