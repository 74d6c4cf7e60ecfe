"""`braing3n index`: cohorts as downloaded -> the frozen index that the workflow runs on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from braing3n.cli.common import command


@command
def index(
    config: Annotated[
        list[Path], typer.Option("--config", help="Configuration file; later ones override earlier ones.")
    ],
    cohort: Annotated[list[str] | None, typer.Option("--cohort", help="Scan only this cohort (repeatable).")] = None,
) -> None:
    """Scan the cohorts of the configuration and write <results>/index."""
    from braing3n.cohorts.index import build_index, summary
    from braing3n.config import load_config

    settings = load_config(config)
    result = build_index(settings, cohort or ())
    if len(result.ledger):
        typer.echo(summary(result).to_string(index=False))
    for name, notes in result.notes.items():
        for note in notes:
            typer.secho(f"{name}: {note}", fg="yellow", err=True)
    for name, error in result.errors.items():
        typer.secho(f"error: {name}: {error}", fg="red", err=True)
    typer.echo(f"{settings.pathvars.results / 'index'}: {len(result.changed)} files changed")
    if result.errors:
        raise typer.Exit(1)


def register(app: typer.Typer) -> None:
    app.command("index")(index)
