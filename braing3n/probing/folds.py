"""Cross-validation folds that never share a person."""

from __future__ import annotations

import warnings

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from braing3n.errors import BrainG3NError
from braing3n.files import short_hash


def stratified_group_folds(strata: np.ndarray, persons: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Test fold of every scan, by scikit-learn's `StratifiedGroupKFold` with persons as groups (paper, Table 4).

    Args:
        strata: (n,) integers, the class or the bin of the target.
        persons: (n,) person of each scan.

    Returns:
        (n,) integers in [0, folds).
    """
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    fold = np.full(len(strata), -1)
    with warnings.catch_warnings():
        # Classes smaller than the number of folds are dealt with by the minimum counts of a cell.
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        for index, (_, test) in enumerate(splitter.split(strata, strata, persons)):
            fold[test] = index
    check_disjoint(fold, persons)
    return fold


def regression_strata(values: np.ndarray, persons: np.ndarray, folds: int, most: int = 10) -> np.ndarray:
    """Quantile bins of a continuous target, as strata for the folds; fewer where persons are few. (n,) integers."""
    bins = int(np.clip(len(np.unique(persons)) // (2 * folds), 1, most))
    edges = np.unique(np.quantile(values, np.linspace(0, 1, bins + 1)[1:-1]))
    strata = np.searchsorted(edges, values, side="right")
    return np.unique(strata, return_inverse=True)[1]


def check_disjoint(fold: np.ndarray, persons: np.ndarray) -> None:
    """Refuse folds that share a person or leave out a scan.

    Raises:
        BrainG3NError: naming how many persons would leak from training into test, and some of them.
    """
    codes = np.unique(persons, return_inverse=True)[1]
    lowest = np.full(codes.max() + 1, np.iinfo(np.int64).max)
    highest = np.full(codes.max() + 1, -1)
    np.minimum.at(lowest, codes, fold)
    np.maximum.at(highest, codes, fold)
    leaking = np.unique(persons)[lowest != highest]
    if len(leaking):
        raise BrainG3NError(
            "folds share persons, so that test scores would be inflated",
            expected="every person_id in one fold",
            found=f"{len(leaking)} in several, such as {', '.join(map(str, leaking[:3]))}",
        )
    if (fold < 0).any():
        raise BrainG3NError("folds leave out scans", found=f"{int((fold < 0).sum())} of {len(fold)}")


def split_hash(volume_ids: np.ndarray, fold: np.ndarray) -> str:
    """Hash of who is tested in which fold, independent of the order of the rows."""
    order = np.argsort(volume_ids, kind="stable")
    return short_hash(*(f"{volume_ids[i]}:{fold[i]}" for i in order))
