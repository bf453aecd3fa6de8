"""Compare a model with the warps of its pairs: where they agree, disagree, or miss what the model predicts.

A model that folds parts of a scene onto each other shows it in two ways: warps contradict its poses, and images that
should see the same places do not match there.

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

# Distance in cells within which a warp agrees with the model, and beyond which it disagrees.
_NEAR, _FAR = 3.0, 4.5
# Maximum relative difference of the depths of one surface.
_SAME_DEPTH = 0.1
_WITNESSES = 2


class Sight(Protocol):
    """An image of a model. keypoints: (n, 2) px, observations of points (n, 3) in the world."""

    @property
    def keypoints(self) -> np.ndarray: ...
    @property
    def points(self) -> np.ndarray: ...
    @property
    def size(self) -> Size: ...

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Projections (n, 2) in px and depths (n,) of points (n, 3); NaN behind the camera."""
        ...


@dataclass(frozen=True)
class Comparison:
    """Numbers of places of a pair, both images together: matched as the model predicts, matched elsewhere, and not
    matched although the model predicts that both images see them and both match them with others."""

    agreeing: int
    elsewhere: int
    missing: int

    def __add__(self, other: Comparison) -> Comparison:
        return Comparison(
            self.agreeing + other.agreeing, self.elsewhere + other.elsewhere, self.missing + other.missing
        )


@dataclass(frozen=True)
class _Surface:
    """The model's point (count, 3) at each place of a lattice, NaN if there is none, and its depth."""

    points: np.ndarray
    depths: np.ndarray


def compare(views: Views, sights: Mapping[int, Sight], witnesses: list[np.ndarray]) -> dict[Edge, Comparison]:
    """Compare a model with each pair whose images it both contains; `sights` by image index."""
    surfaces = {image: _surface(sight, views.lattices[image]) for image, sight in sights.items()}
    return {
        (i, j): _one_way(views, sights, surfaces, witnesses, i, j) + _one_way(views, sights, surfaces, witnesses, j, i)
        for i, j in views.edges
        if i in sights and j in sights
    }


def _surface(sight: Sight, lattice: Lattice) -> _Surface:
    """The point of median depth at each place."""
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
) -> Comparison:
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
    return Comparison(
        int((is_matched & (off < _NEAR)).sum()), int((is_matched & (off > _FAR)).sum()), int(missing.sum())
    )
