"""`braing3n requeue`: let the workflow run shards again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from braing3n.cli.common import command


def register(app: typer.Typer) -> None:
    @app.command("requeue")
    @command
    def requeue(
        results: Annotated[Path, typer.Option(help="Results folder.")] = Path("results"),
        cohort: Annotated[str | None, typer.Option(help="This cohort only.")] = None,
        step: Annotated[str | None, typer.Option(help="This preprocessing step only.")] = None,
        only_failed: Annotated[
            bool,
            typer.Option("--only-failed/--all", help="Shards with volumes that failed at the step, or all shards."),
        ] = True,
        dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="Only say what would be removed.")] = False,
    ) -> None:
        """Remove status tables so that the next `snakemake` makes them again; finished volumes are reused."""
        from braing3n.preprocess.requeue import requeue as remove

        tables = remove(results, cohort, step, only_failed=only_failed, dry_run=dry_run)
        for table, failed in tables.items():
            typer.echo(f"{table}: {len(failed)} failed" + (f" ({', '.join(failed)})" if failed else ""))
        typer.echo(f"{len(tables)} status tables {'would be' if dry_run else 'were'} removed")
