"""`romacli report`: one HTML file on whether a job worked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from romacli.cli.console import Console
from romacli.cli.options import TalkOptions, takes
from romacli.errors import PartialError
from romacli.job.options import DEFAULT_OUTPUT, AnyJob, JobImages
from romacli.options import Option


@dataclass(frozen=True)
class ReportOptions:
    job: AnyJob = DEFAULT_OUTPUT
    images: JobImages = None
    output: Annotated[
        Path | None,
        Option(
            "HTML file to write, or a folder for report.html; a JSON file of the same name is written next to it. "
            "Default: OUT.",
            metavar="FILE",
            short="o",
        ),
    ] = None


@takes(ReportOptions, TalkOptions, example="romacli report job")
def report(options: ReportOptions, talk: TalkOptions) -> None:
    """Write a report of a job: whether it worked, why not, and what to try, with figures and pictures.

    The HTML file is self-contained and works offline; a JSON file next to it has the figures. Unfinished jobs, and jobs
    without a model or photographs, are reported as far as possible.
    """
    from romacli.report.report import write_report
    from romacli.store.layout import Layout

    with Console(talk) as console:
        written = write_report(Layout(options.job), options.output, options.images, console)
        for sentence in (*written.missing, *written.warnings):
            console.warn(sentence)
        see = written.html or written.json
        console.result(written.values, f"{written.verdict.sentence} See {see}")
    if written.html is None:
        raise PartialError(
            f"{written.json} has the figures, but the HTML file was not written: it needs matplotlib, networkx and "
            "plotly. Install them: pip install 'romacli[report]'."
        )
