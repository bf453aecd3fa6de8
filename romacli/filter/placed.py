"""What a model says of the pairs of its images: whether it places them as their warps do, and what then is missing.

A model that folds parts of a scene onto each other shows it twice: warps lead elsewhere than its poses say, and images
that should see the same places do not match there.

Source of the idea: Heinly, Dunn and Frahm, Correcting for Duplicate Scene Structure in Sparse 3D Reconstruction, ECCV
2014, who look at points that are seen by one image and should be by the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from romacli.types import Size

from .lattice import Edge, Lattice, Views

# Cells by which a warp may differ from what the model says, and from which on it leads elsewhere.
_NEAR, _FAR = 3.0, 4.5
# Depths of one surface in two images, as a ratio.
_SAME_DEPTH = 0.1
_WITNESSES = 2


class Sight(Protocol):
    """An image of a model. keypoints: (n, 2) px that see points (n, 3) in the world."""

    @property
    def keypoints(self) -> np.ndarray: ...
    @property
    def points(self) -> np.ndarray: ...
    @property
    def size(self) -> Size: ...

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Places (n, 2) in px and depths (n,) of points (n, 3); places are NaN behind the camera."""
        ...


@dataclass(frozen=True)
class Told:
    """Places of a pair, of both images: matched as the model says, matched elsewhere, and not matched though the model
    says that both images see them and both match them with others."""

    agreeing: int
    elsewhere: int
    missing: int

    def __add__(self, other: Told) -> Told:
        return Told(self.agreeing + other.agreeing, self.elsewhere + other.elsewhere, self.missing + other.missing)


@dataclass(frozen=True)
class _Surface:
    """The point (count, 3) of the model at each place of a lattice, NaN where there is none, and its depth."""

    points: np.ndarray
    depths: np.ndarray


def compare(views: Views, sights: Mapping[int, Sight], witnesses: list[np.ndarray]) -> dict[Edge, Told]:
    """What a model says of each pair both images of which it holds; `sights` by the images' numbers."""
    surfaces = {image: _surface(sight, views.lattices[image]) for image, sight in sights.items()}
    return {
        (i, j): _one_way(views, sights, surfaces, witnesses, i, j) + _one_way(views, sights, surfaces, witnesses, j, i)
        for i, j in views.edges
        if i in sights and j in sights
    }


def _surface(sight: Sight, lattice: Lattice) -> _Surface:
    """Of the points that a place sees that of median depth."""
    points, depths = np.full((lattice.count, 3), np.nan), np.full(lattice.count, np.nan)
    _, depth = sight.project(sight.points)
    cell, is_inside = lattice.nearest(sight.keypoints * (np.array([lattice.columns, lattice.rows]) / sight.size))
    order = np.flatnonzero(is_inside)[np.lexsort((depth[is_inside], cell[is_inside]))]
    found, first, count = np.unique(cell[order], return_index=True, return_counts=True)
    middle = order[first + count // 2]
    points[found], depths[found] = sight.points[middle], depth[middle]
    return _Surface(points, depths)


def _one_way(
    views: Views,
    sights: Mapping[int, Sight],
    surfaces: Mapping[int, _Surface],
    witnesses: list[np.ndarray],
    i: int,
    j: int,
) -> Told:
    lattice, flow = views.lattices[j], views.flow(i, j)
    known = np.flatnonzero(np.isfinite(surfaces[i].depths))
    places, depth = sights[j].project(surfaces[i].points[known])
    places = places * (np.array([lattice.columns, lattice.rows]) / sights[j].size)
    cell, is_inside = lattice.nearest(np.nan_to_num(places, nan=-1.0))
    is_matched = flow.matched[known]
    off = np.nan_to_num(np.linalg.norm(places - flow.targets[known], axis=1), nan=np.inf)
    is_seen = is_inside & (np.abs(depth / surfaces[j].depths[cell] - 1) < _SAME_DEPTH)
    could = (witnesses[i][known] >= _WITNESSES) & (witnesses[j][cell] >= _WITNESSES)
    missing = is_seen & could & ~is_matched & ~views.flow(j, i).matched[cell]
    return Told(int((is_matched & (off < _NEAR)).sum()), int((is_matched & (off > _FAR)).sum()), int(missing.sum()))
