"""Volumes made directly on the final 160x192x160 grid, as preprocessing would leave them: for training without it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from braing3n.cohorts.schema import INDEX_COLUMNS, STORE_COLUMNS, typed, validate_table
from braing3n.cohorts.splits import split_of
from braing3n.config.data import IndexSettings
from braing3n.files import short_hash, write_parquet
from braing3n.geometry import VOLUME_SHAPE, cropped_affine
from braing3n.phantom.anatomy import Anatomy
from braing3n.phantom.people import (
    Effects,
    Site,
    diagnosis_of,
    draw_person,
    draw_scan,
    draw_scores,
    head_at,
)
from braing3n.phantom.plan import PlannedScan, rng_of
from braing3n.phantom.render import in_parallel
from braing3n.phantom.simulate import simulate, ventricle_ml
from braing3n.phantom.truth import BRAIN_CENTRE, Grid, Tumour, pose, truth_row
from braing3n.phantom.upenn import TUMOUR_SITES
from braing3n.volumes.store import write_store

COHORT = "PHANTOM"
GRID = Grid(VOLUME_SHAPE, cropped_affine())
SITES = (
    Site("A", "Siemens", "TrioTim", 3.0, gain=800, gamma=1.06, noise=0.020, bias=0.05),
    Site("B", "GE", "SIGNA EXCITE", 1.5, gain=1500, gamma=0.95, noise=0.035, bias=0.05),
    Site("C", "Philips", "Achieva", 3.0, gain=500, gamma=1.00, noise=0.025, bias=0.08),
)
# What ten persons in a row are: disease, and the scans of each as (modality, years after baseline).
PERSONS = (
    ("HC", (("T1", 0), ("T2", 0))),
    ("AD", (("T1", 0), ("T1", 2))),
    ("HC", (("T1", 0),)),
    ("MCI", (("T1", 0), ("T1", 2))),
    ("HC", (("T1", 0), ("FLAIR", 0))),
    ("AD", (("T1", 0), ("T2", 0))),
    ("HC", (("T1", 0), ("T1", 3))),
    ("GBM", (("T1", 0), ("T1c", 0), ("T2", 0), ("FLAIR", 0))),
    ("MCI", (("T1", 0), ("FLAIR", 0))),
    ("HC", (("T1", 0),)),
)
SEVERITY = {"HC": (0.0, 0.1), "MCI": (0.35, 0.6), "AD": (0.8, 1.1), "GBM": (0.0, 0.0)}
PROGRESSION = {"HC": 0.0, "MCI": 0.05, "AD": 0.1, "GBM": 0.0}  # of severity, per year
AGES = {"HC": (20.0, 85.0), "MCI": (55.0, 85.0), "AD": (58.0, 85.0), "GBM": (40.0, 80.0)}


def final_grid_plan(n: int, seed: int, effects: Effects | None = None) -> list[PlannedScan]:
    """`n` stripped, bias-corrected, registered scans of about n/2 persons of every age, sex and disease.

    `known` holds columns of the metadata table. Registration is not perfect: about 0.4 degrees and 0.4 mm are left.
    """
    scans: list[PlannedScan] = []
    person = 0
    while len(scans) < n:
        scans += _person(person, rng_of(seed, "final", person), effects)
        person += 1
    return scans[:n]


def final_grid_set(
    anatomy: Anatomy, n: int, seed: int, effects: Effects | None = None
) -> Iterator[tuple[np.ndarray, dict[str, Any]]]:
    """Volumes, float32 (160, 192, 160), and their rows of the truth table, made one at a time as they are asked for."""
    for planned in final_grid_plan(n, seed, effects):
        yield _volume(anatomy, planned), _row(anatomy, planned)


def write_final_grid_set(
    atlas_folder: str | Path,
    results: str | Path,
    n: int,
    seed: int,
    *,
    effects: Effects | None = None,
    shard_size: int = 50,
    workers: int | None = None,
) -> pd.DataFrame:
    """Write the set as a results folder: volume stores, `metadata/volumes.parquet` and `truth.parquet`.

    Training and probing read it as they read preprocessed cohorts.

    Returns:
        The metadata table.
    """
    results = Path(results)
    plans = final_grid_plan(n, seed, effects)
    shards = [plans[start : start + shard_size] for start in range(0, n, shard_size)]
    jobs = [(results, f"{number:04d}", shard) for number, shard in enumerate(shards)]
    parts = sorted(in_parallel(atlas_folder, _write_shard, jobs, workers, "shards"), key=lambda part: part[0])
    truth = pd.concat([pd.DataFrame(rows) for _, rows, _ in parts], ignore_index=True)
    stores = pd.concat([store for _, _, store in parts], ignore_index=True)
    index = typed(truth.rename(columns={"age": "age_at_scan"}), INDEX_COLUMNS)
    store_columns = stores.drop(columns=["volume_id", "row", "sha256"]).assign(store_row=stores["row"], qc_flags="")
    store_columns = typed(store_columns, STORE_COLUMNS)
    metadata = pd.concat([index, store_columns], axis=1)
    path = results / "metadata" / "volumes.parquet"
    validate_table(metadata, str(path), metadata=True)
    write_parquet(path, metadata)
    write_parquet(results / "truth.parquet", truth)
    return metadata


def _write_shard(
    anatomy: Anatomy, results: Path, shard: str, plans: list[PlannedScan]
) -> tuple[str, list[dict[str, Any]], pd.DataFrame]:
    path = f"volumes/{COHORT}/{shard}.npy"
    volumes = (_volume(anatomy, planned) for planned in plans)
    store = write_store(results / path, [planned.known["volume_id"] for planned in plans], volumes)
    rows = [_row(anatomy, planned) | {"shard": shard} for planned in plans]
    return shard, rows, store.assign(store_file=path)


def _volume(anatomy: Anatomy, planned: PlannedScan) -> np.ndarray:
    return simulate(anatomy, planned.subject, planned.scan, planned.grid).volume


def _row(anatomy: Anatomy, planned: PlannedScan) -> dict[str, Any]:
    return truth_row(
        planned.subject, planned.scan, **planned.known, ventricle_ml=ventricle_ml(anatomy, planned.subject)
    )


def _person(number: int, rng: np.random.Generator, effects: Effects | None) -> list[PlannedScan]:
    disease, scans = PERSONS[number % len(PERSONS)]
    sex = "FM"[(number + number // len(PERSONS)) % 2]  # not the same sex at the same place of every ten
    person = replace(draw_person(sex, rng, effects), scale=(1.0, 1.0, 1.0), shear=(0.0, 0.0, 0.0))
    site = SITES[int(rng.integers(len(SITES)))]
    baseline_age = float(rng.uniform(*AGES[disease]))
    baseline_severity = float(rng.uniform(*SEVERITY[disease]))
    tumour = _draw_tumour(rng) if disease == "GBM" else None
    idh1 = None if tumour is None else "mutant" if tumour.enhancement < 0.5 else "wildtype"
    scores = {years: draw_scores(baseline_severity + PROGRESSION[disease] * years, rng) for _, years in scans}
    planned = []
    for modality, years in scans:
        age, severity = baseline_age + years, baseline_severity + PROGRESSION[disease] * years
        affine = pose(rng.normal(0, 0.4, 3), BRAIN_CENTRE + rng.normal(0, 0.4, 3), np.exp(rng.normal(0, 0.005, 3)))
        known = _known(number, modality, years, site) | {
            "age": age,
            "sex": sex,
            "diagnosis": disease if tumour else diagnosis_of(severity),
            "severity": severity,
            "cdr": None if tumour else scores[years]["cdr"],
            "mmse": None if tumour else scores[years]["mmse"],
            "idh1": idh1,
            "tumour_grade": 4.0 if tumour else None,
        }
        scan = draw_scan(site, modality, rng, stripped=True)
        head = head_at(person, age, severity, affine, effects, tumour)
        planned.append(PlannedScan(known["source_path"], head, scan, GRID, known))
    return planned


def _draw_tumour(rng: np.random.Generator) -> Tumour:
    mutant = rng.random() < 0.35
    centre = np.array(TUMOUR_SITES[int(rng.integers(len(TUMOUR_SITES)))]) + rng.uniform(-5, 5, 3)
    return Tumour(
        centre=tuple(float(c) for c in centre),
        radius_mm=float(rng.uniform(9, 18)),
        enhancement=0.25 if mutant else 1.0,
        oedema_mm=8.0 if mutant else 14.0,
        seed=int(rng.integers(2**31)),
    )


def _known(number: int, modality: str, years: int, site: Site) -> dict[str, Any]:
    """Identity, source and entry state, as the index would have them."""
    subject, session = f"P{number:04d}", f"Y{years}"
    source = f"{subject}/{session}_{modality}"
    person_id = f"{COHORT}:{subject}"
    return {
        "volume_id": short_hash(COHORT, source),
        "cohort": COHORT,
        "subject_id": person_id,
        "person_id": person_id,
        "session_id": session,
        "run": 1,
        "source_path": source,
        "source_format": "nifti",
        "source_bytes": 0,
        "source_variant": "simulated",
        "entry_stripped": True,
        "entry_bias_corrected": True,
        "entry_defaced": False,
        "entry_space": "sri24",
        "shares_grid": True,
        "bids_subject": f"{COHORT}{subject}",
        "bids_session": session,
        "age_source": "reported",
        "age_is_binned": False,
        "site": site.name,
        "vendor": site.vendor,
        "scanner_model": site.model,
        "field_strength": site.field_strength,
        "session_date": f"{2010 + years}-06-01",
        "licence": "simulated",
        "split": split_of(person_id, IndexSettings()),
    }
