from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from romacli.images.decode import read_image
from romacli.images.upright import read_upright

RGB = np.random.default_rng(0).integers(0, 255, (30, 44, 3), np.uint8)


def write(folder: Path, orientation: int | None, extension: str = ".png") -> Path:
    exif = Image.Exif()
    if orientation is not None:
        exif[0x112] = orientation
    stream = io.BytesIO()
    Image.fromarray(RGB).save(
        stream, {".png": "PNG", ".tif": "TIFF", ".webp": "WEBP"}[extension], exif=exif, lossless=True
    )
    path = folder / f"größe {orientation}{extension}"
    path.write_bytes(stream.getvalue())
    return path


@pytest.mark.parametrize("extension", [".png", ".tif", ".webp"])
@pytest.mark.parametrize("orientation", [None, 1, 3, 6, 8])
def test_a_turned_photograph_is_seen_as_pillow_shows_it(tmp_path, orientation, extension):
    path = write(tmp_path, orientation, extension)
    image, turns = read_upright(path)
    with Image.open(path) as opened:
        np.testing.assert_array_equal(image, np.asarray(ImageOps.exif_transpose(opened).convert("RGB")))
    np.testing.assert_array_equal(np.rot90(image, turns), read_image(path))


@pytest.mark.parametrize("orientation", [2, 4, 5, 7])
def test_a_mirrored_photograph_stays_as_it_is_stored(tmp_path, orientation):
    image, turns = read_upright(write(tmp_path, orientation))
    assert turns == 0
    np.testing.assert_array_equal(image, RGB)
