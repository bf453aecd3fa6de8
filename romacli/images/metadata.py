"""Camera metadata from a photograph's EXIF data. Damaged or missing EXIF data are never an error."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from romacli.geometry.globe import Position, position_fault
from romacli.types import Size

from .decode import image_size, opened_header
from .extras import RAW, raw_orientation

if TYPE_CHECKING:
    from PIL import Image

_MM_PER_UNIT = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}  # FocalPlaneResolutionUnit: inch, cm, mm, um
_FILM_DIAGONAL_MM = math.hypot(36, 24)  # equivalents compare diagonals, so they exist for any aspect ratio
# Focal lengths outside this range are wrong tags: 0.1 covers 157 degrees, 100 half a degree.
_FOCAL_LENGTHS_PER_SIDE = (0.1, 100.0)

# Metadata of files already opened, by path, bytes and modification time in ns.
_SETTLED_NS = 2_000_000_000  # FAT and some network file systems store times to two seconds
_headers: dict[tuple[Path, int, int], ImageMetadata] = {}


@dataclass(frozen=True)
class ImageMetadata:
    """A photograph's metadata.

    size: (width, height) in px, stored orientation.
    orientation: EXIF's 1 to 8; 1 if missing. Coordinates never depend on it.
    focal_length_px: in px of the stored image, or None if missing.
    camera_model: maker and model, or None. device: also the lens and its focal length in mm, if present.
    gps: (latitude, longitude, altitude) in degrees north and east and m above sea level, or None; a missing
        altitude is 0.
    gps_fault: why the GPS position is implausible, as the end of a sentence.
    """

    size: Size
    orientation: int = 1
    focal_length_px: float | None = None
    camera_model: str | None = None
    device: str = ""
    gps: Position | None = None
    gps_fault: str | None = None

    @property
    def is_mirrored(self) -> bool:
        """Whether the stored pixels are mirrored, by the EXIF orientation."""
        return self.orientation in (2, 4, 5, 7)


def read_metadata(path: Path) -> ImageMetadata:
    """Return a photograph's size and EXIF metadata, with None for missing or implausible values.

    A file is opened once per process unless its size or modification time changes; one just written may change without
    a new modification time, and is opened each time.

    Raises:
        ImageError: the file cannot be opened or is not an image.
    """
    try:
        state = path.stat()
    except OSError:
        return _read(path)
    key = (path, state.st_size, state.st_mtime_ns)
    if key in _headers:
        return _headers[key]
    metadata = _read(path)
    if time.time_ns() - state.st_mtime_ns > _SETTLED_NS:
        _headers[key] = metadata
    return metadata


def recall_metadata(path: Path, stamp: tuple[int, int], header: Mapping[str, Any]) -> None:
    """Restore metadata that an earlier process stored by `written`, for a file of this size and time in ns."""
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in header.items()}
    _headers.setdefault((path, *stamp), ImageMetadata(**values))


def written(metadata: ImageMetadata) -> dict[str, Any]:
    """The metadata as JSON values, without missing ones."""
    untold = asdict(ImageMetadata(metadata.size))
    return {key: value for key, value in asdict(metadata).items() if key == "size" or value != untold[key]}


def _read(path: Path) -> ImageMetadata:
    size = image_size(path)
    metadata = ImageMetadata(size)
    # Pillow's EXIF reader raises all kinds of errors on damaged data.
    with suppress(Exception), opened_header(path) as image:
        if image is not None:
            metadata = _from_exif(_exif(image), size)
    return replace(metadata, orientation=raw_orientation(path)) if RAW.has(path.name) else metadata


def _exif(image: Image.Image) -> Image.Exif:
    from PIL import Image

    if image.format == "TIFF":
        return image.getexif()
    exif = Image.Exif()  # image.getexif() would decode a PNG without EXIF, to look for it after the pixels
    exif.load(image.info.get("exif", b""))
    return exif


def _from_exif(exif: Image.Exif, size: Size) -> ImageMetadata:
    from PIL.ExifTags import IFD, Base

    orientation = exif.get(Base.Orientation, 1)
    gps = _gps(exif.get_ifd(IFD.GPSInfo))
    fault = position_fault(*gps) if gps else None
    return ImageMetadata(
        size,
        orientation=orientation if orientation in range(1, 9) else 1,
        focal_length_px=_focal_length_px(exif.get_ifd(IFD.Exif), size),
        camera_model=_camera_model(exif),
        device=_device(exif),
        gps=None if fault else gps,
        gps_fault=fault,
    )


def _focal_length_px(tags: Mapping[int, Any], size: Size) -> float | None:
    """Return the focal length in px, from the 35 mm equivalent or else from the sensor's resolution.

    Agrees with COLMAP 4.2, except that COLMAP also has a database of camera sensors, and does not scale the sensor's
    resolution for photographs resized later.
    """
    from PIL.ExifTags import Base

    film_mm = _number(tags.get(Base.FocalLengthIn35mmFilm))
    focal = film_mm / _FILM_DIAGONAL_MM * math.hypot(*size) if film_mm else _from_sensor(tags, max(size))
    longest, (low, high) = max(size), _FOCAL_LENGTHS_PER_SIDE
    return focal if focal is not None and low * longest < focal < high * longest else None


def _from_sensor(tags: Mapping[int, Any], longest: int) -> float | None:
    from PIL.ExifTags import Base

    focal_mm = _number(tags.get(Base.FocalLength))
    px_per_unit = _number(tags.get(Base.FocalPlaneXResolution))
    unit_mm = _MM_PER_UNIT.get(tags.get(Base.FocalPlaneResolutionUnit, 2))
    if not focal_mm or not px_per_unit or not unit_mm:
        return None
    taken = max(_number(tags.get(tag)) or 0 for tag in (Base.ExifImageWidth, Base.ExifImageHeight))
    scale = longest / taken if taken else 1.0  # the image may have been resized after it was taken
    return focal_mm * px_per_unit / unit_mm * scale


def _camera_model(exif: Image.Exif) -> str | None:
    from PIL.ExifTags import Base

    maker, model = (str(exif.get(tag, "")).strip("\0 ") for tag in (Base.Make, Base.Model))
    if maker and not model.lower().startswith(maker.lower()):
        model = f"{maker} {model}"
    return model.strip() or None


def _device(exif: Image.Exif) -> str:
    from PIL.ExifTags import IFD, Base

    tags = exif.get_ifd(IFD.Exif)
    lens = str(tags.get(Base.LensModel, "")).strip("\0 ")
    focal_mm = _number(tags.get(Base.FocalLength))
    return ", ".join(filter(None, (_camera_model(exif), lens, f"{focal_mm:g} mm" if focal_mm else "")))


def _gps(tags: Mapping[int, Any]) -> Position | None:
    """The position in the tags, plausible or not; NaN for invalid numbers."""
    from PIL.ExifTags import GPS

    if GPS.GPSLatitude not in tags and GPS.GPSLongitude not in tags:
        return None
    latitude = _degrees(tags.get(GPS.GPSLatitude), is_negative=tags.get(GPS.GPSLatitudeRef) == "S")
    longitude = _degrees(tags.get(GPS.GPSLongitude), is_negative=tags.get(GPS.GPSLongitudeRef) == "W")
    altitude = _number(tags.get(GPS.GPSAltitude, 0.0))
    is_below_sea = tags.get(GPS.GPSAltitudeRef) in (1, b"\x01")
    return latitude, longitude, math.nan if altitude is None else -altitude if is_below_sea else altitude


def _degrees(parts: Any, *, is_negative: bool) -> float:
    if not isinstance(parts, tuple) or len(parts) != 3:
        return math.nan
    degrees, minutes, seconds = (math.nan if (number := _number(part)) is None else number for part in parts)
    angle = degrees + minutes / 60 + seconds / 3600
    return -angle if is_negative else angle


def _number(value: Any) -> float | None:
    """Return a finite number, or None for text, lists and fractions over zero."""
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return number if math.isfinite(number) else None
