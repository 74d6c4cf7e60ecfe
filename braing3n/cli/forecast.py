"""`braing3n forecast`: follow-ups from a baseline scan (docs/longitudinal.md)."""

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

app = typer.Typer(help="Forecasts from baseline scans.", no_args_is_help=True)


@app.command("run")
@command
def run(
    metadata: MetadataOption,
    results: ResultsOption,
    mae: MAEOption,
    tokenizer: TokenizerOption,
    longitudinal: Annotated[Path, typer.Option(help="Folder of the trained longitudinal diffusion transformer.")],
    settings: SettingsOption,
    out: Annotated[Path, typer.Option(help="Folder for the decoded volumes, their table and their latents.")],
    table: Annotated[Path, typer.Option(help="Results table to write, .parquet.")],
) -> None:
    """Forecast held-out baselines at every horizon and measure the forecasts against real follow-ups."""
    from braing3n.config.training import LongitudinalSettings
    from braing3n.evaluation.forecast import run_forecast
    from braing3n.volumes.metadata import load_metadata

    run_forecast(
        load_metadata(metadata),
        results,
        mae,
        tokenizer,
        longitudinal,
        parse_settings(LongitudinalSettings, settings),
        out,
        table,
    )
