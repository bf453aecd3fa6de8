from __future__ import annotations

import cv2
import numpy as np
import pytest

from romacli.errors import InputError
from romacli.synthetic.textures import Textures, bricks, cells, clutter, facade, noise, procedural_textures


@pytest.mark.parametrize("kind", [bricks, cells, clutter, facade, noise])
def test_generated_picture_is_rgb_with_texture_and_repeats_with_its_seed(kind):
    image = kind(np.random.default_rng(4), 128)
    assert image.shape == (128, 128, 3)
    assert image.dtype == np.uint8
    assert image.std() > 5
    np.testing.assert_array_equal(image, kind(np.random.default_rng(4), 128))


def test_kinds_come_in_turn():
    first, *_, again = procedural_textures(6, np.random.default_rng(0))
    assert first.shape == again.shape
    assert not np.array_equal(first, again)


def test_crop_is_a_piece_of_a_picture_of_moderate_size():
    textures = Textures.of([noise(np.random.default_rng(1), 512)], [])
    for seed in range(10):
        crop = textures.crop(np.random.default_rng(seed)).pixels
        assert 120 < min(crop.shape[:2]) <= 700
        assert crop.shape[2] == 3


@pytest.mark.parametrize("seed", range(8))
def test_excerpt_says_where_in_the_picture_each_pixel_lies(seed):
    y, x = np.mgrid[:700, :900]
    picture = np.stack((x / 900 * 255, y / 700 * 255, (x // 8 + y // 8) % 2 * 255), axis=-1).astype(np.uint8)
    crop = Textures.of([picture], []).crop(np.random.default_rng(seed))
    height, width = crop.pixels.shape[:2]
    for row, column in ((5, 7), (height - 9, 11), (height // 2, width - 6)):
        for piece, start in ((crop, 0), (crop.columns(column - 3, width), column - 3)):
            where = piece.excerpt.picture_from_texture @ (column - start + 0.5, row + 0.5, 1)
            expected = where[:2] / (900, 700) * 255
            np.testing.assert_allclose(piece.pixels[row, column - start, :2], expected, atol=1.5)


def test_large_pictures_are_drawn_more_often():
    textures = Textures.of([np.zeros((600, 800, 3), np.uint8)], [np.zeros((400, 400, 3), np.uint8)])
    np.testing.assert_allclose(textures.weights, (0.8, 0.2))


def test_repeated_motifs_are_drawn_only_when_asked_for():
    textures = Textures.load(None, procedural=5, seed=0, repeated=4)
    assert len(textures.pyramids) == 9
    plain = Textures.load(None, procedural=5, seed=0)
    for seed in range(20):
        crops = [pool.crop(np.random.default_rng(seed)) for pool in (textures, plain)]
        np.testing.assert_array_equal(crops[0].pixels, crops[1].pixels)
        assert textures.repeated_crop(np.random.default_rng(seed)).excerpt.picture >= 5
    assert sum(len(half.pyramids) for half in textures.halves()) == 5


def test_photographs_are_read_as_rgb(tmp_path):
    image = np.zeros((50, 60, 3), np.uint8)
    image[..., 2] = 250  # red, as OpenCV orders channels
    cv2.imwrite(str(tmp_path / "red.png"), image)
    textures = Textures.load(tmp_path, procedural=0, seed=0)
    assert textures.pyramids[0][0][0, 0].tolist() == [250, 0, 0]


def test_folder_without_photographs_is_named(tmp_path):
    with pytest.raises(InputError, match=r"contains no JPEG or PNG photographs"):
        Textures.load(tmp_path, procedural=0, seed=0)


def test_damaged_photograph_is_named(tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"not a picture")
    with pytest.raises(InputError, match=r"broken\.jpg cannot be read as an image"):
        Textures.load(tmp_path, procedural=0, seed=0)
