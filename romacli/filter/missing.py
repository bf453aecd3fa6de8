"""Places that a pair of images should match but does not: holes that both images match with others."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import cv2
import numpy as np

from .lattice import Edge, Flow, Lattice, Views
from .looks import likeness

# Warps are extrapolated into holes from the matched places around them, with Gaussian weights of this width; nothing is
# predicted where the density of matched places is lower than this.
_SIGMA_CELLS = 3.0
_LEAST_SUPPORT = 0.2
# With photographs this works further away. They differ where patches correlate less than this share of the median
# correlation at the pair's matches, which must itself be high enough to be informative.
_LEAST_SUPPORT_SEEN, _LEAST_ALIKE, _LEAST_USUAL = 0.1, 0.45, 0.3
# Other images that must match a place for it to count as matchable.
_WITNESSES = 1
_FEWEST_MATCHED = 6
# Holes narrower than two cells are occlusion edges.
_NARROW = np.ones((2, 2), np.uint8)


@dataclass(frozen=True)
class Missing:
    """missing, matched: numbers of places in both images together; holes: (count,) bool, in the first and the second;
    is_seen: whether photographs were available, and differ there."""

    missing: int
    matched: int
    holes: tuple[np.ndarray, np.ndarray]
    is_seen: bool

    @property
    def share(self) -> float:
        return self.missing / max(1, self.missing + self.matched)


def count_witnesses(views: Views) -> list[np.ndarray]:
    """For each image the number of others that match each of its places, (count,)."""
    found = [np.zeros(lattice.count, np.int32) for lattice in views.lattices]
    for i, j in views.edges:
        found[i] += views.flow(i, j).matched
        found[j] += views.flow(j, i).matched
    return found


def find_missing(views: Views, edge: Edge, witnesses: list[np.ndarray]) -> Missing:
    """The places a pair misses: where its warp, extrapolated into a hole, leads to a hole of the other image, and other
    images match both. Occluded places do not count, as they lead to the occluder, which is matched. Where the
    photographs look alike, the matcher merely failed."""
    flows = views.flow(*edge), views.flow(*edge[::-1])
    unmatched = [~flow.matched & (witnesses[image] >= _WITNESSES) for image, flow in zip(edge, flows, strict=True)]
    holes, is_seen = [], True
    for side in (0, 1):
        lattice, other = (views.lattices[image] for image in (edge[side], edge[1 - side]))
        places, support = _extrapolated(flows[side], lattice)
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
    """The same without places that two warps via a third image match: there the pair's own warp merely failed."""
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

    None without photographs, or if the matched places do not look alike either, as in another season.
    """
    one, other, flow = views.copies[i], views.copies[j], views.flow(i, j)
    if one is None or other is None or not flow.matched.any():
        return None
    alike = likeness(one, other, views.lattices[i], np.where(flow.matched[:, None], flow.targets, places))
    usual = np.median(alike[flow.matched])
    return alike < _LEAST_ALIKE * usual if usual > _LEAST_USUAL else None


def _extrapolated(flow: Flow, lattice: Lattice) -> tuple[np.ndarray, np.ndarray]:
    """Targets (count, 2) at all places, and the matched share (count,) of the neighbourhood of each.

    Targets are an affine fit to the matched places plus the local average of its residuals.
    """
    if flow.matched.sum() < _FEWEST_MATCHED:
        return flow.targets, np.zeros(lattice.count)
    places = np.column_stack((lattice.places(), np.ones(lattice.count, np.float32)))
    affine = np.linalg.lstsq(places[flow.matched], flow.targets[flow.matched], rcond=None)[0]
    base, weights = places @ affine, flow.matched[:, None].astype(np.float32)
    off = _blurred(np.hstack(((flow.targets - base) * weights, weights)), lattice)
    return base + off[:, :2] / np.maximum(off[:, 2:], 1e-3), off[:, 2] / _blurred_whole(lattice)


def _blurred(values: np.ndarray, lattice: Lattice) -> np.ndarray:
    """(count, n) float32 values, averaged around each place, with zeros outside the image."""
    grid = values.astype(np.float32).reshape(lattice.rows, lattice.columns, -1)
    blurred = cv2.GaussianBlur(grid, (0, 0), _SIGMA_CELLS, borderType=cv2.BORDER_CONSTANT)
    return np.asarray(blurred).reshape(lattice.count, -1)


@cache
def _blurred_whole(lattice: Lattice) -> np.ndarray:
    """`_blurred` of ones, (count,)."""
    return _blurred(np.ones((lattice.count, 1)), lattice)[:, 0]
