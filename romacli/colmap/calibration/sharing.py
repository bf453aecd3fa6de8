"""Find photographs that share a camera although their pairs imply different focal lengths."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

import numpy as np

from romacli.colmap.cameras import DEFAULT_FOCAL_FACTOR
from romacli.geometry.focal import curves_of, focal_alone, focal_costs, joint_focal, pair_costs, residuals, sharp_focal

from .findings import Mixture, Separation
from .lengths import joint_lengths
from .pairs import FEWEST_PAIRS, Camera, Pairs

# Minimum photographs of a camera that are checked individually, and minimum ratio of focal lengths that differ.
_FEWEST_SHARING, _MOST_APART = 4, 1.3
# Minimum ratio of residuals in favour of individual focal lengths where no single one fits all.
_CLEARLY_APART = 4.0
# For pairs that individual focal lengths explain: minimum mean cost of a wrong shared one, and its minimum ratio to the
# cost of individual ones, including that of their spread. Measured: 1.1 to 3.5 and 4.4 to 15 where zooms differ, at
# most 0.6 and 2.3 where they do not.
_EXPLAINED, _MISFIT, _MUCH_WORSE = float(np.log(2)), 0.8, 3.0
_LEAST_SPREAD = float(np.log(1.2))
# Photographs within this factor of the most common focal length keep sharing a camera if at least this share, and this
# many, do.
_ALIKE, _MOST_ALIKE, _FEWEST_ALIKE = 1.1, 2 / 3, 6


def find_mixtures(
    database: sqlite3.Connection, pairs: Pairs, cameras: Mapping[int, Camera], answered: Collection[int]
) -> Iterator[Mixture]:
    """Photographs that do not fit the camera they share, for cameras without a prior."""
    name_of = dict(database.execute("SELECT image_id, name FROM images"))
    for row, (number, camera) in enumerate(cameras.items()):
        mine = (pairs.cameras == row).all(axis=1)
        images = np.unique(pairs.images[mine])
        if camera.is_prior or len(images) < _FEWEST_SHARING:
            continue
        own = Pairs(pairs.matrices[mine], np.zeros_like(pairs.cameras[mine]), pairs.images[mine])
        usual = focal_alone(own.matrices)
        alone = replace(own, cameras=np.searchsorted(images, own.images))
        if number in answered:
            found = _apart_from(usual, alone, len(images))
        else:
            found = _all_apart(usual, alone, len(images))
            usual = float(np.median([*found.values(), usual]))
        lengths = {int(images[place]): length for place, length in found.items()}
        odd = [image for image, length in lengths.items() if abs(np.log(length / usual)) > np.log(_MOST_APART)]
        if odd:
            px = camera.side * np.array([np.median([lengths[image] for image in odd]), usual])
            yield Mixture(number, tuple(name_of[image] for image in odd), len(images), float(px[0]), float(px[1]))


def find_separations(
    database: sqlite3.Connection, pairs: Pairs, cameras: Mapping[int, Camera], loose: Collection[str]
) -> Iterator[Separation]:
    """Photographs whose pairs fit individual focal lengths far better than a shared one.

    If that is clear for one camera, the photographs of all cameras are compared.
    """
    rows_of_images = database.execute("SELECT image_id, name, camera_id FROM images").fetchall()
    name_of = {image: name for image, name, _ in rows_of_images}
    numbers = {number for _, name, number in rows_of_images if name in loose}
    rows = [row for row, number in enumerate(cameras) if number in numbers]
    is_loose = np.isin(pairs.cameras, rows)
    if not is_loose.any():
        return
    shared = joint_lengths(pairs, cameras)
    images, first = np.unique(pairs.images[is_loose], return_index=True)
    row_of, single = pairs.cameras[is_loose][first], len(cameras) + np.arange(len(images))
    alone = np.where(is_loose, len(cameras) + np.searchsorted(images, pairs.images), pairs.cameras)
    usual = np.concatenate((shared, np.full(len(images), DEFAULT_FOCAL_FACTOR)))
    focal = joint_focal(pairs.matrices, alone, usual, np.arange(len(usual)) >= len(cameras))
    own = {row: single[row_of == row] for row in np.unique(row_of).tolist()}
    if max(np.ptp(np.log(focal[places])) for places in own.values()) < _LEAST_SPREAD:
        return
    after = pair_costs(pairs.matrices, alone, focal)
    spread = {row: focal_costs(focal[places], np.median(focal[places])).sum() for row, places in own.items()}

    def is_clear(sharing: np.ndarray, lengths: np.ndarray, some: Collection[int]) -> bool:
        """Whether individual focal lengths are far better than those of some cameras as they are shared."""
        mine = np.isin(sharing, list(some)).any(axis=1) & (after < _EXPLAINED)
        before = pair_costs(pairs.matrices[mine], sharing[mine], lengths).sum()
        least = after[mine].sum() + sum(spread[row] for row in some)
        return bool(mine.sum() >= FEWEST_PAIRS and before > max(_MISFIT * mine.sum(), _MUCH_WORSE * least))

    if not any(is_clear(pairs.cameras, shared, some) for some in (own, *([row] for row in own))):
        return
    goes = np.zeros(len(usual), bool)
    for places in own.values():
        goes[places] = _odd(focal[places])
    # Photographs that keep sharing a camera must fit it.
    left, is_free = np.where(goes[alone], alone, pairs.cameras), np.isin(np.arange(len(usual)), [*rows, *single])
    lengths = joint_focal(pairs.matrices, left, np.concatenate((shared, focal[single])), is_free)
    for row, places in own.items():
        is_odd, number = goes[places] | is_clear(left, lengths, [row]), list(cameras)[row]
        if len(places) == 1 or not is_odd.any():
            continue
        names = tuple(name_of[int(image)] for image in images[row_of == row][is_odd])
        px = cameras[number].side * focal[places][is_odd]
        yield Separation(number, names, float(px.min()), float(px.max()), int((~is_odd).sum()))


def _odd(lengths: np.ndarray) -> np.ndarray:
    """Which focal lengths differ from the most common one: all, unless most are close to one value."""
    is_near = np.abs(np.log(lengths[:, None] / lengths)) < np.log(_ALIKE)
    usual = is_near[is_near.sum(axis=1).argmax()]
    return ~usual if usual.sum() >= max(_FEWEST_ALIKE, _MOST_ALIKE * len(lengths)) else np.ones_like(usual)


def _apart_from(usual: float, pairs: Pairs, images: int) -> dict[int, float]:
    """The focal lengths of images whose pairs determine them, given the usual one for the others."""
    focal = np.full(images, usual)
    curves = {image: curves_of(pairs.matrices, pairs.cameras, image, focal) for image in range(images)}
    found = {image: sharp_focal(one) for image, one in curves.items() if one.shape[1] >= FEWEST_PAIRS}
    return {image: answer[0] for image, answer in found.items() if answer}


def _all_apart(usual: float, pairs: Pairs, images: int) -> dict[int, float]:
    """The jointly estimated focal lengths of all images, if they explain the pairs much better than the usual one."""
    start = np.full(images, usual)
    current = joint_focal(pairs.matrices, pairs.cameras, start, np.ones(images, bool))
    shared, own = (residuals(pairs.matrices, *focal[pairs.cameras].T).sum() for focal in (start, current))
    is_clear = shared > _CLEARLY_APART * own
    return dict(enumerate(current.tolist())) if is_clear and len(pairs.matrices) > 2 * images else {}
