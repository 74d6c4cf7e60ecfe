"""`braing3n plan`: what a run will cost, before it starts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from braing3n.cli.common import command


@command
def plan(
    config: Annotated[list[Path], typer.Option("--config", help="Configuration file(s), merged in order.")],
    profile: Annotated[
        Path | None, typer.Option("--profile", help="Snakemake profile whose limits apply; default: this machine.")
    ] = None,
    gpus: Annotated[
        int | None, typer.Option("--gpus", min=1, help="GPUs at once; default: the profile's, else 4.")
    ] = None,
    cores: Annotated[int | None, typer.Option("--cores", min=1, help="Cores, instead of the profile's limit.")] = None,
    gpu_tflops: Annotated[
        float,
        typer.Option("--gpu-tflops", min=0.1, help="Sustained TFLOP/s of one GPU, for trainings not yet measured."),
    ] = 300.0,
    benchmarks: Annotated[
        Path | None, typer.Option("--benchmarks", help="Timings of Snakemake; default: the configuration's.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """Jobs, core-hours, GPU-hours, disk and wall time per stage, from the index and measured rates."""
    from braing3n.config import load_config
    from braing3n.reporting.plan import make_plan, read_slots, render

    made = make_plan(load_config(config), read_slots(profile, gpus, cores), gpu_tflops, benchmarks)
    typer.echo(made.to_json() if as_json else render(made))


def register(app: typer.Typer) -> None:
    app.command("plan")(plan)
