"""`romacli pairs`: lists of image pairs in hloc's grammar."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from romacli.cli.console import Console
from romacli.cli.options import ImageFlags, TalkFlags, takes
from romacli.types import ImageList, PairList

app = typer.Typer(help="Write a list of image pairs, two names a line, as hloc reads them.", no_args_is_help=True)


@dataclass(frozen=True)
class PairsOutputFlags:
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="Pairs file to write; - is standard output.")
    ] = "-"


@dataclass(frozen=True)
class SequentialFlags:
    overlap: Annotated[
        int, typer.Option(min=1, help="Pair each image with this many that follow it. More pairs take more time.")
    ] = 5
    quadratic: Annotated[bool, typer.Option(help="Pair also at distances 1, 2, 4, 8, ...")] = False


@app.command(epilog="Example: romacli pairs exhaustive photos/ -o pairs.txt")
@takes(ImageFlags, PairsOutputFlags, TalkFlags)
def exhaustive(images: ImageFlags, output: PairsOutputFlags, talk: TalkFlags) -> None:
    """Pair every image with every other: n (n - 1) / 2 pairs."""
    from romacli.pairs import exhaustive

    listed = _listed(images)
    _write(listed, exhaustive(listed.names), output, talk)


@app.command(epilog="Example: romacli pairs sequential photos/ --overlap 5 -o pairs.txt")
@takes(ImageFlags, SequentialFlags, PairsOutputFlags, TalkFlags)
def sequential(images: ImageFlags, chosen: SequentialFlags, output: PairsOutputFlags, talk: TalkFlags) -> None:
    """Pair each image with those that follow it in the order of their names, numbers read as numbers."""
    from romacli.pairs import sequential

    listed = _listed(images)
    pairs = sequential(listed.names, overlap=chosen.overlap, quadratic=chosen.quadratic)
    _write(listed, pairs, output, talk)


def _listed(images: ImageFlags) -> ImageList:
    from romacli.images.listing import list_images

    return list_images(images.folder, names_file=images.image_list)


def _write(listed: ImageList, pairs: PairList, output: PairsOutputFlags, talk: TalkFlags) -> None:
    from romacli.pairs import format_pairs
    from romacli.store.layout import written_whole

    if output.output == "-":
        print(format_pairs(pairs), end="")
        return
    with written_whole(Path(output.output)) as temporary:
        temporary.write_text(format_pairs(pairs), encoding="utf-8")
    with Console(quiet=talk.quiet) as console:
        values = {"images": len(listed), "pairs": len(pairs)}
        console.result(values, f"{len(pairs)} pairs of {len(listed)} images in {output.output}", as_json=talk.as_json)
