"""`braing3n dit`: conditional flow matching on latents (docs/dit.md)."""

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

app = typer.Typer(help="Conditional diffusion transformer on latents.", no_args_is_help=True)


@app.command("train")
@command
def train(
    metadata: MetadataOption,
    results: ResultsOption,
    tokenizer: LatentTokenizerOption,
    settings: SettingsOption,
    out: ModelFolderOption,
) -> None:
    """Train the conditional diffusion transformer on the training split's latents."""
    from braing3n.config.training import DiTSettings
    from braing3n.training.dit_task import train_dit
    from braing3n.volumes.metadata import load_metadata

    train_dit(load_metadata(metadata), results, tokenizer, parse_settings(DiTSettings, settings), out)
