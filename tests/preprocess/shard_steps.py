"""A cohort of text files and steps that do what those files say; registered like the real steps.

Run as a script, it is the `braing3n` command with these steps in its registry.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd

from braing3n.cohorts.schema import typed
from braing3n.config import Settings
from braing3n.errors import BrainG3NError, ExcludeVolume
from braing3n.files import atomic_path, read_parquet, short_hash, write_parquet
from braing3n.preprocess import naming
from braing3n.preprocess.shard import run_shard
from braing3n.preprocess.steps import Job, Product, Step, register_step


class ActSettings(Settings):
    version: int = 1
    suffix: str = ""
    model: bool = True


def act(job: Job, model: Any) -> Product:
    """Do what the source file says, then copy it to the product."""
    source = job.context.root / job.volume.row["source_path"]
    order, _, argument = source.read_text().partition(" ")
    if order == "sleep":
        time.sleep(float(argument))
    elif order == "raise":
        raise ValueError(argument)
    elif order == "complain":
        raise BrainG3NError("is bad", file=source, remedy="make it good")
    elif order == "exclude":
        raise ExcludeVolume(argument)
    elif order == "segfault":
        ctypes.string_at(0)
    elif order == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif order == "kill-once":
        source.with_name("killed").exists() or (
            source.with_name("killed").touch(),
            os.kill(os.getpid(), signal.SIGKILL),
        )
    elif order == "exit":
        os._exit(3)
    elif order == "memory":
        np.empty(1 << 55)
    elif order == "model":
        model()
    out = naming.image_path(job.volume.row, desc=f"act{job.context.settings.suffix}")
    with atomic_path(job.context.output(out)) as temporary:
        temporary.write_text(f"{order} {argument} {os.environ['OMP_NUM_THREADS']}")
        if order == "fill":
            temporary.write_bytes(bytes(int(argument)))
    return Product({"image": out}, {"length": len(argument)})


def act_inputs(job: Job) -> dict[str, Path | str]:
    return {"source": job.context.root / job.volume.row["source_path"]}


def load_nothing(context) -> str:
    if not context.settings.model:
        raise BrainG3NError("weights are missing", file="weights.pth", remedy="fetch them")
    return "model"


def follow(job: Job, model: Any) -> Product:
    """A step in which a session's volumes need what came out for their anchor."""
    out = naming.image_path(job.volume.row, desc="follow")
    content = job.context.image(job.volume).read_text()
    if content.startswith("late"):
        raise ValueError("failed late")
    if job.anchor is not None:
        content += " after " + job.context.image(job.anchor).read_text()
    with atomic_path(job.context.output(out)) as temporary:
        temporary.write_text(content)
    return Product({"image": out})


def follow_inputs(job: Job) -> dict[str, Path | str]:
    return {"image": job.context.image(job.volume)}


def skip_t2(volume, anchor, settings) -> str:
    if volume.row["modality"] == "FLAIR":
        raise ExcludeVolume("no FLAIR please")
    return "T2 is fine as it is" if volume.row["modality"] == "T2" else ""


ACT = register_step(Step("act", ActSettings, act_inputs, act, load=load_nothing, reads_previous=False))
FOLLOW = register_step(Step("follow", ActSettings, follow_inputs, follow, by_session=True, after_anchor=True))
CHOOSY = register_step(Step("choosy", ActSettings, act_inputs, act, skip=skip_t2, reads_previous=False))


@dataclass
class Cohort:
    """A cohort in a temporary folder: `add` volumes, `index` them, `run` steps."""

    folder: Path
    rows: list[dict[str, Any]] = field(default_factory=list)

    @property
    def root(self) -> Path:
        return self.folder / "raw"

    @property
    def results(self) -> Path:
        return self.folder / "results"

    @property
    def shard(self) -> Path:
        return self.results / "index" / "shards" / "TEST" / "0000.parquet"

    def status(self, step: str) -> Path:
        return self.results / "status" / step / "TEST" / "0000.parquet"

    def add(self, path: str, content: str | None = None, *, subject: str | None = None, **columns: Any) -> str:
        """One volume of its own subject unless told otherwise; returns its id."""
        subject = subject or f"S{len(self.rows)}"
        if content is not None:
            (self.root / path).parent.mkdir(parents=True, exist_ok=True)
            (self.root / path).write_text(content)
        row = {
            "volume_id": short_hash("TEST", path),
            "cohort": "TEST",
            "subject_id": f"TEST:{subject}",
            "person_id": f"TEST:{subject}",
            "session_id": "1",
            "run": 1,
            "modality": "T1",
            "source_path": path,
            "source_format": "nifti",
            "source_bytes": 1,
            "source_variant": "raw",
            "entry_stripped": False,
            "entry_bias_corrected": False,
            "entry_defaced": False,
            "entry_space": "native",
            "shares_grid": False,
            "bids_subject": f"TEST{subject}",
            "bids_session": "1",
            "licence": "none",
            "split": "train",
            "shard": "0000",
        }
        self.rows.append({**row, **columns})
        return row["volume_id"]

    def index(self) -> None:
        write_parquet(self.shard, typed(pd.DataFrame(self.rows)), only_if_changed=True)

    def run(
        self, step: Step, previous: str | None = None, settings: Settings | None = None, **options: Any
    ) -> pd.DataFrame:
        """Run a step in this process and return its status table by source path, with JSON columns read."""
        self.index()
        run_shard(
            step,
            shard=self.shard,
            root=self.root,
            results=self.results,
            status=self.status(step.name),
            settings=settings or step.settings(),
            previous=self.status(previous) if previous else None,
            **options,
        )
        return self.read(step.name)

    def read(self, step: str, *, failed: bool = False) -> pd.DataFrame:
        path = self.status(step)
        table = read_parquet(path.with_suffix(".failed.parquet") if failed else path)
        for name in ("outputs", "qc", "versions"):
            table[name] = table[name].map(json.loads)
        names = {row["volume_id"]: row["source_path"] for row in self.rows}
        return table.set_index(table["volume_id"].map(names))

    def product(self, row: pd.Series, name: str = "image") -> Path:
        return self.results / PurePosixPath(row["outputs"][name])

    def command(self, step: str, *options: str) -> subprocess.Popen:
        """The same as a command of its own, in its own process group."""
        self.index()
        arguments = ["--shard", self.shard, "--root", self.root, "--results", self.results]
        arguments += ["--status", self.status(step), "--settings", "{}", *options]
        return subprocess.Popen(
            [sys.executable, __file__, "shard", step, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )


if __name__ == "__main__":
    import shard_steps  # noqa: F401 - under its own name too, by which workers find the steps

    from braing3n.cli.main import app

    app()
