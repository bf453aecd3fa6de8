"""Compare a model with the warps of its pairs: one that folds parts of a scene onto each other contradicts some."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from romacli.types import Size

from .lattice import Edge, Lattice, Views

# Distance in cells within which a warp agrees with the model, and beyond which it disagrees.
_NEAR, _FAR = 3.0, 4.5


@dataclass(frozen=True)
class Sight:
    """An image of a model.

    keypoints: (n, 2) px, observations of points (n, 3) in the world. project: gives the projections (n, 2) in px and
    depths (n,) of points (n, 3); NaN behind the camera.
    """

    size: Size
    keypoints: np.ndarray
    points: np.ndarray
    project: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Comparison:
    """Numbers of places of a pair, both images together: matched as the model predicts, and matched elsewhere."""

    agreeing: int
    elsewhere: int


def compare(views: Views, sights: Mapping[int, Sight]) -> dict[Edge, Comparison]:
    """Compare a model with each pair whose images it both contains; `sights` by image index."""
    surfaces = {image: _surface(sight, views.lattices[image]) for image, sight in sights.items()}
    found = {}
    for i, j in views.edges:
        if i in sights and j in sights:
            off = np.concatenate((_off(views, sights[j], surfaces[i], i, j), _off(views, sights[i], surfaces[j], j, i)))
            found[i, j] = Comparison(int((off < _NEAR).sum()), int((off > _FAR).sum()))
    return found


def _surface(sight: Sight, lattice: Lattice) -> np.ndarray:
    """(count, 3) the model's point of median depth at each place, NaN if there is none."""
    points = np.full((lattice.count, 3), np.nan)
    _, depth = sight.project(sight.points)
    cell, is_inside = lattice.nearest(sight.keypoints * (np.array([lattice.columns, lattice.rows]) / sight.size))
    order = np.flatnonzero(is_inside)[np.lexsort((depth[is_inside], cell[is_inside]))]
    found, first, count = np.unique(cell[order], return_index=True, return_counts=True)
    points[found] = sight.points[order[first + count // 2]]
    return points


def _off(views: Views, other: Sight, surface: np.ndarray, i: int, j: int) -> np.ndarray:
    """How far from the model's projections, in cells, the matched places of image i with a point end in image j."""
    lattice, flow = views.lattices[j], views.flow(i, j)
    known = np.flatnonzero(np.isfinite(surface).all(axis=1))
    places, _ = other.project(surface[known])
    places = places * (np.array([lattice.columns, lattice.rows]) / other.size)
    off = np.nan_to_num(np.linalg.norm(places - flow.targets[known], axis=1), nan=np.inf)
    return off[flow.matched[known]]
