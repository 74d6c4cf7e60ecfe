"""`braing3n report`: the HTML page of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from braing3n.cli.common import SettingsOption, command, parse_settings

app = typer.Typer(help="One self-contained HTML file from a results folder.", no_args_is_help=True)

ResultsOption = Annotated[Path, typer.Option("--results", help="Results folder (docs/data-contract.md).")]
ConfigOption = Annotated[
    list[Path], typer.Option("--config", help="Configuration file(s) of the run, for thresholds, seeds and settings.")
]
BenchmarksOption = Annotated[
    Path | None, typer.Option("--benchmarks", help="Snakemake's benchmark TSVs; default RESULTS/benchmarks.")
]
AtlasOption = Annotated[Path | None, typer.Option("--atlas", help="Conformed atlas, for its outline in the mosaics.")]
PhantomOption = Annotated[
    list[str], typer.Option("--phantom", help="Cohort that is simulated; default: those that the configuration tells.")
]


def make_run(results, settings, config, benchmarks, atlas, phantom, figures):
    """The options that `report build` and `figures make` share -> a Run."""
    from braing3n.config.training import ReportSettings
    from braing3n.reporting.run import Run, phantom_cohorts, read_config

    content = read_config(config)
    return Run(
        results=results,
        settings=parse_settings(ReportSettings, settings),
        config=content,
        benchmarks=benchmarks,
        atlas=atlas,
        phantom=tuple(phantom) or phantom_cohorts(content),
        figures=figures,
    )


@app.callback()
def _group() -> None:
    """Keeps the verb in the command line while there is one verb only."""


@app.command("build")
@command
def build(
    results: ResultsOption,
    settings: SettingsOption,
    out: Annotated[Path, typer.Option("--out", help="HTML file to write.")],
    figures: Annotated[
        Path | None, typer.Option("--figures", help="Folder of the figures; default RESULTS/figures.")
    ] = None,
    reuse_figures: Annotated[
        bool, typer.Option("--reuse-figures", help="Take the figures that `braing3n figures make` drew; draw none.")
    ] = False,
    benchmarks: BenchmarksOption = None,
    config: ConfigOption = [],  # noqa: B006 - typer reads it, nobody changes it
    atlas: AtlasOption = None,
    phantom: PhantomOption = [],  # noqa: B006 - idem
) -> None:
    """Draw the figures and write the page."""
    from braing3n.reporting.build import build as build_page
    from braing3n.reporting.drawing import draw

    run = make_run(results, settings, config, benchmarks, atlas, phantom, figures)
    if not reuse_figures:
        draw(run)
    build_page(run, out)
    typer.echo(f"report written to {out}")
