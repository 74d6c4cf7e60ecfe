"""`braing3n reconstruct`: reconstructions of held-out volumes beside the originals (docs/tokenizer.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from braing3n.cli.common import MAEOption, MetadataOption, ResultsOption, TokenizerOption, command

app = typer.Typer(help="Reconstructions of held-out volumes.", no_args_is_help=True)


@app.callback()
def main() -> None:
    """Reconstructions of held-out volumes."""


@app.command("run")
@command
def run(
    metadata: MetadataOption,
    results: ResultsOption,
    mae: MAEOption,
    tokenizer: TokenizerOption,
    table: Annotated[Path, typer.Option(help="Results table to write.")],
    figures: Annotated[Path, typer.Option(help="Folder for middle slices, one .npz a modality.")],
) -> None:
    """PSNR, SSIM and L1 of the MAE behind its mask, of the tokenizer, and of the mean volume."""
    from braing3n.evaluation.reconstruct import run_reconstruction
    from braing3n.files import write_parquet
    from braing3n.volumes.metadata import load_metadata

    write_parquet(table, run_reconstruction(load_metadata(metadata), results, mae, tokenizer, figures))
