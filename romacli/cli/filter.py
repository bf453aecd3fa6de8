"""`romacli filter`: which pairs of a job show places that only look alike."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import typer

from romacli.cli.console import Console, stopping
from romacli.cli.options import TalkOptions, takes
from romacli.job.options import DEFAULT_OUTPUT, MatchedJob
from romacli.words import counted


@dataclass(frozen=True)
class FilterChoice:
    job: MatchedJob = DEFAULT_OUTPUT


def add_to(app: typer.Typer) -> None:
    app.command("filter", epilog="Example: romacli filter job")(filter_job)


@takes(FilterChoice, TalkOptions)
def filter_job(choice: FilterChoice, talk: TalkOptions) -> None:
    """Tell which pairs of a job may show places that only look alike, by what their warps miss, each with its reason.

    A pair misses a place where both photographs match something with others, and its own warp, carried on from around,
    leads from one to the other but matches nothing. What pairs miss counts against those that agree with them round
    three photographs. Nothing is matched again and no photograph is read; database and keypoints stay as they are.
    `romacli reconstruct --filter` does the same and keeps these pairs from the mapper; --verbose lists all of them.
    """
    from romacli.job.outputs.filter import filter_pairs
    from romacli.store.layout import Layout

    with stopping() as stop, Console(quiet=talk.quiet, verbose=talk.verbose) as console:
        found = filter_pairs(Layout(choice.job), console, stop)
        for pair in found.dropped if talk.verbose else found.dropped[:10]:
            console.say(f"{pair.one} {pair.other}: {pair.reason}")
        for sentence in found.warnings:
            console.warn(sentence)
        console.result(
            asdict(found),
            f"{len(found.dropped)} of {counted(found.pairs, 'pair')} doubted",
            as_json=talk.as_json,
        )
