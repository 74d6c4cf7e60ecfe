"""`braing3n metadata build`: index, status tables and stores -> the metadata table and the reconciled ledger."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from braing3n.cli.common import SettingsOption, command

app = typer.Typer(help="The metadata table that training and evaluation start from.", no_args_is_help=True)


@app.callback()
def main() -> None:
    """The metadata table that training and evaluation start from."""


@app.command("build")
@command
def build(
    results: Annotated[Path, typer.Option("--results", help="Results folder.")],
    out: Annotated[Path, typer.Option("--out", help="Metadata table to write.")],
    ledger: Annotated[Path, typer.Option("--ledger", help="Reconciled ledger to write.")],
    settings: SettingsOption = "{}",
    cohort: Annotated[list[str] | None, typer.Option("--cohort", help="Only this cohort (repeatable).")] = None,
) -> None:
    """Join the index with the preprocessing's status tables and stores; --settings is the section preprocess.qc."""
    from braing3n.cli.common import parse_settings
    from braing3n.config.data import QCSettings
    from braing3n.volumes.metadata import write_metadata

    typer.echo(write_metadata(results, out, ledger, parse_settings(QCSettings, settings), cohort or ()))
