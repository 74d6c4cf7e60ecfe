"""`braing3n launch --gpus N <command>`: the command on N processes of this node, one a GPU."""

from __future__ import annotations

import os
import sys

import typer

from braing3n.cli.common import command


def register(app: typer.Typer) -> None:
    @app.command(
        "launch",
        help="Run a braing3n command on several GPUs of this node.",
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "allow_interspersed_args": False},
    )
    @command
    def launch(
        context: typer.Context,
        gpus: int = typer.Option(0, min=0, help="Processes, one a GPU; 0 and 1 run the command without torchrun."),
    ) -> None:
        python = [sys.executable, "-m"]
        if gpus > 1:
            # --standalone picks a free port, so that several trainings can share a node.
            python += ["torch.distributed.run", "--standalone", f"--nproc-per-node={gpus}", "-m"]
        arguments = [*python, "braing3n", *context.args]
        if gpus == 0:
            # On a CPU, glibc gives each large map back to the system and faults it in again: a third of a step.
            for variable in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"):
                os.environ.setdefault(variable, str(2**33))
        os.execv(arguments[0], arguments)  # signals from the scheduler reach the training itself
