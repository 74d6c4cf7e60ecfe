"""`braing3n memorization`: are generated volumes copies of training scans (docs/memorization.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from braing3n.cli.common import LatentTokenizerOption, MetadataOption, SettingsOption, command, parse_settings

app = typer.Typer(help="Are generated volumes copies of training scans?", no_args_is_help=True)


@app.callback()
def main() -> None:
    """Are generated volumes copies of training scans?"""


@app.command("run")
@command
def run(
    metadata: MetadataOption,
    results: Annotated[Path, typer.Option(help="Folder with latents/.")],
    generated: Annotated[Path, typer.Option(help="Folder of generated volumes with their latents.")],
    tokenizer: LatentTokenizerOption,
    settings: SettingsOption,
    table: Annotated[Path, typer.Option(help="Results table to write; the pairs go beside it, <name>_pairs.parquet.")],
) -> None:
    """Nearest training scans of every generated volume, with a positive control and a two-sample test."""
    from braing3n.config.training import MemorizationSettings
    from braing3n.evaluation.memorization import run_memorization
    from braing3n.files import write_parquet
    from braing3n.volumes.metadata import load_metadata

    chosen = parse_settings(MemorizationSettings, settings)
    rows, pairs = run_memorization(load_metadata(metadata), results, generated, tokenizer, chosen)
    write_parquet(table.with_name(f"{table.stem}_pairs.parquet"), pairs)
    write_parquet(table, rows)
