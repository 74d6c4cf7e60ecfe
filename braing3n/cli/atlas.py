"""`braing3n atlas`: the SRI24 atlas that everything is registered to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from braing3n.cli.common import SettingsOption, command, parse_settings

app = typer.Typer(help="The SRI24 atlas on the package's grid.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keeps the verb in the command line while there is one verb only."""


@app.command("fetch")
@command
def fetch(
    settings: SettingsOption,
    out: Annotated[Path, typer.Option("--out", help="Folder for the conformed images and atlas.json.")],
) -> None:
    """Fetch, check and conform the atlas."""
    from braing3n.config.data import AtlasSettings
    from braing3n.preprocess.atlas import fetch_atlas

    atlas = fetch_atlas(parse_settings(AtlasSettings, settings), out)
    typer.echo(f"atlas written to {atlas.folder}")
