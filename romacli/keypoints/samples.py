"""Deterministic point pairs sampled from one pair's stored warps."""

from __future__ import annotations

import zlib

import numpy as np

from romacli.keypoints.graph import Edge, PairGraph
from romacli.types import Correspondences


def draw(graph: PairGraph, edge: Edge, count: int, *, seed: int) -> Correspondences:
    """Sample up to `count` correspondences of a pair, half from each direction, usable cells by weight.

    Samples depend only on the two names and the seed. Positions are jittered within their cells, so that pairs sharing
    an image do not agree merely because of a common grid.
    """
    i, j = edge
    rng = np.random.default_rng([seed, *(zlib.crc32(graph.names[image].encode()) for image in edge)])
    sides = []
    for source, target in ((i, j), (j, i)):
        field = graph.warp(source, target)
        points = field.scatter(count // 2, rng)
        sample = field.at(points)
        inside = ((sample.targets >= 0) & (sample.targets <= graph.sizes[target])).all(axis=1)
        inside &= graph.allows(source, points) & graph.allows(target, sample.targets)
        drawn = points[inside], sample.targets[inside], sample.weights[inside]
        sides.append(drawn if source == i else (drawn[1], drawn[0], drawn[2]))
    return Correspondences(*(np.concatenate(parts) for parts in zip(*sides, strict=True)))
