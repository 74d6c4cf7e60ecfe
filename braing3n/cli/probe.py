"""`braing3n probe`: linear probes of frozen features (docs/probing.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from braing3n.cli.common import MetadataOption, SettingsOption, command

app = typer.Typer(help="Linear probes of frozen features.", no_args_is_help=True)


@app.callback()
def main() -> None:
    """Linear probes of frozen features."""


@app.command("run")
@command
def run(
    metadata: MetadataOption,
    results: Annotated[Path, typer.Option(help="Folder with features/ and latents/.")],
    settings: SettingsOption,
    table: Annotated[Path, typer.Option(help="Results table to write.")],
) -> None:
    """Probe every encoder on every task of the panel, on the same scans and folds."""
    from braing3n.cli.common import parse_settings
    from braing3n.config.training import ProbeSettings
    from braing3n.files import write_parquet
    from braing3n.probing.panel import run_panel
    from braing3n.volumes.metadata import load_metadata

    write_parquet(table, run_panel(load_metadata(metadata), results, parse_settings(ProbeSettings, settings)))
