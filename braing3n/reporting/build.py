"""One HTML file from a results folder: nothing in it is computed elsewhere or typed by hand."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Callable, Iterable
from pathlib import Path

import jinja2

import braing3n
from braing3n.files import write_text
from braing3n.reporting import summary
from braing3n.reporting.drawing import TOPICS, manifest_of, topic_module
from braing3n.reporting.page import Block, Notice, Section, picture
from braing3n.reporting.run import AbsentError, Run, one_line

log = logging.getLogger(__name__)

TEMPLATES = Path(__file__).parent / "templates"


def build(run: Run, out: Path, now: datetime.datetime | None = None) -> None:
    """Compose the page from the tables and the drawn figures, and write it atomically.

    A section whose input is missing or broken shows the reason; the others are not touched by it.
    """
    now = now or datetime.datetime.now(datetime.UTC)
    sections = [section(run, topic) for topic in TOPICS]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template("page.html.j2").render(
        title=run.settings.title,
        subtitle=summary.subtitle(run, now),
        css=(TEMPLATES / "page.css").read_text(),
        opening=guarded([lambda: summary.warnings(run)]),
        facts=summary.facts(run),
        sections=[Section("summary", "In short", "", guarded(summary.parts(run))), *(s for s in sections if s.blocks)],
        footer=f"BrainG3N {braing3n.__version__}, from {run.results.as_posix()}. Research software, not for diagnosis.",
    )
    write_text(out, html)


def section(run: Run, topic: str) -> Section:
    """A topic's section: its figures first, then its parts."""
    module = topic_module(topic)
    parts = [lambda: figures(run, topic), *(lambda part=part: part(run) for part in module.PARTS)]
    return Section(topic, module.TITLE, module.LEAD, _once(guarded(parts)))


def figures(run: Run, topic: str) -> list[Block]:
    """The drawn figures of a topic, and the reasons of those that could not be drawn."""
    manifest = manifest_of(run, topic)
    blocks: list[Block] = [picture(run.figures / topic, **figure) for figure in manifest["figures"]]
    blocks += [Notice(reason, "absent") for reason in manifest["absent"]]
    blocks += [Notice(f"A figure could not be drawn: {reason}", "problem") for reason in manifest["problems"]]
    return blocks


def guarded(parts: Iterable[Callable[[], list[Block]]]) -> list[Block]:
    """The blocks of all parts; one that fails leaves its one-line reason in its place."""
    blocks: list[Block] = []
    for part in parts:
        try:
            blocks += part()
        except AbsentError as error:
            blocks.append(Notice(one_line(error), "absent"))
        except Exception as error:  # whatever is wrong with one table must not cost the reader the others
            log.exception("a part of the report failed")
            blocks.append(Notice(one_line(error), "problem"))
    return blocks


def _once(blocks: list[Block]) -> list[Block]:
    """Several parts may miss the same file: say it once."""
    seen: set[str] = set()
    kept = []
    for block in blocks:
        if isinstance(block, Notice):
            if block.text in seen:
                continue
            seen.add(block.text)
        kept.append(block)
    return kept
