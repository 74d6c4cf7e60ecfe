"""`braing3n phantom`: simulated cohorts with known truth, written as the real ones arrive."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from braing3n.cli.common import SettingsOption, command, parse_settings

app = typer.Typer(help="Simulated cohorts with known truth.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keeps the verb in the command line while there is one verb only."""


@app.command("make")
@command
def make(
    settings: SettingsOption,
    atlas: Annotated[Path, typer.Option("--atlas", help="Folder written by `braing3n atlas fetch`.")],
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Processes; default: the cores.")] = None,
    save_truth_images: Annotated[
        bool, typer.Option("--save-truth-images", help="Also write true brain masks and bias fields.")
    ] = False,
) -> None:
    """Write phantom cohorts below `phantom.root`, and their truth beside it."""
    from braing3n.config.data import PhantomSettings
    from braing3n.phantom.cohorts import make_phantoms

    table = make_phantoms(atlas, parse_settings(PhantomSettings, settings), workers, save_truth_images)
    typer.echo(f"truth table: {table}")
