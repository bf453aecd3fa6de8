"""`romacli refine`: a job's keypoints moved to where its photographs agree."""

from __future__ import annotations

import time
from dataclasses import dataclass

import typer

from romacli.cli.aggregate import tell_keypoints
from romacli.cli.console import Console, stopping
from romacli.cli.options import TalkOptions, takes
from romacli.job.options import DEFAULT_OUTPUT, JobImages, MatchedJob, Replacing


@dataclass(frozen=True)
class RefineChoice:
    job: MatchedJob = DEFAULT_OUTPUT
    images: JobImages = None
    replaces: Replacing = False


def add_to(app: typer.Typer) -> None:
    app.command(epilog="Example: romacli refine job --images photos/")(refine)


@takes(RefineChoice, TalkOptions)
def refine(job: RefineChoice, talk: TalkOptions) -> None:
    """Move a job's keypoints to where the photographs themselves agree, to a fraction of a pixel.

    `match`, `reconstruct`, `aggregate` and `merge` do so themselves, but for --no-refine and for keypoints that are
    given. Keypoints and matches are made anew as they were made last. Tracks first move to texture near by; what the
    photographs then do not confirm mostly stays out of the database. features.h5 has a covariance, a quality and a
    shift for each keypoint. Photographs that changed or went since they were matched are named and not looked at.
    """
    from romacli.job.aggregate import reaggregate, refined_options
    from romacli.store.layout import Layout

    start, layout = time.monotonic(), Layout(job.job)
    with stopping() as stop, Console(quiet=talk.quiet, verbose=talk.verbose) as console:
        summary = reaggregate(layout, refined_options(layout, job.images, replaces=job.replaces), console, stop)
        tell_keypoints(summary, job.job, time.monotonic() - start, console, as_json=talk.as_json)
