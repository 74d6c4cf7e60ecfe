"""`braing3n phantom`: simulated cohorts with known truth, written as the real ones arrive."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from braing3n.cli.common import SettingsOption, command, parse_settings

AtlasOption = Annotated[Path, typer.Option("--atlas", help="Folder written by `braing3n atlas fetch`.")]
WorkersOption = Annotated[int | None, typer.Option("--workers", min=1, help="Processes; default: the cores.")]
SeedOption = Annotated[int, typer.Option("--seed", min=0)]

app = typer.Typer(help="Simulated cohorts with known truth.", no_args_is_help=True)


@app.command("make")
@command
def make(
    settings: SettingsOption,
    atlas: AtlasOption,
    workers: WorkersOption = None,
    save_truth_images: Annotated[
        bool, typer.Option("--save-truth-images", help="Also write true brain masks and bias fields.")
    ] = False,
) -> None:
    """Write phantom cohorts below `phantom.root`, and their truth beside it."""
    from braing3n.config.data import PhantomSettings
    from braing3n.phantom.cohorts import make_phantoms

    table = make_phantoms(atlas, parse_settings(PhantomSettings, settings), workers, save_truth_images)
    typer.echo(f"truth table: {table}")


@app.command("accuracy")
@command
def accuracy(
    atlas: AtlasOption,
    out: Annotated[Path, typer.Option("--out", help="Folder for the scans, their truth, masks and bias fields.")],
    n: Annotated[int, typer.Option("--n", min=1, help="Sessions.")] = 40,
    seed: SeedOption = 2025,
    workers: WorkersOption = None,
) -> None:
    """Write scans that span what preprocessing must cope with."""
    from braing3n.phantom.accuracy import write_accuracy_set

    table = write_accuracy_set(atlas, out, n, seed, workers)
    typer.echo(f"{len(table)} scans, truth table: {out / 'truth.parquet'}")


@app.command("final-grid")
@command
def final_grid(
    atlas: AtlasOption,
    out: Annotated[Path, typer.Option("--out", help="Results folder: volume stores and metadata table.")],
    n: Annotated[int, typer.Option("--n", min=1, help="Volumes.")] = 400,
    seed: SeedOption = 2025,
    workers: WorkersOption = None,
) -> None:
    """Write volumes on the final grid, as preprocessing would leave them, to train and probe on."""
    from braing3n.phantom.final_grid import write_final_grid_set

    table = write_final_grid_set(atlas, out, n, seed, workers=workers)
    typer.echo(f"{len(table)} volumes, metadata: {out / 'metadata' / 'volumes.parquet'}")
