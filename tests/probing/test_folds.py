from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from braing3n.errors import BrainG3NError
from braing3n.probing.folds import check_disjoint, regression_strata, split_hash, stratified_group_folds


def people(persons: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    scans = random.integers(1, 4, persons)
    return np.repeat(random.integers(0, 2, persons), scans), np.repeat([f"p{i}" for i in range(persons)], scans)


def test_folds_are_scikit_learns():
    strata, persons = people(60, 0)
    fold = stratified_group_folds(strata, persons, 5, 2025)
    splitter = StratifiedGroupKFold(5, shuffle=True, random_state=2025)
    for f, (_, test) in enumerate(splitter.split(strata, strata, persons)):
        np.testing.assert_array_equal(np.flatnonzero(fold == f), test)


@settings(max_examples=25, deadline=None)
@given(persons=st.integers(12, 60), folds=st.integers(2, 5), seed=st.integers(0, 10_000))
def test_folds_never_share_a_person(persons, folds, seed):
    strata, owner = people(persons, seed)
    if np.bincount(strata).max() < folds:
        return
    fold = stratified_group_folds(strata, owner, folds, seed)
    assert all(len(set(fold[owner == person])) == 1 for person in set(owner))
    assert set(fold) == set(range(folds))


def test_planted_leak_is_refused():
    persons = np.array(["a", "a", "b", "c"])
    check_disjoint(np.array([0, 0, 1, 1]), persons)
    with pytest.raises(BrainG3NError, match=r"1 in several, such as a"):
        check_disjoint(np.array([0, 1, 1, 0]), persons)


def test_scan_without_a_fold_is_refused():
    with pytest.raises(BrainG3NError, match="leave out scans; found: 1 of 2"):
        check_disjoint(np.array([0, -1]), np.array(["a", "b"]))


def test_regression_strata_have_equal_sizes():
    values = np.random.default_rng(0).permutation(1000).astype(float)
    strata = regression_strata(values, np.arange(1000), 5)
    assert np.bincount(strata).tolist() == [100] * 10


def test_regression_strata_of_few_persons_are_few():
    strata = regression_strata(np.arange(12.0), np.arange(12), 3)
    assert strata.max() + 1 == 2


def test_split_hash_ignores_the_order_of_rows():
    ids, fold = np.array(["c", "a", "b"]), np.array([0, 1, 2])
    order = [2, 0, 1]
    assert split_hash(ids, fold) == split_hash(ids[order], fold[order])
    assert split_hash(ids, fold) != split_hash(ids, fold[order])
