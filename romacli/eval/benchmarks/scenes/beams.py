"""Evaluate points by laser scans like ETH3D's evaluator, which also uses the free space that beams crossed.

Source: Schoeps et al., A Multi-View Stereo Benchmark (ETH3D), CVPR 2017, section 5, with the settings of
https://github.com/ETH3D/multi-view-evaluation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from romacli.eval.cloud import nearest

VOXEL = 0.01  # m
BEAM_RADIUS, BEAM_SPREAD = 0.00225 / 2, np.tan(np.radians(0.011))  # m at the scanner, and increase per m
_SHIFTS = (0.0, 0.5)  # of two voxel grids, in voxels
_ROWS = 1024  # of a scan, from zenith to nadir
_TURN = 2 * np.pi
_CHUNK = 20_000  # points

Placed = tuple[np.ndarray, np.ndarray]


def accuracy(points: np.ndarray, scans: Sequence[Placed], tolerances: Sequence[float]) -> list[float]:
    """The share of points (n, 3) near a scan among those observed by any beam, at each tolerance.

    A beam observes the points within its radius. A point is right if a beam of any scan ends within the tolerance of
    it; it is wrong if none does and one passes behind it; otherwise it is unobserved and does not count.

    Args:
        scans: points (m, 3) in m in the frame of the scanner, which is at the origin, and the pose (4, 4) of that frame
            in the frame of the points.
    """
    near, crossed = np.full(len(points), np.inf), np.zeros(len(points), bool)
    for xyz, place in scans:
        scan = _Scan(xyz)
        local = (points - place[:3, 3]) @ place[:3, :3]
        for start in range(0, len(points), _CHUNK):
            part = slice(start, start + _CHUNK)
            distance, behind = scan.along_beams(local[part])
            near[part] = np.minimum(near[part], distance)
            crossed[part] |= behind
    within = near[:, None] <= tolerances
    return per_voxel(points, within, within | crossed[:, None])


def completeness(points: np.ndarray, reference: np.ndarray, tolerances: Sequence[float]) -> list[float]:
    """The share of a reference (m, 3) within each tolerance of points (n, 3)."""
    within = nearest(reference, points)[:, None] <= tolerances
    return per_voxel(reference, within, np.ones_like(within))


def per_voxel(points: np.ndarray, holds: np.ndarray, counts: np.ndarray) -> list[float]:
    """The share of counted points (n, 3) that hold, for k criteria: the mean over voxels of two grids.

    Args:
        holds, counts: (n, k) bool; points that hold are counted.
    """
    shares: list[list[np.ndarray]] = [[] for _ in holds.T]
    for shift in _SHIFTS:
        _, of = np.unique(np.floor(points / VOXEL + shift), axis=0, return_inverse=True)
        for found, held, counted in zip(shares, holds.T, counts.T, strict=True):
            right, total = (np.bincount(of.ravel(), some) for some in (held, counted))
            found.append(right[total > 0] / total[total > 0])
    return [float(np.concatenate(found).mean()) if any(map(len, found)) else 0.0 for found in shares]


class _Scan:
    """The points of a scan, sorted by their direction from the scanner."""

    def __init__(self, xyz: np.ndarray) -> None:
        row, azimuth = _directions(xyz)
        key = np.minimum(np.floor(row), _ROWS - 1) * _TURN + azimuth
        order = np.argsort(key)
        self._xyz, self._key = xyz[order], key[order]

    def along_beams(self, points: np.ndarray) -> Placed:
        """For points (n, 3), the distance to the nearest end of a beam containing each; whether one passes behind it.

        The distance is infinite without a beam.
        """
        near, behind = np.full(len(points), np.inf), np.zeros(len(points), bool)
        radius = BEAM_RADIUS + BEAM_SPREAD * np.linalg.norm(points, axis=1)
        for of, ends in self._about(points, radius):
            ranges = np.maximum(np.linalg.norm(ends, axis=1), np.finfo(float).tiny)
            along = (ends * points[of]).sum(1) / ranges
            inside = np.linalg.norm(points[of] - ends * (along / ranges)[:, None], axis=1) <= radius[of]
            inside &= along >= 0
            of, ends, further = of[inside], ends[inside], (ranges > along)[inside]
            np.minimum.at(near, of, np.linalg.norm(ends - points[of], axis=1))
            behind[of[further]] = True
        return near, behind

    def _about(self, points: np.ndarray, radius: np.ndarray) -> Iterator[Placed]:
        """Indices of points (k,), and the scan's points (k, 3) in the range of directions around each, row by row."""
        row, azimuth = _directions(points)
        tall = _angle(radius, np.linalg.norm(points, axis=1)) / np.pi * _ROWS
        wide = _angle(radius, np.linalg.norm(points[:, :2], axis=1))
        first = np.clip(np.floor(row - tall), 0, _ROWS - 1)
        last = np.clip(np.floor(row + tall), 0, _ROWS - 1)
        for step in range(int((last - first).max(initial=-1)) + 1):
            some = np.flatnonzero(first + step <= last)
            for turn in (-_TURN, 0.0, _TURN):  # azimuths wrap around
                west, east = (np.clip(azimuth[some] + turn + side * wide[some], 0, _TURN) for side in (-1, 1))
                begin = (first[some] + step) * _TURN
                start, stop = (
                    np.searchsorted(self._key, begin + west),
                    np.searchsorted(self._key, begin + east, "right"),
                )
                count = np.where(west < east, stop - start, 0)
                number = np.arange(count.sum()) + np.repeat(start - (np.cumsum(count) - count), count)
                yield np.repeat(some, count), self._xyz[number]


def _directions(points: np.ndarray) -> Placed:
    """The directions of points (n, 3) from the origin: fractional row, and azimuth in [0, 2 pi]."""
    x, y, z = points.T
    return np.arctan2(np.hypot(x, y), z) / np.pi * _ROWS, np.arctan2(y, x) % _TURN


def _angle(radius: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Half angles (n,) of the cones around balls of radii (n,) at distances (n,); pi from within."""
    outside = radius < distance
    return np.where(outside, np.arcsin(radius / np.where(outside, distance, np.inf)), np.pi)
