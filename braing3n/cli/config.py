"""`braing3n config`: check a configuration, describe its keys, export its JSON schema."""

from __future__ import annotations

from pathlib import Path

import typer

from braing3n.cli.common import command

app = typer.Typer(help="Check and describe the configuration.", no_args_is_help=True)


@app.command("check")
@command
def check(files: list[Path] = typer.Argument(..., help="YAML files, merged in order.")) -> None:
    """Validate configuration files; prints nothing but OK."""
    from braing3n.config import load_config

    load_config(files)
    typer.echo("OK")


@app.command("describe")
@command
def describe(file: Path = typer.Argument(Path("config/config.yaml"))) -> None:
    """Print every key with its value and meaning, as Markdown."""
    from braing3n.config import read_yaml
    from braing3n.config.describe import describe as describe_config

    typer.echo(describe_config(read_yaml(file)), nl=False)


@app.command("schema")
@command
def schema() -> None:
    """Print the JSON schema of the configuration, as YAML."""
    from braing3n.cli.common import dump
    from braing3n.config.describe import json_schema

    typer.echo(dump(json_schema()), nl=False)
