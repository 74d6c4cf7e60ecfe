"""`braing3n status`: where a run stands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from braing3n.cli.common import command


@command
def status(
    results: Annotated[Path, typer.Option("--results", help="Results folder.")] = Path("results"),
    cohort: Annotated[str | None, typer.Option("--cohort", help="This cohort only.")] = None,
    step: Annotated[str | None, typer.Option("--step", help="This preprocessing step only.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """What is done, failed, excluded and pending, per cohort and step; trainings with the time left."""
    from braing3n.reporting.status import read_status, render

    state = read_status(results, cohort, step)
    typer.echo(state.to_json() if as_json else render(state))


def register(app: typer.Typer) -> None:
    app.command("status")(status)
