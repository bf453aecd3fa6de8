"""`romacli colmap-import`: a job's matches into a COLMAP database."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated

import typer

from romacli.cli.console import Console, stopping
from romacli.cli.options import ImageFlags, ImportFlags, OutputFlags, TalkFlags, takes
from romacli.cli.request import import_options
from romacli.words import counted


@dataclass(frozen=True)
class ReplaceFlags:
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a database that romacli did not make.")] = (
        False
    )


def add_to(app: typer.Typer) -> None:
    app.command("colmap-import", epilog="Example: romacli colmap-import photos/ -o job --camera-mode single")(
        colmap_import
    )


@takes(ImageFlags, OutputFlags, ImportFlags, ReplaceFlags, TalkFlags)
def colmap_import(
    images: ImageFlags, output: OutputFlags, flags: ImportFlags, replace: ReplaceFlags, talk: TalkFlags
) -> None:
    """Verify a job's matches and write cameras, images, keypoints and matches into a COLMAP database.

    The database is built beside its place and appears whole. One that romacli did not make is left alone.
    """
    from romacli.images.listing import list_images
    from romacli.job.colmap import import_matches
    from romacli.store.layout import Layout

    layout = Layout(output.output)
    only = frozenset(list_images(images.folder, names_file=images.image_list).names) if images.image_list else None
    options = import_options(flags, only=only, overwrite=replace.overwrite)
    with stopping() as stop, Console(quiet=talk.quiet, verbose=talk.verbose) as console:
        summary = import_matches(images.folder, layout, options, console, stop)
        console.result(
            asdict(summary),
            f"{summary.verified} of {counted(summary.pairs, 'pair')} verified, "
            f"{counted(summary.keypoints, 'keypoint')} in "
            f"{counted(summary.images, 'image')}; see {options.database or layout.database}",
            as_json=talk.as_json,
        )
