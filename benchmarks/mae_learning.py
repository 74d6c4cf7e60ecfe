"""Does the MAE learn anatomy? Linear probes of its frozen features on phantoms with known truth.

    python -m benchmarks.mae_learning [--persons 230] [--settings JSON] [--folder build/mae_learning]

Makes more than 400 registered, skull-stripped phantom volumes directly on the final grid (the anatomy simulator of the
phantom cohorts, docs/phantom.md), trains an MAE that fits a CPU, and probes age, sex, disease and modality with folds
grouped by person. Peers: principal components of the raw intensities, and the same network before training. Volumes
and training resume where they stopped; on two cores the whole takes some hours.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml

from benchmarks.common import case, finish
from braing3n.cohorts.splits import split_of
from braing3n.config import load_config, merge
from braing3n.config.data import IndexSettings
from braing3n.config.training import MAESettings, ProbeSettings
from braing3n.encoders.encode import encode_shard
from braing3n.files import write_parquet
from braing3n.geometry import VOLUME_SHAPE, cropped_affine
from braing3n.phantom.anatomy import load_anatomy
from braing3n.phantom.people import Site, diagnosis_of, draw_person, draw_scan, head_at, spread_ages
from braing3n.phantom.simulate import simulate
from braing3n.phantom.truth import Grid, rigid
from braing3n.probing.panel import run_panel
from braing3n.training.mae import train_mae
from braing3n.volumes.store import write_store

SHARD = 16
SITES = (
    Site("A", "Siemens", "Prisma", 3.0, gain=700, gamma=1.0, noise=0.02, bias=0.05),
    Site("B", "GE", "MR750", 3.0, gain=1100, gamma=0.9, noise=0.03, bias=0.05),
    Site("C", "Philips", "Achieva", 1.5, gain=900, gamma=1.1, noise=0.04, bias=0.05),
)
# What a CPU trains in hours; everything else is as shipped.
CPU_SIZE = {
    "model": {
        "hidden": 192,
        "depth": 4,
        "heads": 4,
        "mlp": 768,
        "decoder_hidden": 192,
        "decoder_depth": 1,
        "decoder_heads": 4,
        "decoder_mlp": 384,
    },
    "train": {
        "epochs": 40,
        "batch_size": 2,
        "learning_rate": 1e-3,
        "precision": "fp32",
        "validate_every": 2,
        "checkpoint_every": 1,
        "stop_before_s": 0,
    },
}
WHY = {"status": "extra", "evidence": "planted in the phantoms"}
TASKS = (
    {"id": "A1", "name": "age", "title": "Age", "unit": "years", "kind": "regression", "field": "age_at_scan"},
    {"id": "A2", "name": "sex", "title": "Sex", "kind": "classification", "field": "sex"}
    | {"classes": {"F": ["F"], "M": ["M"]}},
    {"id": "A3", "name": "hc-vs-ad", "title": "HC vs AD, from 60", "kind": "classification", "field": "diagnosis"}
    | {"classes": {"HC": ["HC"], "AD": ["AD"]}, "where": {"age_band": ["old"]}},
    {"id": "A4", "name": "modality", "title": "Modality", "kind": "classification", "field": "modality"}
    | {"classes": "all", "slices": ["pooled"]},
)


def draw_scans(persons: int, seed: int) -> pd.DataFrame:
    """The truth, a row a scan: everybody has a T1, half a T2, a quarter a FLAIR, a fifth a T1 two years later."""
    rng = np.random.default_rng(seed)
    rows = []
    for number, age in enumerate(spread_ages(persons, 20, 90, rng)):
        # Disease only beyond 60, half of the persons there: healthy people of the same age are the contrast.
        severity = float(rng.choice([0.0, 0.5, 1.0], p=[0.5, 0.2, 0.3])) if age >= 60 else 0.0
        common = {
            "person": number,
            "sex": "FM"[number % 2],
            "severity": severity,
            "site": int(rng.integers(len(SITES))),
        }
        visits = [("1", age, "T1")]
        visits += [("1", age, modality) for modality, share in (("T2", 0.5), ("FLAIR", 0.25)) if rng.random() < share]
        visits += [("2", age + 2, "T1")] if rng.random() < 0.2 else []
        rows += [
            {**common, "session": s, "age": a, "modality": m, "seed": len(rows) + k}
            for k, (s, a, m) in enumerate(visits)
        ]
    return pd.DataFrame(rows)


def metadata_of(scans: pd.DataFrame) -> pd.DataFrame:
    persons = "PHANTOM:" + scans["person"].map("{:04d}".format)
    order = np.arange(len(scans))
    return pd.DataFrame(
        {
            "volume_id": [f"{n:016x}" for n in order],
            "cohort": "PHANTOM",
            "subject_id": persons,
            "person_id": persons,
            "session_id": scans["session"],
            "modality": scans["modality"],
            "age_at_scan": scans["age"],
            "age_is_binned": False,
            "age_band": np.where(scans["age"] >= 60, "old", "young"),
            "sex": scans["sex"],
            "diagnosis": scans["severity"].map(diagnosis_of),
            "site": scans["site"].map(lambda n: SITES[n].name),
            "split": [split_of(person, IndexSettings()) for person in persons],
            "shard": [f"{n // SHARD:04d}" for n in order],
        }
    )


def acquire(scan: pd.Series, anatomy, seed: int) -> np.ndarray:
    """One volume as the pipeline would leave it: on the final grid, brain only, small errors of registration."""
    rng = np.random.default_rng((seed, int(scan["seed"])))
    person = draw_person(scan["sex"], np.random.default_rng((seed, 1, int(scan["person"]))))
    affine = rigid(rng.normal(0, 0.3, 3), rng.normal(0, 0.3, 3))
    head = head_at(person, scan["age"], scan["severity"], affine)
    site = SITES[scan["site"]]
    simulation = simulate(
        anatomy, head, draw_scan(site, scan["modality"], rng, stripped=True), Grid(VOLUME_SHAPE, cropped_affine())
    )
    return np.where(simulation.brain, simulation.volume.clip(0), 0).astype(np.float32)


def make_volumes(results: Path, atlas: Path, persons: int, seed: int) -> pd.DataFrame:
    """Stores of all volumes, those that exist already left alone -> metadata."""
    scans = draw_scans(persons, seed)
    metadata = metadata_of(scans)
    anatomy = load_anatomy(atlas)
    stored = []
    for shard, rows in metadata.groupby("shard"):
        path = results / f"volumes/PHANTOM/{shard}.npy"
        if not path.with_suffix(".parquet").exists():
            volumes = (acquire(scans.loc[index], anatomy, seed) for index in rows.index)
            write_store(path, rows["volume_id"].tolist(), volumes)
            logging.info("volumes of shard %s made", shard)
        table = pd.read_parquet(path.with_suffix(".parquet")).rename(columns={"row": "store_row"})
        stored.append(table.drop(columns="sha256").assign(store_file=str(path.relative_to(results))))
    metadata = metadata.merge(pd.concat(stored), on="volume_id", validate="1:1")
    write_parquet(results / "metadata.parquet", metadata)
    return metadata


def comparisons(table: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """The MAE beside each control, all modalities together, one scan a person."""
    rows = table[(table["table"] == "recommended") & (table["slice"] == "pooled")]
    values = rows.set_index(["encoder", "task", "metric"])["value"]
    for task in ("age", "sex", "hc-vs-ad", "modality"):
        metric, unit = ("mae", "years") if task == "age" else ("auc", "AUC")
        for peer in ("pca", "untrained"):
            numbers = {"ours": values["mae", task, metric], "theirs": values[peer, task, metric]}
            yield case(task, peer=peer, unit=unit, goal=1.0, larger_is_better=metric == "auc", **numbers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--persons", type=int, default=230)
    parser.add_argument("--seed", type=int, default=2025)
    parser.add_argument("--folder", type=Path, default=Path("build/mae_learning"))
    parser.add_argument("--atlas", type=Path, default=Path("build/test-cache/atlas"), help="of `braing3n atlas fetch`")
    parser.add_argument("--settings", type=json.loads, default={}, help="JSON merged over the CPU size's settings")
    parser.add_argument("--name", default="mae_learning", help="name of the result")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    results, models = options.folder, options.folder / "models" / options.name
    metadata = make_volumes(results, options.atlas, options.persons, options.seed)
    shipped = load_config(["config/config.yaml"]).mae.model_dump(mode="json")
    settings = MAESettings.model_validate(merge(merge(shipped, CPU_SIZE), options.settings))
    card = train_mae(metadata, results, settings, models)

    for encoder in ("mae", "untrained", "pca"):
        for shard in metadata["shard"].unique():
            encode_shard(
                encoder,
                metadata,
                results,
                "PHANTOM",
                shard,
                models,
                results / f"features/{encoder}/PHANTOM/{shard}.parquet",
            )
    tasks = results / "tasks.yaml"
    tasks.write_text(yaml.safe_dump({"version": 1, "tasks": [task | WHY for task in TASKS]}))
    encoders = ("mae", "mae-brain", "untrained", "untrained-brain", "pca", "demographics", "site")
    table = run_panel(metadata, results, ProbeSettings(tasks=tasks, encoders=encoders))
    kept = table[table["metric"].isin(["auc", "mae", "r2", "balanced_accuracy"])]
    columns = ["table", "encoder", "task", "slice", "metric", "value", "ci_low", "ci_high", "n_subjects", "n_scans"]
    finish(
        options.name,
        list(comparisons(table)),
        volumes=len(metadata),
        persons=int(metadata["person_id"].nunique()),
        settings=settings.model_dump(mode="json"),
        threads=torch.get_num_threads(),
        training={key: card[key] for key in ("metrics", "checks", "steps", "cpu_hours", "volumes_per_second")},
        rows=json.loads(kept[columns].to_json(orient="records")),
    )


if __name__ == "__main__":
    main()
