"""`romacli aggregate`: new keypoints and matches from a job's warps."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from romacli.cli.console import Console, stopping
from romacli.cli.options import TalkOptions, takes
from romacli.job.options import DEFAULT_OUTPUT, KeypointOptions, MatchedJob, SiftImages
from romacli.words import counted

if TYPE_CHECKING:
    from romacli.job.outputs.hloc import HlocSummary


@dataclass(frozen=True)
class JobChoice:
    job: MatchedJob = DEFAULT_OUTPUT
    images: SiftImages = None


@takes(
    JobChoice, KeypointOptions, TalkOptions, example="romacli aggregate job --max-keypoints 4096 --min-track-length 3"
)
def aggregate(job: JobChoice, keypoints: KeypointOptions, talk: TalkOptions) -> None:
    """Recompute a job's keypoints and matches from its stored warps, with other settings.

    Nothing is matched. Omitted options take their defaults, except masks, which are kept from the previous run.
    Keypoints are refined as by `refine`, if the photographs are available. `colmap-import`, `match`, `reconstruct` and
    `merge` use the result; options given to them override single settings.
    """
    from romacli.job.reaggregate import asked_options, reaggregate
    from romacli.store.layout import Layout

    options = asked_options(keypoints, job.images)
    start = time.monotonic()
    with stopping() as stop, Console(talk) as console:
        summary = reaggregate(Layout(job.job), options, console, stop)
        tell_keypoints(summary, job.job, time.monotonic() - start, console)


def tell_keypoints(summary: HlocSummary, job: Path, seconds: float, console: Console) -> None:
    """Print the new contents of the hloc files."""
    from romacli.job.outputs.hloc import refined_in_words

    agreement = summary.triangle_agreement
    agreed = "" if agreement is None else f", {agreement:.0%} of warp cells consistent around image triplets"
    console.result(
        {**asdict(summary), "seconds": round(seconds, 3)},
        f"{counted(summary.keypoints, 'keypoint')} and {counted(summary.matches, 'match', 'matches')} in "
        f"{counted(summary.images, 'image')}, tracks of {summary.mean_track_length:.2f} views{agreed}"
        f"{refined_in_words(summary)}; {seconds:.1f} s; see {job}",
    )
