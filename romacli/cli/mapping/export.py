"""`romacli export`: a finished job in the formats of other programs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from romacli.cli.console import Console, stopping
from romacli.cli.options import TalkOptions, takes
from romacli.export.formats import FORMATS
from romacli.job.options import DEFAULT_OUTPUT, JobImages, MatchedJob
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
    job: MatchedJob = DEFAULT_OUTPUT
    images: JobImages = None
    output: Annotated[Path | None, Option("New output folder. Default: OUT/FORMAT.", metavar="DIR", short="o")] = None


@takes(ExportOptions, TalkOptions, example="romacli export undistorted job -o splat")
def export(options: ExportOptions, talk: TalkOptions) -> None:
    """Export a finished job for Gaussian splatting, nerfstudio, Bundler's readers, or as text and points.

    The folder is written completely or not at all.
    """
    from romacli.export.export import export as run
    from romacli.store.layout import Layout

    folder = options.output or options.job / options.format
    with stopping() as stop, Console(talk) as console, stop.at_once():
        files = run(Layout(options.job), options.format, folder, options.images)
        values = {"format": options.format, "folder": str(folder), "files": len(files)}
        console.result(values, f"{counted(len(files), 'file')} in {folder}")
