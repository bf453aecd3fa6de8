"""`romacli eval BENCHMARK DATA`: a command per published benchmark, and their list."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from romacli.cli.console import Console, print_report, stopping
from romacli.cli.options import TalkOptions, takes
from romacli.eval.benchmarks.table import BENCHMARKS, evaluation_named
from romacli.matchers.options import MatcherChoice
from romacli.options import Option
from romacli.run.options import BatchSize
from romacli.words import counted

if TYPE_CHECKING:
    from romacli.eval.benchmarks.benchmark import Benchmark, Task
    from romacli.eval.benchmarks.run import BenchmarkResult


@dataclass(frozen=True)
class BenchmarkOptions:
    data: Annotated[
        Path,
        Option("Folder of the benchmark's data, as `romacli eval list` shows it.", metavar="DATA", is_argument=True),
    ]
    protocol: Annotated[
        str | None,
        Option("Evaluation protocol, one of those in `romacli eval list`. Default: the papers' own.", metavar="NAME"),
    ] = None
    limit: Annotated[
        int | None,
        Option(
            "Evaluate only this many pairs or models, evenly spread; figures are then not comparable with published "
            "ones.",
            min=1,
        ),
    ] = None
    output: Annotated[
        Path | None,
        Option(
            "Write the errors of each pair as JSON lines; the same command resumes after the last one.",
            metavar="FILE",
            short="o",
        ),
    ] = None


@dataclass(frozen=True)
class DrawOptions:
    seed: Annotated[int, Option("Seed of every random choice.", min=0)] = 0
    batch_size: BatchSize = None


def add_to(app: typer.Typer) -> None:
    app.command("list", epilog="Example: romacli eval list")(takes(TalkOptions)(list_benchmarks))
    for row in BENCHMARKS.values():
        example = f"Example: romacli eval {row.name} data/ --model {row.model} -o {row.name}.jsonl"
        groups = (BenchmarkOptions, MatcherChoice, TalkOptions, *([DrawOptions] if row.draws else []))
        app.command(row.name, epilog=example)(takes(*groups)(_command(row)))


def list_benchmarks(talk: TalkOptions) -> None:
    """List the benchmarks: their protocols, the layout of their data, and where to get it."""
    rows: list[dict[str, Any]] = [
        {
            "name": row.name,
            "summary": row.summary,
            "measure": str(row.measure),
            "protocols": {name: str(evaluation) for name, evaluation in row.evaluations.items()},
            "layout": row.layout.split("\n"),
            "origin": row.origin,
        }
        for row in BENCHMARKS.values()
    ]
    texts = []
    for row in rows:
        lines = [f"{row['name']}: {row['summary']}", f"  {row['measure']}"]
        lines += [f"  --protocol {name}: {text}" for name, text in row["protocols"].items()]
        lines += ["  in DATA:", *(f"    {line}" for line in row["layout"]), f"  from {row['origin']}"]
        texts.append("\n".join(lines))
    print_report({"benchmarks": rows}, "\n\n".join(texts), talk)


def _command(row: Benchmark) -> Callable[..., None]:
    def command(
        flags: BenchmarkOptions, chosen: MatcherChoice, talk: TalkOptions, drawn: DrawOptions | None = None
    ) -> None:
        _run(row, flags, chosen, talk, drawn)

    command.__doc__ = (
        f"Measure a matcher by {row.name}: {row.summary}.\n\nThe figures are {row.measure}. DATA is checked before "
        "anything runs. Resolutions default to those of the papers, if known for the matcher. Published figures are "
        "listed for comparison."
    )
    return command


def _run(
    row: Benchmark, flags: BenchmarkOptions, chosen: MatcherChoice, talk: TalkOptions, drawn: DrawOptions | None
) -> None:
    from romacli.eval.benchmarks.run import Pass, Record, summarise
    from romacli.eval.throughput import spread
    from romacli.matchers.matcher import DenseMatcher
    from romacli.matchers.registry import load_matcher
    from romacli.run.options import MatchOptions

    name, evaluation = evaluation_named(row, flags.protocol)
    known = row.read(flags.data)
    tasks = spread(known, flags.limit or len(known))
    matcher = load_matcher(chosen.model, _at_papers_sizes(row, chosen).matcher)
    made_with: dict[str, Any] = {"benchmark": row.name, "protocol": name, "evaluation": str(evaluation)}
    made_with |= {"model": matcher.settings, **({"seed": drawn.seed} if drawn else {})}
    record = Record(flags.output, made_with)
    options = MatchOptions(batch_size=drawn.batch_size, seed=drawn.seed) if drawn else MatchOptions()
    with Console(talk) as console, stopping() as stop:
        run = Pass(flags.data, matcher, record, options, console, stop)
        import_module(row.judged_by).evaluate(run, tasks, evaluation)
    result = summarise(row, evaluation, tasks, record.errors)
    samples = row.draws and isinstance(matcher, DenseMatcher)
    differing = _differing(row, tasks, known)
    values = {
        **made_with,
        "samples_warps": samples,
        **asdict(result),
        "published": [asdict(other) for other in row.published_by(evaluation)],
        "comparable": bool(row.published_by(evaluation)) and not differing,
    }
    settings = matcher.settings
    sizes = [settings[key] for key in ("coarse_resolution", "upsample_resolution") if settings.get(key)]
    lines = [
        f"{row.name}, {row.measure_of(evaluation)}, in percent",
        f"protocol {name}, {evaluation}",
        *(["The matcher has no warps to sample: all its matches are used."] if row.draws and not samples else []),
        f"model {settings.get('model')}{' at ' + ' and '.join(sizes) if sizes else ''}",
        differing or counted(result.pairs, row.noun),
        f"without estimate: {result.without_estimate} of {result.errors}",
        "",
        *_table(row, evaluation, result),
    ]
    print_report(values, "\n".join(lines), talk)


def _at_papers_sizes(row: Benchmark, chosen: MatcherChoice) -> MatcherChoice:
    """The matcher at the resolutions of the papers, unless some are given."""
    from romacli.matchers.registry import matcher_named

    given = chosen.matcher
    if chosen.model not in row.sizes or given.preset or given.coarse_resolution or given.upsample_resolution:
        return chosen
    coarse, upsample = row.sizes[chosen.model]
    sized = replace(given, coarse_resolution=coarse, upsample_resolution=upsample)
    one_pass = matcher_named(chosen.model).defaults is not None and upsample is None
    return replace(chosen, matcher=replace(sized, upsample=given.upsample and not one_pass))


def _differing(row: Benchmark, tasks: tuple[Task, ...], known: list[Task]) -> str:
    """Why the figures are not comparable with published ones; empty if they are."""
    all_of_them = counted(len(known), row.noun)
    if row.apart:
        return f"{len(tasks)} of {all_of_them}; {row.apart}"
    if len(tasks) < len(known):
        return f"{len(tasks)} of {all_of_them}: not comparable with published figures"
    if row.pairs not in (None, len(known)):
        return f"{all_of_them}, but the benchmark has {row.pairs}: not comparable with published figures"
    return ""


def _table(row: Benchmark, evaluation: Any, result: BenchmarkResult) -> list[str]:
    """The run's figures, and the published ones with their sources."""
    published = row.published_by(evaluation)
    width = max(map(len, ("this run", *(other.method for other in published)))) + 2
    lines = [" " * width + "".join(f"{column:>9}" for column in row.measure_of(evaluation).columns)]
    ours: tuple[float | None, ...] = tuple(result.figures.values())
    rows = [("this run", ours, ""), *((other.method, other.figures, f"  {other.source}") for other in published)]
    for name, figures, source in rows:
        cells = ("-" if figure is None or math.isnan(figure) else f"{figure:.2f}" for figure in figures)
        lines.append(f"{name:{width}}" + "".join(f"{cell:>9}" for cell in cells) + source)
    return lines
