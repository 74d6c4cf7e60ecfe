"""`braing3n longitudinal`: forecasts from a baseline (docs/longitudinal.md)."""

from __future__ import annotations

import typer

from braing3n.cli.common import (
    LatentTokenizerOption,
    MetadataOption,
    ModelFolderOption,
    ResultsOption,
    SettingsOption,
    command,
    parse_settings,
)

app = typer.Typer(help="Longitudinal diffusion transformer: from baseline to follow-up latents.", no_args_is_help=True)


@app.command("train")
@command
def train(
    metadata: MetadataOption,
    results: ResultsOption,
    tokenizer: LatentTokenizerOption,
    settings: SettingsOption,
    out: ModelFolderOption,
) -> None:
    """Train on pairs of a person's scans. Under torchrun it trains on all processes together."""
    from braing3n.config.training import LongitudinalSettings
    from braing3n.training.longitudinal_task import train_longitudinal
    from braing3n.volumes.metadata import load_metadata

    train_longitudinal(load_metadata(metadata), results, tokenizer, parse_settings(LongitudinalSettings, settings), out)
