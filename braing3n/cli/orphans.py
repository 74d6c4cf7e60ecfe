"""`braing3n orphans`: what a killed Snakemake left running on SLURM."""

from __future__ import annotations

from pathlib import Path

import typer

from braing3n.cli.common import command


def register(app: typer.Typer) -> None:
    @app.command("orphans", help="List, or cancel, SLURM jobs of this folder's workflow; only while none is running.")
    @command
    def orphans(cancel: bool = typer.Option(False, "--cancel", help="Cancel them.")) -> None:
        from braing3n import slurm

        jobs = slurm.jobs_of(Path.cwd())
        for job in jobs:
            typer.echo(f"{job.id}  {job.state:<10}  {job.rule}  ({job.run})")
        if cancel:
            slurm.cancel(jobs)
        typer.echo(f"{len(jobs)} jobs{' cancelled' if cancel and jobs else ''}")
