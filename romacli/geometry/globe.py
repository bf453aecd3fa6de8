"""Geographic positions: plausibility, and conversion to metres."""

from __future__ import annotations

import math

import numpy as np

Position = tuple[float, float, float]

# WGS 84: the equatorial radius in m and the square of the eccentricity.
_EQUATOR_M = 6378137.0
_ECCENTRICITY_SQUARED = 6.69437999014e-3
_MEAN_RADIUS_M = 6371008.8
# Mines and balloons; below 2^32 / 10^5, the smallest height that results from reading a negative number as unsigned.
_HEIGHTS_M = (-5_000.0, 40_000.0)


def position_fault(latitude: float, longitude: float, height: float) -> str | None:
    """Why a position in degrees and m is implausible, as the end of a sentence; None if plausible."""
    if not all(map(math.isfinite, (latitude, longitude, height))):
        return "is not a number"
    if latitude == longitude == 0:
        return "is 0, 0, as written by devices without a fix"
    if abs(latitude) > 90 or abs(longitude) > 180:
        return f"is {latitude:g}, {longitude:g}, outside 90 degrees of latitude and 180 of longitude"
    if not _HEIGHTS_M[0] <= height <= _HEIGHTS_M[1]:
        return f"has the altitude {height:.0f} m"
    return None


def to_metres(geographic: np.ndarray) -> np.ndarray:
    """Convert (N, 3) latitudes and longitudes in degrees and heights in m to earth-centred metres (N, 3), by WGS 84.

    This frame has no singularities at the poles or the date line.
    """
    latitude, longitude = np.radians(geographic[:, 0]), np.radians(geographic[:, 1])
    height = geographic[:, 2]
    normal = _EQUATOR_M / np.sqrt(1 - _ECCENTRICITY_SQUARED * np.sin(latitude) ** 2)
    across = (normal + height) * np.cos(latitude)
    along = (normal * (1 - _ECCENTRICITY_SQUARED) + height) * np.sin(latitude)
    return np.stack((across * np.cos(longitude), across * np.sin(longitude), along), axis=1)


def east_north_up(geographic: np.ndarray, origin: Position) -> np.ndarray:
    """Metres (N, 3) east, north and up of an origin, for positions (N, 3) as for `to_metres`."""
    latitude, longitude = np.radians(origin[:2])
    east = [-np.sin(longitude), np.cos(longitude), 0]
    up = [np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)]
    axes = np.stack((east, np.cross(up, east), up))
    return (to_metres(geographic) - to_metres(np.array([origin]))) @ axes.T


def chord_m(distance_m: float) -> float:
    """The straight-line distance between points `distance_m` apart along the earth's surface."""
    return 2 * _MEAN_RADIUS_M * float(np.sin(min(distance_m / (2 * _MEAN_RADIUS_M), np.pi / 2)))
