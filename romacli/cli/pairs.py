"""`romacli pairs`: lists of image pairs in hloc's grammar."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from romacli.cli.console import Console, stopping
from romacli.cli.options import ImageFlags, TalkFlags, takes
from romacli.cli.pairing import (
    CovisibleFlags,
    DatabaseFlags,
    NumMatchedFlags,
    PosesFlags,
    ReferenceModelFlags,
    SequentialFlags,
    SpatialFlags,
    pairing_options,
)
from romacli.types import PairList

app = typer.Typer(help="Write a list of image pairs, two names a line, as hloc reads them.", no_args_is_help=True)


@dataclass(frozen=True)
class PairsOutputFlags:
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="Pairs file to write; - is standard output.")
    ] = "-"


@dataclass(frozen=True)
class FilesFlags:
    files: Annotated[list[Path], typer.Argument(metavar="FILES...", help="Pairs files, two names a line.")]


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


@_command("sequential", "photos/ --overlap 5", SequentialFlags)
def sequential() -> None:
    """Pair each image with those that follow it in the order of their names, numbers read as numbers."""


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
            console.say(f"{path}: {added} pairs that no list before it has")
        added_by = {str(path): added for path, added in zip(files.files, merged.added, strict=True)}
        values = {"pairs": len(merged.pairs), "added": added_by}
        _write(merged.pairs, output, talk, console, values, f"{len(merged.pairs)} pairs")


def _choose(name: str, images: ImageFlags, groups: list[Any], output: PairsOutputFlags, talk: TalkFlags) -> None:
    from romacli.images.listing import list_images
    from romacli.pipeline.pairing import choose_pairs

    with stopping() as stop, Console(quiet=talk.quiet, verbose=talk.verbose) as console, stop.at_once():
        listed = list_images(images.folder, names_file=images.image_list)
        pairs = choose_pairs(listed, pairing_options(name, *groups), console)
        values = {"images": len(listed), "pairs": len(pairs)}
        _write(pairs, output, talk, console, values, f"{len(pairs)} pairs of {len(listed)} images")


def _write(
    pairs: PairList, output: PairsOutputFlags, talk: TalkFlags, console: Console, values: dict[str, Any], sentence: str
) -> None:
    from romacli.pairs import format_pairs
    from romacli.store.layout import written_whole

    if output.output == "-":
        print(format_pairs(pairs), end="")
        return
    with written_whole(Path(output.output)) as temporary:
        temporary.write_text(format_pairs(pairs), encoding="utf-8")
    console.result(values, f"{sentence} in {output.output}", as_json=talk.as_json)
