"""Strict JPEG decoding: refuses files whose missing parts libjpeg would fill with grey or garbage."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from romacli.errors import ImageError
from romacli.types import Size

MAX_PIXELS = 2**30  # OpenCV's limit

_START, _LAST_BYTES = b"\xff\xd8\xff", b"\xff\xd9"
# Marker codes: Huffman tables, the end, a scan; and frames whose scans contain whole coefficients.
_TABLES, _END, _SCAN, _SEQUENTIAL = 0xC4, 0xD9, 0xDA, (0xC0, 0xC1)
# In entropy-coded data FF is followed by 00 or a restart marker, and FF FF pads; all else is the next marker.
_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd8\xff])", re.DOTALL)
# libjpeg's messages about odd headers, which do not affect pixels, and about unsupported files. All others mean damage.
_ODDITY = re.compile("bad ICC|Adobe|JFIF|Invalid SOS")
_UNKNOWN = re.compile("Unsupported (?!marker)|subsampling")
_SURPLUS = re.compile("([0-9]+) extraneous bytes before marker 0xd9")
_ZEROS = bytes(64)


def is_jpeg(data: bytes) -> bool:
    """Whether a file is a JPEG, by its first bytes."""
    return data.startswith(_START)


def read_jpeg(path: Path, data: bytes, least: Size = (0, 0)) -> np.ndarray | None:
    """Decode a JPEG into (H, W, 3) uint8 RGB, as stored; where a least width and height are given, to a half, quarter
    or eighth that is no smaller, at a fraction of the time.

    Returns None for other formats, and for JPEGs that libjpeg cannot convert to RGB (CMYK) or does not support.

    Raises:
        ImageError: it is truncated, or damaged inside.
    """
    if not is_jpeg(data):
        return None
    import simplejpeg

    if lacks_end(data):
        raise cut_off(path)
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data, strict=False)
        if width * height > MAX_PIXELS:
            return None
        wanted = "CMYK" if space in ("CMYK", "YCCK") else "RGB"
        try:
            image = _decode(data, wanted, least, strict=True)
        except ValueError as error:
            if _UNKNOWN.search(str(error)):
                return None
            if not _ODDITY.search(str(error)) and not _is_padding(str(error), data[: _end(data)]):
                raise _damaged(path, str(error)) from error
            image = _decode(data, wanted, least, strict=False)
        else:
            if _has_lost_block(data):
                raise _damaged(path, "a block of zeros where pixels should be")
    except ValueError:
        return None
    return image if wanted == "RGB" else None


def lacks_end(data: bytes) -> bool:
    """Whether a JPEG stops before its end."""
    # Stray bytes inside can look like a segment without end.
    return not data.endswith(_LAST_BYTES) and _end(data) is None


def _end(data: bytes) -> int | None:
    return next((position for code, position in _segments(data) if code == _END), None)


def cut_off(path: Path) -> ImageError:
    """The error for a truncated file."""
    return ImageError(f"{path} is cut off before its end. Copy it again from its source, or leave it out.")


def _damaged(path: Path, reason: str) -> ImageError:
    return ImageError(f"{path} is damaged inside ({reason}). Copy it again from its source, or leave it out.")


def _decode(data: bytes, space: str, least: Size, *, strict: bool) -> np.ndarray:
    import simplejpeg

    width, height = least
    exact = {"fastdct": False, "fastupsample": False, "strict": strict}
    return simplejpeg.decode_jpeg(data, space, min_width=width, min_height=height, min_factor=1, **exact)


def _is_padding(complaint: str, data: bytes) -> bool:
    """Whether surplus bytes before the end are all equal: some cameras pad their files."""
    surplus = _SURPLUS.search(complaint)
    return surplus is not None and len(set(data[-int(surplus[1]) :])) == 1


def _segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield the code and offset of each marker, skipping those in embedded thumbnails."""
    position = 2
    while marker := _MARKER.search(data, position):
        yield marker[1][0], marker.start()
        position = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")


def _has_lost_block(data: bytes) -> bool:
    """Whether the scan has a run of zeros that decodes but cannot come from a photograph.

    By chance they may decode to the right number of blocks, so that libjpeg reports no error but everything after them
    has the wrong brightness. Flat areas are coded as zeros only if the zero code means so in every table.
    """
    is_sequential = has_other_meaning = False
    for code, position in _segments(data):
        if code == _SCAN:
            return is_sequential and has_other_meaning and _ZEROS in data[position:]
        is_sequential |= code in _SEQUENTIAL
        if code == _TABLES:
            has_other_meaning |= any(symbol != 0 for symbol in _first_symbols(data, position + 2))
    return False


def _first_symbols(data: bytes, start: int) -> Iterator[int]:
    """The meaning of the all-zero code in each AC table of a segment; 0 ends a block."""
    position, end = start + 2, start + int.from_bytes(data[start : start + 2], "big")
    while position + 17 < end:
        if data[position] >> 4:
            yield data[position + 17]
        position += 17 + sum(data[position + 1 : position + 17])
