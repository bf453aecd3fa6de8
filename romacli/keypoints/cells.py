"""Quantise and vote: keypoints where samples of many pairs coincide.

Source: the aggregation of hloc's dense pipeline (`match_dense.py`), with the same cells and matching rule, vectorised.
Kept for comparison and compatibility: positions are rounded to 2 px and tracks average about three views.
"""

from __future__ import annotations

import zlib

import numpy as np

from romacli.keypoints.fixed import FixedKeypoints
from romacli.keypoints.graph import Edge, PairGraph
from romacli.keypoints.options import AggregateOptions
from romacli.keypoints.points import one_to_one
from romacli.keypoints.result import Aggregation
from romacli.keypoints.spacing import nearest
from romacli.progress import Progress
from romacli.types import Correspondences, Keypoints, Matches

# hloc's usual cells for SuperPoint-like sparsity: one keypoint a cell, on its most voted bin. In px at a long
# side of 1600.
_CELL_PX = 8.0
_BIN_PX = 2.0
# Four times hloc's samples per pair: accuracy and track length still improve up to here.
_SAMPLES_PER_PAIR = 20_000
# Of x or y in a key: 800 bins lie along a long side, whatever its resolution.
_KEY_BITS = 12


def by_cells(
    graph: PairGraph, options: AggregateOptions, progress: Progress, fixed: FixedKeypoints | None = None
) -> Aggregation:
    """Place keypoints on the most voted bin of every cell and match them through the samples of each pair.

    Unmatched keypoints are kept, with the weight of their votes as score.
    """
    known = fixed.keypoints if fixed else {}
    progress.begin("voting", len(graph.names))
    keypoints = []
    for image, name in enumerate(graph.names):
        keypoints.append(known[name] if name in known else _vote(graph, image, options))
        progress.advance()
    progress.begin("matching keypoints", len(graph.edges))
    matches = {}
    for edge in graph.edges:
        pair = graph.pair_of(edge)
        are_fixed = fixed is not None and known.keys() >= set(pair)
        matches[pair] = fixed.matches[pair] if fixed and are_fixed else _match(graph, edge, keypoints, options.seed)
        progress.advance()
    return Aggregation.joined(dict(zip(graph.names, keypoints, strict=True)), matches)


def _vote(graph: PairGraph, image: int, options: AggregateOptions) -> Keypoints:
    """The most voted bin of each cell of an image, those with most votes first."""
    scale = graph.scales[image]
    xy, weights = _samples_in(graph, image, options.seed)
    keys = _key(xy / (_CELL_PX * scale)) << 2 * _KEY_BITS | _key(xy / (_BIN_PX * scale))
    keys, voters = np.unique(keys, return_inverse=True)
    votes = np.bincount(voters.ravel(), weights, len(keys))
    cells = keys >> 2 * _KEY_BITS
    order = np.lexsort((-votes, cells))
    best = order[np.diff(cells[order], prepend=-1) != 0]
    best = best[np.argsort(-votes[best], kind="stable")]
    bins = np.stack((keys[best] >> _KEY_BITS, keys[best]), axis=1) & (1 << _KEY_BITS) - 1
    places, score = (bins * (_BIN_PX * scale)).astype(np.float32), votes[best].astype(np.float32)
    allowed = np.flatnonzero(graph.allows(image, places))[: options.max_keypoints]
    return Keypoints(places[allowed], score[allowed])


def _samples_in(graph: PairGraph, image: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Places and weights of the samples of all pairs in one of their images."""
    parts = [(np.zeros((0, 2), np.float32), np.zeros(0, np.float32))]
    for other in graph.neighbours[image]:
        edge = min(image, other), max(image, other)
        samples = _draw(graph, edge, _SAMPLES_PER_PAIR, seed=seed)
        parts.append((samples.keypoints0 if image < other else samples.keypoints1, samples.scores))
    xy, weights = zip(*parts, strict=True)
    return np.concatenate(xy), np.concatenate(weights)


def _key(places: np.ndarray) -> np.ndarray:
    """The rounded x and y of (n, 2) positions as one number."""
    x, y = np.rint(places).astype(np.int64).T
    return x << _KEY_BITS | y


def _match(graph: PairGraph, edge: Edge, keypoints: list[Keypoints], seed: int) -> Matches:
    """Samples with a keypoint near both ends, one match per keypoint: the mutual best."""
    samples = _draw(graph, edge, _SAMPLES_PER_PAIR, seed=seed)
    ends = zip(edge, (samples.keypoints0, samples.keypoints1), strict=True)
    rows0, rows1 = (nearest(xy, keypoints[image].xy, _BIN_PX * graph.scales[image]) for image, xy in ends)
    return one_to_one(rows0, rows1, samples.scores)


def _draw(graph: PairGraph, edge: Edge, count: int, *, seed: int) -> Correspondences:
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
