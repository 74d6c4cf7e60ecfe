"""Indexing 35,309 volumes of eighteen cohorts, and one BIDS dataset beside bids2table, in one run.

    python -m benchmarks.index [--fraction 1.0] [--bids-subjects 10000] [--keep DIR]

The tree has the paper's sizes (Table 3) in the cohorts' own layouts, with true headers and clinical tables. The corpus
summary is printed beside the paper's. bids2table is installed into an environment of its own.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

import yaml

from benchmarks.common import case, finish, timed
from braing3n.cohorts.definition import load_definition
from braing3n.cohorts.summary import corpus_summary
from braing3n.files import read_parquet
from braing3n.phantom.layouts import LAYOUTS, write_layout
from braing3n.phantom.layouts.tree import Tree

PEER = "bids2table==2.3.1"
SECONDS, MEBIBYTES = 60.0, 1024.0
THEIRS = """
import sys, time
import bids2table
best = float("inf")
for _ in range(3):
    start = time.perf_counter()
    table = bids2table.index_dataset(sys.argv[1])
    best = min(best, time.perf_counter() - start)
print(table.num_rows, best)
"""
OURS = """
import sys, time
from braing3n.cohorts.definition import load_definition
from braing3n.cohorts.scan import scan_cohort
definition = load_definition("BENCH", sys.argv[2])
best = float("inf")
for _ in range(3):
    start = time.perf_counter()
    rows = scan_cohort(definition, sys.argv[1]).rows
    best = min(best, time.perf_counter() - start)
print(len(rows), best)
"""


def write_corpus(root: Path, fraction: float) -> Path:
    """Eighteen cohorts with the paper's counts (or a part of them), and the configuration that points at them."""
    for name in LAYOUTS:
        paper = load_definition(name).paper
        subjects = max(4, round(paper.subjects * fraction))
        volumes = max(subjects * (paper.volumes // paper.subjects), round(paper.volumes * fraction))
        write_layout(name, root / name, volumes, subjects)
    config = root / "cohorts.yaml"
    content = {"pathvars": {"results": str(root / "results")}, "cohorts": {n: {"root": str(root / n)} for n in LAYOUTS}}
    config.write_text(yaml.safe_dump(content))
    return config


def write_bids(root: Path, subjects: int) -> Path:
    """A raw BIDS dataset with one T1 a subject; returns a definition for it."""
    tree = Tree(root)
    tree.text("dataset_description.json", [['{"Name": "bench"', ' "BIDSVersion": "1.10.0"}']])
    tree.text("participants.tsv", [["participant_id", "age"], *([f"sub-{i:05d}", 30] for i in range(subjects))], "\t")
    for i in range(subjects):
        tree.nifti(f"sub-{i:05d}/ses-1/anat/sub-{i:05d}_ses-1_T1w.nii.gz")
    definition = root.parent / "BENCH.yaml"
    licence = {"name": "CC0", "access": "synthetic"}
    content = {"name": "BENCH", "title": "benchmark", "prefix": "BENCH", "licence": licence, "layout": "bids"}
    definition.write_text(yaml.safe_dump(content))
    return definition


def peer_python(folder: Path) -> Path:
    """Interpreter of a fresh environment with the peer."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", PEER], check=True)
    return python


def timed_rows(command: list[str | Path], rows: int) -> float:
    """Best of three in one process after imports; the process prints rows and seconds."""
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    if int(output[-2]) != rows:
        raise SystemExit(f"{command[0]} found {output[-2]} images, not {rows}")
    return float(output[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fraction", type=float, default=1.0, help="part of the corpus")
    parser.add_argument("--bids-subjects", type=int, default=10000)
    parser.add_argument("--keep", type=Path, help="write the trees here and leave them")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        start = time.perf_counter()
        config = write_corpus(folder / "corpus", arguments.fraction)
        bids = write_bids(folder / "bids", arguments.bids_subjects)
        print(f"trees written in {time.perf_counter() - start:.0f} s")
        command = ["braing3n", "index", "--config", "config/config.yaml", "--config", str(config)]
        seconds, memory = timed([str(Path(sys.executable).with_name(command[0])), *command[1:]])
        again, _ = timed([str(Path(sys.executable).with_name(command[0])), *command[1:]])
        summary = corpus_summary(read_parquet(folder / "corpus/results/index/volumes.parquet"))
        print(summary.astype(object).where(summary.notna(), "").to_string(index=False))
        ours = timed_rows([sys.executable, "-c", OURS, folder / "bids", bids], arguments.bids_subjects)
        peer = peer_python(folder / "peer")
        theirs = timed_rows([peer, "-c", THEIRS, folder / "bids"], arguments.bids_subjects)
    options = {"unit": "s", "goal": 1.0, "larger_is_better": False}
    name = f"BIDS dataset of {arguments.bids_subjects:,} T1, one process"
    cases = [
        case("35,309 volumes of 18 cohorts", peer="the time allowed", ours=seconds, theirs=SECONDS, **options),
        case("peak memory", peer="the memory allowed", ours=memory, theirs=MEBIBYTES, **options | {"unit": "MiB"}),
        case(name, peer=PEER, ours=ours, theirs=theirs, **options),
    ]
    equal = bool(summary["equal"].dropna().all())
    finish("index", cases, fraction=arguments.fraction, again_s=again, equals_table_3=equal, load=os.getloadavg()[0])


if __name__ == "__main__":
    main()
