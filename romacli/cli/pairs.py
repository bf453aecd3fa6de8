"""`romacli pairs`: lists of image pairs in hloc's grammar."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from romacli.cli.console import Console, stopping
from romacli.cli.options import ImageFlags, MatcherFlags, TalkFlags, takes
from romacli.cli.pairing import (
    CovisibleFlags,
    DatabaseFlags,
    DescriptorFlags,
    LikenessFlags,
    ListFlags,
    NumMatchedFlags,
    PosesFlags,
    ReferenceModelFlags,
    SequentialFlags,
    SpatialFlags,
    pairing_options,
)
from romacli.cli.request import matcher_options
from romacli.errors import PartialError
from romacli.types import ImageList, PairList
from romacli.words import counted

if TYPE_CHECKING:
    from romacli.pairing.describe import Describer
    from romacli.pairing.sources import PairingOptions

app = typer.Typer(help="Write a list of image pairs, two names a line, as hloc reads them.", no_args_is_help=True)


@dataclass(frozen=True)
class PairsOutputFlags:
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="Pairs file to write; - is standard output.")
    ] = "-"


@dataclass(frozen=True)
class FilesFlags:
    files: Annotated[list[Path], typer.Argument(metavar="FILES...", help="Pairs files, two names a line.")]


_LOOKS = (NumMatchedFlags, LikenessFlags, DescriptorFlags, MatcherFlags)


def _command(name: str, example: str, *groups: type) -> Callable[[Callable[..., None]], None]:
    """Register the command of a source of pairs, with the options of groups; the function lends it its help."""

    def register(described: Callable[..., None]) -> None:
        @takes(ImageFlags, *groups, PairsOutputFlags, TalkFlags)
        def run(images: ImageFlags, *rest: Any) -> None:
            *chosen, output, talk = rest
            _choose(name, images, chosen, output, talk)

        run.__doc__ = described.__doc__
        app.command(name, epilog=f"Example: romacli pairs {name} {example} -o pairs.txt")(run)

    return register


@_command("exhaustive", "photos/")
def exhaustive() -> None:
    """Pair every image with every other: n (n - 1) / 2 pairs."""


@_command("sequential", "photos/ --overlap 5", SequentialFlags, *_LOOKS)
def sequential() -> None:
    """Pair each image with those that follow it in the order of their names, numbers read as numbers."""


@_command("retrieval", "photos/ --num-matched 20", ListFlags, *_LOOKS)
def retrieval() -> None:
    """Pair images that look alike, by descriptors pooled from the matcher's own coarse features.

    They are hloc's global features; with --descriptors those of any tool are compared.
    """


@_command("spatial", "photos/ --max-distance-m 30", SpatialFlags)
def spatial() -> None:
    """Pair images taken near each other, by the GPS positions in their EXIF data or by those of a file.

    Distances are geodesic, right across the poles and the date line.
    """


@_command("poses", "photos/ --reference-model sparse/0", ReferenceModelFlags, NumMatchedFlags, PosesFlags)
def poses() -> None:
    """Pair images whose cameras, in a COLMAP model, look at the same part of space.

    The overlap of two cameras is the mean share of what each sees, between the nearest and the farthest of its
    points, that lies in view of the other.
    """


@_command("covisible", "photos/ --reference-model sparse/0", ReferenceModelFlags, NumMatchedFlags, CovisibleFlags)
def covisible() -> None:
    """Pair images that see the same points of a COLMAP model."""


@_command("from-database", "photos/ --reference-database database.db", DatabaseFlags)
def from_database() -> None:
    """Take the verified pairs of a COLMAP database, or its matched ones where none is verified."""


@app.command(epilog="Example: romacli pairs merge sequential.txt loops.txt -o pairs.txt")
@takes(FilesFlags, PairsOutputFlags, TalkFlags)
def merge(files: FilesFlags, output: PairsOutputFlags, talk: TalkFlags) -> None:
    """Join lists of pairs, each pair once, and say how many each list added."""
    from romacli.pairs import merge, read_pairs

    merged = merge([read_pairs(path, None).pairs for path in files.files])
    with Console(quiet=talk.quiet, verbose=talk.verbose) as console:
        for path, added in zip(files.files, merged.added, strict=True):
            console.say(f"{path}: {counted(added, 'pair')} that no list before it has")
        added_by = {str(path): added for path, added in zip(files.files, merged.added, strict=True)}
        values = {"pairs": len(merged.pairs), "added": added_by}
        _write(merged.pairs, output, talk, console, values, counted(len(merged.pairs), "pair"))


def _choose(name: str, images: ImageFlags, groups: list[Any], output: PairsOutputFlags, talk: TalkFlags) -> None:
    from romacli.images.listing import list_images
    from romacli.pairing.sources import choose_pairs
    from romacli.run.photographs import tell_left_out

    with stopping() as stop, Console(quiet=talk.quiet, verbose=talk.verbose) as console, stop.at_once():
        listed = list_images(images.folder, names_file=images.image_list)
        if images.image_list is None:
            tell_left_out(images.folder, console)
        options = pairing_options(name, *groups)
        describer = _describer(listed, options, groups, console) if options.looks_at_photographs else None
        pairs = choose_pairs(listed, options, console, describe=describer)
        values = {"images": len(listed), "pairs": len(pairs)}
        _write(
            pairs, output, talk, console, values, f"{counted(len(pairs), 'pair')} of {counted(len(listed), 'image')}"
        )
        if describer and describer.failures:
            reasons = "\n".join(f"  {reason}" for reason in describer.failures.values())
            raise PartialError(
                f"{counted(len(describer.failures), 'photograph')} could not be used for pairs:\n{reasons}"
            )


def _describer(images: ImageList, options: PairingOptions, groups: list[Any], console: Console) -> Describer:
    """What describes the photographs; the matcher is built once the options are seen to fit them."""
    from romacli.matchers.registry import load_matcher
    from romacli.pairing.describe import Describer

    options.check(images)
    chosen = next(group for group in groups if isinstance(group, MatcherFlags))
    descriptors = next(group.descriptors for group in groups if isinstance(group, DescriptorFlags))
    return Describer(load_matcher(chosen.model, matcher_options(chosen)), descriptors, console)


def _write(
    pairs: PairList, output: PairsOutputFlags, talk: TalkFlags, console: Console, values: dict[str, Any], sentence: str
) -> None:
    from romacli.pairs import format_pairs
    from romacli.store.layout import written_whole

    if output.output == "-":
        if talk.as_json:
            console.result({**values, "list": pairs.pairs}, sentence, as_json=True)
        else:
            print(format_pairs(pairs), end="")
        return
    with written_whole(Path(output.output)) as temporary:
        temporary.write_text(format_pairs(pairs), encoding="utf-8")
    console.result(values, f"{sentence} in {output.output}", as_json=talk.as_json)
