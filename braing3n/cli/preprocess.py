"""`braing3n preprocess SCAN`: one session by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from braing3n.cli.common import command, dump, parse_settings


def register(app: typer.Typer) -> None:
    @app.command("preprocess")
    @command
    def preprocess(
        scan: Annotated[Path, typer.Argument(help="Image file, or folder of one DICOM series.")],
        out: Annotated[Path, typer.Option(help="Folder for the results.")],
        modality: Annotated[Literal["T1", "T2", "FLAIR", "T1c"], typer.Option(help="Of SCAN.")] = "T1",
        t2: Annotated[Path | None, typer.Option(help="T2 of the same session.")] = None,
        flair: Annotated[Path | None, typer.Option(help="FLAIR of the same session.")] = None,
        t1c: Annotated[Path | None, typer.Option(help="Contrast-enhanced T1 of the same session.")] = None,
        strip: Annotated[
            Literal["deepbet", "hd-bet", "provided"],
            typer.Option(help="Brain mask by; provided: --mask, or SCAN is stripped already."),
        ] = "deepbet",
        mask: Annotated[Path | None, typer.Option(help="Brain mask of SCAN, in its space.")] = None,
        atlas: Annotated[Path, typer.Option(help="Folder of `braing3n atlas fetch`.")] = Path("resources/atlas"),
        settings: Annotated[
            str, typer.Option(help="JSON text or FILE#preprocess; default: config.yaml's values.")
        ] = "{}",
        threads: Annotated[int, typer.Option(min=1, help="Cores to use.")] = 2,
    ) -> None:
        """Bring a scan, and others of its session, onto the 160x192x160 grid; with mask, transform, QC and pictures."""
        from braing3n.config.data import PreprocessSettings
        from braing3n.preprocess.single import preprocess_session

        chosen = parse_settings(PreprocessSettings, settings)
        chosen = chosen.model_copy(update={"mask": chosen.mask.model_copy(update={"backend": strip})})
        others = {name: path for name, path in {"T2": t2, "FLAIR": flair, "T1c": t1c}.items() if path is not None}
        scans = others | {modality: scan}
        typer.echo(dump(preprocess_session(scans, out, atlas=atlas, settings=chosen, mask=mask, threads=threads)))
