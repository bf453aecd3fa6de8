"""Which photographs, and which of their pixels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from romacli.errors import UsageError
from romacli.options import Option, Panel


@dataclass(frozen=True)
class ImageOptions:
    """A folder of photographs, or those of it that a list names."""

    panel: ClassVar[Panel] = Panel.photographs

    images: Annotated[
        Path | None,
        Option(
            "Folder of photographs, walked with its sub-folders.", metavar="IMAGES", is_argument=True, has_default=False
        ),
    ] = None
    image_dir: Annotated[Path | None, Option("", hidden=True)] = None
    image_list: Annotated[
        Path | None, Option("Use only the names in FILE, one a line, instead of the whole folder.", metavar="FILE")
    ] = None

    @property
    def folder(self) -> Path:
        """The folder, however it was given.

        Raises:
            UsageError: it was not.
        """
        folder = self.images or self.image_dir
        if folder is None:
            raise UsageError("IMAGES is missing: name the folder of photographs.")
        return folder


def _folder_or_none(text: str) -> Path | None:
    return None if text == "none" else Path(text)


@dataclass(frozen=True)
class MaskOptions:
    """mask_dir: a folder with a mask for each photograph; camera_mask: one mask for all. Both may be given."""

    panel: ClassVar[Panel] = Panel.photographs

    mask_dir: Annotated[
        Path | None,
        Option(
            "Folder of masks, PNG files of the photographs' sizes: pixels that are black or transparent there "
            "neither give nor receive matches. That of a/1.jpg is a/1.jpg.png, COLMAP's rule, or a/1.png. Masks may "
            "change from run to run; nothing is matched again. Default: those of the run before; none drops them.",
            metavar="DIR|none",
            parse=_folder_or_none,
        ),
    ] = None
    camera_mask: Annotated[
        Path | None, Option("One mask for all photographs, beside those of --mask-dir.", metavar="FILE")
    ] = None
