"""`braing3n dit`: conditional flow matching on latents (docs/dit.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from braing3n.cli.common import SettingsOption, command, parse_settings

app = typer.Typer(help="Conditional diffusion transformer on latents.", no_args_is_help=True)


@app.command("train")
@command
def train(
    metadata: Annotated[Path, typer.Option(help="metadata/volumes.parquet")],
    results: Annotated[Path, typer.Option(help="Folder that paths in tables are relative to.")],
    tokenizer: Annotated[Path, typer.Option(help="Folder of the tokenizer that made the latents.")],
    settings: SettingsOption,
    out: Annotated[Path, typer.Option(help="Folder for weights, card and history; resumed if it holds checkpoints.")],
) -> None:
    """Train the conditional diffusion transformer on the training split's latents."""
    from braing3n.config.training import DiTSettings
    from braing3n.training.dit_task import train_dit
    from braing3n.volumes.metadata import load_metadata

    train_dit(load_metadata(metadata), results, tokenizer, parse_settings(DiTSettings, settings), out)
