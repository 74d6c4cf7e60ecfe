"""Figures as files: `<figures>/<topic>/<name>.png`, and a manifest that says what each shows.

The page is composed from the manifests alone, so that figures can be drawn by rules of their own.
"""

from __future__ import annotations

import importlib
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType

from braing3n.errors import BrainG3NError
from braing3n.files import read_json, write_json
from braing3n.reporting.run import AbsentError, Run, one_line
from braing3n.reporting.style import styled

log = logging.getLogger(__name__)

TOPICS = (
    "intake",
    "people",
    "mosaics",
    "masks",
    "quality",
    "training",
    "reconstructions",
    "probes",
    "generated",
    "forecast",
    "distances",
    "memorization",
    "others",
    "cost",
)
MANIFEST = "figures.json"


@dataclass(frozen=True)
class Drawn:
    """One figure: what it shows (`caption`, with n and units), for those who cannot see it (`alt`), made from what."""

    files: list[str]
    caption: str
    alt: str
    sources: list[str]
    half: bool = False
    """Narrow enough to stand beside another."""


Drawing = Callable[[Path], Drawn]
"""Draws to a path without suffix."""


def topic_module(topic: str) -> ModuleType:
    if topic not in TOPICS:
        raise BrainG3NError(f"no topic '{topic}'", expected=", ".join(TOPICS))
    return importlib.import_module(f"braing3n.reporting.topics.{topic}")


def draw(run: Run, topics: Iterable[str] = TOPICS) -> None:
    """Draw the topics' figures and manifests. A figure that cannot be drawn is recorded with its reason."""
    for topic in topics:
        start = time.perf_counter()
        manifest = _draw_topic(run, topic)
        write_json(run.figures / topic / MANIFEST, manifest)
        _remove_stale(run.figures / topic, manifest)
        log.info(
            "%s: %d figures, %d not drawn, %.1f s",
            topic,
            len(manifest["figures"]),
            len(manifest["problems"]) + len(manifest["absent"]),
            time.perf_counter() - start,
        )


def _draw_topic(run: Run, topic: str) -> dict[str, list]:
    folder = run.figures / topic
    manifest: dict[str, list] = {"figures": [], "absent": [], "problems": []}
    folder.mkdir(parents=True, exist_ok=True)
    try:
        drawings = topic_module(topic).drawings(run)
    except AbsentError as error:
        return manifest | {"absent": [one_line(error)]}
    except Exception as error:  # a broken input costs its own figures only
        log.exception("%s", topic)
        return manifest | {"problems": [one_line(error)]}
    for name, drawing in drawings.items():
        try:
            with styled():
                manifest["figures"].append(asdict(drawing(folder / name)))
        except AbsentError as error:
            manifest["absent"].append(one_line(error))
        except Exception as error:  # idem
            log.exception("%s/%s", topic, name)
            manifest["problems"].append(f"{name}: {one_line(error)}")
    return manifest


def _remove_stale(folder: Path, manifest: dict[str, list]) -> None:
    """Figures that an earlier run drew and this one did not."""
    current = {name for figure in manifest["figures"] for name in figure["files"]}
    for path in folder.iterdir():
        if path.suffix in (".png", ".svg") and path.name not in current:
            path.unlink()


def manifest_of(run: Run, topic: str) -> dict[str, list]:
    path = run.figures / topic / MANIFEST
    if not path.exists():
        raise AbsentError("have not been drawn", file=f"figures/{topic}", remedy=f"braing3n figures make {topic}")
    return read_json(path)
