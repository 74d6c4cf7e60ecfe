"""`braing3n latents`: the latent cache (docs/tokenizer.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from braing3n.cli.common import MAEOption, MetadataOption, ResultsOption, TokenizerOption, command

app = typer.Typer(help="Latents and pooled features of stored volumes.", no_args_is_help=True)


@app.command("encode")
@command
def encode(
    metadata: MetadataOption,
    results: ResultsOption,
    cohort: Annotated[str, typer.Option(help="Cohort to encode.")],
    mae: MAEOption,
    tokenizer: TokenizerOption,
    latents: Annotated[
        Path, typer.Option(help="Table of shards to write, latents/<cohort>.parquet; latents go beside it.")
    ],
    features: Annotated[Path, typer.Option(help="The same for pooled features, features/mae/<cohort>.parquet.")],
) -> None:
    """Token latents for the diffusion models and pooled features for the probes; finished shards stay."""
    from braing3n.evaluation.latent_encoding import encode_cohort
    from braing3n.volumes.metadata import load_metadata

    encode_cohort(load_metadata(metadata), results, cohort, mae, tokenizer, latents, features)
