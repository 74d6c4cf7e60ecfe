"""Planning 35,309 volumes: our shards beside one job a volume and step, both dry runs of Snakemake in this run.

    python -m benchmarks.dag [--fraction 1.0]

`--fraction` scales the corpus down for a quick look. The whole takes about four minutes, nearly all of it the peer's.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from pathlib import Path

import yaml

from benchmarks.common import case, finish, timed

# Table 3 of the paper: volumes a cohort.
VOLUMES = {
    "ADNI": 10910,
    "PPMI": 3908,
    "NKI-RS": 2455,
    "UPENN-GBM": 2444,
    "HCP-YA": 2226,
    "HBN": 2135,
    "UCSF-PDGM": 1980,
    "BGSP": 1636,
    "ABIDE-II": 1430,
    "FCON1000": 1197,
    "IXI": 1159,
    "ABIDE-I": 984,
    "SCHIZO": 670,
    "ADHD-200": 598,
    "CoRR": 546,
    "OASIS-1": 436,
    "OASIS-2": 373,
    "NKI-RS2": 222,
}
SHARD = 64


def write_project(root: Path, volumes: dict[str, int]) -> Path:
    """A frozen index of these sizes, and the configuration that points at it."""
    index = root / "results" / "index"
    cohorts = {}
    for name, count in volumes.items():
        (index / "shards" / name).mkdir(parents=True)
        shards = {f"{i:04d}": min(SHARD, count - i * SHARD) for i in range(math.ceil(count / SHARD))}
        for shard in shards:
            (index / "shards" / name / f"{shard}.parquet").write_text("rows")
        cohorts[name] = {"n_shards": len(shards), "shards": shards}
    (index / "shards.json").write_text(json.dumps({"version": 1, "cohorts": cohorts}))
    for table in ("volumes", "ledger"):
        (index / f"{table}.parquet").write_text("rows")
    folders = {name: str(root / name) for name in ("results", "resources", "logs", "benchmarks")}
    config = {"pathvars": folders, "cohorts": {name: {"root": str(root / name)} for name in volumes}}
    path = root / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def best_of(count: int, command: list[str]) -> tuple[float, float]:
    return min(timed(command) for _ in range(count))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fraction", type=float, default=1.0, help="part of the corpus")
    fraction = parser.parse_args().fraction
    volumes = {name: max(1, round(count * fraction)) for name, count in VOLUMES.items()}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        config = write_project(root, volumes)
        whole = ["snakemake", "all", "-n", "--quiet", "all", "--profile", "slurm", "--configfile", str(config)]
        seconds, memory = best_of(3, whole)
        one_rule = ["snakemake", "cohort_ixi", "-n", "-R", "n4", "--until", "n4", "--quiet", "all"]
        cohort_seconds, _ = best_of(3, [*one_rule, "--configfile", str(config)])
        parse_seconds, _ = best_of(3, ["snakemake", "--list-rules", "--configfile", str(config)])

        (root / "counts.json").write_text(json.dumps(volumes))
        (root / "raw.json").write_text("{}")
        peer = ["snakemake", "all", "-n", "--quiet", "all", "--snakefile", "benchmarks/per_volume.smk", "--config"]
        peer += [f"counts={root / 'counts.json'}", f"results={root}"]
        start = time.strftime("%H:%M:%S")
        print(f"{start} planning {sum(volumes.values()):,} volumes with one job a volume and step ...", flush=True)
        their_seconds, their_memory = timed(peer)

    layout = "Snakemake with one job a volume and step"
    cases = [
        case("wall", peer=layout, ours=seconds, theirs=their_seconds, unit="s", goal=10, larger_is_better=False),
        case("memory", peer=layout, ours=memory, theirs=their_memory, unit="MiB", goal=4, larger_is_better=False),
    ]
    finish(
        "dag",
        cases,
        volumes=sum(volumes.values()),
        limits={"dry_run_s": [seconds, 8], "memory_mib": [memory, 300], "parse_s": [parse_seconds, 2]},
        one_cohort_one_rule_s=cohort_seconds,
    )


if __name__ == "__main__":
    main()
