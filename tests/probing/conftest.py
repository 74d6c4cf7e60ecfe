"""A simulated population with planted effects, as metadata and feature files."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from braing3n.files import short_hash, write_parquet

DIMENSION = 24


def make_metadata(persons: int, seed: int = 0, scans: tuple[int, ...] = (1, 2, 3)) -> pd.DataFrame:
    """Rows like those of metadata/volumes.parquet: T1 at every visit, T2 at half of them, two cohorts of two sites."""
    random = np.random.default_rng(seed)
    rows = []
    for p in range(persons):
        cohort = "AAA" if p % 2 else "BBB"
        person = {
            "cohort": cohort,
            "person_id": f"{cohort}:{p:04d}",
            "site": f"{cohort}-{random.integers(2)}",
            "sex": random.choice(["M", "F"]),
            "diagnosis": random.choice(["HC", "AD"]),
            "age": random.uniform(20, 80),
        }
        for visit in range(int(random.choice(scans))):
            for modality in ("T1", "T2") if random.random() < 0.5 else ("T1",):
                scan = {k: v for k, v in person.items() if k != "age"}
                scan |= {"modality": modality, "age_at_scan": person["age"] + visit, "age_is_binned": False}
                scan["volume_id"] = short_hash(person["person_id"], str(visit), modality)
                scan["shard"] = f"{p % 3:04d}"
                rows.append(scan)
    table = pd.DataFrame(rows)
    for column in ("idh1", "mgmt", "apoe", "vendor"):
        table[column] = pd.Series(None, index=table.index, dtype="str")
    for column in ("tumour_grade", "field_strength", "cdr", "mmse", "moca", "gds", "updrs3", "scopa_aut"):
        table[column] = np.nan
    return table.assign(education_years=12.0)


def make_features(metadata: pd.DataFrame, effect: float = 1.0, seed: int = 1) -> np.ndarray:
    """(n, DIMENSION) float32: age, diagnosis and modality along three axes, and noise of which half is the person's."""
    random = np.random.default_rng(seed)
    persons = pd.factorize(metadata["person_id"])[0]
    noise = random.normal(size=(persons.max() + 1, DIMENSION))[persons] + random.normal(size=(len(persons), DIMENSION))
    signal = np.zeros_like(noise)
    signal[:, 0] = (metadata["age_at_scan"] - 50) / 18
    signal[:, 1] = np.where(metadata["diagnosis"] == "AD", 1, -1)
    signal[:, 2] = np.where(metadata["modality"] == "T2", 1, -1)
    return (noise * np.sqrt(0.5) + effect * signal).astype(np.float32)


def write_features(
    results: Path, encoder: str, metadata: pd.DataFrame, features: np.ndarray, column: str = "feature"
) -> None:
    for (cohort, shard), rows in metadata.reset_index(drop=True).groupby(["cohort", "shard"]):
        table = pd.DataFrame({"volume_id": rows["volume_id"], column: list(features[rows.index])})
        write_parquet(results / "features" / encoder / cohort / f"{shard}.parquet", table)


@pytest.fixture(scope="session")
def simulated() -> SimpleNamespace:
    """The functions above, for tests that choose their own sizes."""
    return SimpleNamespace(metadata=make_metadata, features=make_features, write=write_features, dimension=DIMENSION)
