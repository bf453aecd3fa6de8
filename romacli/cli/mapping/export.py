"""`romacli export`: a finished job in the formats of other programs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from romacli.cli.console import Console, stopping
from romacli.cli.options import TalkOptions, takes
from romacli.export.formats import FORMATS
from romacli.job.options import DEFAULT_OUTPUT, JobImages, ModelJob
from romacli.options import Option
from romacli.words import counted


@dataclass(frozen=True)
class ExportOptions:
    format: Annotated[
        str,
        Option(
            "; ".join(f"{row.name}: {row.summary}" for row in FORMATS.values()) + ".",
            metavar="FORMAT",
            is_argument=True,
        ),
    ]
    job: ModelJob = DEFAULT_OUTPUT
    images: JobImages = None
    output: Annotated[
        Path | None,
        Option("New output folder. Default: OUT/FORMAT, or OUT/FORMAT-1 of OUT/sparse/1.", metavar="DIR", short="o"),
    ] = None


@takes(ExportOptions, TalkOptions, example="romacli export undistorted job -o splat")
def export(options: ExportOptions, talk: TalkOptions) -> None:
    """Export a finished job for Gaussian splatting, nerfstudio, Bundler's readers, or as text and points.

    The folder is written completely or not at all.
    """
    from romacli.export.export import export as run
    from romacli.store.layout import about_other_models, layout_of

    layout = layout_of(options.job)
    folder = options.output or layout.exported(options.format)
    with stopping() as stop, Console(talk) as console, stop.at_once():
        if others := about_other_models(layout):
            console.say(others)
        files = run(layout, options.format, folder, options.images)
        values = {"format": options.format, "folder": str(folder), "files": len(files)}
        console.result(values, f"{counted(len(files), 'file')} in {folder}")
