"""`romacli aggregate`: a job's warps into other keypoints and matches."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from romacli.cli.console import Console, stopping
from romacli.cli.options import KeypointFlags, MaskFlags, OutputFlags, TalkFlags, takes
from romacli.cli.request import aggregate_options, mask_options
from romacli.words import counted


@dataclass(frozen=True)
class JobFlags:
    job: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of a job that `match` has made.")] = (
        OutputFlags.output
    )
    images: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of photographs, for --keypoints sift alone.", show_default=False),
    ] = None


def add_to(app: typer.Typer) -> None:
    app.command(epilog="Example: romacli aggregate job --max-keypoints 4096 --min-track-length 3")(aggregate)


@takes(JobFlags, KeypointFlags, MaskFlags, TalkFlags)
def aggregate(job: JobFlags, keypoints: KeypointFlags, masks: MaskFlags, talk: TalkFlags) -> None:
    """Make a job's keypoints and matches anew from its stored warps, with other settings.

    Nothing is matched, and photographs are needed for SIFT alone. What is left out has its default, but masks are
    those of the run before. `colmap-import`, `match`, `reconstruct` and `merge` use what this leaves; options of
    theirs change single settings.
    """
    from romacli.job.aggregate import ReaggregateOptions, reaggregate
    from romacli.job.given import GivenKeypoints
    from romacli.store.layout import Layout

    given = GivenKeypoints(keypoints.keypoints, job.images) if keypoints.keypoints else None
    chosen = mask_options(masks) if masks.given else None
    options = ReaggregateOptions(aggregate_options(keypoints), given, chosen)
    start = time.monotonic()
    with stopping() as stop, Console(quiet=talk.quiet, verbose=talk.verbose) as console:
        summary = reaggregate(Layout(job.job), options, console, stop)
        seconds = round(time.monotonic() - start, 3)
        agreement = summary.triangle_agreement
        agreed = "" if agreement is None else f", warps agree round triangles at {agreement:.0%} of places"
        console.result(
            {**asdict(summary), "seconds": seconds},
            f"{counted(summary.keypoints, 'keypoint')} and {counted(summary.matches, 'match', 'matches')} in "
            f"{counted(summary.images, 'image')}, tracks of "
            f"{summary.mean_track_length:.2f} views{agreed}; {seconds:.1f} s; see {job.job}",
            as_json=talk.as_json,
        )
