"""Places that a pair of images should match and does not: its holes that both images match with others."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import cv2
import numpy as np

from .lattice import Edge, Flow, Lattice, Views
from .looks import likeness

# Warps are carried on over holes from the matched places around, by a bell curve of so many cells; where it finds
# less than this density of them, nothing is predicted.
_SIGMA_CELLS = 3.0
_LEAST_SUPPORT = 0.2
# Photographs also tell farther from what is matched. They differ where their patches correlate less than this share of
# what those of the pair's matches do in the middle, which must be so much that it tells anything.
_LEAST_SUPPORT_SEEN, _LEAST_ALIKE, _LEAST_USUAL = 0.1, 0.45, 0.3
# Images other than the pair's that have to match a place for it to be one that can be matched.
_WITNESSES = 1
_FEWEST_MATCHED = 6
# Holes narrower than two cells are the edges of what stands before something else.
_NARROW = np.ones((2, 2), np.uint8)


@dataclass(frozen=True)
class Missing:
    """missing, matched: numbers of places, of both images together; holes: (count,) bool, in the first and the
    second; is_seen: whether photographs were at hand, and differ there."""

    missing: int
    matched: int
    holes: tuple[np.ndarray, np.ndarray]
    is_seen: bool

    @property
    def share(self) -> float:
        return self.missing / max(1, self.missing + self.matched)


def count_witnesses(views: Views) -> list[np.ndarray]:
    """For each image how many others match each of its places, (count,)."""
    found = [np.zeros(lattice.count, np.int32) for lattice in views.lattices]
    for i, j in views.edges:
        found[i] += views.flow(i, j).matched
        found[j] += views.flow(j, i).matched
    return found


def find_missing(views: Views, edge: Edge, witnesses: list[np.ndarray]) -> Missing:
    """What a pair lacks: where its warp, carried on over a hole, leads to a hole of the other image, and others match
    both. What is hidden in one of the images leads to what hides it, which is matched. Where the photographs look alike
    there, the matcher just found nothing."""
    flows = views.flow(*edge), views.flow(*edge[::-1])
    unmatched = [~flow.matched & (witnesses[image] >= _WITNESSES) for image, flow in zip(edge, flows, strict=True)]
    holes, is_seen = [], True
    for side in (0, 1):
        lattice, other = (views.lattices[image] for image in (edge[side], edge[1 - side]))
        places, support = _carried_on(flows[side], lattice)
        cell, is_inside = other.nearest(places)
        hole = unmatched[side] & is_inside & unmatched[1 - side][cell]
        differs = _differ(views, edge[side], edge[1 - side], places)
        if differs is None:
            hole &= support > _LEAST_SUPPORT
            is_seen = False
        else:
            hole &= differs & (support > _LEAST_SUPPORT_SEEN)
        grid = hole.reshape(lattice.rows, lattice.columns).astype(np.uint8)
        holes.append(cv2.morphologyEx(grid, cv2.MORPH_OPEN, _NARROW).ravel() > 0)
    matched = sum(int(flow.matched.sum()) for flow in flows)
    return Missing(sum(int(hole.sum()) for hole in holes), matched, (holes[0], holes[1]), is_seen)


def without_bridged(views: Views, edge: Edge, missing: Missing) -> Missing:
    """The same without places that two warps over a third image match: there the pair's own just found nothing."""
    holes = []
    for i, j, had in ((*edge, missing.holes[0]), (*edge[::-1], missing.holes[1])):
        places, left = np.flatnonzero(had), had.copy()
        for third in set(views.neighbours[i]) & set(views.neighbours[j]):
            there = views.flow(i, third)
            cell, is_inside = views.lattices[third].nearest(there.targets[places])
            left[places[there.matched[places] & is_inside & views.flow(third, j).matched[cell]]] = False
        holes.append(left)
    return replace(missing, missing=sum(int(left.sum()) for left in holes), holes=(holes[0], holes[1]))


def _differ(views: Views, i: int, j: int, places: np.ndarray) -> np.ndarray | None:
    """(count,) bool, where the photographs look less alike than where the pair matches.

    None without photographs, and where what matches does not look alike either, as in another season.
    """
    one, other, flow = views.copies[i], views.copies[j], views.flow(i, j)
    if one is None or other is None or not flow.matched.any():
        return None
    alike = likeness(one, other, views.lattices[i], np.where(flow.matched[:, None], flow.targets, places))
    usual = np.median(alike[flow.matched])
    return alike < _LEAST_ALIKE * usual if usual > _LEAST_USUAL else None


def _carried_on(flow: Flow, lattice: Lattice) -> tuple[np.ndarray, np.ndarray]:
    """Targets (count, 2) at all places, and how much (count,) is matched around each, of all that there is.

    They are an affine map of the matched places, and what these lie off it, averaged around each place.
    """
    if flow.matched.sum() < _FEWEST_MATCHED:
        return flow.targets, np.zeros(lattice.count)
    places = np.column_stack((lattice.places(), np.ones(lattice.count, np.float32)))
    affine = np.linalg.lstsq(places[flow.matched], flow.targets[flow.matched], rcond=None)[0]
    base, weights = places @ affine, flow.matched[:, None].astype(np.float32)
    off = _blurred(np.hstack(((flow.targets - base) * weights, weights)), lattice)
    return base + off[:, :2] / np.maximum(off[:, 2:], 1e-3), off[:, 2] / _blurred_whole(lattice)


def _blurred(values: np.ndarray, lattice: Lattice) -> np.ndarray:
    """(count, n) float32 values, averaged around each place; there are zeros outside of the image."""
    grid = values.astype(np.float32).reshape(lattice.rows, lattice.columns, -1)
    blurred = cv2.GaussianBlur(grid, (0, 0), _SIGMA_CELLS, borderType=cv2.BORDER_CONSTANT)
    return np.asarray(blurred).reshape(lattice.count, -1)


@cache
def _blurred_whole(lattice: Lattice) -> np.ndarray:
    """What `_blurred` makes of ones, (count,)."""
    return _blurred(np.ones((lattice.count, 1)), lattice)[:, 0]
