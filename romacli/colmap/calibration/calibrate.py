"""Calibrate cameras from all fundamental matrices of a database: focal lengths, distortion and principal points."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np

from romacli.colmap.numbers import NO_NUMBERS, Numbers, give_own_cameras
from romacli.geometry.focal import best_centre, shifted

from .distortion import fitted_again, without_distortion
from .findings import Calibration, Findings, Lens
from .lengths import focal_lengths, joint_lengths
from .pairs import FEWEST_PAIRS, NUM_FOCAL, Camera, Pairs, read_cameras, read_pairs
from .sharing import find_mixtures, find_separations

# Distance of the principal point from the image centre, in long sides, that indicates cropped photographs.
_CROPPED = 0.04
# Minimum ratio of residuals in favour of another principal point; distortion at the edge that only fisheyes have.
_CLEAR, _FISHEYE_EDGE = 2.0, 0.1
# COLMAP's numbers of fisheye models.
_FISHEYES = (5, 8, 9)


def calibrate_database(
    path: Path,
    loose: Collection[str] = (),
    former: Numbers = NO_NUMBERS,
    verify_again: Callable[[], None] | None = None,
) -> Findings:
    """Set the focal length of cameras without a prior, where pairs determine it.

    Cameras with a prior are not changed, but reported if pairs contradict it. Nothing is changed where pairs do not
    determine the focal length (planes, pure rotation, intersecting optical axes, few pairs), except that of cameras of
    one photograph: few pairs determine theirs, but all pairs together make a better guess than the usual one.

    Args:
        loose: names of images that share cameras only because they lack EXIF data: those whose pairs clearly imply
            another focal length get cameras of their own, with their ids in `former`.
        verify_again: repeats COLMAP's verification, if used: since 4.2 it estimates one focal length for two images
            that share an unknown camera, which hides that they differ.
    """
    with closing(sqlite3.connect(path)) as database:
        cameras = read_cameras(database)
        pairs = without_distortion(database, read_pairs(database, cameras), cameras)
        unbiased = fitted_again(database, pairs, cameras) if loose and verify_again else pairs
        separations = tuple(find_separations(database, unbiased, cameras, loose))
        if separations:
            give_own_cameras(database, [name for one in separations for name in one.names], former)
            if verify_again:
                database.execute("DELETE FROM two_view_geometries")
                database.commit()
                verify_again()
            cameras = read_cameras(database)
            pairs = without_distortion(database, read_pairs(database, cameras), cameras)
        lenses = {lens.camera: lens for lens in _lenses(pairs, cameras)}
        about_middles, pairs = pairs, _about_centres(pairs, cameras, lenses)
        lengths = joint_lengths(pairs, cameras)
        answers, guesses = focal_lengths(pairs, cameras, lengths), _guesses(pairs, cameras, lengths)
        found = []
        for number, camera in cameras.items():
            answer = answers.get(number)
            if not camera.is_prior:
                _write(database, number, camera, answer.focal if answer else guesses.get(number), lenses.get(number))
            if answer is not None:
                focal, low, high = (camera.side * length for length in (answer.focal, answer.low, answer.high))
                before, is_prior = float(camera.params[0]), camera.is_prior
                calibration = Calibration(number, focal, low, high, answer.pairs, before, is_prior)
                if not is_prior or calibration.contradicts:
                    found.append(calibration)
        database.commit()
        if verify_again:
            pairs = _about_centres(fitted_again(database, about_middles, cameras), cameras, lenses)
        mixtures = tuple(find_mixtures(database, pairs, cameras, answers))
        return Findings(tuple(found), mixtures, tuple(lenses.values()), separations)


def _guesses(pairs: Pairs, cameras: Mapping[int, Camera], lengths: np.ndarray) -> dict[int, float]:
    """The joint estimates (C,) of cameras of one photograph, by their ids, if there are pairs enough for all."""
    if len(pairs.matrices) < FEWEST_PAIRS:
        return {}
    counts = [len(np.unique(pairs.images[pairs.cameras == row])) for row in range(len(cameras))]
    return {number: float(lengths[row]) for row, number in enumerate(cameras) if counts[row] == 1}


def _write(database: sqlite3.Connection, number: int, camera: Camera, focal: float | None, lens: Lens | None) -> None:
    """Write a camera's focal length, in long sides, and principal point, if estimated."""
    params, count = camera.params.copy(), NUM_FOCAL[camera.model]
    if focal is not None:
        params[:count] = focal * camera.side
    if lens is not None and lens.is_set:
        params[count : count + 2] = lens.centre_px
    database.execute("UPDATE cameras SET params = ? WHERE camera_id = ?", (params.tobytes(), number))


def _about_centres(pairs: Pairs, cameras: Mapping[int, Camera], lenses: Mapping[int, Lens]) -> Pairs:
    """The pairs relative to the principal points that are set."""
    off = np.zeros((len(cameras), 2))
    for row, (number, camera) in enumerate(cameras.items()):
        if (lens := lenses.get(number)) is not None and lens.is_set:
            off[row] = (np.array(lens.centre_px) - np.array(camera.size) / 2) / camera.side
    first, second = off[pairs.cameras].transpose(1, 0, 2)
    return replace(pairs, matrices=shifted(pairs.matrices, first, second))


def _lenses(pairs: Pairs, cameras: Mapping[int, Camera]) -> Iterator[Lens]:
    """Cameras that seem to be fisheyes or to have principal points far from the image centre."""
    for row, (number, camera) in enumerate(cameras.items()):
        edge = -pairs.distortions[row].value / 4 if row in pairs.distortions else 0.0
        own = pairs.own(row)
        if edge > _FISHEYE_EDGE and camera.model not in _FISHEYES:
            yield Lens(number, camera.size, edge)
        elif len(own) >= FEWEST_PAIRS:
            place, contrast = best_centre(pairs.matrices[own])
            if np.hypot(*place) > _CROPPED and contrast > _CLEAR:
                x, y = np.array(camera.size) / 2 + camera.side * np.array(place)
                yield Lens(number, camera.size, edge, (float(x), float(y)), not camera.is_prior)
