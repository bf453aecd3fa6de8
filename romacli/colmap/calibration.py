"""Uncalibrated cameras from all fundamental matrices of a database: focal lengths, distortion and centres."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from romacli.geometry.distortion import fit_fundamental
from romacli.geometry.focal import (
    STEP,
    best_centre,
    best_focal,
    curves_of,
    drawn_anew,
    focal_costs,
    focal_curves,
    joint_focal,
    pair_costs,
    residuals,
    sharp_focal,
    shifted,
)
from romacli.types import Size
from romacli.words import counted

from .access import PAIR_BASE, images_of
from .cameras import DEFAULT_FOCAL_FACTOR
from .numbers import NO_NUMBERS, Numbers, give_own_cameras

_FEWEST_PAIRS = 6
# Bounds farther apart than this factor are worthless.
_WIDEST = 2.0
# Pairs within one camera, and matches of each, from which distortion and centre are estimated.
_MOST_OWN, _MATCHES = 100, 300
# Per longer side squared, from fisheyes to pincushions; then by finer steps near the best.
_DISTORTIONS = np.array([-3.2, -1.6, -0.8, -0.4, -0.2, -0.1, 0, 0.1, 0.2, 0.4, 0.8])
# In longer sides: optical axes of whole photographs are hardly farther off the middle, and those of cropped ones are.
_OFF_CENTRE, _CROPPED = 0.02, 0.04
# How much better another centre has to explain the pairs, and what distortion at the edge only fisheyes have.
_CLEAR, _FISHEYE_EDGE = 2.0, 0.1
# Photographs that share a camera and are judged one by one, and the factor between them that is no error of it.
_FEWEST_SHARING, _MOST_APART = 4, 1.3
# Where no focal length fits all, each photograph may have its own, if residuals are so many times less then.
_CLEARLY_APART = 4.0
# Of the pairs that separate focal lengths explain: the mean cost of a shared one that is wrong, and how many times that
# of separate ones it is. Measured: 1.4 to 3.9 and 2.6 to 13 where zooms differ, at most 0.3 where they do not.
_EXPLAINED, _MISFIT, _MUCH_WORSE = float(np.log(2)), 1.0, 2.0
_LEAST_SPREAD = float(np.log(1.2))
# Photographs within this factor of the usual focal length go on sharing a camera if they are this share, and this many.
_ALIKE, _MOST_ALIKE, _FEWEST_ALIKE = 1.1, 2 / 3, 6
# Number of focal lengths at the head of the parameters, by COLMAP's number of the camera model; others are left alone.
_NUM_FOCAL = {0: 1, 1: 2, 2: 1, 3: 1, 4: 2, 5: 2, 8: 1, 9: 1}
# Models without distortion, and fisheyes.
_PINHOLES, _FISHEYES = (0, 1), (5, 8, 9)


@dataclass(frozen=True)
class Calibration:
    """The focal length of a camera in px, by `pairs` pairs, from low to high: what pairs drawn anew, another distortion
    and a centre off the middle make of it. before: what the database had, in px; is_prior: out of EXIF data."""

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
class Separation:
    """Photographs that shared a camera for want of EXIF data and got cameras of their own, as their focal lengths in px
    by their pairs differ; kept: how many go on sharing it."""

    camera: int
    names: tuple[str, ...]
    low_px: float
    high_px: float
    kept: int

    def __str__(self) -> str:
        low, high = round(self.low_px), round(self.high_px)
        lengths = f"focal lengths from {low} to {high} px" if low < high else f"a focal length of {low} px"
        rest = f"; the other {self.kept} share one" if self.kept else ""
        has, their, gets = ("has", "its", "it gets") if len(self.names) == 1 else ("have", "their", "each gets")
        return (
            f"camera {self.camera}: {counted(len(self.names), 'photograph')} without EXIF data, {self.names[0]} first, "
            f"{has} {lengths} by {their} pairs, so {gets} a camera of its own{rest}"
        )


@dataclass(frozen=True)
class Lens:
    """What the pairs of a camera say against its model.

    edge: by how much of its distance the middle of a longer edge lies nearer the centre than without distortion;
    centre_px: where the optical axis meets the photographs, if that is far from their middle; is_set: and is taken.
    """

    camera: int
    size: Size
    edge: float
    centre_px: tuple[float, float] | None = None
    is_set: bool = False

    def __str__(self) -> str:
        if self.centre_px is not None:
            near, middle = ("({:.0f}, {:.0f}) px".format(*place) for place in (self.centre_px, np.array(self.size) / 2))
            taken = " The model uses that" if self.is_set else " If so, give --camera-params this centre"
            return (
                f"camera {self.camera}: by its pairs the optical axis meets the photographs near {near}, and not in "
                f"their middle, {middle}. Were they cropped?{taken}; whole photographs are better"
            )
        return (
            f"camera {self.camera}: by its pairs the photographs are as distorted as a fisheye's, by "
            f"{100 * self.edge:.0f} % at the edge. --camera-model OPENCV_FISHEYE is for such lenses"
        )


@dataclass(frozen=True)
class Findings:
    """What pairs say of the cameras of a database."""

    calibrations: tuple[Calibration, ...] = ()
    mixtures: tuple[Mixture, ...] = ()
    lenses: tuple[Lens, ...] = ()
    separations: tuple[Separation, ...] = ()


@dataclass(frozen=True)
class _Camera:
    model: int
    size: Size
    params: np.ndarray
    is_prior: bool

    @property
    def side(self) -> float:
        return float(max(self.size))

    @property
    def focal(self) -> float:
        """In longer sides."""
        return float(self.params[0]) / self.side


@dataclass(frozen=True)
class _Distortion:
    """See `fit_fundamental`; factors: by which focal lengths change with the bounds of the value."""

    value: float
    factors: list[float]


@dataclass(frozen=True)
class _Answer:
    """A focal length and its bounds, in longer sides, by `pairs` pairs."""

    focal: float
    low: float
    high: float
    pairs: int


@dataclass(frozen=True)
class _Pairs:
    """Fundamental matrices (N, 3, 3) in longer sides from the pictures' centres, (N, 2) the rows of cameras and the ids
    of images; the distortion that the matrices are free of, by row of the camera."""

    matrices: np.ndarray
    cameras: np.ndarray
    images: np.ndarray
    distortions: Mapping[int, _Distortion] = field(default_factory=dict)


def calibrate_database(
    path: Path,
    loose: Collection[str] = (),
    former: Numbers = NO_NUMBERS,
    verify_again: Callable[[], None] | None = None,
) -> Findings:
    """Set the focal length of cameras without a prior, where pairs determine it.

    Cameras with a prior are not changed, but found if pairs contradict it. Nothing is changed where pairs do not
    determine the focal length (planes, pure rotation, intersecting optical axes, few pairs).

    Args:
        loose: names of images that share cameras for want of EXIF data: those that pairs clearly give another focal
            length get cameras of their own, with the numbers they had in `former`.
        verify_again: repeats the verification, if COLMAP did it: since 4.2 it estimates one focal length for two images
            that share an unknown camera, so its matrices do not show that they differ.
    """
    with closing(sqlite3.connect(path)) as database:
        cameras = _read_cameras(database)
        pairs = _without_distortion(database, _read_pairs(database, cameras), cameras)
        unbiased = _fitted_again(database, pairs, cameras) if loose and verify_again else pairs
        separations = tuple(_separations(database, unbiased, cameras, loose))
        if separations:
            give_own_cameras(database, [name for one in separations for name in one.names], former)
            if verify_again:
                database.execute("DELETE FROM two_view_geometries")
                database.commit()
                verify_again()
            cameras = _read_cameras(database)
            pairs = _without_distortion(database, _read_pairs(database, cameras), cameras)
        lenses = {lens.camera: lens for lens in _lenses(pairs, cameras)}
        about_middles, pairs = pairs, _about_centres(pairs, cameras, lenses)
        priors = {number: camera.focal for number, camera in cameras.items() if camera.is_prior}
        answers = _focal_lengths(pairs, list(cameras), priors)
        found = []
        for number, camera in cameras.items():
            answer = answers.get(number)
            if not camera.is_prior:
                _write(database, number, camera, answer, lenses.get(number))
            if answer is not None:
                focal, low, high = (camera.side * length for length in (answer.focal, answer.low, answer.high))
                before, is_prior = float(camera.params[0]), camera.is_prior
                calibration = Calibration(number, focal, low, high, answer.pairs, before, is_prior)
                if not is_prior or calibration.contradicts:
                    found.append(calibration)
        database.commit()
        if verify_again:
            pairs = _about_centres(_fitted_again(database, about_middles, cameras), cameras, lenses)
        mixtures = tuple(_mixtures(database, pairs, cameras, answers))
        return Findings(tuple(found), mixtures, tuple(lenses.values()), separations)


def _write(
    database: sqlite3.Connection, number: int, camera: _Camera, answer: _Answer | None, lens: Lens | None
) -> None:
    """Give a camera its focal length and its centre, where they are known."""
    params, count = camera.params.copy(), _NUM_FOCAL[camera.model]
    if answer is not None:
        params[:count] = answer.focal * camera.side
    if lens is not None and lens.is_set:
        params[count : count + 2] = lens.centre_px
    database.execute("UPDATE cameras SET params = ? WHERE camera_id = ?", (params.tobytes(), number))


def _about_centres(pairs: _Pairs, cameras: Mapping[int, _Camera], lenses: Mapping[int, Lens]) -> _Pairs:
    """The pairs relative to the optical axes of cameras without a prior."""
    off = np.zeros((len(cameras), 2))
    for row, (number, camera) in enumerate(cameras.items()):
        if (lens := lenses.get(number)) is not None and lens.is_set:
            off[row] = (np.array(lens.centre_px) - np.array(camera.size) / 2) / camera.side
    first, second = off[pairs.cameras].transpose(1, 0, 2)
    return replace(pairs, matrices=shifted(pairs.matrices, first, second))


def _lenses(pairs: _Pairs, cameras: Mapping[int, _Camera]) -> Iterator[Lens]:
    """Cameras that seem to be fisheyes or to have their centre far from the middle."""
    for row, (number, camera) in enumerate(cameras.items()):
        edge = -pairs.distortions[row].value / 4 if row in pairs.distortions else 0.0
        own = _own(pairs, row)
        if edge > _FISHEYE_EDGE and camera.model not in _FISHEYES:
            yield Lens(number, camera.size, edge)
        elif len(own) >= _FEWEST_PAIRS:
            place, contrast = best_centre(pairs.matrices[own])
            if np.hypot(*place) > _CROPPED and contrast > _CLEAR:
                x, y = np.array(camera.size) / 2 + camera.side * np.array(place)
                yield Lens(number, camera.size, edge, (float(x), float(y)), not camera.is_prior)


def _mixtures(
    database: sqlite3.Connection, pairs: _Pairs, cameras: Mapping[int, _Camera], answered: Collection[int]
) -> Iterator[Mixture]:
    """Photographs that do not fit the camera that they share without evidence."""
    name_of = dict(database.execute("SELECT image_id, name FROM images"))
    for row, (number, camera) in enumerate(cameras.items()):
        mine = (pairs.cameras == row).all(axis=1)
        images = np.unique(pairs.images[mine])
        if camera.is_prior or len(images) < _FEWEST_SHARING:
            continue
        own = _Pairs(pairs.matrices[mine], np.zeros_like(pairs.cameras[mine]), pairs.images[mine])
        usual = _focal_alone(own.matrices)
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


def _separations(
    database: sqlite3.Connection, pairs: _Pairs, cameras: Mapping[int, _Camera], loose: Collection[str]
) -> Iterator[Separation]:
    """Photographs whose pairs fit far better with focal lengths of their own than with one that they share.

    Where that is clear for one camera, the photographs of every camera are compared.
    """
    rows_of_images = database.execute("SELECT image_id, name, camera_id FROM images").fetchall()
    name_of = {image: name for image, name, _ in rows_of_images}
    numbers = {number for _, name, number in rows_of_images if name in loose}
    rows = [row for row, number in enumerate(cameras) if number in numbers]
    is_loose = np.isin(pairs.cameras, rows)
    if not is_loose.any():
        return
    priors = {number: camera.focal for number, camera in cameras.items() if camera.is_prior}
    shared = _shared(pairs, list(cameras), priors)
    images, first = np.unique(pairs.images[is_loose], return_index=True)
    row_of, single = pairs.cameras[is_loose][first], len(cameras) + np.arange(len(images))
    alone = np.where(is_loose, len(cameras) + np.searchsorted(images, pairs.images), pairs.cameras)
    usual = np.concatenate((shared, np.full(len(images), DEFAULT_FOCAL_FACTOR)))
    focal = joint_focal(pairs.matrices, alone, usual, np.arange(len(usual)) >= len(cameras))
    before, after = pair_costs(pairs.matrices, pairs.cameras, shared), pair_costs(pairs.matrices, alone, focal)
    costs = focal_costs(focal, usual)
    own = {row: single[row_of == row] for row in np.unique(row_of).tolist()}
    if max(np.ptp(np.log(focal[places])) for places in own.values()) < _LEAST_SPREAD:
        return

    def is_clear(row: int | None) -> bool:
        """Whether separate focal lengths are far better, for one camera or for all together."""
        mine = (is_loose if row is None else pairs.cameras == row).any(axis=1) & (after < _EXPLAINED)
        least = after[mine].sum() + costs[single if row is None else own[row]].sum()
        much = max(_MISFIT * mine.sum(), _MUCH_WORSE * least)
        return bool(mine.sum() >= _FEWEST_PAIRS and before[mine].sum() > much)

    if not any(map(is_clear, (None, *own))):
        return
    for row, places in own.items():
        is_odd, number = _odd(focal[places]), list(cameras)[row]
        if len(places) == 1 or not is_odd.any():
            continue
        names = tuple(name_of[int(image)] for image in images[row_of == row][is_odd])
        px = cameras[number].side * focal[places][is_odd]
        yield Separation(number, names, float(px.min()), float(px.max()), int((~is_odd).sum()))


def _odd(lengths: np.ndarray) -> np.ndarray:
    """Which focal lengths differ from the usual one: all, unless most are close to one."""
    is_near = np.abs(np.log(lengths[:, None] / lengths)) < np.log(_ALIKE)
    usual = is_near[is_near.sum(axis=1).argmax()]
    return ~usual if usual.sum() >= max(_FEWEST_ALIKE, _MOST_ALIKE * len(lengths)) else np.ones_like(usual)


def _apart_from(usual: float, pairs: _Pairs, images: int) -> dict[int, float]:
    """The focal lengths of those images that their pairs determine if the others have the usual one."""
    focal = np.full(images, usual)
    curves = {image: curves_of(pairs.matrices, pairs.cameras, image, focal) for image in range(images)}
    found = {image: sharp_focal(one) for image, one in curves.items() if one.shape[1] >= _FEWEST_PAIRS}
    return {image: answer[0] for image, answer in found.items() if answer}


def _all_apart(usual: float, pairs: _Pairs, images: int) -> dict[int, float]:
    """The focal lengths of all images, estimated jointly, if they explain the pairs much better than the usual one."""
    start = np.full(images, usual)
    current = joint_focal(pairs.matrices, pairs.cameras, start, np.ones(images, bool))
    shared, own = (residuals(pairs.matrices, *focal[pairs.cameras].T).sum() for focal in (start, current))
    is_clear = shared > _CLEARLY_APART * own
    return dict(enumerate(current.tolist())) if is_clear and len(pairs.matrices) > 2 * images else {}


def _focal_lengths(pairs: _Pairs, cameras: Sequence[int], priors: Mapping[int, float]) -> dict[int, _Answer]:
    """The focal lengths of cameras, by their numbers.

    The bounds hold what pairs drawn anew say, and what distortion that fits as well and a centre off by 2 % change.

    Args:
        priors: known focal lengths, used for the other cameras; they are estimated too.
    """
    current = _shared(pairs, cameras, priors)
    found = {}
    for row, camera in enumerate(cameras):
        curves = curves_of(pairs.matrices, pairs.cameras, row, current)
        if curves.shape[1] >= _FEWEST_PAIRS and (answer := sharp_focal(curves)):
            factors = [[bound / answer[0] for bound in answer[1:]], [1 / STEP, STEP], *_factors_off_centre(pairs, row)]
            if row in pairs.distortions:
                factors.append(pairs.distortions[row].factors)
            logs = np.log(factors)
            low, high = (side * np.sqrt((np.maximum(side * logs, 0).max(axis=1) ** 2).sum()) for side in (-1, 1))
            if high - low < np.log(_WIDEST):
                focal = answer[0]
                found[camera] = _Answer(focal, focal * np.exp(low), focal * np.exp(high), curves.shape[1])
    return found


def _shared(pairs: _Pairs, cameras: Sequence[int], priors: Mapping[int, float]) -> np.ndarray:
    """(C,) the best focal lengths of cameras by all pairs, determined or not; known ones are held."""
    usual = np.array([priors.get(camera, DEFAULT_FOCAL_FACTOR) for camera in cameras])
    free = np.array([camera not in priors for camera in cameras], bool)
    return joint_focal(pairs.matrices, pairs.cameras, usual, free)


def _own(pairs: _Pairs, row: int) -> np.ndarray:
    """Rows of some pairs of a camera with itself, spread over all of them."""
    own = np.flatnonzero((pairs.cameras == row).all(axis=1))
    return own[np.linspace(0, len(own) - 1, min(len(own), _MOST_OWN)).round().astype(int)]


def _focal_alone(matrices: np.ndarray) -> float:
    """The focal length by pairs (N, 3, 3) of a camera with itself."""
    unknown = np.full(len(matrices), np.nan)
    return best_focal(focal_curves(matrices, unknown, unknown))


def _factors_off_centre(pairs: _Pairs, row: int) -> list[list[float]]:
    """By how much focal lengths change where the optical axis is off the middle, across and along."""
    matrices = pairs.matrices[_own(pairs, row)]
    if len(matrices) < _FEWEST_PAIRS:
        return []
    usual = _focal_alone(matrices)
    places = [[(side * _OFF_CENTRE, 0.0) for side in (-1, 1)], [(0.0, side * _OFF_CENTRE) for side in (-1, 1)]]
    return [[_focal_alone(shifted(matrices, place, place)) / usual for place in both] for both in places]


def _distortion(points: np.ndarray) -> _Distortion:
    """By matches (N, 2, M, 2) of pairs of a camera with itself; 0 where pairs drawn anew do not agree on its sign."""

    def misfit(values: np.ndarray, scale: float) -> np.ndarray:
        return np.array([np.log1p((fit_fundamental(points, one)[1] / scale) ** 2).mean(axis=1) for one in values])

    scale = float(np.median(fit_fundamental(points, 0.0)[1])) + 1e-12
    about = int(np.argmin(misfit(_DISTORTIONS, scale).sum(axis=1)).clip(1, len(_DISTORTIONS) - 2))
    near = np.linspace(_DISTORTIONS[about - 1], _DISTORTIONS[about + 1], 17)
    curves = misfit(near, float(np.median(fit_fundamental(points, _DISTORTIONS[about])[1])) + 1e-12)
    best = int(np.argmin(curves.sum(axis=1)))
    again = [int(np.argmin(curves[:, drawn].sum(axis=1))) for drawn in drawn_anew(len(points))]
    low, high = max(0, min(best - 1, *again)), min(len(near) - 1, max(best + 1, *again))
    if near[low] <= 0 <= near[high]:
        best = int(np.argmin(np.abs(near)))
    usual, *others = (_focal_alone(fit_fundamental(points, near[step])[0]) for step in (best, low, high))
    return _Distortion(float(near[best]), [other / usual for other in others])


def _without_distortion(database: sqlite3.Connection, pairs: _Pairs, cameras: Mapping[int, _Camera]) -> _Pairs:
    """The pairs without the distortion of their cameras, where a camera has enough pairs of its own."""
    sizes, found = [camera.size for camera in cameras.values()], {}
    for row, camera in enumerate(cameras.values()):
        own = _own(pairs, row)
        if camera.model not in _PINHOLES and len(own) >= _FEWEST_PAIRS:
            found[row] = _distortion(_matches(database, pairs, own, sizes))
    distorted = np.isin(pairs.cameras, [row for row, one in found.items() if one.value]).any(axis=1)
    return _fitted_again(database, replace(pairs, distortions=found), cameras, np.flatnonzero(distorted))


def _fitted_again(
    database: sqlite3.Connection, pairs: _Pairs, cameras: Mapping[int, _Camera], rows: np.ndarray | None = None
) -> _Pairs:
    """The pairs with the matrices of some `rows`, or of all, fitted to their matches."""
    rows = np.arange(len(pairs.matrices)) if rows is None else rows
    values = np.zeros(len(cameras))
    for row, one in pairs.distortions.items():
        values[row] = one.value
    matrices, sizes = pairs.matrices.copy(), [camera.size for camera in cameras.values()]
    for start in range(0, len(rows), _MOST_OWN):
        some = rows[start : start + _MOST_OWN]
        points = _matches(database, pairs, some, sizes)
        matrices[some] = fit_fundamental(points, values[pairs.cameras[some]][:, :, None])[0]
    return replace(pairs, matrices=matrices)


def _matches(database: sqlite3.Connection, pairs: _Pairs, rows: np.ndarray, sizes: Sequence[Size]) -> np.ndarray:
    """(N, 2, M, 2) some inliers of N pairs, in longer sides from the pictures' centres; few are repeated."""
    points = lru_cache(maxsize=256)(partial(_keypoints, database))
    found = np.empty((len(rows), 2, _MATCHES, 2))
    for place, row in enumerate(rows):
        images = pairs.images[row].tolist()
        query = "SELECT rows, data FROM two_view_geometries WHERE pair_id = ?"
        count, data = database.execute(query, (PAIR_BASE * images[0] + images[1],)).fetchone()
        inliers = np.frombuffer(data, np.uint32).reshape(count, 2)
        chosen = inliers[np.linspace(0, count - 1, _MATCHES).round().astype(int)]
        for side, image in enumerate(images):
            size = np.array(sizes[pairs.cameras[row, side]])
            found[place, side] = (points(image)[chosen[:, side]] - size / 2) / size.max()
    return found


def _keypoints(database: sqlite3.Connection, image: int) -> np.ndarray:
    """(K, 2) px."""
    query = "SELECT rows, cols, data FROM keypoints WHERE image_id = ?"
    rows, cols, data = database.execute(query, (image,)).fetchone()
    return np.frombuffer(data, np.float32).reshape(rows, cols)[:, :2]


def _read_cameras(database: sqlite3.Connection) -> dict[int, _Camera]:
    """The cameras that have focal lengths, by number."""
    query = "SELECT camera_id, model, width, height, params, prior_focal_length FROM cameras"
    return {
        camera: _Camera(model, (width, height), np.frombuffer(params, np.float64), bool(is_prior))
        for camera, model, width, height, params, is_prior in database.execute(query)
        if model in _NUM_FOCAL
    }


def _read_pairs(database: sqlite3.Connection, cameras: Mapping[int, _Camera]) -> _Pairs:
    row_of = {camera: row for row, camera in enumerate(cameras)}
    camera_of = dict(database.execute("SELECT image_id, camera_id FROM images"))
    matrices, rows, images = [], [], []
    query = "SELECT pair_id, F FROM two_view_geometries WHERE rows > 0 AND F IS NOT NULL ORDER BY pair_id"
    for pair_id, data in database.execute(query):
        pair = [camera_of[image] for image in images_of(pair_id)]
        if not row_of.keys() >= set(pair):
            continue
        from_sides = [_pixels_from_sides(cameras[camera].size) for camera in pair]
        matrix = from_sides[1].T @ np.frombuffer(data, np.float64).reshape(3, 3) @ from_sides[0]
        length = np.linalg.norm(matrix)
        if not 0 < length < np.inf:
            continue
        matrices.append(matrix / length)
        rows.append([row_of[camera] for camera in pair])
        images.append(images_of(pair_id))
    first, second = (np.array(ids, int).reshape(-1, 2) for ids in (rows, images))
    return _Pairs(np.array(matrices).reshape(-1, 3, 3), first, second)


def _pixels_from_sides(size: Size) -> np.ndarray:
    width, height = size
    side = max(width, height)
    return np.array([[side, 0, width / 2], [0, side, height / 2], [0, 0, 1]])
