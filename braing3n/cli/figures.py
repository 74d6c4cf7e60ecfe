"""`braing3n figures`: the report's figures as files, by topic."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from braing3n.cli.common import SettingsOption, command
from braing3n.cli.report import AtlasOption, BenchmarksOption, ConfigOption, PhantomOption, ResultsOption, make_run

app = typer.Typer(help="The report's figures as files.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keeps the verb in the command line while there is one verb only."""


@app.command("make")
@command
def make(
    results: ResultsOption,
    settings: SettingsOption,
    topics: Annotated[list[str] | None, typer.Argument(help="Topics to draw; default: all.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder; default RESULTS/figures.")] = None,
    benchmarks: BenchmarksOption = None,
    config: ConfigOption = [],  # noqa: B006 - typer reads it, nobody changes it
    atlas: AtlasOption = None,
    phantom: PhantomOption = [],  # noqa: B006 - idem
) -> None:
    """Draw topics into OUT/<topic>/*.png with a manifest (figures.json) of captions."""
    from braing3n.reporting.drawing import TOPICS, draw

    draw(make_run(results, settings, config, benchmarks, atlas, phantom, out), topics or TOPICS)
