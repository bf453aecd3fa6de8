"""`romacli colmap-import`: write a job's matches into a COLMAP database."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Annotated

from romacli.cli.console import Console, stopping
from romacli.cli.options import TalkOptions, takes
from romacli.images.options import ImageOptions
from romacli.job.options import DEFAULT_OUTPUT, ImportOptions, Output
from romacli.options import Option
from romacli.words import counted


@dataclass(frozen=True)
class Replacing:
    overwrite: Annotated[bool, Option("Replace a database that romacli did not make.")] = False


@dataclass(frozen=True)
class Folders:
    images: ImageOptions
    output: Output = DEFAULT_OUTPUT


@takes(
    Folders, ImportOptions, Replacing, TalkOptions, example="romacli colmap-import photos/ -o job --camera-mode single"
)
def colmap_import(folders: Folders, importing: ImportOptions, replacing: Replacing, talk: TalkOptions) -> None:
    """Verify a job's matches and write cameras, images, keypoints and matches into a COLMAP database.

    The database is written completely or not at all. One that romacli did not make is not replaced.
    """
    from romacli.images.listing import list_images
    from romacli.job.outputs.database import import_matches
    from romacli.store.layout import Layout

    layout, images = Layout(folders.output), folders.images
    only = frozenset(list_images(images.folder, names_file=images.image_list).names) if images.image_list else None
    options = replace(importing, only=only, overwrite=replacing.overwrite)
    with stopping() as stop, Console(talk) as console:
        summary = import_matches(images.folder, layout, options, console, stop)
        console.result(
            asdict(summary),
            f"{summary.verified} of {counted(summary.pairs, 'pair')} verified, "
            f"{counted(summary.keypoints, 'keypoint')} in "
            f"{counted(summary.images, 'image')}; see {options.database or layout.database}",
        )
