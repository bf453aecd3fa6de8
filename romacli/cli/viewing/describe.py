"""`romacli describe`: keypoints and descriptors of single photographs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from romacli.cli.console import Console, stopping
from romacli.cli.options import TalkOptions, takes
from romacli.errors import PartialError, UsageError
from romacli.images.options import ImageOptions
from romacli.matchers.options import MatcherOptions, Model
from romacli.options import Option
from romacli.run.options import NumWorkers
from romacli.words import counted


@dataclass(frozen=True)
class DescribeOptions:
    images: ImageOptions
    output: Annotated[Path, Option("File to write, in hloc's layout.", metavar="FILE.h5", short="o")] = Path("local.h5")
    model: Model = "mini-sparse"
    matcher: MatcherOptions = MatcherOptions()
    keypoints: Annotated[
        str | None,
        Option("Keypoints to describe: SIFT's, or those of a file. Default: the model's own.", metavar="sift|FILE.h5"),
    ] = None
    num_workers: NumWorkers = 2


@takes(DescribeOptions, TalkOptions, example="romacli describe photos/ -o local.h5 --model mini-sparse")
def describe(options: DescribeOptions, talk: TalkOptions) -> None:
    """Write keypoints of photographs with their descriptors, as hloc's extractors do.

    The file works with hloc's matchers and with `match --keypoints FILE.h5`, which reuses the same model's descriptors.
    """
    from romacli.describe import describe_images
    from romacli.images.listing import list_images
    from romacli.matchers.describers.sparse import SparseMatcher
    from romacli.matchers.registry import load_matcher
    from romacli.run.photographs import tell_left_out

    with stopping() as stop, Console(talk) as console:
        images = list_images(options.images.folder, names_file=options.images.image_list)
        tell_left_out(images.left_out, console)
        matcher = load_matcher(options.model, replace(options.matcher, keypoints=options.keypoints))
        if not isinstance(matcher, SparseMatcher):
            raise UsageError(
                f"model {options.model} produces warps, not keypoints. Choose a keypoint matcher, such as mini-sparse."
            )
        done = describe_images(images, matcher, options.output, console, stop, num_workers=options.num_workers)
        values = {"images": done.images, "keypoints": done.keypoints, "output": str(options.output)}
        told = f"{counted(done.keypoints, 'keypoint')} of {counted(done.images, 'image')}; see {options.output}"
        console.result({**values, "failed": len(done.failures)}, told)
        if done.failures:
            lines = "\n".join(f"  {reason}" for reason in done.failures.values())
            raise PartialError(f"{counted(len(done.failures), 'photograph')} could not be described:\n{lines}")
