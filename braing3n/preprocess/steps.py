"""What a preprocessing step is to the shard runner: plain functions on one volume, and a registry of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from braing3n.config import Settings
from braing3n.errors import BrainG3NError

ANCHOR_ORDER = ("T1", "T1c", "T2", "FLAIR")


@dataclass(frozen=True)
class Volume:
    """One volume on its way through the steps: its index row, and what the steps before said of it."""

    row: Mapping[str, Any]
    status: str = "ok"
    reason: str = ""
    error_class: str = ""
    failed_step: str = ""
    outputs: Mapping[str, str] = field(default_factory=dict)
    qc: Mapping[str, float] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    output_sha256: str = ""

    @property
    def id(self) -> str:
        return self.row["volume_id"]

    @property
    def lost(self) -> bool:
        return self.status in ("excluded", "failed")

    def __str__(self) -> str:
        return f"{self.row['modality']} {self.id} ({self.row['source_path']})"


@dataclass(frozen=True)
class Context:
    """What all volumes of one run share."""

    cohort: str
    shard: str
    root: Path
    """The raw cohort."""
    results: Path
    settings: Settings
    atlas: Path | None = None
    threads: int = 1
    """Threads a worker may use."""
    run_id: str = ""

    def output(self, relative: str | PurePosixPath) -> Path:
        return self.results / relative

    def image(self, volume: Volume, name: str = "image") -> Path:
        """A product of the steps before, by its name in `outputs`."""
        if name not in volume.outputs:
            raise BrainG3NError(
                f"has no {name} from the steps before", file=str(volume), remedy="run those steps again"
            )
        return self.results / volume.outputs[name]


@dataclass(frozen=True)
class Job:
    """One volume to work on. `anchor` is the volume of its session that it follows, None if it is that volume."""

    volume: Volume
    anchor: Volume | None
    context: Context


@dataclass(frozen=True)
class Product:
    """What a step made of a volume: name -> path relative to the results, the main file first."""

    outputs: Mapping[str, PurePosixPath]
    qc: Mapping[str, float] = field(default_factory=dict)
    skipped: str = ""
    """Why the image is carried on as it is, though the step left a product such as the mask of a stripped scan."""


def one_thread_each(threads: int, settings: Settings) -> tuple[int, int]:
    """(workers, threads a worker). ITK's filters gain more from a second volume than from a second thread."""
    return threads, 1


def no_reason(volume: Volume, anchor: Volume | None, settings: Settings) -> str:
    return ""


def no_model(context: Context) -> None:
    return None


@dataclass(frozen=True)
class Step:
    """One step of the chain. Functions must be importable by name: they run in worker processes."""

    name: str
    settings: type[Settings]
    """Its section of the configuration; `version` in it counts changes of the step's code."""
    inputs: Callable[[Job], Mapping[str, Path | str]]
    """Files, and facts about the volume, that decide what comes out; a volume is redone when one changes."""
    run: Callable[[Job, Any], Product]
    """Do the work in a worker; calling the second argument gives what `load` loaded."""
    skip: Callable[[Volume, Volume | None, Settings], str] = no_reason
    """Why a volume needs no work, or "". Raises ExcludeVolume to leave it out. Must not read files."""
    load: Callable[[Context], Any] = no_model
    """Loads a model, once a worker and only when there is work."""
    workers: Callable[[int, Settings], tuple[int, int]] = one_thread_each
    tools: Sequence[str] = ()
    """Distributions whose versions are recorded."""
    reads_previous: bool = True
    """Needs the status table of the step before; only the first step does not."""
    uses_atlas: bool = False
    """Needs the folder of the atlas."""
    by_session: bool = False
    """Volumes cannot go on without their session's anchor."""
    after_anchor: bool = False
    """They also need what this step makes of the anchor, and so wait for it."""
    pack: Callable[[Path, Sequence[str], Iterable[Path]], Any] | None = None
    """Gathers all images of the shard into one file: file, volume ids, images."""


STEPS: dict[str, Step] = {}


def register_step(step: Step) -> Step:
    STEPS[step.name] = step
    return step


def get_step(name: str) -> Step:
    import braing3n.preprocess.chain  # noqa: F401 - registers the five steps

    if name not in STEPS:
        raise BrainG3NError(f"there is no preprocessing step '{name}'", expected=", ".join(STEPS))
    return STEPS[name]


def anchor_of(session: Sequence[Volume]) -> Volume:
    """The volume that a session's others are aligned to: its T1, else T1c, T2, FLAIR; the first run of it.

    Excluded volumes cannot be the anchor. Failed ones can: their repair must not change what the others align to.
    """
    candidates = [volume for volume in session if volume.status != "excluded"] or list(session)
    return min(candidates, key=lambda v: (ANCHOR_ORDER.index(v.row["modality"]), int(v.row["run"]), v.id))
