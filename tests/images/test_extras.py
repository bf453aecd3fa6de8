"""HEIC and raw files: read if their packages are installed, with a message if not."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.ExifTags import IFD, Base

from romacli.errors import ImageError
from romacli.images.decode import image_size, read_image
from romacli.images.metadata import read_metadata
from romacli.images.upright import read_upright

HEIGHT, WIDTH = 48, 64
RAMP = np.repeat(np.tile(np.linspace(0, 255, WIDTH, dtype=np.uint8), (HEIGHT, 1))[..., None], 3, axis=2)
HEIC_START = b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(400)


def heic(orientation: int = 1) -> bytes:
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    exif = Image.Exif()
    exif[Base.Orientation] = orientation
    exif.get_ifd(IFD.Exif)[Base.FocalLengthIn35mmFilm] = 28
    stream = io.BytesIO()
    Image.fromarray(RAMP).save(stream, "HEIF", quality=95, exif=exif)
    return stream.getvalue()


def dng(orientation: int = 1) -> bytes:
    """A raw file of a sensor whose right half received more light: an uncompressed Bayer mosaic."""
    pytest.importorskip("rawpy")
    mosaic = np.full((HEIGHT, WIDTH), 4000, "<u2")
    mosaic[:, WIDTH // 2 :] = 40000
    identity = b"".join(struct.pack("<ii", value, 1) for value in (1, 0, 0, 0, 1, 0, 0, 0, 1))
    tags = {
        254: (4, 1, 0),
        256: (3, 1, WIDTH),
        257: (3, 1, HEIGHT),
        258: (3, 1, 16),
        259: (3, 1, 1),
        262: (3, 1, 32803),
        273: (4, 1, None),
        274: (3, 1, orientation),
        277: (3, 1, 1),
        278: (3, 1, HEIGHT),
        279: (4, 1, mosaic.nbytes),
        33421: (3, 2, struct.pack("<HH", 2, 2)),
        33422: (1, 4, bytes([0, 1, 1, 2])),
        50706: (1, 4, bytes([1, 4, 0, 0])),
        50708: (2, 5, b"made\0"),
        50717: (3, 1, 65535),
        50721: (10, 9, identity),
        50728: (5, 3, struct.pack("<II", 1, 1) * 3),
        50778: (3, 1, 21),
    }
    behind = 8 + 2 + 12 * len(tags) + 4
    long_values = [value + b"\0" * (len(value) % 2) for _, _, value in tags.values() if _is_long(value)]
    strip = behind + sum(map(len, long_values))
    entries, place = [], behind
    for tag, (kind, count, value) in tags.items():
        if _is_long(value):
            held, place = struct.pack("<I", place), place + len(value) + len(value) % 2
        elif isinstance(value, bytes):
            held = value.ljust(4, b"\0")
        else:
            held = struct.pack("<I", strip if value is None else value)
        entries.append(struct.pack("<HHI", tag, kind, count) + held)
    directory = struct.pack("<H", len(tags)) + b"".join(entries) + bytes(4)
    return b"II*\0" + struct.pack("<I", 8) + directory + b"".join(long_values) + mosaic.tobytes()


def _is_long(value: object) -> bool:
    return isinstance(value, bytes) and len(value) > 4


def written(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("name", ["größe 1.heic", "renamed.jpg"])
def test_heic_has_its_pixels_and_metadata(tmp_path, name):
    path = written(tmp_path, name, heic())
    image = read_image(path)
    assert np.abs(image.astype(int) - RAMP).max() < 12
    assert image_size(path) == (WIDTH, HEIGHT)
    assert read_metadata(path).focal_length_px == pytest.approx(28 * 80 / np.hypot(36, 24))


def test_heic_is_turned_by_its_decoder_and_only_once(tmp_path):
    path = written(tmp_path, "turned.heic", heic(6))
    assert read_metadata(path).orientation == 1
    image, turns = read_upright(path)
    assert (image.shape[1::-1], turns) == (image_size(path), 0)


def test_a_raw_file_is_developed_as_the_sensor_saw_it(tmp_path):
    for orientation, turns in ((1, 0), (3, 2), (6, 1), (8, 3)):
        path = written(tmp_path, f"{orientation}.DNG", dng(orientation))
        image = read_image(path)
        assert (image.shape, image.dtype) == ((HEIGHT, WIDTH, 3), np.uint8)
        assert image[:, WIDTH // 2 + 4 :].mean() > image[:, : WIDTH // 2 - 4].mean() + 50
        assert image_size(path) == (WIDTH, HEIGHT)
        assert read_upright(path)[1] == turns


@pytest.mark.parametrize("read", [read_image, image_size])
@pytest.mark.parametrize(("package", "name"), [("pillow_heif", "cut.heic"), ("rawpy", "cut.dng")])
def test_damaged_files_are_refused_as_all_others_are(tmp_path, read, package, name):
    pytest.importorskip(package)
    data = HEIC_START if package == "pillow_heif" else dng()[:150]
    with pytest.raises(ImageError, match="cut.* cannot be read as an image. Convert it to JPEG or PNG"):
        read(written(tmp_path, name, data))


@pytest.mark.parametrize("read", [read_image, image_size, read_metadata])
@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("IMG 1.heic", HEIC_START, "is HEIC, which needs an extra. Run pip install 'romacli[heic]', or convert it"),
        ("IMG 1.jpg", HEIC_START, "is HEIC, which needs an extra. Run pip install 'romacli[heic]', or convert it"),
        ("1.NEF", b"MM\x00*", "is a raw file, which needs an extra. Run pip install 'romacli[raw]', or convert it"),
    ],
)
def test_without_the_package_it_is_named(tmp_path, monkeypatch, read, name, data, words):
    monkeypatch.setattr("romacli.images.extras.find_spec", lambda _: None)
    with pytest.raises(ImageError) as caught:
        read(written(tmp_path, name, data))
    assert words in str(caught.value)


@pytest.mark.parametrize("read", [read_image, image_size])
@pytest.mark.parametrize(("data", "words"), [(b"", "is empty (0 bytes)"), (None, "cannot be opened")])
def test_an_empty_or_missing_raw_file_is_so_first(tmp_path, read, data, words):
    path = tmp_path / "a.cr2"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(ImageError) as caught:
        read(path)
    assert words in str(caught.value)
