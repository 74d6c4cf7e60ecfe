"""`braing3n frechet`: distances between real, reconstructed and generated volumes (docs/frechet.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from braing3n.cli.common import (
    MAEOption,
    MetadataOption,
    ResultsOption,
    SettingsOption,
    TokenizerOption,
    command,
    parse_settings,
)

app = typer.Typer(help="Distances between real, reconstructed and generated volumes.", no_args_is_help=True)


@app.callback()
def main() -> None:
    """Distances between real, reconstructed and generated volumes."""


@app.command("run")
@command
def run(
    metadata: MetadataOption,
    results: ResultsOption,
    generated: Annotated[Path, typer.Option(help="Folder of generated volumes.")],
    mae: MAEOption,
    tokenizer: TokenizerOption,
    settings: SettingsOption,
    table: Annotated[Path, typer.Option(help="Results table to write.")],
) -> None:
    """Fréchet and kernel distances of all pairs of sets, with every extractor whose weights are there."""
    from braing3n.config.training import FrechetSettings
    from braing3n.evaluation.frechet import run_frechet
    from braing3n.files import write_parquet
    from braing3n.volumes.metadata import load_metadata

    chosen = parse_settings(FrechetSettings, settings)
    write_parquet(table, run_frechet(load_metadata(metadata), results, generated, mae, tokenizer, chosen))
