"""`romacli refine`: sub-pixel refinement of a job's keypoints."""

from __future__ import annotations

import time
from dataclasses import dataclass

from romacli.cli.console import Console, stopping
from romacli.cli.matching.aggregate import tell_keypoints
from romacli.cli.options import TalkOptions, takes
from romacli.job.options import DEFAULT_OUTPUT, JobImages, MatchedJob, Replacing


@dataclass(frozen=True)
class RefineChoice:
    job: MatchedJob = DEFAULT_OUTPUT
    images: JobImages = None
    replaces: Replacing = False


@takes(RefineChoice, TalkOptions, example="romacli refine job --images photos/")
def refine(job: RefineChoice, talk: TalkOptions) -> None:
    """Refine a job's keypoints to sub-pixel precision by aligning the photographs around them.

    `match`, `reconstruct`, `aggregate` and `merge` do this by default, except for external keypoints. Keypoints and
    matches are recomputed with the job's last settings. Tracks first move to nearby texture; observations that the
    photographs do not confirm join a model last and move no camera. features.h5 gets a covariance, a quality and a
    shift per keypoint. Photographs that changed or disappeared since they were matched are reported and skipped.
    """
    from romacli.job.reaggregate import reaggregate, refined_options
    from romacli.store.layout import Layout

    start, layout = time.monotonic(), Layout(job.job)
    with stopping() as stop, Console(talk) as console:
        summary = reaggregate(layout, refined_options(layout, job.images, replaces=job.replaces), console, stop)
        tell_keypoints(summary, job.job, time.monotonic() - start, console)
