"""`braing3n <noun> <verb>`: one command a workflow rule, runnable by hand."""

from __future__ import annotations

import importlib
import pkgutil

import typer

import braing3n
import braing3n.cli as cli

app = typer.Typer(
    name="braing3n",
    help="Foundation models of 3D brain MRI: from raw cohorts to embeddings, generation and forecasts.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


@app.callback(invoke_without_command=True)
def main(version: bool = typer.Option(False, "--version", help="Print the version.")) -> None:
    if version:
        typer.echo(braing3n.__version__)
        raise typer.Exit


# Every module beside this one that has an `app` (a noun with verbs) or a `register(app)` (plain commands) is a part of
# the command line. Modules import what is heavy inside their functions, so that `--help` stays fast.
for info in pkgutil.iter_modules(cli.__path__):
    if info.name in ("main", "common"):
        continue
    module = importlib.import_module(f"braing3n.cli.{info.name}")
    if hasattr(module, "app"):
        app.add_typer(module.app, name=info.name.replace("_", "-"))
    if hasattr(module, "register"):
        module.register(app)
