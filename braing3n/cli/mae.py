"""`braing3n mae`: the masked autoencoder (docs/mae.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from braing3n.cli.common import (
    MetadataOption,
    ModelFolderOption,
    ResultsOption,
    SettingsOption,
    command,
    parse_settings,
)

app = typer.Typer(help="Masked autoencoder: train it, bring MONAI weights in and out.", no_args_is_help=True)


@app.command("train")
@command
def train(
    metadata: MetadataOption,
    results: ResultsOption,
    settings: SettingsOption,
    out: ModelFolderOption,
) -> None:
    """Train the MAE on the training split. Under torchrun it trains on all processes together."""
    from braing3n.config.training import MAESettings
    from braing3n.training.mae import train_mae
    from braing3n.volumes.metadata import load_metadata

    train_mae(load_metadata(metadata), results, parse_settings(MAESettings, settings), out)


@app.command("import-monai")
@command
def import_monai(
    weights: Annotated[Path, typer.Option(help="State dict of MONAI's MaskedAutoEncoderViT: .safetensors, or .pt.")],
    out: Annotated[Path, typer.Option(help="Folder for weights and card.")],
    heads: Annotated[int, typer.Option(help="Attention heads of the encoder.")] = 16,
    decoder_heads: Annotated[int, typer.Option(help="Attention heads of the decoder.")] = 16,
) -> None:
    """Turn MONAI weights into a model folder that every later stage can use."""
    from braing3n.models.monai_weights import import_monai_file

    import_monai_file(weights, out, heads, decoder_heads)


@app.command("export-monai")
@command
def export_monai(
    model: Annotated[Path, typer.Option(help="Folder of a trained MAE with a cls token.")],
    out: Annotated[Path, typer.Option(help="State dict to write, .safetensors.")],
) -> None:
    """Write the weights under the names of MONAI's MaskedAutoEncoderViT."""
    from braing3n.models.mae import load_mae
    from braing3n.models.monai_weights import to_monai
    from braing3n.models.weights import save_state

    save_state(to_monai(load_mae(model)), out)
