"""JPEG, decoded strictly: what libjpeg fills with grey or garbage is no photograph."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from romacli.errors import ImageError

MAX_PIXELS = 2**30  # what OpenCV decodes at most, and hence all of us

_START, _LAST_BYTES = b"\xff\xd8\xff", b"\xff\xd9"
# Codes of markers: Huffman tables, the end, a scan; and of frames, the one whose scans hold whole coefficients.
_TABLES, _END, _SCAN, _SEQUENTIAL = 0xC4, 0xD9, 0xDA, (0xC0, 0xC1)
# In entropy-coded data FF is followed by 00 or a restart marker, and FF FF pads; all else is the next marker.
_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd8\xff])", re.DOTALL)
# What libjpeg says of odd headers, which change no pixel, and of files that it does not read. All else is damage.
_ODDITY = re.compile("bad ICC|Adobe|JFIF|Invalid SOS")
_UNKNOWN = re.compile("Unsupported (?!marker)|subsampling")
_SURPLUS = re.compile("([0-9]+) extraneous bytes before marker 0xd9")
_ZEROS = bytes(64)


def is_jpeg(data: bytes) -> bool:
    """Tell by its first bytes whether a file is a JPEG."""
    return data.startswith(_START)


def read_jpeg(path: Path, data: bytes) -> np.ndarray | None:
    """Decode a JPEG into (H, W, 3) uint8 RGB, as stored.

    Returns None for another format, and where libjpeg has no way to RGB (CMYK) or does not know it.

    Raises:
        ImageError: it is cut off, or damaged inside.
    """
    if not is_jpeg(data):
        return None
    import simplejpeg

    end = next((position for code, position in _segments(data) if code == _END), None)
    if end is None and not data.endswith(_LAST_BYTES):  # foreign bytes inside can look like a segment without end
        raise cut_off(path)
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data, strict=False)
        if width * height > MAX_PIXELS:
            return None
        wanted = "CMYK" if space in ("CMYK", "YCCK") else "RGB"
        try:
            image = _decode(data, wanted, strict=True)
        except ValueError as error:
            if _UNKNOWN.search(str(error)):
                return None
            if not _ODDITY.search(str(error)) and not _is_padding(str(error), data[:end]):
                raise _damaged(path, str(error)) from error
            image = _decode(data, wanted, strict=False)
        else:
            if _has_lost_block(data):
                raise _damaged(path, "a block of zeros where pixels should be")
    except ValueError:
        return None
    return image if wanted == "RGB" else None


def cut_off(path: Path) -> ImageError:
    """What to say of a file that ends too early."""
    return ImageError(f"{path} is cut off before its end. Copy it again from its source, or leave it out.")


def _damaged(path: Path, reason: str) -> ImageError:
    return ImageError(f"{path} is damaged inside ({reason}). Copy it again from its source, or leave it out.")


def _decode(data: bytes, space: str, *, strict: bool) -> np.ndarray:
    import simplejpeg

    return simplejpeg.decode_jpeg(data, space, fastdct=False, fastupsample=False, strict=strict)


def _is_padding(complaint: str, data: bytes) -> bool:
    """Whether the bytes too many before the end are all alike: some cameras fill their files up."""
    surplus = _SURPLUS.search(complaint)
    return surplus is not None and len(set(data[-int(surplus[1]) :])) == 1


def _segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield code and place of markers, segment by segment, so that an embedded thumbnail's do not count."""
    position = 2
    while marker := _MARKER.search(data, position):
        yield marker[1][0], marker.start()
        position = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")


def _has_lost_block(data: bytes) -> bool:
    """Whether there are zeros in the scan that no photograph is coded by, though they decode.

    They may hold by chance as many blocks of pixels as were there, so that libjpeg ends where it should, with all that
    follows in wrong brightness. Flat areas are zeros only where the code of zeros means so in every table.
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
    """What the code of zeros means in each table of AC coefficients in a segment; 0 ends a block."""
    position, end = start + 2, start + int.from_bytes(data[start : start + 2], "big")
    while position + 17 < end:
        if data[position] >> 4:
            yield data[position + 17]
        position += 17 + sum(data[position + 1 : position + 17])
