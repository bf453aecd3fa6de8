"""`romacli filter`: find pairs of a job that show look-alike places."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from romacli.cli.console import Console, stopping
from romacli.cli.options import TalkOptions, takes
from romacli.job.options import DEFAULT_OUTPUT, MatchedJob
from romacli.words import counted


@dataclass(frozen=True)
class FilterChoice:
    job: MatchedJob = DEFAULT_OUTPUT


@takes(FilterChoice, TalkOptions, example="romacli filter job")
def filter_job(choice: FilterChoice, talk: TalkOptions) -> None:
    """Find pairs of a job that may show different places that look alike, with a reason for each.

    A pair misses a place that both photographs match with others, and that its own warp, extrapolated, maps from one to
    the other, but does not match. That counts against it; where the photographs are at hand, only if they differ there.
    What it matches and many others miss counts for it. The pairs between two groups of photographs that are consistent
    in image triplets count together; groups between which too little counts stay apart, each with a model of its own.
    Where the job has a database, a pair is also doubted if third images contradict many of the verified matches that
    they see; of the pairs that are kept, contradicted matches are withheld from the mapper.
    Photographs without such details keep all pairs, and so do those that show few, as photographs of different days do,
    unless their triplets contradict each other.
    Nothing is matched again; database and keypoints are not changed. Photographs are read from the job's last folder of
    photographs; if they are gone or have changed, the warps alone decide. `romacli reconstruct` does the same, unless
    --no-filter is given, and excludes these pairs from mapping. --verbose lists all of them.
    """
    from romacli.job.outputs.filter import filter_pairs
    from romacli.job.outputs.model import database_of_job
    from romacli.store.layout import Layout

    with stopping() as stop, Console(talk) as console:
        layout = Layout(choice.job)
        found = filter_pairs(layout, console, stop, database=database_of_job(layout))
        for pair in found.dropped if talk.verbose else found.dropped[:10]:
            console.say(f"{pair.one} {pair.other}: {pair.reason}")
        for sentence in found.warnings:
            console.warn(sentence)
        console.result(asdict(found), f"{len(found.dropped)} of {counted(found.pairs, 'pair')} doubted")
