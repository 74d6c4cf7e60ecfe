"""Planning 35,309 volumes: our shards beside one job a volume and step, both dry runs of Snakemake in this run.

    python -m benchmarks.dag [--fraction 1.0]

`--fraction` scales the corpus down for a quick look. The whole takes about eight idle minutes: four for the peer, three
for marking every file of our plan as made, before the plan with nothing to do. Seconds are wall time; processor
seconds stand beside them, since only those tell on a busy machine.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

from benchmarks.common import case, finish

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
REPOSITORY = Path(__file__).parents[1]


@dataclass(frozen=True)
class Cost:
    """What a command took."""

    wall_s: float
    cpu_s: float
    """Of it and its children, user and system."""
    memory_mib: float
    """Peak resident memory of its largest process."""
    jobs: int | None
    """Planned, where the command prints them."""


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


def measure(command: list[str], folder: Path, times: int = 3) -> Cost:
    """The quickest of a few runs of a command in `folder`; its output is shown when it fails."""
    costs = []
    for _ in range(times):
        with tempfile.TemporaryFile("w+") as output:
            start = time.perf_counter()
            process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=subprocess.STDOUT)
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - start
            output.seek(0)
            text = output.read()
        if status:
            raise SystemExit(f"{' '.join(command)} failed:\n{text[-4000:]}")
        totals = [int(line.split()[1]) for line in text.splitlines() if line.startswith("total ")]
        cpu, memory = usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**10
        costs.append(Cost(seconds, cpu, memory, totals[-1] if totals else None))
    best = min(costs, key=lambda cost: cost.wall_s)
    print(
        f"{best.wall_s:7.1f} s wall {best.cpu_s:7.1f} s CPU {best.memory_mib:7.0f} MiB  {' '.join(command)}", flush=True
    )
    return best


def copy_workflow(folder: Path) -> None:
    """The workflow's files, so that marking outputs as made leaves no trace in the repository."""
    for name in ("workflow", "config", "profiles", "envs"):
        shutil.copytree(REPOSITORY / name, folder / name)
    shutil.copy(REPOSITORY / "Snakefile", folder)
    (folder / "slurm").symlink_to("profiles/slurm")


def finish_all(folder: Path, config: Path) -> None:
    """Every file that the workflow declares, made and recorded by Snakemake as it would be after a whole run."""
    command = ["snakemake", "all", "--configfile", str(config)]
    summary = subprocess.run([*command, "--summary"], cwd=folder, capture_output=True, text=True, check=True).stdout
    for line in summary.splitlines()[1:]:
        path = Path(line.split("\t")[0])
        if path.suffix:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("made")
        else:
            path.mkdir(parents=True, exist_ok=True)
    touch = [*command, "--touch", "--cores", "1", "--quiet", "all", "--scheduler", "greedy"]
    subprocess.run(touch, cwd=folder, capture_output=True, check=True)


def ours(folder: Path, config: Path) -> dict[str, Cost]:
    """Plans of our workflow on a fresh index, then with everything done."""
    whole = ["snakemake", "all", "-n", "--quiet", "rules", "--profile", "slurm", "--configfile", str(config)]
    one_rule = ["snakemake", "cohort_ixi", "-n", "-R", "n4", "--until", "n4", "--quiet", "rules", "--configfile"]
    costs = {
        "dry_run": measure(whole, folder),
        "one_cohort_one_rule": measure([*one_rule, str(config)], folder),
        "parse": measure(["snakemake", "--list-rules", "--configfile", str(config)], folder),
    }
    print("marking every file as made ...", flush=True)
    finish_all(folder, config)
    costs["nothing_to_do"] = measure(whole, folder)
    if costs["nothing_to_do"].jobs:
        raise SystemExit(f"with everything done, {costs['nothing_to_do'].jobs} jobs are planned")
    return costs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fraction", type=float, default=1.0, help="part of the corpus")
    fraction = parser.parse_args().fraction
    volumes = {name: max(1, round(count * fraction)) for name, count in VOLUMES.items()}
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        config = write_project(root, volumes)
        copy_workflow(root)
        costs = ours(root, config)
        (root / "counts.json").write_text(json.dumps(volumes))
        (root / "per_volume").mkdir()
        (root / "per_volume" / "raw.json").write_text("{}")
        peer = ["snakemake", "all", "-n", "--quiet", "rules", "--snakefile", "benchmarks/per_volume.smk", "--config"]
        peer += [f"counts={root / 'counts.json'}", f"results={root / 'per_volume'}"]
        theirs = measure(peer, REPOSITORY, times=1)

    layout = "Snakemake with one job a volume and step"
    plan = costs["dry_run"]
    cases = [
        case("wall", peer=layout, ours=plan.wall_s, theirs=theirs.wall_s, unit="s", goal=10, larger_is_better=False),
        case(
            "memory",
            peer=layout,
            ours=plan.memory_mib,
            theirs=theirs.memory_mib,
            unit="MiB",
            goal=4,
            larger_is_better=False,
        ),
    ]
    limits = {
        "dry_run_s": (plan.wall_s, 8),
        "memory_mib": (plan.memory_mib, 300),
        "nothing_to_do_s": (costs["nothing_to_do"].wall_s, 10),
        "parse_s": (costs["parse"].wall_s, 2),
    }
    finish(
        "dag",
        cases,
        fraction=fraction,
        volumes=sum(volumes.values()),
        load_before=load,
        limits={name: {"ours": value, "limit": limit, "met": value < limit} for name, (value, limit) in limits.items()},
        commands={name: asdict(cost) for name, cost in (costs | {"per_volume": theirs}).items()},
    )


if __name__ == "__main__":
    main()
