"""`braing3n latents`: the latent cache (docs/tokenizer.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from braing3n.cli.common import command

app = typer.Typer(help="Latents and pooled features of stored volumes.", no_args_is_help=True)


@app.command("encode")
@command
def encode(
    metadata: Annotated[Path, typer.Option(help="metadata/volumes.parquet")],
    results: Annotated[Path, typer.Option(help="Folder that paths in tables are relative to.")],
    cohort: Annotated[str, typer.Option(help="Cohort of the shard.")],
    shard: Annotated[str, typer.Option(help="Shard, such as 0000.")],
    mae: Annotated[Path, typer.Option(help="Folder of the trained MAE.")],
    tokenizer: Annotated[Path, typer.Option(help="Folder of the trained tokenizer.")],
    latents: Annotated[Path, typer.Option(help="Latents to write, .safetensors; their ids go beside it.")],
    features: Annotated[Path, typer.Option(help="Pooled MAE features to write, .parquet.")],
) -> None:
    """Encode one shard: token latents for the diffusion models, pooled features for the probes."""
    from braing3n.evaluation.latent_encoding import encode_shard
    from braing3n.volumes.metadata import load_metadata

    encode_shard(load_metadata(metadata), results, cohort, shard, mae, tokenizer, latents, features)
