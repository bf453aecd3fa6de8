"""`romacli bench`: how fast this machine matches, and what reusing features gains."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from romacli.cli.console import Console
from romacli.cli.options import MatcherFlags, TalkFlags, takes
from romacli.cli.request import matcher_options


class Compared(StrEnum):
    uncached = "uncached"


@dataclass(frozen=True)
class BenchFlags:
    images: Annotated[
        Path | None,
        typer.Argument(
            metavar="IMAGES",
            help="Folder of photographs, matched in all pairs. Without it photographs are generated.",
            show_default=False,
        ),
    ] = None
    num_images: Annotated[int, typer.Option(min=2, help="Photographs to use, or to generate.")] = 8
    repeats: Annotated[int, typer.Option(min=1, help="Runs; figures are their medians.")] = 3
    compare: Annotated[
        Compared | None,
        typer.Option(
            help="uncached: in turn with each run, match the same pairs one by one and reuse nothing; the ratio is of "
            "runs side by side.",
            show_default=False,
        ),
    ] = None
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Pairs matched at once. Default: the matcher's own.", show_default=False)
    ] = None
    cache_gb: Annotated[
        float | None,
        typer.Option(min=0, help="Memory in GB for features. Default: what the device has free.", show_default=False),
    ] = None
    num_workers: Annotated[int, typer.Option(min=1, help="Threads that read photographs ahead.")] = 2


def add_to(app: typer.Typer) -> None:
    app.command(epilog="Example: romacli bench photos/ --num-images 6 --compare uncached")(bench)


@takes(BenchFlags, MatcherFlags, TalkFlags)
def bench(flags: BenchFlags, matcher: MatcherFlags, talk: TalkFlags) -> None:
    """Measure how fast pairs are matched, stage by stage, on a folder or on generated photographs.

    Nothing is kept. Times are of the wall clock; on a machine that does other work trust the ratio of --compare, whose
    runs take turns, and no seconds.
    """
    from romacli.eval.photographs import generate_photographs
    from romacli.eval.throughput import bench as measure
    from romacli.images.listing import list_images
    from romacli.matching.registry import load_matcher
    from romacli.pairs import exhaustive
    from romacli.pipeline.match import MatchOptions
    from romacli.types import ImageList

    options = MatchOptions(
        batch_size=flags.batch_size,
        num_workers=flags.num_workers,
        cache_bytes=None if flags.cache_gb is None else round(flags.cache_gb * 1e9),
        strict=True,
    )
    with Console(quiet=talk.quiet, verbose=talk.verbose) as console, tempfile.TemporaryDirectory() as scratch:
        folder = flags.images or generate_photographs(Path(scratch), flags.num_images)
        images = list_images(folder)
        images = ImageList(images.root, images.names[: flags.num_images])
        network = load_matcher(matcher.model, matcher_options(matcher))
        values = measure(
            images,
            exhaustive(images.names),
            network,
            options,
            repeats=flags.repeats,
            compare=flags.compare is not None,
            say=console.say,
        )
        values = {"model": matcher.model, "source": str(flags.images or "generated"), **values}
        console.result(values, table(values), as_json=talk.as_json)


def table(values: dict[str, Any]) -> str:
    """The figures as lines of a table, the compared run beside ours."""
    runs = [name for name in ("cached", "uncached") if name in values]
    lines = [
        f"{values['model']}, {values['images']} images, {values['pairs']} pairs, median of {values['repeats']}",
        f"{'':<20}" + "".join(f"{name:>12}" for name in runs),
    ]
    for key in values["cached"]:
        lines.append(f"{key.replace('_', ' '):<20}" + "".join(f"{values[run][key]:>12.3f}" for run in runs))
    lines.append(
        f"fewest encodes {values['fewest_encodes']}; products {values['matrix_gflops']} GFLOP/s, "
        f"copies {values['copy_gb_s']} GB/s, peak memory {values['peak_gb']} GB"
    )
    if "ratio" in values:
        lines.append(f"{values['ratio']:.2f} times as fast as uncached")
    return "\n".join(lines)
