"""`romacli match`: from photographs and pairs to hloc's features and matches."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

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


@takes(JobOptions, ShardOptions, DryRunOptions, TalkOptions, example="romacli match photos/ --pairs pairs.txt -o job")
def match(options: JobOptions, shard: ShardOptions, dry: DryRunOptions, talk: TalkOptions) -> None:
    """Match pairs of photographs and write keypoints shared by many views, in hloc's HDF5 layout.

    Run the same command again to resume a stopped job; finished pairs are never lost. Pairs and photographs may be
    added or removed between runs: only new pairs are matched.
    """
    from romacli.job.job import open_job
    from romacli.job.matching import run_job

    with stopping(overwrites=options.overwrite) as stop, Console(talk) as console:
        with stop.at_once():
            job = open_job(replace(options, shard=shard.shard), console)
            introduce(job, console)
            if dry.dry_run:
                describe(job, console)
                return
        summary = run_job(job, console, stop)
        console.result(match_values(summary), match_sentence(summary, job))
        raise_failures(summary, job.layout)


def introduce(job: Job, console: Console) -> None:
    """Print the model, its precision and how to get a better one; with --verbose also the settings of the job."""
    from romacli.matchers.registry import matchers

    model = job.options.matcher.model
    spec = matchers().get(model)
    hint = f"; {spec.hint}" if spec and spec.hint else ""
    part = f"{len(job.listed)} of " if job.options.shard else ""
    dtype = job.matcher.settings.get("dtype")
    named = f"{model} in {dtype}" if dtype else model
    console.say(f"model {named}, {counted(len(job.images), 'image')}, {part}{counted(len(job.pairs), 'pair')}{hint}")
    if chosen := _keypoints_in_words(job):
        console.say(f"keypoints by {chosen}, as given now or in the last run")
    if console.talk.verbose:
        console.say(", ".join(f"{key} {value}" for key, value in job.manifest.settings.items()))


def _keypoints_in_words(job: Job) -> str:
    """The keypoint options that differ from the defaults, as typed."""
    chosen = job.keypoints
    usual = vars(AggregateOptions(seed=chosen.aggregate.seed))
    values = {name: value for name, value in vars(chosen.aggregate).items() if value != usual[name]}
    if chosen.external:
        values["keypoints"] = chosen.external.source
    words = [f"--{name.replace('_', '-')} {value}" for name, value in values.items()]
    if chosen.refine.refine is not None:
        words.append("--refine" if chosen.refine.refine else "--no-refine")
    return " ".join(words)


def describe(job: Job, console: Console) -> None:
    """Print the result of a dry run: remaining work and its cost."""
    from romacli.job.estimate import estimate

    values = asdict(estimate(job))
    console.result(
        values,
        f"{values['remaining']} of {counted(values['pairs'], 'pair')} to match, {counted(values['encodes'], 'encode')} "
        f"({values['encodes_per_pair']:.2f} per pair, {counted(values['capacity'], 'image')} cached), "
        f"about {values['seconds']:.0f} s and {values['journal_bytes'] / 1e6:.0f} MB",
    )


def match_values(summary: MatchSummary) -> dict[str, Any]:
    """The summary of a matching run as JSON values."""
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
    """Raise a PartialError listing the photographs and pairs that could not be used, if any."""
    lines = []
    if summary.failures:
        lines.append(
            f"{counted(len(summary.failures), 'photograph')} could not be used, leaving out "
            f"{counted(summary.failed, 'pair')}:"
        )
        lines.extend(f"  {reason}" for reason in summary.failures.values())
    if summary.given_up:
        lines.append(
            f"{counted(len(summary.given_up), 'pair was', 'pairs were')} given up, starting with "
            f"{' '.join(summary.given_up[0])}; listed in {layout.given_up}. Run the same command again to retry them."
        )
    if lines:
        raise PartialError("\n".join(lines))
