"""Pixels and size of an image file in stored orientation; like COLMAP, EXIF orientation is ignored.

OpenCV decodes, because Pillow saturates 16-bit images. JPEG is decoded by simplejpeg, which reports damage that OpenCV
only prints to the terminal. Pillow reads headers.
"""

from __future__ import annotations

import math
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from romacli.errors import ImageError
from romacli.types import Size

from .extras import RAW, is_heif, raw_size, read_heif, read_raw, teach_pillow_heif
from .jpeg import MAX_PIXELS, cut_off, is_jpeg, lacks_end, read_jpeg

if TYPE_CHECKING:
    from PIL import Image

# Percentage of darkest and brightest 16-bit pixels ignored when determining the range: hot pixels, glints.
_TONES_LEFT_OUT = 0.1
SIXTEEN_BIT = f"narrow ranges stretched, {_TONES_LEFT_OUT} to {100 - _TONES_LEFT_OUT} %"
# A range below 14 bits is narrow, leaving at most 64 of 256 levels; one below 16 levels is noise.
_NARROW, _LEAST_RANGE = 2**14, 16
_FLAT_RANGE = 3  # of 255: compression noise on a single colour

_pillow_limit_lock = threading.Lock()


def read_image(path: str | Path, least: Size = (0, 0)) -> np.ndarray:
    """Decode a photograph in stored orientation; a JPEG only as finely as a least width and height ask for, if given.

    16-bit values are scaled to 8 bits; if they span less than 14 bits, their range is stretched to 0 to 255. Alpha is
    dropped; grey, palette and CMYK images become RGB. Only the first page or frame is read.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ImageError: the file cannot be opened, is empty, truncated or damaged, or has an unknown format.
    """
    import cv2

    path = Path(path)
    data = _read_bytes(path)
    if RAW.has(path.name):
        return read_raw(path)
    if is_heif(data[:12]):
        return read_heif(path)
    if (image := read_jpeg(path, data, least)) is not None:
        return image
    image = _decode(path, data, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION)
    return cv2.cvtColor(_as_8_bit(image), cv2.COLOR_BGR2RGB)


def read_samples(path: Path) -> np.ndarray:
    """Decode an image into its samples as stored, in OpenCV's order: (H, W) or (H, W, channels), of 8 or 16 bits.

    Raises:
        ImageError: as from `read_image`.
    """
    import cv2

    data = _read_bytes(path)
    if RAW.has(path.name) or is_heif(data[:12]) or is_jpeg(data):
        return read_image(path)
    return _decode(path, data, cv2.IMREAD_UNCHANGED)


def is_flat(image: np.ndarray) -> bool:
    """Whether an image, (H, W, 3) uint8, is a single colour, so that it cannot be matched."""
    lows, highs = _range(image, 2**14)
    return bool((highs - lows <= _FLAT_RANGE).all())


def is_stretched(path: Path) -> bool:
    """Whether a photograph has 16 bits and a narrow range that is stretched; False if unreadable."""
    import cv2

    with opened_header(path) as image:
        if image is None or image.format in ("JPEG", "MPO", "WEBP", "BMP"):
            return False
    try:
        samples = _decode(path, _read_bytes(path), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    except ImageError:
        return False
    return samples.dtype != np.uint8 and _tones(samples) != _ALL_TONES


def _decode(path: Path, data: bytes, flags: int) -> np.ndarray:
    """Decode a file of 8 or 16 bits by OpenCV."""
    import cv2

    if data.startswith(_PNG_START) and not _png_has_end(data):
        raise cut_off(path)
    buffer = np.frombuffer(_without_tiff_orientation(data), np.uint8)
    try:
        image = cv2.imdecode(buffer, flags)
    except cv2.error as error:
        raise _undecodable(path) from error
    if image is None:
        raise _undecodable(path)
    if image.dtype == np.int16:
        return image.view(np.uint16) ^ np.uint16(0x8000)
    if image.dtype not in (np.uint8, np.uint16):
        raise _of_32_bits(path)
    return image


def _as_8_bit(image: np.ndarray) -> np.ndarray:
    if image.dtype == np.uint8:
        return image
    low, high = _tones(image)
    scaled = (np.arange(2**16) - low) * (256 / (high - low))
    return np.clip(scaled, 0, 255).astype(np.uint8)[image]


_ALL_TONES = (0, 2**16)


def _tones(image: np.ndarray) -> tuple[int, int]:
    """The values of a 16-bit image that become 0 and 256."""
    lows, highs = _range(image, 2**20)
    low, high = int(lows.min()), int(highs.max())
    return (low, high + 1) if _LEAST_RANGE <= high - low < _NARROW else _ALL_TONES


def _range(image: np.ndarray, pixels: int) -> np.ndarray:
    """The minimum and maximum of each channel of (H, W, channels), without outliers, (2, channels).

    pixels: approximate number of pixels to sample.
    """
    step = max(1, math.isqrt(image.shape[0] * image.shape[1] // pixels))
    ends = (_TONES_LEFT_OUT, 100 - _TONES_LEFT_OUT)
    return np.percentile(image[::step, ::step], ends, axis=(0, 1), method="nearest").astype(int)


def image_size(path: Path) -> Size:
    """Return (width, height) in px as stored, from the header if Pillow knows the format.

    Raises:
        ImageError: the file cannot be opened or is not an image.
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
    """Yield the image opened by Pillow, without reading pixels, or None if it does not know the format.

    Raises:
        ImageError: the file cannot be opened.
    """
    with _opened(path) as stream:
        from PIL import Image

        if is_heif(stream.read(12)):
            teach_pillow_heif()
        stream.seek(0)
        # A header costs no memory, so Pillow's guard against huge images is lifted while it is read.
        with _pillow_limit_lock:
            limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            try:
                image = Image.open(stream)
            except Exception:  # Pillow's plugins raise all kinds of errors on damaged headers
                image = None
            finally:
                Image.MAX_IMAGE_PIXELS = limit
        yield image


def stored_size(image: Image.Image) -> Size:
    """Return (width, height) in px as stored; Pillow's `size` of an oriented TIFF is already rotated."""
    from PIL.TiffImagePlugin import IMAGELENGTH, IMAGEWIDTH, TiffImageFile

    if isinstance(image, TiffImageFile):
        return int(image.tag_v2[IMAGEWIDTH]), int(image.tag_v2[IMAGELENGTH])
    return image.size


def _read_bytes(path: Path, count: int = -1) -> bytes:
    try:
        with _opened(path) as file:
            data = file.read(count)
    except OSError as error:
        raise _unopenable(path, error) from error
    if not data:
        raise ImageError(f"{path} is empty (0 bytes). Copy it again from its source, or leave it out.")
    return data


def _opened(path: Path) -> BufferedReader:
    """A file opened for reading; opening a pipe would wait for its writer."""
    try:
        if path.is_fifo():
            raise ImageError(f"{path} is a pipe, not a file. Leave it out.")
        return path.open("rb")
    except OSError as error:
        raise _unopenable(path, error) from error


def _unopenable(path: Path, error: OSError) -> ImageError:
    return ImageError(f"{path} cannot be opened: {error.strerror}. Check the file, or leave it out.")


def _of_32_bits(path: Path) -> ImageError:
    return ImageError(
        f"{path} contains 32-bit values, whose range of brightness is unknown. "
        "Save it with 8 or 16 bits per channel, or leave it out."
    )


def _undecodable(path: Path) -> ImageError:
    with opened_header(path) as image:
        if image is not None:
            width, height = stored_size(image)
            if width * height > MAX_PIXELS:
                return ImageError(
                    f"{path} claims {width} x {height} px, more than can be decoded. Make it smaller, or leave it out."
                )
            if image.mode in ("F", "I"):
                return _of_32_bits(path)
    return ImageError(f"{path} cannot be read as an image. Convert it to JPEG or PNG, or leave it out.")


_PNG_START = b"\x89PNG\r\n\x1a\n"


def is_cut_off(path: Path) -> bool:
    """Whether a JPEG or PNG file stops before its end; nothing is decoded.

    Raises:
        ImageError: the file cannot be opened or is empty.
    """
    start = _read_bytes(path, len(_PNG_START))
    if is_jpeg(start):
        return lacks_end(_read_bytes(path))
    return start == _PNG_START and not _png_has_end(_read_bytes(path))


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
    """Return a TIFF with the orientation of its first page reset, any other file unchanged.

    libtiff rotates the pixels regardless of OpenCV's flags. BigTIFF is not changed.
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
    except struct.error:  # the directory lies past the end: decoding will report it
        pass
    return data
