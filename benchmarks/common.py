"""What the benchmarks share: the machine in words, the JSON line at the end, a command's wall time and peak memory."""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def machine() -> str:
    """Processor, cores this process may use, and memory, in words."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{model}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB, Python {platform.python_version()}"


def case(
    name: str, *, peer: str, ours: float, theirs: float, unit: str, goal: float, larger_is_better: bool
) -> dict[str, Any]:
    """One comparison. `ratio` is how many times better ours is; `met` says whether it reaches `goal`."""
    ratio = ours / theirs if larger_is_better else theirs / ours
    return {
        "name": name,
        "peer": peer,
        "ours": ours,
        "theirs": theirs,
        "unit": unit,
        "ratio": ratio,
        "goal": goal,
        "met": ratio >= goal,
    }


def finish(name: str, cases: Sequence[dict[str, Any]], **facts: Any) -> None:
    """Keep the result under benchmarks/results/ with date, commit and machine, and print it as the last line."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    result = {"name": name, "machine": machine(), "date": datetime.now(UTC).date().isoformat(), "commit": commit}
    result |= facts
    result |= cases[0] if len(cases) == 1 else {"cases": list(cases)}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))


def timed(command: Sequence[str], **options: Any) -> tuple[float, float]:
    """(wall seconds, peak resident MiB) of a command and what it starts; its output is passed on when it fails."""
    start = time.perf_counter()
    script = "import resource, subprocess, sys; code = subprocess.run(sys.argv[1:]).returncode; "
    script += "print('PEAK', resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr); sys.exit(code)"
    result = subprocess.run([sys.executable, "-c", script, *command], capture_output=True, text=True, **options)
    seconds = time.perf_counter() - start
    if result.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{result.stdout[-2000:]}{result.stderr[-2000:]}")
    peak = int(result.stderr.rsplit("PEAK", 1)[1])
    return seconds, peak / (2**20 if sys.platform == "darwin" else 2**10)


def own_peak() -> float:
    """Peak resident MiB of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
