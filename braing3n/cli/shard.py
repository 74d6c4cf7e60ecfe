"""`braing3n shard STEP`: one preprocessing step for one shard."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from braing3n.cli.common import SettingsOption, command, parse_settings


def register(app: typer.Typer) -> None:
    @app.command("shard")
    @command
    def shard(
        step: Annotated[str, typer.Argument(help="convert, n4, mask, register or crop.")],
        shard: Annotated[Path, typer.Option(help="The shard's rows: index/shards/<cohort>/<shard>.parquet.")],
        root: Annotated[Path, typer.Option(help="Folder of the cohort as downloaded.")],
        status: Annotated[Path, typer.Option(help="Status table to write.")],
        results: Annotated[Path, typer.Option(help="Results folder, which paths in tables are relative to.")],
        settings: SettingsOption,
        previous: Annotated[Path | None, typer.Option(help="Status table of the step before.")] = None,
        atlas: Annotated[Path | None, typer.Option(help="Folder of the atlas (register).")] = None,
        store: Annotated[Path | None, typer.Option(help="Volume store to write (crop).")] = None,
        threads: Annotated[int, typer.Option(min=1, help="Cores to use, shared among worker processes.")] = 1,
        timeout: Annotated[float, typer.Option(min=0.1, help="Seconds that one volume may take.")] = 1800.0,
        max_failed_fraction: Annotated[
            float, typer.Option(min=0, max=1, help="Of the shard; one failed volume is always allowed.")
        ] = 0.05,
    ) -> None:
        """Run one preprocessing step for every volume of a shard; finished volumes of an earlier run are reused."""
        from braing3n.preprocess.shard import run_shard
        from braing3n.preprocess.steps import get_step

        chosen = get_step(step)
        run_shard(
            chosen,
            shard=shard,
            root=root,
            results=results,
            status=status,
            settings=parse_settings(chosen.settings, settings),
            previous=previous,
            atlas=atlas,
            store=store,
            threads=threads,
            timeout_s=timeout,
            max_failed_fraction=max_failed_fraction,
        )
