"""`romacli merge`: combine the shards of a job."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from romacli.cli.console import Console, stopping
from romacli.cli.options import TalkOptions, takes
from romacli.errors import PartialError
from romacli.job.options import KeypointOptions, SiftImages
from romacli.options import Option
from romacli.words import counted, counted_of


@dataclass(frozen=True)
class Pieces:
    job: Annotated[Path, Option("Job folder; created if missing.", metavar="OUT", is_argument=True)]
    others: Annotated[
        list[Path] | None,
        Option(
            "Folders of shards matched elsewhere; they are not changed.",
            metavar="[OTHER]...",
            is_argument=True,
            has_default=False,
        ),
    ] = None
    images: SiftImages = None


@takes(Pieces, KeypointOptions, TalkOptions, example="romacli merge job")
def merge(job: Pieces, keypoints: KeypointOptions, talk: TalkOptions) -> None:
    """Collect the results of a job's shards and write keypoints and matches.

    For shards that shared OUT, give only OUT. Unmatched pairs are counted, with exit code 4.
    """
    from romacli.job.merge import merge as merge_jobs
    from romacli.job.reaggregate import remembered_options
    from romacli.store.layout import Layout

    options = remembered_options(keypoints, Layout(job.job), job.images)
    others = [Layout(path) for path in job.others or ()]
    with stopping() as stop, Console(talk) as console:
        summary = merge_jobs(Layout(job.job), others, options, console, stop)
        done = summary.pairs - len(summary.missing)
        console.result(
            {"pairs": summary.pairs, "done": done, "files": summary.files, **asdict(summary.keypoints)},
            f"{done} of {counted(summary.pairs, 'pair')}, {counted(summary.keypoints.keypoints, 'keypoint')} and "
            f"{counted(summary.keypoints.matches, 'match', 'matches')} in "
            f"{counted(summary.keypoints.images, 'image')}; see {job.job}",
        )
    if summary.missing:
        raise PartialError(
            f"{counted_of(len(summary.missing), summary.pairs, 'pair', 'is', 'are')} not matched yet, starting with "
            f"{' '.join(summary.missing[0])}. Run the missing shards, or `romacli match` without --shard to match the "
            "rest."
        )
