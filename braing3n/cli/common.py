"""What the commands share: settings from the command line, errors as one line."""

from __future__ import annotations

import functools
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
import yaml

from braing3n.config import Settings, merge, read_yaml, validate_settings
from braing3n.errors import BrainG3NError, ResumeLater

T = TypeVar("T", bound=Settings)

SettingsOption = Annotated[
    str,
    typer.Option(
        "--settings",
        help="This command's section of the configuration: JSON text, or FILE#section.path, or FILE+FILE#section.path.",
    ),
]

# Options that several commands have.
MetadataOption = Annotated[Path, typer.Option(help="metadata/volumes.parquet")]
ResultsOption = Annotated[Path, typer.Option(help="Folder that paths in tables are relative to.")]
MAEOption = Annotated[Path, typer.Option(help="Folder of the trained MAE.")]
TokenizerOption = Annotated[Path, typer.Option(help="Folder of the trained tokenizer.")]
LatentTokenizerOption = Annotated[Path, typer.Option(help="Folder of the tokenizer that made the latents.")]
ModelFolderOption = Annotated[
    Path, typer.Option(help="Folder for weights, card and history; resumed if it holds checkpoints.")
]


def parse_settings(model: type[T], text: str) -> T:
    """Validate `--settings`: JSON text as Snakemake passes it, or `config/config.yaml#mae` when run by hand."""
    if text.lstrip().startswith("{"):
        return validate_settings(model, json.loads(text), "--settings")
    files, _, section = text.partition("#")
    content: Any = {}
    for file in files.split("+"):
        content = merge(content, read_yaml(Path(file)))
    for key in filter(None, section.split(".")):
        if not isinstance(content, dict) or key not in content:
            raise BrainG3NError(f"has no section '{section}'", file=files, remedy="see config/README.md")
        content = content[key]
    return validate_settings(model, content, text)


def command(function: Callable) -> Callable:
    """Wrap a command so that a user's error ends as one line on stderr and exit status 1, without a traceback.

    A training that stopped early with a checkpoint ends with exit status 75.
    """

    @functools.wraps(function)
    def wrapped(*args, **kwargs):
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
        try:
            return function(*args, **kwargs)
        except BrainG3NError as error:
            typer.secho(f"error: {error}", fg="red", err=True)
            raise typer.Exit(1) from None
        except ResumeLater as pause:
            typer.secho(str(pause), fg="yellow", err=True)
            raise typer.Exit(ResumeLater.EXIT_STATUS) from None

    return wrapped


def dump(settings: Any) -> str:
    """YAML of settings, for printing."""
    return yaml.safe_dump(settings, sort_keys=False)
