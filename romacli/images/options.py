"""Options of photographs and masks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from romacli.errors import UsageError
from romacli.options import Option, Panel


@dataclass(frozen=True)
class ImageOptions:
    """A folder of photographs, or the subset that a list names."""

    panel: ClassVar[Panel] = Panel.photographs

    images: Annotated[
        Path | None,
        Option("Folder of photographs, searched recursively.", metavar="IMAGES", is_argument=True, has_default=False),
    ] = None
    image_dir: Annotated[Path | None, Option("", hidden=True)] = None
    image_list: Annotated[
        Path | None, Option("Use only the photographs named in FILE, one per line.", metavar="FILE")
    ] = None

    @property
    def folder(self) -> Path:
        """The folder, given as argument or option.

        Raises:
            UsageError: no folder was given.
        """
        folder = self.images or self.image_dir
        if folder is None:
            raise UsageError("IMAGES is missing: give the folder of photographs.")
        return folder


def _folder_or_none(text: str) -> Path | None:
    return None if text == "none" else Path(text)


@dataclass(frozen=True)
class MaskOptions:
    """mask_dir: a folder with a mask per photograph; camera_mask: one mask for all. They may be combined."""

    panel: ClassVar[Panel] = Panel.photographs

    mask_dir: Annotated[
        Path | None,
        Option(
            "Folder of masks, PNG files of the photographs' sizes whose black or transparent pixels get no matches. "
            "The mask of a/1.jpg is a/1.jpg.png, as in COLMAP, or a/1.png. Masks may change between runs without "
            "matching again. Default: those of the previous run; none drops them.",
            metavar="DIR|none",
            parse=_folder_or_none,
        ),
    ] = None
    camera_mask: Annotated[
        Path | None, Option("One mask for all photographs, in addition to those of --mask-dir.", metavar="FILE")
    ] = None
