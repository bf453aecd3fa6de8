"""Formats that need extra packages: HEIC from phones and raw files from cameras."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from romacli.errors import ImageError
from romacli.types import Size


@dataclass(frozen=True)
class Extra:
    """A format that needs `pip install 'romacli[name]'`, with the package that reads it."""

    name: str
    package: str
    extensions: tuple[str, ...]

    @property
    def is_installed(self) -> bool:
        return find_spec(self.package) is not None

    def has(self, name: str) -> bool:
        """Whether a file is of this format, by its extension."""
        return name.lower().endswith(self.extensions)


HEIC = Extra("heic", "pillow_heif", (".heic", ".heif"))
RAW = Extra("raw", "rawpy", (".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2", ".pef"))
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
# LibRaw's flip as EXIF's orientation.
_ORIENTATION_OF_FLIP = {3: 3, 5: 8, 6: 6}


def installed_extensions() -> tuple[str, ...]:
    """Additional extensions that count as photographs."""
    return tuple(extension for extra in (HEIC, RAW) if extra.is_installed for extension in extra.extensions)


def remedy(names: Sequence[str]) -> str:
    """Advice on photographs in unreadable formats."""
    missing = [extra for extra in (HEIC, RAW) if not extra.is_installed and any(map(extra.has, names))]
    if not missing:
        return "Convert them to JPEG or PNG"
    return f"Run pip install 'romacli[{','.join(extra.name for extra in missing)}]', or convert them to JPEG or PNG"


def is_heif(start: bytes) -> bool:
    """Whether a file is HEIC, by its first bytes."""
    return start[4:8] == b"ftyp" and start[8:12] in _HEIF_BRANDS


def teach_pillow_heif() -> None:
    """Let Pillow open HEIC, if installed. It applies the orientation itself, as HEIC requires."""
    if HEIC.is_installed:
        import pillow_heif

        pillow_heif.register_heif_opener(thumbnails=False)


def read_heif(path: Path) -> np.ndarray:
    """Decode HEIC into (H, W, 3) uint8 RGB."""
    _require(HEIC, path)
    import pillow_heif

    try:
        image = pillow_heif.open_heif(path, convert_hdr_to_8bit=True).to_pillow()
        return np.asarray(image.convert("RGB"))
    except (ValueError, OSError, RuntimeError, SyntaxError, EOFError) as error:
        raise _undecodable(path) from error


def read_raw(path: Path) -> np.ndarray:
    """Develop a raw file into (H, W, 3) uint8 RGB, in the orientation of the sensor."""
    with _opened_raw(path) as raw:
        return raw.postprocess(use_camera_wb=True, user_flip=0, output_bps=8)


def raw_size(path: Path) -> Size:
    """(width, height) in px of a developed raw file."""
    with _opened_raw(path) as raw:
        return int(raw.sizes.iwidth), int(raw.sizes.iheight)


def raw_orientation(path: Path) -> int:
    """The EXIF orientation of a raw file."""
    with _opened_raw(path) as raw:
        return _ORIENTATION_OF_FLIP.get(int(raw.sizes.flip), 1)


@contextmanager
def _opened_raw(path: Path) -> Iterator[Any]:
    _require(RAW, path)
    import rawpy

    try:
        with rawpy.imread(str(path)) as raw:
            yield raw
    except (rawpy.LibRawError, OSError) as error:
        raise _undecodable(path) from error


def _require(extra: Extra, path: Path) -> None:
    if not extra.is_installed:
        kind = "HEIC" if extra is HEIC else "a raw file"
        raise ImageError(
            f"{path} is {kind}, which needs an extra. Run pip install 'romacli[{extra.name}]', or convert it to JPEG."
        )


def _undecodable(path: Path) -> ImageError:
    return ImageError(f"{path} cannot be read as an image. Convert it to JPEG or PNG, or leave it out.")
