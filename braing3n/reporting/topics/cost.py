"""What the run cost, and what it takes to repeat it: seconds, memory, versions, seeds, settings."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

import braing3n
from braing3n.files import read_json
from braing3n.reporting.drawing import Drawing, Drawn
from braing3n.reporting.page import (
    Block,
    Code,
    Fold,
    Notice,
    Text,
    count,
    duration,
    fixed,
    number,
    plain,
    plural,
    table,
)
from braing3n.reporting.run import AbsentError, Run
from braing3n.reporting.style import BLUE, GRID, ORANGE, save_chart

TITLE = "Cost and provenance"
LEAD = "Wall time and peak memory of every rule as Snakemake measured them, and what is needed to repeat the run."
SOURCE = "benchmarks/**/*.tsv"
PACKAGES = (
    "torch",
    "numpy",
    "scipy",
    "scikit-learn",
    "antspyx",
    "simpleitk",
    "deepbet",
    "dcm2niix",
    "nibabel",
    "snakemake",
)


def read_benchmarks(folder: Path) -> pd.DataFrame:
    """All benchmark TSVs as one table: `rule, job, s, max_rss (MiB), cpu_time (s)`; unreadable files are skipped.

    Snakemake writes `<benchmarks>/<rule>.tsv` or `<benchmarks>/<rule>/.../<job>.tsv`, a row a repeat.
    """
    rows = []
    for path in sorted(folder.rglob("*.tsv")) if folder.is_dir() else []:
        relative = path.relative_to(folder).with_suffix("")
        try:
            table = pd.read_csv(path, sep="\t", na_values=["-", "NA"])
        except (OSError, ValueError):
            continue
        for _, row in table.iterrows():
            numbers = {name: pd.to_numeric(row.get(name), errors="coerce") for name in ("s", "max_rss", "cpu_time")}
            rows.append({"rule": relative.parts[0], "job": relative.as_posix(), **numbers})
    return pd.DataFrame(rows, columns=["rule", "job", "s", "max_rss", "cpu_time"])


def by_rule(benchmarks: pd.DataFrame) -> pd.DataFrame:
    """Per rule: jobs, summed wall and CPU seconds, the longest job, the highest memory."""
    groups = benchmarks.groupby("rule")
    frame = pd.DataFrame(
        {
            "jobs": groups["job"].nunique(),
            "s": groups["s"].sum(),
            "longest": groups["s"].max(),
            "cpu": groups["cpu_time"].sum(min_count=1),
            "max_rss": groups["max_rss"].max(),
        }
    )
    return frame.sort_values("s", ascending=False).reset_index()


def gpu_hours(cards: dict[str, dict[str, Any]]) -> float:
    """GPU-hours of the trainings, from their cards; 0 when all ran on CPU."""
    return sum(float(card.get("gpu_hours") or 0) for card in cards.values())


def drawings(run: Run) -> dict[str, Drawing]:
    return {"rules": lambda stem: _draw(run, stem)}


def _draw(run: Run, stem: Path) -> Drawn:
    import matplotlib.pyplot as plt

    rules = by_rule(_benchmarks(run))[::-1]
    figure, (time_axis, memory_axis) = plt.subplots(1, 2, figsize=(9, 0.9 + 0.27 * len(rules)), sharey=True)
    bars = time_axis.barh(rules["rule"], rules["s"] / 60, color=BLUE, height=0.72)
    time_axis.bar_label(bars, [duration(s) for s in rules["s"]], padding=4, fontsize=8.5)
    time_axis.set_xlabel("wall time, all jobs [min]")
    bars = memory_axis.barh(rules["rule"], rules["max_rss"].fillna(0) / 1024, color=ORANGE, height=0.72)
    memory_axis.bar_label(bars, [fixed(m / 1024, 1) for m in rules["max_rss"]], padding=4, fontsize=8.5)
    memory_axis.set_xlabel("peak memory of a job [GiB]")
    for axis in (time_axis, memory_axis):
        axis.margins(x=0.22)
        axis.grid(True, axis="x", color=GRID)
        axis.tick_params(axis="y", length=0)
    return Drawn(
        [p.name for p in save_chart(figure, stem)],
        f"Wall time summed over a rule's jobs, and the highest memory of one job. "
        f"n = {plural(int(rules['jobs'].sum()), 'job')} of {plural(len(rules), 'rule')}.",
        "Bars: wall time and peak memory of each rule",
        [SOURCE],
    )


def _benchmarks(run: Run) -> pd.DataFrame:
    benchmarks = read_benchmarks(run.benchmarks)
    if benchmarks.empty:
        raise AbsentError("no rule has been timed by Snakemake", file=run.relative(run.benchmarks))
    return benchmarks


def cost_table(run: Run) -> list[Block]:
    rules = by_rule(_benchmarks(run))
    total = {
        "rule": "all",
        "jobs": rules["jobs"].sum(),
        "s": rules["s"].sum(),
        "longest": rules["longest"].max(),
        "cpu": rules["cpu"].sum(min_count=1),
        "max_rss": rules["max_rss"].max(),
    }
    rules = pd.concat([rules, pd.DataFrame([total])], ignore_index=True)
    labels = {"rule": "rule", "jobs": "jobs", "s": "wall time", "longest": "longest job", "cpu": "CPU time"}
    labels["max_rss"] = "peak memory [MiB]"
    formats = {"jobs": count, "s": duration, "longest": duration, "cpu": duration, "max_rss": lambda v: fixed(v, 0)}
    hours = gpu_hours(run.cards)
    gpus = f"Trainings used {number(hours)} GPU-hours." if hours else "No training ran on a GPU."
    return [table(rules, "Cost of each rule", SOURCE, labels, formats), Text(gpus)]


def versions_table(run: Run) -> list[Block]:
    """Versions that the steps and models recorded, beside those of the environment that made this page."""
    rows = [{"name": "BrainG3N (this page)", "version": braing3n.__version__, "recorded by": "this page"}]
    rows.append({"name": "Python", "version": platform.python_version(), "recorded by": "this page"})
    for name in PACKAGES:
        try:
            rows.append({"name": name, "version": metadata.version(name), "recorded by": "this page"})
        except metadata.PackageNotFoundError:
            continue
    recorded: dict[tuple[str, str], set[str]] = {}
    for where, versions in _recorded_versions(run):
        for name, version in versions.items():
            recorded.setdefault((name, str(version)), set()).add(where)
    for (name, version), where in sorted(recorded.items()):
        rows.append({"name": name, "version": version, "recorded by": ", ".join(sorted(where))})
    formats = {"version": plain}
    return [Fold("Versions", [table(pd.DataFrame(rows), "Versions", "status tables, cards", None, formats)])]


def _recorded_versions(run: Run) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, card in run.cards.items():
        yield f"models/{name}", card.get("versions") or {}
    try:
        status = run.status()
    except AbsentError:
        return
    import json

    for step, text in status[["step", "versions"]].drop_duplicates().itertuples(index=False):
        yield step, json.loads(text or "{}")


def seeds_table(run: Run) -> list[Block]:
    if run.config is None:
        return [Notice("Seeds and settings are not shown: no --config file was given.", "absent")]
    rows = [{"setting": key, "seed": value} for key, value in walk(run.config) if key.split(".")[-1].endswith("seed")]
    return [Fold("Seeds", [table(pd.DataFrame(rows), "Seeds", "--config", None, {"seed": plain})])]


def settings_text(run: Run) -> list[Block]:
    blocks: list[Block] = []
    if run.config is not None:
        blocks.append(Fold("All settings", [Code(yaml.safe_dump(run.config, sort_keys=False))]))
    atlas = run.atlas / "atlas.json" if run.atlas else None
    if atlas and atlas.exists():
        blocks.append(Fold("Atlas", [Code(yaml.safe_dump(read_json(atlas), sort_keys=False))]))
    return blocks


def walk(content: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of nested mappings as `a.b.c`, value."""
    if isinstance(content, dict):
        for key, value in content.items():
            yield from walk(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, content


PARTS = (cost_table, versions_table, seeds_table, settings_text)
