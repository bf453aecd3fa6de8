"""`romacli match`: photographs and pairs in, hloc's features and matches out."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import typer

from romacli.cli.console import Console, stopping
from romacli.cli.options import DryRunOptions, TalkOptions, takes
from romacli.errors import PartialError
from romacli.job.options import JobOptions, ShardOptions
from romacli.keypoints.options import AggregateOptions
from romacli.types import FOUND_BY
from romacli.words import counted

if TYPE_CHECKING:
    from romacli.job.job import Job
    from romacli.run.match import MatchSummary
    from romacli.store.layout import Layout


def add_to(app: typer.Typer) -> None:
    app.command(epilog="Example: romacli match photos/ --pairs pairs.txt -o job")(match)


@takes(JobOptions, ShardOptions, DryRunOptions, TalkOptions)
def match(options: JobOptions, shard: ShardOptions, dry: DryRunOptions, talk: TalkOptions) -> None:
    """Match pairs of photographs and write keypoints that many views share, in hloc's HDF5 layout.

    The same command continues a job that was stopped. Each finished pair is kept whatever happens. Pairs and
    photographs may be added or removed between runs: only what is new is matched.
    """
    from romacli.job.job import open_job
    from romacli.job.matching import run_job

    with stopping() as stop, Console(quiet=talk.quiet, verbose=talk.verbose) as console:
        with stop.at_once():
            job = open_job(replace(options, shard=shard.shard), console)
            introduce(job, console)
            if dry.dry_run:
                describe(job, console, as_json=talk.as_json)
                return
        summary = run_job(job, console, stop)
        console.result(match_values(summary), match_sentence(summary, job), as_json=talk.as_json)
        raise_failures(summary, job.layout)


def introduce(job: Job, console: Console) -> None:
    """Say which model runs, and how to get the full one; with --verbose also what results depend on."""
    from romacli.matchers.registry import matchers

    model = job.options.matcher.model
    spec = matchers().get(model)
    hint = f"; {spec.hint}" if spec and spec.hint else ""
    part = f"{len(job.listed)} of " if job.options.shard else ""
    console.say(f"model {model}, {counted(len(job.images), 'image')}, {part}{counted(len(job.pairs), 'pair')}{hint}")
    if chosen := _keypoints_in_words(job):
        console.say(f"keypoints by {chosen}, as given or as this job's were made before")
    if console.verbose:
        console.say(", ".join(f"{key} {value}" for key, value in job.manifest.settings.items()))


def _keypoints_in_words(job: Job) -> str:
    """The options of keypoints that are not the default ones, as they are typed."""
    chosen = job.keypoints
    usual = vars(AggregateOptions(seed=chosen.aggregate.seed))
    values = {name: value for name, value in vars(chosen.aggregate).items() if value != usual[name]}
    if chosen.external:
        values["keypoints"] = chosen.external.source
    words = [f"--{name.replace('_', '-')} {value}" for name, value in values.items()]
    if chosen.refine.refine is not None:
        words.append("--refine" if chosen.refine.refine else "--no-refine")
    return " ".join(words)


def describe(job: Job, console: Console, *, as_json: bool) -> None:
    """The result of a dry run: what there is to do and what it will take."""
    from romacli.job.estimate import estimate

    values = asdict(estimate(job))
    console.result(
        values,
        f"{values['remaining']} of {counted(values['pairs'], 'pair')} to match, {counted(values['encodes'], 'encode')} "
        f"({values['encodes_per_pair']:.2f} a pair, {counted(values['capacity'], 'image')} held), "
        f"about {values['seconds']:.0f} s and {values['journal_bytes'] / 1e6:.0f} MB",
        as_json=as_json,
    )


def match_values(summary: MatchSummary) -> dict[str, Any]:
    """The JSON form of what matching did."""
    return {
        "images": summary.images,
        "pairs": summary.pairs,
        "matched": summary.matched,
        "turned": summary.turned,
        "found_by": dict(summary.found_by),
        "turned_images": list(summary.turned_images),
        "rejected": summary.rejected,
        "failed": summary.failed,
        "encodes": summary.encodes,
        "encodes_per_pair": round(summary.encodes_per_pair, 4),
        "seconds": round(summary.seconds, 3),
    }


def match_sentence(summary: MatchSummary, job: Job) -> str:
    help_by = [f"{count} {FOUND_BY[found_by]}" for found_by, count in sorted(summary.found_by.items())]
    ways = ", ".join([*([f"{summary.turned} of them turned"] if summary.turned else []), *help_by])
    told = f" ({ways})" if ways else ""
    return (
        f"{summary.matched} of {counted(summary.pairs, 'pair')} matched{told}, {summary.rejected} rejected, "
        f"{summary.failed} failed, {counted(summary.encodes, 'encode')} in {summary.seconds:.1f} s; see "
        f"{job.layout.root}"
    )


def raise_failures(summary: MatchSummary, layout: Layout) -> None:
    """End with exit code 4 and the list, when photographs or pairs could not be used."""
    lines = []
    if summary.failures:
        lines.append(
            f"{counted(len(summary.failures), 'photograph')} could not be used, "
            f"{counted(summary.failed, 'pair is', 'pairs are')} left out:"
        )
        lines.extend(f"  {reason}" for reason in summary.failures.values())
    if summary.given_up:
        lines.append(
            f"{counted(len(summary.given_up), 'pair is', 'pairs are')} given up, "
            f"{' '.join(summary.given_up[0])} first; listed in "
            f"{layout.given_up}. The same command tries them again."
        )
    if lines:
        raise PartialError("\n".join(lines))
