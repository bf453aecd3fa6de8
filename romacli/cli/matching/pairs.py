"""`romacli pairs`: lists of image pairs in hloc's format."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from romacli.cli.console import Console, stopping
from romacli.cli.options import TalkOptions, takes
from romacli.errors import PartialError
from romacli.images.options import ImageOptions
from romacli.matchers.options import MatcherChoice
from romacli.options import Option
from romacli.pairing.options import DescriptorOptions, require_read
from romacli.pairing.source import Source
from romacli.pairing.sources import SOURCES, choose_pairs
from romacli.types import PairList
from romacli.words import counted

if TYPE_CHECKING:
    from romacli.pairing.describe import Describer

app = typer.Typer(help="Write a list of image pairs, two names per line as in hloc.", no_args_is_help=True)


@dataclass(frozen=True)
class PairsOutput:
    output: Annotated[str, Option("Pairs file to write; - for standard output.", metavar="FILE", short="o")] = "-"


@dataclass(frozen=True)
class Lists:
    files: Annotated[list[Path], Option("Pairs files, two names per line.", metavar="FILES...", is_argument=True)]


def _add(source: Source) -> None:
    """Add the command of a source: its options, and a matcher's if it may read photographs."""
    looks = (DescriptorOptions, MatcherChoice) if source.looks or source.switch else ()

    @takes(ImageOptions, source.options, *looks, PairsOutput, TalkOptions)
    def run(images: ImageOptions, options: Any, *rest: Any) -> None:
        *chosen, output, talk = rest
        _choose(source, images, options, chosen, output, talk)

    run.__doc__ = source.options.__doc__
    app.command(source.name, epilog=f"Example: romacli pairs {source.name} {source.example} -o pairs.txt")(run)


for _source in SOURCES.values():
    _add(_source)


@app.command(epilog="Example: romacli pairs merge sequential.txt loops.txt -o pairs.txt")
@takes(Lists, PairsOutput, TalkOptions)
def merge(files: Lists, output: PairsOutput, talk: TalkOptions) -> None:
    """Merge lists of pairs without duplicates, and report how many pairs each list added."""
    from romacli.pairs.listfile import read_pairs
    from romacli.pairs.merge import merge

    merged, counts = merge([read_pairs(path, None).pairs for path in files.files])
    with Console(talk) as console:
        added: Counter[str] = Counter()
        for path, count in zip(map(str, files.files), counts, strict=True):
            console.say(f"{path}: {counted(count, 'new pair')}")
            added[path] += count  # a list may be named twice
        values = {"pairs": len(merged), "added": added}
        _write(merged, output, console, values, counted(len(merged), "pair"))


def _choose(
    source: Source, images: ImageOptions, options: Any, looks: list[Any], output: PairsOutput, talk: TalkOptions
) -> None:
    from romacli.disk import check_writable
    from romacli.images.listing import list_images
    from romacli.run.photographs import tell_left_out

    if output.output != "-":
        check_writable(Path(output.output))
    with stopping() as stop, Console(talk) as console, stop.at_once():
        listed = list_images(images.folder, names_file=images.image_list)
        tell_left_out(listed.left_out, console)
        describer = None
        if looks:
            descriptors, matcher = looks
            require_read(source, options, descriptors.descriptors)
            if source.looks_at_photographs(options):
                source.check(options, listed)
                describer = _describer(descriptors, matcher, console)
        pairs = choose_pairs(listed, options, console, describe=describer)
        values = {"images": len(listed), "pairs": len(pairs)}
        _write(pairs, output, console, values, f"{counted(len(pairs), 'pair')} of {counted(len(listed), 'image')}")
        if describer and describer.failures:
            reasons = "\n".join(f"  {reason}" for reason in describer.failures.values())
            raise PartialError(f"{counted(len(describer.failures), 'photograph')} could not be paired:\n{reasons}")


def _describer(descriptors: DescriptorOptions, matcher: MatcherChoice, console: Console) -> Describer:
    """Build the describer of photographs."""
    from romacli.matchers.registry import load_matcher
    from romacli.pairing.describe import Describer

    made_by = load_matcher(matcher.model, matcher.matcher)
    return Describer(made_by, descriptors.descriptors, console, option="--descriptors")


def _write(pairs: PairList, output: PairsOutput, console: Console, values: dict[str, Any], sentence: str) -> None:
    from romacli.pairs.listfile import format_pairs, write_pairs

    if output.output == "-":
        if console.talk.as_json:
            console.result({**values, "list": pairs.pairs}, sentence)
        else:
            print(format_pairs(pairs), end="")
        return
    write_pairs(Path(output.output), pairs)
    console.result(values, f"{sentence} in {output.output}")
