"""`braing3n encode`: pooled features of one cohort by a frozen encoder (docs/encoders.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from braing3n.cli.common import MAEOption, MetadataOption, ResultsOption, command


@command
def encode(
    encoder: Annotated[str, typer.Option(help="Name of the encoder, such as untrained or pca.")],
    metadata: MetadataOption,
    results: ResultsOption,
    cohort: Annotated[str, typer.Option(help="Cohort to encode.")],
    mae: MAEOption,
    features: Annotated[
        Path, typer.Option(help="Table of shards to write, <cohort>.parquet; the features go beside it.")
    ],
    weights: Annotated[Path | None, typer.Option(help="The encoder's own weights, where it has any.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Pooled features of one cohort by a frozen encoder or a control, a table a shard; finished shards stay."""
    from braing3n.encoders.encode import encode_cohort
    from braing3n.volumes.metadata import load_metadata

    encode_cohort(encoder, load_metadata(metadata), results, cohort, mae, features, weights=weights, device=device)


def register(app: typer.Typer) -> None:
    app.command("encode")(encode)
