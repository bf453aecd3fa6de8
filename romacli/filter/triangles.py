"""Triangles of images: whether the warp via a third image agrees with the direct one."""

from __future__ import annotations

import numpy as np

from .lattice import Edge, Views

Triangle = tuple[int, int, int]
# Maximum triangles per pair; minimum common places of a triangle; maximum difference of two warps in cells.
_PER_EDGE = 12
_FEWEST_PLACES, CELLS = 81, 2.4


def choose_triangles(views: Views) -> list[Triangle]:
    """Triples of mutually paired images, ascending; up to 12 per pair, those with the most matches first."""
    neighbours = [set(others) for others in views.neighbours]
    matched = {edge: int(views.flow(*edge).matched.sum()) for edge in views.edges}
    found: set[Triangle] = set()
    for edge in views.edges:

        def least(third: int, edge: Edge = edge) -> int:
            return min(matched[min(end, third), max(end, third)] for end in edge)

        common = sorted(neighbours[edge[0]] & neighbours[edge[1]], key=lambda third: (-least(third), third))
        for third in common[:_PER_EDGE]:
            first, middle, last = sorted((*edge, third))
            found.add((first, middle, last))
    return sorted(found)


def measure_agreement(views: Views) -> dict[Triangle, float]:
    """For each triangle the share of places where the warp via a third image agrees with the direct one, over all three
    choices of the third; triangles with hardly any common places are left out."""
    measured = {triangle: _agreement(views, triangle) for triangle in choose_triangles(views)}
    return {triangle: share for triangle, share in measured.items() if share is not None}


def follow(views: Views, one: int, over: int, other: int) -> tuple[np.ndarray, np.ndarray]:
    """Compare the way from an image over a third one to another with the direct one.

    Returns:
        The places (n,) of the first image that match in both others, and the distance (n,) in cells between the ends of
        both ways; infinite where the third image does not match the last one.
    """
    there, direct, onward = views.flow(one, over), views.flow(one, other), views.flow(over, other)
    start = np.flatnonzero(there.matched & direct.matched)
    cell, is_inside = views.lattices[over].nearest(there.targets[start])
    # Within half a cell the warp is treated as a translation.
    ends = onward.targets[cell] + there.targets[start] - views.lattices[over].places()[cell]
    off = np.linalg.norm(ends - direct.targets[start], axis=1)
    return start, np.where(is_inside & onward.matched[cell], off, np.inf)


def _agreement(views: Views, triangle: Triangle) -> float | None:
    i, j, k = triangle
    off = np.concatenate([follow(views, *way)[1] for way in ((i, j, k), (j, k, i), (k, i, j))])
    followed = int(np.isfinite(off).sum())
    return int((off < CELLS).sum()) / followed if followed >= _FEWEST_PLACES else None
