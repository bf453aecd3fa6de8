"""`romacli merge`: the pieces of a job into one."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from romacli.cli.console import Console, stopping
from romacli.cli.options import KeypointFlags, MaskFlags, TalkFlags, takes
from romacli.cli.request import remembered_options
from romacli.errors import PartialError
from romacli.words import counted


@dataclass(frozen=True)
class MergeFlags:
    job: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of the job; made when missing.")]
    others: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[OTHER]...",
            help="Folders of pieces that were matched elsewhere; they stay as they are.",
            show_default=False,
        ),
    ] = None
    images: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of photographs, for --keypoints sift alone.", show_default=False),
    ] = None


def add_to(app: typer.Typer) -> None:
    app.command(epilog="Example: romacli merge job")(merge)


@takes(MergeFlags, KeypointFlags, TalkFlags)
def merge(job: MergeFlags, keypoints: KeypointFlags, talk: TalkFlags) -> None:
    """Collect what the shards of a job have matched and write its keypoints and matches.

    Shards that shared OUT need only its name. Pairs that no shard has matched are counted, with exit code 4.
    """
    from romacli.job.merge import merge as merge_jobs
    from romacli.store.layout import Layout

    options = remembered_options(keypoints, MaskFlags(), job.job, images=job.images)
    others = [Layout(path) for path in job.others or ()]
    with stopping() as stop, Console(quiet=talk.quiet, verbose=talk.verbose) as console:
        summary = merge_jobs(Layout(job.job), others, options, console, stop)
        done = summary.pairs - len(summary.missing)
        console.result(
            {"pairs": summary.pairs, "done": done, "files": summary.files, **asdict(summary.views)},
            f"{done} of {counted(summary.pairs, 'pair')}, {counted(summary.views.keypoints, 'keypoint')} and "
            f"{counted(summary.views.matches, 'match', 'matches')} in "
            f"{counted(summary.views.images, 'image')}; see {job.job}",
            as_json=talk.as_json,
        )
    if summary.missing:
        raise PartialError(
            f"{len(summary.missing)} of {counted(summary.pairs, 'pair')} are not matched yet, "
            f"{' '.join(summary.missing[0])} "
            "first. Run the shards that are missing, or `romacli match` without --shard, which matches what is left."
        )
