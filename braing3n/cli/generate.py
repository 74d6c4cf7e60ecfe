"""`braing3n generate`: volumes for named sets of conditions (docs/dit.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from braing3n.cli.common import MAEOption, MetadataOption, SettingsOption, TokenizerOption, command, parse_settings

app = typer.Typer(help="Generated volumes.", no_args_is_help=True)


@app.command("run")
@command
def run(
    arms: Annotated[Path, typer.Option(help="Arms: named conditions, such as config/arms.yaml.")],
    mae: MAEOption,
    tokenizer: TokenizerOption,
    dit: Annotated[Path, typer.Option(help="Folder of the trained diffusion transformer.")],
    metadata: MetadataOption,
    settings: SettingsOption,
    sampler: Annotated[str, typer.Option(help="The sampler's section, in the form of --settings.")],
    out: Annotated[Path, typer.Option(help="Folder for volumes, tables and latents, one of each an arm.")],
) -> None:
    """Draw every arm of a file from the conditional diffusion transformer and decode it."""
    from braing3n.config.training import GenerateSettings, SamplerSettings
    from braing3n.evaluation.generate import generate_arms
    from braing3n.volumes.metadata import load_metadata

    generate_arms(
        arms,
        mae,
        tokenizer,
        dit,
        load_metadata(metadata),
        parse_settings(GenerateSettings, settings),
        parse_settings(SamplerSettings, sampler),
        out,
    )
