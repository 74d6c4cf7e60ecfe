"""`braing3n tokenizer`: projection and decoder on the frozen MAE (docs/tokenizer.md)."""

from __future__ import annotations

import typer

from braing3n.cli.common import (
    MAEOption,
    MetadataOption,
    ModelFolderOption,
    ResultsOption,
    SettingsOption,
    command,
    parse_settings,
)

app = typer.Typer(
    help="Tokenizer: projection of frozen MAE tokens to latents, and CNN decoder back to voxels.", no_args_is_help=True
)


@app.command("train")
@command
def train(
    metadata: MetadataOption,
    results: ResultsOption,
    mae: MAEOption,
    settings: SettingsOption,
    out: ModelFolderOption,
) -> None:
    """Train the tokenizer on the training split. Under torchrun it trains on all processes together."""
    from braing3n.config.training import TokenizerSettings
    from braing3n.training.tokenizer_task import train_tokenizer
    from braing3n.volumes.metadata import load_metadata

    train_tokenizer(load_metadata(metadata), results, mae, parse_settings(TokenizerSettings, settings), out)
