"""`romacli bench`: matching speed of this machine, and the gain from cached features."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from romacli.cli.console import Console
from romacli.cli.options import TalkOptions, takes
from romacli.errors import UsageError
from romacli.matchers.options import MatcherChoice
from romacli.options import Choice, Option
from romacli.run.options import BatchSize, CacheGb, MatchOptions, NumWorkers


class Compared(Choice):
    uncached = "uncached"


@dataclass(frozen=True)
class BenchOptions:
    images: Annotated[
        Path | None,
        Option(
            "Folder of photographs; all pairs are matched. Default: generated photographs.",
            metavar="IMAGES",
            is_argument=True,
            has_default=False,
        ),
    ] = None
    num_images: Annotated[int, Option("Number of photographs to use or generate.", min=2)] = 8
    repeats: Annotated[int, Option("Number of runs; figures are medians.", min=1)] = 3
    compare: Annotated[
        Compared | None,
        Option(
            "uncached: also match the same pairs one by one without caching, half before and half after each run. "
            "The ratio is given with the upper bound that the run's stage times imply."
        ),
    ] = None
    uncached_pairs: Annotated[
        int | None,
        Option(
            "With --compare: match only this many pairs uncached, spread over the list, and extrapolate. For large "
            "models, where all pairs would take hours. Default: all.",
            min=1,
        ),
    ] = None
    seeded_weights: Annotated[
        bool,
        Option(
            "Build the model at full size with random weights from a fixed seed: realistic times without the "
            "download. Matches are meaningless, and no pair is rejected."
        ),
    ] = False
    batch_size: BatchSize = None
    cache_gb: CacheGb = None
    num_workers: NumWorkers = 2


@takes(BenchOptions, MatcherChoice, TalkOptions, example="romacli bench photos/ --num-images 6 --compare uncached")
def bench(flags: BenchOptions, matcher: MatcherChoice, talk: TalkOptions) -> None:
    """Measure how fast pairs are matched, stage by stage, on a folder or on generated photographs.

    Nothing is kept. Times are wall-clock times; on a busy machine trust only the ratio of --compare, whose runs
    alternate.

    Peak memory is that of the whole process, weights included; on a GPU, that of its tensors.
    """
    from romacli.eval.photographs import generate_photographs
    from romacli.eval.throughput import bench as measure
    from romacli.images.listing import list_images
    from romacli.matchers.registry import load_matcher, load_seeded
    from romacli.pairs.exhaustive import exhaustive
    from romacli.types import ImageList

    if flags.seeded_weights and matcher.matcher.weights is not None:
        raise UsageError(
            f"--weights {matcher.matcher.weights} and --seeded-weights exclude each other. Omit one of them."
        )
    if flags.uncached_pairs is not None and flags.compare is None:
        raise UsageError("--uncached-pairs has no effect without --compare uncached. Add that, or omit it.")
    options = MatchOptions(
        batch_size=flags.batch_size, num_workers=flags.num_workers, cache_gb=flags.cache_gb, strict=True
    )
    with Console(talk) as console, tempfile.TemporaryDirectory() as scratch:
        folder = flags.images or generate_photographs(Path(scratch), flags.num_images)
        images = list_images(folder)
        images = ImageList(images.root, images.names[: flags.num_images])
        load = load_seeded if flags.seeded_weights else load_matcher
        network = load(matcher.model, matcher.matcher)
        values = measure(
            images,
            exhaustive(images.names),
            network,
            options,
            repeats=flags.repeats,
            compare=flags.compare is not None,
            uncached_pairs=flags.uncached_pairs,
            say=console.say,
        )
        values = {
            "model": matcher.model,
            "weights": "seeded" if flags.seeded_weights else str(matcher.matcher.weights or "its own"),
            "source": str(flags.images or "generated"),
            **values,
        }
        console.result(values, table(values))


def table(values: dict[str, Any]) -> str:
    """The figures as a table, with the compared run if any, then the shares of the stages."""
    runs = [name for name in ("cached", "uncached") if name in values]
    seeded = " with seeded weights" if values["weights"] == "seeded" else ""
    lines = [
        f"{values['model']}{seeded}, {values['images']} images, {values['pairs']} pairs, median of {values['repeats']}",
        f"{'':<20}" + "".join(f"{name:>12}" for name in runs),
    ]
    for key in values["cached"]:
        lines.append(f"{key.replace('_', ' '):<20}" + "".join(f"{values[run][key]:>12.3f}" for run in runs))
    shares = ", ".join(f"{stage} {100 * share:.0f} %" for stage, share in values["shares"].items())
    lines.append(f"of the time: {shares}")
    lines.append(f"fewest encodes {values['fewest_encodes']}; {values['dtype']}, peak memory {values['peak_gb']} GB")
    if values["rejected"]:
        lines.append(f"{values['rejected']} of {values['pairs']} pairs rejected, which may take less time than others")
    if "ratio" in values:
        lines.append(
            f"{values['ratio']:.2f} times as fast as uncached, {100 * values['of_bound']:.0f} % of the upper bound "
            f"{values['bound']:.2f} from the run's stage times"
        )
        if values["uncached_pairs"] < values["pairs"]:
            lines.append(
                f"{values['uncached_pairs']} of the {values['pairs']} pairs were matched uncached; the ratio is "
                "extrapolated from them"
            )
    return "\n".join(lines)
