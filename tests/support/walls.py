"""Photographs of two walls that are alike except for a poster on each, and their warps."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from romacli.filter.lattice import Views
from romacli.geometry.warp import cell_centres, encode_targets
from romacli.types import CompactWarp, Pair

SIZE, GRID, STEP_PX = (320, 240), (48, 64), 40
# Left, top, width and height in px of details that only one wall has.
POSTERS = {"front": (200, 60, 70, 80), "back": (330, 100, 80, 70)}


def wall_of(name: str) -> str:
    return name.split("/")[0]


def place_of(name: str) -> int:
    return round(STEP_PX * float(name.split("/")[1]))


def on_poster(points: np.ndarray, posters: dict[str, tuple[int, int, int, int]]) -> np.ndarray:
    found = np.zeros(points.shape[:-1], bool)
    for left, top, width, height in posters.values():
        found |= ((points >= (left, top)) & (points < (left + width, top + height))).all(-1)
    return found


def warp(pair: Pair, *, has_posters: bool = True) -> CompactWarp:
    """The warp of two photographs of walls: a shift, without matches at posters that only one of them has."""
    parts = []
    for one, other in (pair, pair[::-1]):
        points = cell_centres(GRID, SIZE) + (place_of(one), 0)
        targets = points - (place_of(other), 0)
        seen = ((targets > 0) & (targets < SIZE)).all(-1)
        if has_posters and wall_of(one) != wall_of(other):
            seen &= ~on_poster(points, POSTERS)
        parts.append((encode_targets(targets, SIZE), np.where(seen, 200, 0).astype(np.uint8)))
    overlap = float(np.mean([(weights > 0).mean() for _, weights in parts]))
    return CompactWarp(*parts[0], *parts[1], SIZE, SIZE, overlap)


def views_of(walls: tuple[str, ...] = ("front", "back"), count: int = 6, **more: bool) -> Views:
    names = [f"{wall}/{k}" for wall in walls for k in range(count)]
    pairs = [(min(pair), max(pair)) for pair in combinations(names, 2)]
    return Views(pairs, lambda pair: warp(pair, **more))


def same_wall(pair: Pair) -> bool:
    return wall_of(pair[0]) == wall_of(pair[1])
