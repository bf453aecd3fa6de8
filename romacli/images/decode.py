"""A file's pixels and size in the orientation they are stored in: COLMAP ignores EXIF's, and so do we.

OpenCV decodes, because it keeps 16-bit images whole where Pillow saturates them; Pillow reads headers.
"""

from __future__ import annotations

import re
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from romacli.errors import ImageError
from romacli.types import Size

from .extras import RAW, is_heif, raw_size, read_heif, read_raw, teach_pillow_heif

if TYPE_CHECKING:
    from PIL import Image

_MAX_PIXELS = 2**30  # what OpenCV decodes at most

_pillow_limit_lock = threading.Lock()


def read_image(path: str | Path) -> np.ndarray:
    """Decode a photograph in stored orientation.

    16-bit values are scaled to 8, alpha is dropped, grey, palette and CMYK images become RGB.
    Of several pages or frames the first is taken.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ImageError: the file cannot be opened, is empty or cut off, or is nothing that can be decoded.
    """
    import cv2

    path = Path(path)
    data = _read_bytes(path)
    if RAW.has(path.name):
        return read_raw(path)
    if is_heif(data[:12]):
        return read_heif(path)
    if _is_cut_off(data):
        raise ImageError(f"{path} is cut off before its end. Copy it again from its source, or leave it out.")
    buffer = np.frombuffer(_without_tiff_orientation(data), np.uint8)
    try:
        image = cv2.imdecode(buffer, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise _undecodable(path) from error
    if image is None:
        raise _undecodable(path)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def image_size(path: Path) -> Size:
    """Return (width, height) in px as stored, from the header alone wherever Pillow knows the format.

    Raises:
        ImageError: the file cannot be opened or is no image.
    """
    if RAW.has(path.name):
        _read_bytes(path, 1)
        return raw_size(path)
    with opened_header(path) as image:
        size = None if image is None else stored_size(image)
    if size is None:
        height, width = read_image(path).shape[:2]
        return width, height
    return size


@contextmanager
def opened_header(path: Path) -> Iterator[Image.Image | None]:
    """Yield Pillow's view of a file, its pixels unread, or None where Pillow does not know the format.

    Raises:
        ImageError: the file cannot be opened.
    """
    try:
        stream = path.open("rb")
    except OSError as error:
        raise _unopenable(path, error) from error
    with stream:
        from PIL import Image

        if is_heif(stream.read(12)):
            teach_pillow_heif()
        stream.seek(0)
        # A header costs no memory, so Pillow's guard against huge images is lifted while it is read.
        with _pillow_limit_lock:
            limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            try:
                image = Image.open(stream)
            except Exception:  # Pillow's plugins raise whatever a damaged header makes them stumble over
                image = None
            finally:
                Image.MAX_IMAGE_PIXELS = limit
        yield image


def stored_size(image: Image.Image) -> Size:
    """Return (width, height) in px as stored; Pillow's own `size` is already turned for an oriented TIFF."""
    from PIL.TiffImagePlugin import IMAGELENGTH, IMAGEWIDTH, TiffImageFile

    if isinstance(image, TiffImageFile):
        return int(image.tag_v2[IMAGEWIDTH]), int(image.tag_v2[IMAGELENGTH])
    return image.size


def _read_bytes(path: Path, count: int = -1) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(count)
    except OSError as error:
        raise _unopenable(path, error) from error
    if not data:
        raise ImageError(f"{path} is empty (0 bytes). Copy it again from its source, or leave it out.")
    return data


def _unopenable(path: Path, error: OSError) -> ImageError:
    return ImageError(f"{path} cannot be opened: {error.strerror}. Check the file, or leave it out.")


def _undecodable(path: Path) -> ImageError:
    with opened_header(path) as image:
        if image is not None:
            width, height = stored_size(image)
            if width * height > _MAX_PIXELS:
                return ImageError(
                    f"{path} claims {width} x {height} px, more than can be decoded. Make it smaller, or leave it out."
                )
            if image.mode in ("F", "I"):
                return ImageError(
                    f"{path} holds 32-bit values, whose range of brightness is unknown. "
                    "Save it with 8 or 16 bits per channel, or leave it out."
                )
    return ImageError(f"{path} cannot be read as an image. Convert it to JPEG or PNG, or leave it out.")


def _is_cut_off(data: bytes) -> bool:
    """Tell whether a JPEG or PNG stops before its end marker.

    OpenCV 4 fills what is missing with grey and says nothing, COLMAP too. The other formats fail to decode.
    """
    if data.startswith(b"\xff\xd8\xff"):
        return not _jpeg_has_end(data)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return not _png_has_end(data)
    return False


# In entropy-coded data FF is followed by 00 or a restart marker, and FF FF pads; all else is the next marker.
_JPEG_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd8\xff])", re.DOTALL)
_JPEG_END = b"\xd9"


def _jpeg_has_end(data: bytes) -> bool:
    """Look for the end marker segment by segment, so that an embedded thumbnail's does not count."""
    position = 2
    while marker := _JPEG_MARKER.search(data, position):
        if marker[1] == _JPEG_END:
            return True
        position = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")
    return False


def _png_has_end(data: bytes) -> bool:
    position = 8
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        if data[position + 4 : position + 8] == b"IEND":
            return True
        position += 12 + length
    return False


_TIFF_ORIENTATION = 274
_TIFF_UPRIGHT = 1


def _without_tiff_orientation(data: bytes) -> bytes:
    """Return a TIFF whose first page says it is upright, and any other file as it is.

    libtiff turns the pixels whatever OpenCV is told. BigTIFF is left alone.
    """
    order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(data[:4])
    if order is None:
        return data
    try:
        (directory,) = struct.unpack_from(f"{order}I", data, 4)
        (count,) = struct.unpack_from(f"{order}H", data, directory)
        for entry in range(directory + 2, directory + 2 + 12 * count, 12):
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", data, entry)
            if tag == _TIFF_ORIENTATION and value != _TIFF_UPRIGHT:
                upright = struct.pack(f"{order}H", _TIFF_UPRIGHT)
                return data[: entry + 8] + upright + data[entry + 10 :]
    except struct.error:  # the directory lies past the end: decoding will say so
        pass
    return data
