"""Focal lengths of uncalibrated cameras, from all fundamental matrices of a database.

For the true focal lengths, E = K1^T F K0 has two equal singular values. Each pair gives a residual at every focal
length; these are combined robustly, so that a few wrong pairs have little influence.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from romacli.words import counted

from .access import images_of
from .cameras import DEFAULT_FOCAL_FACTOR

# In longer sides of the image.
_FOCAL_LENGTHS = np.geomspace(0.35, 4.0, 240)
_ROUNDS = 3
_FEWEST_PAIRS = 6
# Residuals are truncated here.
_MOST_RESIDUAL = 0.1
# The estimate must be sharp: a few per cent of spread over bootstraps, and clearly better than 1.5 times it.
_MOST_SPREAD, _LEAST_CONTRAST = 0.12, 2.0
_DRAWS = 60
# Photographs that share a camera and are judged one by one, and the factor between them that is no error of it.
_FEWEST_SHARING, _MOST_APART = 4, 1.3
# Number of focal lengths at the head of the parameters, by COLMAP's number of the camera model; others are left alone.
_NUM_FOCAL = {0: 1, 1: 2, 2: 1, 3: 1, 4: 2}


@dataclass(frozen=True)
class Calibration:
    """The focal length of a camera in px, by `pairs` pairs: low and high enclose 90 % of the answers of pairs drawn
    anew. before: what the database had, in px; is_prior: out of EXIF data."""

    camera: int
    focal_length_px: float
    low_px: float
    high_px: float
    pairs: int
    before_px: float
    is_prior: bool

    @property
    def contradicts(self) -> bool:
        """Whether EXIF data and pairs disagree, by more than the spread and a quarter."""
        ratio = self.before_px / self.focal_length_px
        spread = self.high_px / self.low_px
        return self.is_prior and not 1 / (1.25 * spread) < ratio < 1.25 * spread

    @property
    def source(self) -> str:
        """What the focal length is from, and what EXIF data say."""
        exif = f"say {self.before_px:.0f} px" if self.is_prior else "have none"
        spread = f"{self.low_px:.0f} to {self.high_px:.0f} px"
        return f"from {counted(self.pairs, 'pair')} ({spread}); EXIF data {exif}"

    def __str__(self) -> str:
        return f"camera {self.camera}: focal length {self.focal_length_px:.0f} px {self.source}"


@dataclass(frozen=True)
class Mixture:
    """Photographs of a shared camera whose pairs imply another focal length, in px, than the rest."""

    camera: int
    names: tuple[str, ...]
    images: int
    focal_length_px: float
    others_px: float

    def __str__(self) -> str:
        odd = f"{len(self.names)} of its {counted(self.images, 'photograph')}, {self.names[0]} first,"
        return (
            f"camera {self.camera}: {odd} seem to have a focal length near {self.focal_length_px:.0f} px by their "
            f"pairs, the others {self.others_px:.0f} px"
        )


@dataclass(frozen=True)
class _Pairs:
    """Fundamental matrices (N, 3, 3) in longer sides from the pictures' centres, and (N, 2) the rows of cameras and the
    ids of images."""

    matrices: np.ndarray
    cameras: np.ndarray
    images: np.ndarray


def calibrate_database(path: Path) -> tuple[tuple[Calibration, ...], tuple[Mixture, ...]]:
    """Set the focal length of cameras without a prior, where pairs determine it.

    Cameras with a prior are not changed, but returned if pairs contradict it. Nothing is changed where pairs do not
    determine the focal length (planes, pure rotation, intersecting optical axes, few pairs).
    """
    with closing(sqlite3.connect(path)) as database:
        rows = database.execute("SELECT camera_id, model, width, height, params, prior_focal_length FROM cameras")
        cameras = {row[0]: row[1:] for row in rows.fetchall()}
        known = [camera for camera, row in cameras.items() if row[0] in _NUM_FOCAL]
        sides = {camera: float(max(cameras[camera][1:3])) for camera in known}
        before = {camera: float(np.frombuffer(cameras[camera][3], np.float64)[0]) / sides[camera] for camera in known}
        priors = {camera for camera in known if cameras[camera][4]}
        pairs = _read_pairs(database, {camera: cameras[camera][1:3] for camera in known})
        found = []
        for camera, answer in focal_lengths(pairs, known, {camera: before[camera] for camera in priors}).items():
            focal, low, high, count = answer
            side = sides[camera]
            calibration = Calibration(
                camera, focal * side, low * side, high * side, count, before[camera] * side, camera in priors
            )
            if camera not in priors:
                params = np.frombuffer(cameras[camera][3], np.float64).copy()
                params[: _NUM_FOCAL[cameras[camera][0]]] = calibration.focal_length_px
                database.execute("UPDATE cameras SET params = ? WHERE camera_id = ?", (params.tobytes(), camera))
            if camera not in priors or calibration.contradicts:
                found.append(calibration)
        database.commit()
        untold = {camera: sides[camera] for camera in known if camera not in priors}
        return tuple(found), tuple(_mixtures(database, pairs, known, untold))


def _mixtures(
    database: sqlite3.Connection, pairs: _Pairs, cameras: Sequence[int], sides: Mapping[int, float]
) -> Iterator[Mixture]:
    """Photographs that do not fit their shared camera, among cameras with `sides` (px) shared without evidence."""
    name_of = dict(database.execute("SELECT image_id, name FROM images"))
    for row, camera in enumerate(cameras):
        mine = (pairs.cameras == row).all(axis=1)
        images = np.unique(pairs.images[mine])
        if camera not in sides or len(images) < _FEWEST_SHARING:
            continue
        own = _Pairs(pairs.matrices[mine], np.zeros_like(pairs.cameras[mine]), pairs.images[mine])
        usual = float(_FOCAL_LENGTHS[np.argmin(_curves(own, 0, np.ones(1)).sum(axis=1))])
        alone = replace(own, cameras=np.searchsorted(images, own.images))
        lengths = {}
        for place, image in enumerate(images.tolist()):
            curves = _curves(alone, place, np.full(len(images), usual))
            if curves.shape[1] >= _FEWEST_PAIRS and (answer := _answer(curves)):
                lengths[image] = answer[0]
        odd = [image for image, length in lengths.items() if abs(np.log(length / usual)) > np.log(_MOST_APART)]
        if odd:
            px = sides[camera] * np.array([np.median([lengths[image] for image in odd]), usual])
            yield Mixture(camera, tuple(name_of[image] for image in odd), len(images), float(px[0]), float(px[1]))


def focal_lengths(
    pairs: _Pairs, cameras: Sequence[int], priors: Mapping[int, float]
) -> dict[int, tuple[float, float, float, int]]:
    """By camera the focal length, its bounds, in longer sides, and the number of pairs.

    Args:
        priors: known focal lengths, used for the other cameras; they are estimated too.
    """
    current = np.array([priors.get(camera, DEFAULT_FOCAL_FACTOR) for camera in cameras])
    curves: dict[int, np.ndarray] = {}
    for _ in range(_ROUNDS):
        before = current.copy()
        for row, camera in enumerate(cameras):
            curves[row] = _curves(pairs, row, current)
            if camera not in priors and curves[row].shape[1] >= _FEWEST_PAIRS:
                current[row] = _FOCAL_LENGTHS[np.argmin(curves[row].sum(axis=1))]
        if np.array_equal(before, current):
            break
    found = {}
    for row, camera in enumerate(cameras):
        if curves[row].shape[1] >= _FEWEST_PAIRS and (answer := _answer(curves[row])):
            found[camera] = (*answer, curves[row].shape[1])
    return found


def _curves(pairs: _Pairs, row: int, focal: np.ndarray) -> np.ndarray:
    """(focal lengths, pairs) residuals of the pairs of one camera at each of its focal lengths."""
    mine = pairs.cameras == row
    chosen = mine.any(axis=1)
    matrices, rows = pairs.matrices[chosen], pairs.cameras[chosen]
    own = [np.where(rows[:, side] == row, np.nan, focal[rows[:, side]]) for side in (0, 1)]
    curves = np.empty((len(_FOCAL_LENGTHS), len(matrices)))
    for index, length in enumerate(_FOCAL_LENGTHS):
        first, second = (np.where(np.isnan(values), length, values) for values in own)
        curves[index] = residuals(matrices, first, second)
    return np.minimum(curves, _MOST_RESIDUAL)


def residuals(matrices: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """How far K1^T F K0 are from essential matrices: (a^2 - b^2) / (a^2 + b^2) of their two singular values.

    Args:
        matrices: (N, 3, 3), x1^T F x0 = 0. first, second: (N,) focal lengths of both cameras in the same unit.
    """
    one = np.ones(len(matrices))
    rows, columns = np.stack((second, second, one), 1), np.stack((first, first, one), 1)
    essential = matrices * rows[:, :, None] * columns[:, None, :]
    square = essential @ essential.transpose(0, 2, 1)
    trace, of_square = np.trace(square, axis1=1, axis2=2), np.trace(square @ square, axis1=1, axis2=2)
    return np.sqrt(np.maximum(2 * of_square - trace**2, 0)) / np.maximum(trace, 1e-300)


def _answer(curves: np.ndarray) -> tuple[float, float, float] | None:
    """The focal length that fits most pairs and its bounds; None if it is not sharp."""
    total = curves.sum(axis=1)
    best = int(np.argmin(total))
    focal = _FOCAL_LENGTHS[best]
    rng = np.random.default_rng(0)
    draws = rng.integers(0, curves.shape[1], (_DRAWS, curves.shape[1]))
    again = [_FOCAL_LENGTHS[np.argmin(curves[:, drawn].sum(axis=1))] for drawn in draws]
    low, high = np.quantile(again, (0.05, 0.95))
    beside = [total[np.searchsorted(_FOCAL_LENGTHS, focal * by).clip(0, len(total) - 1)] for by in (1 / 1.5, 1.5)]
    is_inside = 0 < best < len(_FOCAL_LENGTHS) - 1
    is_sharp = high / low - 1 < _MOST_SPREAD and min(beside) > _LEAST_CONTRAST * total[best]
    return (float(focal), float(low), float(high)) if is_inside and is_sharp else None


def _read_pairs(database: sqlite3.Connection, sizes: Mapping[int, tuple[int, int]]) -> _Pairs:
    row_of = {camera: row for row, camera in enumerate(sizes)}
    camera_of = dict(database.execute("SELECT image_id, camera_id FROM images"))
    matrices, cameras, images = [], [], []
    query = "SELECT pair_id, F FROM two_view_geometries WHERE rows > 0 AND F IS NOT NULL ORDER BY pair_id"
    for pair_id, data in database.execute(query):
        pair = [camera_of[image] for image in images_of(pair_id)]
        if not row_of.keys() >= set(pair):
            continue
        first, second = (_pixels_from_sides(sizes[camera]) for camera in pair)
        matrix = second.T @ np.frombuffer(data, np.float64).reshape(3, 3) @ first
        matrices.append(matrix / np.linalg.norm(matrix))
        cameras.append([row_of[camera] for camera in pair])
        images.append(images_of(pair_id))
    return _Pairs(
        np.array(matrices).reshape(-1, 3, 3), *(np.array(ids, int).reshape(-1, 2) for ids in (cameras, images))
    )


def _pixels_from_sides(size: tuple[int, int]) -> np.ndarray:
    width, height = size
    side = max(width, height)
    return np.array([[side, 0, width / 2], [0, side, height / 2], [0, 0, 1]])
