"""`romacli match`: photographs and pairs in, hloc's features and matches out."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from romacli.cli.console import Console, stopping
from romacli.cli.options import (
    DryRunFlags,
    ImageFlags,
    KeypointFlags,
    MaskFlags,
    MatchFlags,
    OutputFlags,
    TalkFlags,
    takes,
)
from romacli.cli.request import job_options
from romacli.errors import PartialError

if TYPE_CHECKING:
    from romacli.pipeline.job import Job
    from romacli.pipeline.match import MatchSummary


def add_to(app: typer.Typer) -> None:
    app.command(epilog="Example: romacli match photos/ --pairs pairs.txt -o job")(match)


@takes(ImageFlags, OutputFlags, MatchFlags, KeypointFlags, MaskFlags, DryRunFlags, TalkFlags)
def match(
    images: ImageFlags,
    output: OutputFlags,
    flags: MatchFlags,
    keypoints: KeypointFlags,
    masks: MaskFlags,
    dry: DryRunFlags,
    talk: TalkFlags,
) -> None:
    """Match pairs of photographs and write keypoints that many views share, in hloc's HDF5 layout.

    The same command continues a job that was stopped. Each finished pair is kept whatever happens.
    """
    from romacli.pipeline.job import open_job, run_job

    with stopping() as stop, Console(quiet=talk.quiet, verbose=talk.verbose) as console:
        with stop.at_once():
            job = open_job(job_options(images, output, flags, keypoints, masks), console)
            introduce(job, console)
            if dry.dry_run:
                describe(job, console, as_json=talk.as_json)
                return
        summary = run_job(job, console, stop)
        console.result(match_values(summary), match_sentence(summary, job), as_json=talk.as_json)
        raise_failures(summary)


def introduce(job: Job, console: Console) -> None:
    """Say which model runs, and how to get the full one; with --verbose also what results depend on."""
    model = job.options.model
    hint = "; for hard photographs: romacli models download roma-outdoor" if model == "mini" else ""
    console.say(f"model {model}, {len(job.images)} images, {len(job.pairs)} pairs{hint}")
    if console.verbose:
        console.say(", ".join(f"{key} {value}" for key, value in job.manifest.settings.items()))


def describe(job: Job, console: Console, *, as_json: bool) -> None:
    """The result of a dry run: what there is to do and what it will take."""
    from romacli.pipeline.estimate import estimate

    values = asdict(estimate(job))
    console.result(
        values,
        f"{values['remaining']} of {values['pairs']} pairs to match, {values['encodes']} encodes, "
        f"about {values['seconds']:.0f} s and {values['journal_bytes'] / 1e6:.0f} MB",
        as_json=as_json,
    )


def match_values(summary: MatchSummary) -> dict[str, Any]:
    """The JSON form of what matching did."""
    return {
        "images": summary.images,
        "pairs": summary.pairs,
        "matched": summary.matched,
        "rejected": summary.rejected,
        "failed": summary.failed,
        "encodes": summary.encodes,
        "seconds": round(summary.seconds, 3),
    }


def match_sentence(summary: MatchSummary, job: Job) -> str:
    return (
        f"{summary.matched} of {summary.pairs} pairs matched, {summary.rejected} rejected, {summary.failed} failed, "
        f"{summary.encodes} encodes in {summary.seconds:.1f} s; see {job.layout.root}"
    )


def raise_failures(summary: MatchSummary) -> None:
    """End with exit code 4 and the list, when photographs could not be used."""
    if summary.failures:
        reasons = "\n".join(f"  {reason}" for reason in summary.failures.values())
        raise PartialError(
            f"{len(summary.failures)} photographs could not be used, {summary.failed} pairs are left out:\n{reasons}"
        )
