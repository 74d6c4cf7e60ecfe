"""`braing3n longitudinal`: forecasts from a baseline (docs/longitudinal.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from braing3n.cli.common import SettingsOption, command, parse_settings

app = typer.Typer(help="Longitudinal diffusion transformer: from baseline to follow-up latents.", no_args_is_help=True)


@app.command("train")
@command
def train(
    metadata: Annotated[Path, typer.Option(help="metadata/volumes.parquet")],
    results: Annotated[Path, typer.Option(help="Folder that paths in tables are relative to.")],
    tokenizer: Annotated[Path, typer.Option(help="Folder of the tokenizer that made the latents.")],
    settings: SettingsOption,
    out: Annotated[Path, typer.Option(help="Folder for weights, card and history; resumed if it holds checkpoints.")],
) -> None:
    """Train on pairs of a person's scans. Under torchrun it trains on all processes together."""
    from braing3n.config.training import LongitudinalSettings
    from braing3n.training.longitudinal_task import train_longitudinal
    from braing3n.volumes.metadata import load_metadata

    train_longitudinal(load_metadata(metadata), results, tokenizer, parse_settings(LongitudinalSettings, settings), out)
