"""Does the MAE learn anatomy? Linear probes of its frozen features on phantoms with known truth.

    python -m benchmarks.mae_learning [--volumes 440] [--settings JSON] [--folder build/mae_learning]

Makes registered, skull-stripped phantom volumes directly on the final grid (docs/phantom.md), trains an MAE that fits a
CPU, and probes age, sex, disease and modality with folds grouped by person. Peers: principal components of the raw
intensities, and the same network before training. The training resumes where it stopped; on two cores the whole takes
an hour and a half.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml

from benchmarks.common import case, finish
from braing3n.config import load_config, merge
from braing3n.config.training import MAESettings, ProbeSettings
from braing3n.encoders.encode import encode_cohort
from braing3n.phantom.final_grid import COHORT, write_final_grid_set
from braing3n.probing.panel import run_panel
from braing3n.training.mae import train_mae
from braing3n.volumes.metadata import load_metadata

# What a CPU trains in an hour; everything else is as shipped.
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
    {"id": "A3", "name": "hc-vs-ad", "title": "HC vs AD", "kind": "classification", "field": "diagnosis"}
    | {"classes": {"HC": ["HC"], "AD": ["AD"]}},
    {"id": "A4", "name": "modality", "title": "Modality", "kind": "classification", "field": "modality"}
    | {"classes": "all", "slices": ["pooled"]},
)


def comparisons(table: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """The MAE beside each control, all modalities together and T1 alone, one scan a person."""
    values = table[table["table"] == "recommended"].set_index(["encoder", "task", "slice", "metric"])["value"]
    for task, part in ((t["name"], part) for t in TASKS for part in t.get("slices", ("pooled", "T1"))):
        metric, unit = ("mae", "years") if task == "age" else ("auc", "AUC")
        for peer in ("pca", "untrained"):
            ours, theirs = (float(values[encoder, task, part, metric]) for encoder in ("mae", peer))
            larger = metric == "auc"
            yield case(
                f"{task}, {part}", peer=peer, ours=ours, theirs=theirs, unit=unit, goal=1.0, larger_is_better=larger
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--volumes", type=int, default=440)
    parser.add_argument("--seed", type=int, default=2025)
    parser.add_argument("--folder", type=Path, default=Path("build/mae_learning"))
    parser.add_argument("--atlas", type=Path, default=Path("build/test-cache/atlas"), help="of `braing3n atlas fetch`")
    parser.add_argument("--settings", type=json.loads, default={}, help="JSON merged over the CPU size's settings")
    parser.add_argument("--name", default="mae_learning", help="name of the result")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    results, models = options.folder, options.folder / "models" / options.name
    path = results / "metadata" / "volumes.parquet"
    if not path.exists():
        write_final_grid_set(options.atlas, results, options.volumes, options.seed)
    metadata = load_metadata(path)
    shipped = load_config(["config/config.yaml"]).mae.model_dump(mode="json")
    settings = MAESettings.model_validate(merge(merge(shipped, CPU_SIZE), options.settings))
    card = train_mae(metadata, results, settings, models)

    for encoder in ("mae", "untrained", "pca"):
        encode_cohort(encoder, metadata, results, COHORT, models, results / f"features/{encoder}/{COHORT}.parquet")
    tasks = results / "tasks.yaml"
    tasks.write_text(yaml.safe_dump({"version": 1, "tasks": [task | WHY for task in TASKS]}))
    encoders = ("mae", "mae-brain", "untrained", "untrained-brain", "pca", "demographics", "site")
    table = run_panel(metadata, results, ProbeSettings(tasks=tasks, encoders=encoders))
    kept = table[(table["table"] == "recommended") & table["slice"].isin(["pooled", "T1", "T2", "FLAIR"])]
    kept = kept[kept["metric"].str.fullmatch(r"(auc|mae|r2)(_minus_(pca|untrained)(_p)?)?") & kept["value"].notna()]
    columns = ["encoder", "task", "slice", "metric", "value", "ci_low", "ci_high", "n_subjects", "n_scans"]
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
