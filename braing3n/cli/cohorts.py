"""`braing3n cohorts`: which cohorts are known, what a folder holds, the corpus beside the paper's, BIDS tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from braing3n.cli.common import command

app = typer.Typer(help="Cohorts: definitions, checks of a download, the corpus in numbers.", no_args_is_help=True)


@app.command("list")
@command
def list_cohorts() -> None:
    """Cohorts with a definition: their licence, how to get them, how sure the definition is."""
    import pandas as pd

    from braing3n.cohorts.definition import known_cohorts, load_definition

    rows = []
    for definition in map(load_definition, known_cohorts()):
        paper = definition.paper
        rows.append(
            {
                "cohort": definition.name,
                "volumes in paper": paper.volumes if paper else "-",
                "modalities": " ".join(paper.modalities) if paper else "-",
                "confidence": definition.confidence,
                "as_published": "differs" if definition.as_published else "same",
                "licence": definition.licence.name,
                "access": definition.licence.access,
            }
        )
    typer.echo(pd.DataFrame(rows).to_string(index=False, justify="left"))


@app.command("check")
@command
def check(
    name: Annotated[str, typer.Argument(help="Cohort, as `braing3n cohorts list` names it.")],
    root: Annotated[Path, typer.Option("--root", help="Folder with the cohort as downloaded.")],
    definition: Annotated[Path | None, typer.Option("--definition", help="Definition of your own.")] = None,
    as_published: Annotated[bool, typer.Option("--as-published", help="With the choices behind the paper.")] = False,
) -> None:
    """What an index of a folder would keep, leave out and not know; writes nothing."""
    from braing3n.cohorts.check import check_folder, describe
    from braing3n.cohorts.definition import load_definition

    cohort = load_definition(name, definition, as_published=as_published)
    result = check_folder(cohort, root)
    typer.echo(describe(cohort, root, result))
    if as_published and cohort.as_published:
        typer.echo("as published:\n" + "\n".join(f"  - {reason}" for reason in cohort.as_published.why))
    if result.error is not None:
        raise typer.Exit(1)


@app.command("summary")
@command
def summary(
    table: Annotated[Path, typer.Option("--table", help="index/volumes.parquet or metadata/volumes.parquet.")],
) -> None:
    """The corpus in numbers beside the paper's Table 3."""
    from braing3n.cohorts.summary import corpus_summary, coverage_summary, diagnosis_summary
    from braing3n.files import read_parquet

    volumes = read_parquet(table)
    for part in (corpus_summary(volumes), diagnosis_summary(volumes), coverage_summary(volumes)):
        typer.echo(part.astype(object).where(part.notna(), "").to_string(index=False) + "\n")


@app.command("export")
@command
def export(
    table: Annotated[Path, typer.Option("--table", help="metadata/volumes.parquet or index/volumes.parquet.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the BIDS tables, one dataset a cohort.")],
    dates: Annotated[bool, typer.Option("--dates", help="Write scan dates too (they can identify a person).")] = False,
) -> None:
    """BIDS participants.tsv, sessions.tsv and their dictionaries, with ages above 89 capped."""
    from braing3n.cohorts.export import export_bids
    from braing3n.files import read_parquet

    written = export_bids(read_parquet(table), out, dates=dates)
    typer.echo(f"{out}: {len(written)} files")
