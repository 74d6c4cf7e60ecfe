"""`braing3n launch --gpus N <command>`: the command on N processes, one a GPU, on one node or several."""

from __future__ import annotations

import os
import sys

import typer

from braing3n.cli.common import command

# torchrun, by the module that it runs. SIGUSR1 would end it, and with it the processes before they have checkpointed.
TORCHRUN = ("torch.distributed.run", "--signals-to-handle=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1")


def register(app: typer.Typer) -> None:
    @app.command(
        "launch",
        help="Run a braing3n command on several GPUs, of this node or of several nodes of a SLURM job.",
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "allow_interspersed_args": False},
    )
    @command
    def launch(
        context: typer.Context,
        gpus: int = typer.Option(0, min=0, help="Processes, one a GPU; 0 and 1 run the command without torchrun."),
        nodes: int = typer.Option(1, min=1, help="Nodes of the SLURM job that the GPUs are on, equally many on each."),
    ) -> None:
        from braing3n.errors import BrainG3NError
        from braing3n.slurm import step_on_every_node

        if gpus % nodes:
            raise BrainG3NError("GPUs cannot be shared out equally", found=f"{gpus} GPUs on {nodes} nodes")
        start: list[str] = []
        python = [sys.executable, "-m"]
        if gpus > 1:
            python += TORCHRUN
            if nodes > 1:
                start, meeting_point = step_on_every_node(nodes)
                python += [f"--nnodes={nodes}", "--rdzv-backend=c10d", f"--rdzv-endpoint={meeting_point}"]
            else:
                # --standalone picks a free port, so that several trainings can share a node.
                python.append("--standalone")
            python += [f"--nproc-per-node={gpus // nodes}", "-m"]
        arguments = [*start, *python, "braing3n", *context.args]
        if gpus == 0:
            # On a CPU, glibc gives each large map back to the system and faults it in again: a third of a step.
            for variable in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"):
                os.environ.setdefault(variable, str(2**33))
        os.execvp(arguments[0], arguments)  # signals from the scheduler reach the training itself
