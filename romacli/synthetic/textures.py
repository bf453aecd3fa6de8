"""Pictures used as textures: photographs from a folder, and procedural ones for what photographs lack."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from romacli.errors import InputError

from .scenes import Excerpt

Image = np.ndarray  # (H, W, 3) uint8 RGB
Rng = np.random.Generator

SUFFIXES = (".jpg", ".jpeg", ".png")
MAX_PHOTOGRAPH_PX = 1400
PROCEDURAL_PX = 768
MIN_ROUGHNESS = 9.0  # mean grey-level step over four pixels, horizontally plus vertically
CROP_ATTEMPTS = 6


class Crop(NamedTuple):
    """A crop of a picture: (h, w, 3) uint8 RGB, and its origin."""

    pixels: Image
    excerpt: Excerpt

    def columns(self, start: int, stop: int) -> Crop:
        """Return the part between two columns."""
        moved = self.excerpt.picture_from_texture @ _translation(start, 0)
        return Crop(np.ascontiguousarray(self.pixels[:, start:stop]), Excerpt(self.excerpt.picture, moved))


@dataclass(frozen=True)
class Textures:
    """A pool of pictures with sampling probabilities.

    Attributes:
        pyramids: each picture at full, half, quarter ... resolution.
        weights: (N,), sum to 1.
        repeated: how many of the last pictures repeat a motif; an even number, as neighbours share one. Their weight is
            0: only `repeated_crop` draws them.
    """

    pyramids: tuple[tuple[Image, ...], ...]
    weights: NDArray[np.float64]
    repeated: int = 0

    @classmethod
    def load(cls, folder: Path | None, *, procedural: int, seed: int, repeated: int = 0) -> Textures:
        """Load the photographs of a folder, if given, and generate `procedural` pictures.

        repeated: pictures to add that repeat motifs of these, an even number.

        Raises:
            InputError: the folder contains no photograph, or one that cannot be read.
        """
        photographs = [] if folder is None else [read_photograph(path) for path in photographs_in(folder)]
        generated = procedural_textures(procedural, np.random.default_rng(seed))
        motifs = repeated_pictures([*photographs, *generated], repeated, np.random.default_rng([seed, repeated]))
        return cls.of(photographs, generated, motifs)

    @classmethod
    def of(cls, photographs: Sequence[Image], generated: Sequence[Image], motifs: Sequence[Image] = ()) -> Textures:
        """Return a pool that samples pictures by their longer side squared, as large ones contain more."""
        pictures = [*photographs, *generated]
        weights = np.array([float(max(image.shape)) ** 2 for image in pictures])
        pyramids = tuple(_pyramid(image) for image in [*pictures, *motifs])
        return cls(pyramids, np.append(weights / weights.sum(), np.zeros(len(motifs))), len(motifs))

    def halves(self) -> tuple[Textures, Textures]:
        """Split the pool, except repeated motifs, into two by alternating pictures, with nothing in common."""
        count = len(self.pyramids) - self.repeated
        parts = [(self.pyramids[start:count:2], self.weights[start:count:2]) for start in (0, 1)]
        return tuple(Textures(pyramids, weights / weights.sum()) for pyramids, weights in parts)  # type: ignore[return-value]

    def crop(self, rng: Rng) -> Crop:
        """Return a random crop of a random picture, at most about 640 px on its shorter side.

        Crops without texture (sky, paper) are redrawn a few times, then kept: real scenes have them too.
        """
        for _ in range(CROP_ATTEMPTS):
            picture = int(rng.choice(len(self.weights), p=self.weights))
            crop = self._crop_of(picture, rng)
            if _roughness(crop.pixels) > MIN_ROUGHNESS:
                break
        return crop

    def repeated_crop(self, rng: Rng) -> Crop:
        """Return a random crop of a random picture of a repeated motif."""
        return self._crop_of(len(self.pyramids) - 1 - int(rng.integers(self.repeated)), rng)

    def alike(self, rng: Rng) -> tuple[Textures, Textures]:
        """Return two pools of one picture each, which repeat the same motif and differ in detail."""
        first = len(self.pyramids) - 2 * (1 + int(rng.integers(self.repeated // 2)))
        only = np.eye(len(self.pyramids))
        return tuple(replace(self, weights=only[first + part], repeated=0) for part in (0, 1))  # type: ignore[return-value]

    def _crop_of(self, picture: int, rng: Rng) -> Crop:
        pixels, picture_from_texture = _random_crop(self.pyramids[picture], rng)
        return Crop(pixels, Excerpt(picture, picture_from_texture))


def photographs_in(folder: Path) -> list[Path]:
    """Return the photographs below a folder, sorted by path.

    Raises:
        InputError: there are none.
    """
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise InputError(f"{folder} contains no JPEG or PNG photographs. Add some, or leave the option out.")
    return paths


def read_photograph(path: Path) -> Image:
    """Read a photograph as (H, W, 3) RGB, at most `MAX_PHOTOGRAPH_PX` on its longer side."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise InputError(f"{path} cannot be read as an image. Convert it to JPEG or PNG, or leave it out.")
    scale = min(1.0, MAX_PHOTOGRAPH_PX / max(image.shape[:2]))
    return cv2.cvtColor(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2RGB)


def procedural_textures(count: int, rng: Rng) -> list[Image]:
    """Return generated pictures, cycling through facades, clutter, cells, bricks and noise."""
    kinds: tuple[Callable[[Rng], Image], ...] = (facade, clutter, cells, bricks, noise)
    return [kinds[i % len(kinds)](rng) for i in range(count)]


def repeated_pictures(pictures: Sequence[Image], count: int, rng: Rng) -> list[Image]:
    """Return pictures that repeat motifs cut from others, as facades and pavings do; neighbours share a motif.

    The elements differ by little; a few details, other ones in each picture, tell where one is.
    """
    made: list[Image] = []
    while len(made) < count:
        picture = pictures[int(rng.integers(len(pictures)))]
        height, width = (int(side * rng.uniform(0.1, 0.35)) for side in picture.shape[:2])
        top, left = int(rng.integers(picture.shape[0] - height)), int(rng.integers(picture.shape[1] - width))
        rows, columns = (int(number) for number in rng.integers(3, 9, 2))
        shape = (PROCEDURAL_PX // columns, PROCEDURAL_PX // rows)
        motif = cv2.resize(picture[top : top + height, left : left + width], shape, interpolation=cv2.INTER_AREA)
        made += [_repeated(motif, rows, columns, rng) for _ in range(2)]
    return made[:count]


def _repeated(motif: Image, rows: int, columns: int, rng: Rng) -> Image:
    gain = np.kron(rng.normal(1, 0.04, (rows, columns)), np.ones(motif.shape[:2]))[..., None]
    weather = (noise(rng, max(gain.shape[:2]))[: gain.shape[0], : gain.shape[1]].astype(np.float32) - 120) * 0.08
    image = np.ascontiguousarray(_to_uint8(np.tile(motif, (rows, columns, 1)) * gain + weather))
    for _ in range(int(rng.integers(1, 9))):
        _draw_shape(image, rng, largest=60)
    return image


def noise(rng: Rng, side: int = PROCEDURAL_PX) -> Image:
    """Return noise with a power-law spectrum: clouds, plaster, gravel, stretched to wood or water."""
    fy, fx = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None]
    radius = np.hypot(fx, fy * rng.uniform(0.5, 2)) + 1 / side
    spectrum = np.fft.rfft2(rng.standard_normal((side, side))) / radius ** rng.uniform(0.8, 1.8)
    gray = np.fft.irfft2(spectrum, s=(side, side))
    gray = (gray - gray.mean()) / gray.std()
    contrast, offset = rng.uniform(25, 65, 3) * rng.choice([0.4, 1, 1], 3), rng.uniform(80, 170, 3)
    return _to_uint8(gray[..., None] * contrast + offset)


def cells(rng: Rng, side: int = PROCEDURAL_PX) -> Image:
    """Return a Voronoi mosaic: paving, leaves, cracked ground."""
    seeds = np.full((side, side), 255, np.uint8)
    positions = rng.integers(0, side, (int(rng.integers(40, 700)), 2))
    seeds[positions[:, 0], positions[:, 1]] = 0
    distance, label = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    colours = _palette(rng, int(label.max()) + 1)
    shade = np.clip(distance / (distance.max() * rng.uniform(0.05, 0.3)), 0.2, 1)
    image = colours[label] * (shade if rng.random() < 0.6 else np.ones_like(shade))[..., None]
    return _to_uint8(image + rng.normal(0, rng.uniform(0, 15), (side, side, 1)))


def clutter(rng: Rng, side: int = PROCEDURAL_PX) -> Image:
    """Return random shapes and letters: signs, posters, shelves."""
    image = np.full((side, side, 3), rng.integers(0, 255, 3), np.uint8)
    for _ in range(int(rng.integers(40, 300))):
        _draw_shape(image, rng)
    return image


def facade(rng: Rng, side: int = PROCEDURAL_PX) -> Image:
    """Return a wall with rows of windows: repeated structure with small differences, as on houses."""
    image = _to_uint8(noise(rng, side) * 0.3 + rng.integers(60, 170, 3))
    rows, columns = int(rng.integers(3, 10)), int(rng.integers(3, 12))
    frame = _colour(rng)
    margin_x, margin_y, bars = *rng.uniform(0.1, 0.3, 2), rng.random(2) < 0.6
    thickness = int(rng.integers(1, 6))
    for row in range(rows):
        for column in range(columns):
            x0, x1 = (int((column + m) * side / columns) for m in (margin_x, 1 - margin_x))
            y0, y1 = (int((row + m) * side / rows) for m in (margin_y, 1 - margin_y))
            cv2.rectangle(image, (x0, y0), (x1, y1), _colour(rng, 10, 130), -1)
            cv2.rectangle(image, (x0, y0), (x1, y1), frame, thickness, cv2.LINE_AA)
            if bars[0]:
                cv2.line(image, ((x0 + x1) // 2, y0), ((x0 + x1) // 2, y1), frame, 2)
            if bars[1]:
                cv2.line(image, (x0, (y0 + y1) // 2), (x1, (y0 + y1) // 2), frame, 2)
        cv2.line(image, (0, row * side // rows), (side, row * side // rows), frame, int(rng.integers(1, 9)))
    for _ in range(int(rng.integers(0, 25))):
        _draw_shape(image, rng, largest=50)
    return image


def bricks(rng: Rng, side: int = PROCEDURAL_PX) -> Image:
    """Return courses of bricks, tiles or planks, each slightly different."""
    height, width = int(rng.integers(14, 60)), int(rng.integers(30, 160))
    mortar, base, variation = rng.uniform(60, 220, 3), rng.uniform(50, 200, 3), rng.uniform(5, 30)
    offset, gap = rng.choice([0.0, 0.5, 0.33]), int(rng.integers(1, 5))
    image = np.empty((side, side, 3), np.float32)
    image[:] = mortar
    for course in range(side // height + 1):
        for stone in range(-1, side // width + 2):
            x = int((stone + course * offset % 1) * width)
            x0, y0 = max(x + gap, 0), course * height + gap
            image[y0 : (course + 1) * height, x0 : max(x + width, 0)] = base + rng.normal(0, variation, 3)
    return _to_uint8(image + (noise(rng, side).astype(np.float32) - 120) * rng.uniform(0.1, 0.5))


def _draw_shape(image: Image, rng: Rng, largest: int = 120) -> None:
    side, colour, size = image.shape[0], _colour(rng), int(rng.integers(6, largest))
    x, y = (int(v) for v in rng.integers(0, side, 2))
    thickness = -1 if rng.random() < 0.6 else int(rng.integers(1, 8))
    kind = rng.integers(0, 5)
    if kind == 0:
        cv2.circle(image, (x, y), size, colour, thickness, cv2.LINE_AA)
    elif kind == 1:
        cv2.rectangle(image, (x, y), (x + size, y + int(rng.integers(6, largest))), colour, thickness, cv2.LINE_AA)
    elif kind == 2:
        end = (x + int(rng.integers(-3 * size, 3 * size)), y + int(rng.integers(-3 * size, 3 * size)))
        cv2.line(image, (x, y), end, colour, int(rng.integers(1, 9)), cv2.LINE_AA)
    elif kind == 3:
        letters = "".join(chr(int(code)) for code in rng.integers(48, 122, int(rng.integers(2, 12))))
        font, scale = int(rng.integers(0, 5)), size / 30
        cv2.putText(image, letters, (x, y), font, scale, colour, int(rng.integers(1, 6)), cv2.LINE_AA)
    else:
        corners = rng.integers(-size, size + 1, (int(rng.integers(3, 7)), 2)) + (x, y)
        cv2.fillPoly(image, [corners.astype(np.int32)], colour, cv2.LINE_AA)


def _colour(rng: Rng, low: int = 0, high: int = 255) -> tuple[int, ...]:
    return tuple(int(value) for value in rng.integers(low, high, 3))


def _palette(rng: Rng, count: int) -> NDArray[np.float64]:
    """Colours around one random tone, from nearly uniform to vivid."""
    return rng.uniform(40, 215, 3) + rng.normal(0, rng.uniform(15, 80), (count, 1)) + rng.normal(0, 20, (count, 3))


def _to_uint8(image: NDArray) -> Image:
    return np.clip(image, 0, 255).astype(np.uint8)


def _pyramid(image: Image) -> tuple[Image, ...]:
    levels = [image]
    while min(levels[-1].shape[:2]) > 400:
        levels.append(cv2.resize(levels[-1], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))
    return tuple(levels)


def _random_crop(pyramid: tuple[Image, ...], rng: Rng) -> tuple[Image, NDArray[np.float64]]:
    """A random crop of a picture, and the matrix (3, 3) from its pixels to those of the whole picture."""
    shorter = min(pyramid[0].shape[:2])
    side = max(shorter * rng.uniform(0.3, 1.0), min(shorter, 256))
    level = min(max(0, int(np.ceil(np.log2(side / 700)))), len(pyramid) - 1)
    image = pyramid[level]
    side = int(min(side / 2**level, *image.shape[:2]))
    width = int(min(image.shape[1], side * rng.uniform(1, 1.5)))
    top, left = rng.integers(0, image.shape[0] - side + 1), rng.integers(0, image.shape[1] - width + 1)
    crop = image[top : top + side, left : left + width]
    matrix = _scaling(image.shape, pyramid[0].shape) @ _translation(left, top)
    scale = rng.uniform(360, 640) / side
    if scale < 0.9:
        crop = cv2.resize(crop, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        matrix = matrix @ _scaling(crop.shape, (side, width))
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
        matrix = matrix @ np.array([[-1, 0, crop.shape[1]], [0, 1, 0], [0, 0, 1.0]])
    if rng.random() < 0.15:
        for _ in range(int(rng.integers(1, 4))):
            matrix = matrix @ np.array([[0, -1, crop.shape[1]], [1, 0, 0], [0, 0, 1.0]])
            crop = np.rot90(crop)
    return np.ascontiguousarray(crop), matrix


def _translation(x: float, y: float) -> NDArray[np.float64]:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]])


def _scaling(small: Sequence[int], large: Sequence[int]) -> NDArray[np.float64]:
    """The matrix from pixels of a (height, width) picture to those of the same picture at another size."""
    return np.diag((large[1] / small[1], large[0] / small[0], 1.0))


def _roughness(image: Image) -> float:
    green = image[::4, ::4, 1].astype(np.float32)
    return float(np.abs(np.diff(green, axis=0)).mean() + np.abs(np.diff(green, axis=1)).mean())
