"""Pixels and size of a photograph, format by format, and the messages for files that have none."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from romacli.colmap.binding import load_pycolmap
from romacli.errors import ImageError
from romacli.images.decode import image_size, is_flat, is_stretched, read_image

HEIGHT, WIDTH = 30, 44  # different, and not multiples of 8, so that rotated or padded images are detected
_Y, _X = np.mgrid[:HEIGHT, :WIDTH]
RGB = np.stack([_X * 5, _Y * 8, (_X + _Y) * 3], axis=-1).astype(np.uint8)
GRAY = RGB[..., 0]
GRAY_AS_RGB = np.repeat(GRAY[..., None], 3, axis=2)
ALPHA = np.where(_X > 20, 255, 0).astype(np.uint8)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    return Path("photos")


def encoded(pixels, kind: str, **options) -> bytes:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def encoded_16_bit(pixels: np.ndarray, extension: str) -> bytes:
    return cv2.imencode(extension, pixels[..., ::-1] if pixels.ndim == 3 else pixels)[1].tobytes()


def oriented(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x112] = orientation
    return exif


PALETTE = Image.fromarray(RGB).quantize(32)
OTHER_PALETTE = Image.fromarray(RGB[::-1]).quantize(32)
PALETTE_AS_RGB = np.asarray(PALETTE.convert("RGB"))
GRAY_16 = (_X * 1000 + _Y * 700).astype(np.uint16)
GRAY_16_AS_RGB = np.repeat((GRAY_16 >> 8).astype(np.uint8)[..., None], 3, axis=2)

EXACT = {
    "rgb.png": (encoded(RGB, "PNG"), RGB),
    "rgb.bmp": (encoded(RGB, "BMP"), RGB),
    "rgb.tif": (encoded(RGB, "TIFF"), RGB),
    "lzw.TIFF": (encoded(RGB, "TIFF", compression="tiff_lzw"), RGB),
    "rgb.webp": (encoded(RGB, "WEBP", lossless=True), RGB),
    "gray.png": (encoded(GRAY, "PNG"), GRAY_AS_RGB),
    "gray.tif": (encoded(GRAY, "TIFF"), GRAY_AS_RGB),
    "gray16.png": (encoded_16_bit(GRAY_16, ".png"), GRAY_16_AS_RGB),
    "gray16.tif": (encoded_16_bit(GRAY_16, ".tif"), GRAY_16_AS_RGB),
    "rgb16.png": (encoded_16_bit(RGB.astype(np.uint16) * 257, ".png"), RGB),
    "rgb16.tif": (encoded_16_bit(RGB.astype(np.uint16) * 257, ".tif"), RGB),
    "rgba.png": (encoded(np.dstack([RGB, ALPHA]), "PNG"), RGB),
    "rgba.webp": (encoded(np.dstack([RGB, ALPHA]), "WEBP", lossless=True, exact=True), RGB),
    "gray_alpha.png": (encoded(np.dstack([GRAY, ALPHA]), "PNG"), GRAY_AS_RGB),
    "palette.png": (encoded(PALETTE, "PNG"), PALETTE_AS_RGB),
    "palette_transparent.png": (encoded(PALETTE, "PNG", transparency=3), PALETTE_AS_RGB),
    "palette.bmp": (encoded(PALETTE, "BMP"), PALETTE_AS_RGB),
    "cmyk.tif": (encoded(Image.fromarray(RGB).convert("CMYK"), "TIFF"), RGB),
    "png_inside.jpg": (encoded(RGB, "PNG"), RGB),
    "pages.tif": (encoded(RGB, "TIFF", save_all=True, append_images=[Image.fromarray(RGB[::-1])]), RGB),
    "animated.png": (encoded(RGB, "PNG", save_all=True, append_images=[Image.fromarray(RGB[::-1])]), RGB),
    "animated.webp": (
        encoded(RGB, "WEBP", save_all=True, append_images=[Image.fromarray(RGB[::-1])], lossless=True),
        RGB,
    ),
    "leer zeichen é 中.png": (encoded(RGB, "PNG"), RGB),
    "rgb.ppm": (encoded(RGB, "PPM"), RGB),
    "gray.pgm": (encoded(GRAY, "PPM"), GRAY_AS_RGB),
    "gray16.pgm": (encoded_16_bit(GRAY_16, ".pgm"), GRAY_16_AS_RGB),
    "palette.gif": (encoded(PALETTE, "GIF"), PALETTE_AS_RGB),
    "animated.gif": (encoded(PALETTE, "GIF", save_all=True, append_images=[OTHER_PALETTE]), PALETTE_AS_RGB),
    "rgb.jp2": (encoded(RGB, "JPEG2000"), RGB),
    "rgb.j2k": (encoded(RGB, "JPEG2000", no_jp2=True), RGB),
    "rgb.pam": (cv2.imencode(".pam", RGB[..., ::-1])[1].tobytes(), RGB),
    "rgb.ras": (cv2.imencode(".ras", RGB[..., ::-1])[1].tobytes(), RGB),
    "turned.png": (encoded(RGB, "PNG", exif=oriented(6)), RGB),
    "turned.webp": (encoded(RGB, "WEBP", lossless=True, exif=oriented(6)), RGB),
}

LOSSY = {
    "rgb.jpg": (encoded(RGB, "JPEG", quality=95, subsampling=0), RGB),
    "name é.JPEG": (encoded(RGB, "JPEG", quality=95, subsampling=0), RGB),
    "progressive.jpg": (encoded(RGB, "JPEG", quality=95, subsampling=0, progressive=True), RGB),
    "turned.jpg": (encoded(RGB, "JPEG", quality=95, subsampling=0, exif=oriented(6)), RGB),
    "rgb.jfif": (encoded(RGB, "JPEG", quality=95, subsampling=0), RGB),
    "two.mpo": (
        encoded(RGB, "MPO", quality=95, subsampling=0, save_all=True, append_images=[Image.fromarray(RGB[::-1])]),
        RGB,
    ),
    "jpeg_inside.png": (encoded(RGB, "JPEG", quality=95, subsampling=0), RGB),
    "gray.jpg": (encoded(GRAY, "JPEG", quality=95), GRAY_AS_RGB),
    "cmyk.jpg": (encoded(Image.fromarray(RGB).convert("CMYK"), "JPEG", quality=95), RGB),
    "trailer.jpg": (encoded(RGB, "JPEG", quality=95, subsampling=0) + b"SEFT" * 9, RGB),
    "restarts.jpg": (encoded(RGB, "JPEG", quality=95, subsampling=0, restart_marker_blocks=2), RGB),
}
UNKNOWN_TO_COLMAP = (".webp", ".gif", ".jp2", ".j2k", ".pam", ".ras")
LOSSY_TOLERANCE = 8  # of 255; 3 to 6 measured, where swapped channels or a rotation give 200


def written(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("name", EXACT)
def test_lossless_formats_give_the_stored_pixels(folder, name):
    data, expected = EXACT[name]
    image = read_image(written(folder, name, data))
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize("name", LOSSY)
def test_jpeg_gives_the_stored_pixels_nearly(folder, name):
    data, expected = LOSSY[name]
    image = read_image(written(folder, name, data))
    assert image.shape == expected.shape
    assert np.abs(image.astype(int) - expected).max() <= LOSSY_TOLERANCE


def test_a_jpeg_is_decoded_as_finely_as_asked(folder):
    fine = cv2.resize(RGB, (800, 600), interpolation=cv2.INTER_CUBIC)
    path = written(folder, "fine.jpg", encoded(Image.fromarray(fine), "JPEG", quality=95))
    coarse = read_image(path, (150, 150))
    assert coarse.shape == (150, 200, 3)
    there = cv2.resize(fine, (200, 150), interpolation=cv2.INTER_AREA)
    assert np.abs(coarse.astype(int) - there).mean() < 3


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_oriented_tiff_stays_as_stored(folder, orientation, compression):
    data = encoded(RGB, "TIFF", exif=oriented(orientation), compression=compression)
    path = written(folder, "a.tif", data)
    np.testing.assert_array_equal(read_image(path), RGB)
    assert image_size(path) == (WIDTH, HEIGHT)


def big_endian_tiff(pixels: np.ndarray, orientation: int) -> bytes:
    """Write a grey TIFF by hand, since Pillow writes little-endian ones only."""
    height, width = pixels.shape
    shorts = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 274: orientation, 277: 1, 278: height}
    longs = {273: 8, 279: pixels.size}
    entries = [struct.pack(">HHIHH", tag, 3, 1, value, 0) for tag, value in shorts.items()]
    entries += [struct.pack(">HHII", tag, 4, 1, value) for tag, value in longs.items()]
    directory = struct.pack(">H", len(entries)) + b"".join(sorted(entries)) + bytes(4)
    return b"MM\x00*" + struct.pack(">I", 8 + pixels.size) + pixels.tobytes() + directory


def test_a_big_endian_oriented_tiff_stays_as_stored(folder):
    path = written(folder, "a.tif", big_endian_tiff(GRAY, orientation=6))
    np.testing.assert_array_equal(read_image(path), GRAY_AS_RGB)
    assert image_size(path) == (WIDTH, HEIGHT)


@pytest.mark.parametrize("name", [*EXACT, *LOSSY])
def test_size_is_that_of_the_pixels(folder, name):
    data, _ = (EXACT | LOSSY)[name]
    assert image_size(written(folder, name, data)) == (WIDTH, HEIGHT)


@pytest.mark.parametrize("name", [name for name in (*EXACT, *LOSSY) if not name.endswith(UNKNOWN_TO_COLMAP)])
def test_size_and_orientation_are_those_colmap_takes(folder, name):
    """Coordinates are for COLMAP's database; formats that COLMAP cannot read are excluded."""
    pycolmap = load_pycolmap()
    data, expected = (EXACT | LOSSY)[name]
    path = written(folder, name, data)
    bitmap = pycolmap.Bitmap.read(str(path), True)
    assert bitmap is not None
    assert (bitmap.width, bitmap.height) == image_size(path)
    difference = np.abs(read_image(path).astype(int) - bitmap.to_array()).mean()
    assert difference < (6 if "cmyk" in name or name in LOSSY else 1.5)


def test_size_of_a_format_that_only_opencv_knows_comes_from_its_pixels(folder):
    path = written(folder, "a.png", cv2.imencode(".pam", RGB)[1].tobytes())
    assert image_size(path) == (WIDTH, HEIGHT)


def test_size_is_read_without_decoding(folder):
    assert image_size(written(folder, "a.png", png(60000, 60000))) == (60000, 60000)


def refusal(read, path: Path) -> str:
    with pytest.raises(ImageError) as caught:
        read(path)
    return str(caught.value)


JPEG = LOSSY["rgb.jpg"][0]
PNG = EXACT["rgb.png"][0]
THUMBNAIL = oriented(1)
THUMBNAIL[0x927C] = JPEG  # an embedded JPEG with its own end marker
CUT_OFF = {
    "half.jpg": JPEG[: len(JPEG) // 2],
    "no_end.jpg": JPEG[:-2],
    "zero_tail.jpg": JPEG[: len(JPEG) // 2] + bytes(len(JPEG) - len(JPEG) // 2),
    "header_only.jpg": JPEG[:30],
    "progressive.jpg": LOSSY["progressive.jpg"][0][:-30],
    "thumbnail.jpg": encoded(RGB, "JPEG", quality=95, exif=THUMBNAIL)[:-20],
    "half.png": PNG[: len(PNG) // 2],
    "no_end.png": PNG[:-12],
    "header_only.png": PNG[:20],
}


@pytest.mark.parametrize("name", CUT_OFF)
def test_files_cut_off_are_refused_instead_of_filled_with_grey(folder, name):
    assert refusal(read_image, written(folder, name, CUT_OFF[name])) == (
        f"photos/{name} is cut off before its end. Copy it again from its source, or leave it out."
    )


NOISE = np.random.default_rng(0).integers(0, 256, (HEIGHT * 8, WIDTH * 8, 3), np.uint8)
DETAILED = cv2.GaussianBlur(NOISE, (0, 0), 2)


def damaged(data: bytes, replacement: bytes) -> bytes:
    """A file with other bytes in its middle and its end unchanged."""
    middle = len(data) // 2
    return data[:middle] + replacement + data[middle + len(replacement) :]


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 20}], ids=str)
@pytest.mark.parametrize("replacement", [bytes(2000), NOISE.tobytes()[:2000]], ids=["zeros", "foreign"])
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_a_jpeg_damaged_inside_is_refused_by_name(folder, mode, replacement, options, capfd):
    data = encoded(Image.fromarray(DETAILED).convert(mode), "JPEG", quality=90, **options)
    path = written(folder, "a.jpg", damaged(data, replacement))
    said = refusal(read_image, path)
    assert "photos/a.jpg is damaged inside" in said
    assert "Copy it again" in said
    assert capfd.readouterr().err == ""
    assert read_image(written(folder, "a.jpg", data)).shape == DETAILED.shape


def test_a_block_of_zeros_that_decodes_is_damage(folder):
    data = encoded(DETAILED, "JPEG", quality=90)
    refused = 0
    for place in range(len(data) // 4, len(data) // 2, 97):  # at some positions libjpeg ends where it should
        path = written(folder, "a.jpg", data[:place] + bytes(300) + data[place + 300 :])
        refused += "photos/a.jpg is damaged inside" in refusal(read_image, path)
    assert refused == len(range(len(data) // 4, len(data) // 2, 97))


def test_flat_areas_coded_as_zeros_are_whole(folder):
    pixels = np.full((800, 800), 255, np.uint8)
    pixels[:HEIGHT, :WIDTH] = GRAY
    for options in ({"optimize": True}, {"progressive": True}, {}):
        assert read_image(written(folder, "a.jpg", encoded(pixels, "JPEG", **options))).min() < 50
        rgb = np.repeat(pixels[..., None], 3, axis=2)
        assert read_image(written(folder, "a.jpg", encoded(rgb, "JPEG", **options))).min() < 50


@pytest.mark.parametrize("padding", [bytes(100), b"\x20" * 7])
def test_a_jpeg_filled_up_before_its_end_is_whole(folder, padding):
    data = encoded(DETAILED, "JPEG")
    padded = written(folder, "a.jpg", data[:-2] + padding + data[-2:])
    np.testing.assert_array_equal(read_image(padded), read_image(written(folder, "b.jpg", data)))


def test_a_jpeg_with_an_odd_header_is_whole(folder):
    """Some cameras write a meaningless range of coefficients; libjpeg warns, and reads every pixel."""
    data = encoded(DETAILED, "JPEG")
    scan = data.index(b"\xff\xda")
    spectral_end = scan + 2 + int.from_bytes(data[scan + 2 : scan + 4], "big") - 2
    odd = written(folder, "a.jpg", data[:spectral_end] + b"\x00" + data[spectral_end + 1 :])
    np.testing.assert_array_equal(read_image(odd), read_image(written(folder, "b.jpg", data)))


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("extension", [".png", ".tif"])
@pytest.mark.parametrize(("low", "span"), [(7200, 200), (0, 1023), (100, 16383)])
def test_a_narrow_range_of_16_bits_is_stretched(folder, low, span, extension, channels):
    values = np.random.default_rng(0).integers(low, low + span + 1, (HEIGHT, WIDTH, channels)).astype(np.uint16)
    values[0, 0], values[-1, -1] = 65535, 0  # hot and dead pixels
    values[..., 3:] = 65535  # opaque
    path = written(folder, f"a{extension}", cv2.imencode(extension, values)[1].tobytes())
    red = read_image(path)[..., 0]
    assert len(np.unique(red)) > 0.7 * min(span, 255)
    stored = values[..., min(channels, 3) - 1].astype(float)
    np.testing.assert_allclose(red[1:-1], ((stored - low) * 255 / span)[1:-1], atol=4)
    assert is_stretched(path)


def test_signed_values_are_stretched_too(folder):
    values = (RGB[..., 0].astype(np.int16) - 100) * 10
    image = read_image(written(folder, "a.tif", encoded_16_bit(values, ".tif")))
    np.testing.assert_allclose(image[..., 0], (GRAY / GRAY.max() * 255), atol=2)


@pytest.mark.parametrize("name", EXACT)
def test_a_wide_range_of_16_bits_is_left_as_it_is(folder, name):
    assert not is_stretched(written(folder, name, EXACT[name][0]))


@pytest.mark.parametrize("value", [0, 90, 255])
def test_a_single_colour_is_flat_and_a_faint_picture_is_not(value):
    flat = np.full((HEIGHT, WIDTH, 3), value, np.uint8)
    assert is_flat(flat)
    assert is_flat(flat ^ (NOISE[:HEIGHT, :WIDTH] & 1))
    assert not is_flat(flat // 2 + RGB // 8)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("half.bmp", EXACT["rgb.bmp"][0][:2000]),
        ("half.tif", EXACT["rgb.tif"][0][:2000]),
        ("half.webp", EXACT["rgb.webp"][0][:50]),
        ("page.jpg", b"<!DOCTYPE html><html>404</html>"),
        ("._mac.jpg", b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        "),
        ("damaged.png", PNG[:60] + bytes([PNG[60] ^ 255]) + PNG[61:]),
        ("lost.tif", b"II*\x00" + struct.pack("<I", 10**6) + bytes(100)),
    ],
)
def test_what_cannot_be_decoded_says_so(folder, name, data):
    assert refusal(read_image, written(folder, name, data)) == (
        f"photos/{name} cannot be read as an image. Convert it to JPEG or PNG, or leave it out."
    )


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_values_of_32_bits_are_refused_for_their_unknown_range(folder, dtype):
    path = written(folder, "depth.tif", encoded(GRAY.astype(dtype), "TIFF"))
    assert refusal(read_image, path) == (
        "photos/depth.tif contains 32-bit values, whose range of brightness is unknown. "
        "Save it with 8 or 16 bits per channel, or leave it out."
    )


def png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_absurd_dimensions_are_refused_before_memory_is_taken(folder):
    assert refusal(read_image, written(folder, "bomb.png", png(60000, 60000))) == (
        "photos/bomb.png claims 60000 x 60000 px, more than can be decoded. Make it smaller, or leave it out."
    )


@pytest.mark.parametrize("read", [read_image, image_size])
def test_missing_empty_and_foreign_files_are_refused_alike(folder, read):
    assert refusal(read, folder / "a.jpg") == (
        "photos/a.jpg cannot be opened: No such file or directory. Check the file, or leave it out."
    )
    assert refusal(read, written(folder, "b.jpg", b"")) == (
        "photos/b.jpg is empty (0 bytes). Copy it again from its source, or leave it out."
    )
    assert refusal(read, written(folder, "c.jpg", b"hello")) == (
        "photos/c.jpg cannot be read as an image. Convert it to JPEG or PNG, or leave it out."
    )
    os.mkfifo(folder / "d.jpg")
    assert refusal(read, folder / "d.jpg") == "photos/d.jpg is a pipe, not a file. Leave it out."


def test_reading_leaves_pillows_own_limit_as_it_was(folder, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 12345)
    image_size(written(folder, "a.png", PNG))
    assert Image.MAX_IMAGE_PIXELS == 12345
