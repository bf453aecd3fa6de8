"""Given keypoints, kept as they are and matched through the warps. Knows no detectors."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from romacli.keypoints.aggregation import Aggregation, Progress
from romacli.keypoints.anchors import nearest
from romacli.keypoints.graph import Edge, PairGraph
from romacli.keypoints.options import AggregateOptions
from romacli.types import Keypoints, Matches


def by_anchors(
    graph: PairGraph, anchors: Mapping[str, Keypoints], options: AggregateOptions, progress: Progress
) -> Aggregation:
    """Match keypoints that each are the nearest, within `max_distance`, to where the warp leads from the other.

    All keypoints stay in their order, matched or not.

    Args:
        anchors: of every paired image, in COLMAP pixels.
    """
    progress.begin("matching keypoints", len(graph.edges))
    matches = {}
    for edge in graph.edges:
        matches[graph.pair_of(edge)] = _match(graph, edge, anchors, options.max_distance)
        progress.advance()
    return Aggregation.joined({name: anchors[name] for name in graph.names}, matches)


def _match(graph: PairGraph, edge: Edge, anchors: Mapping[str, Keypoints], max_distance: float) -> Matches:
    """Mutual nearest anchors of one pair, scored by the lower weight of the two warps."""
    i, j = edge
    there, weights = _follow(graph, i, j, anchors, max_distance)
    back, weights_back = _follow(graph, j, i, anchors, max_distance)
    rows = np.flatnonzero(there >= 0)
    rows = rows[back[there[rows]] == rows]
    partners = there[rows]
    scores = np.minimum(weights[rows], weights_back[partners])
    return Matches(np.stack((rows, partners), axis=1).astype(np.int32), scores)


def _follow(
    graph: PairGraph, source: int, target: int, anchors: Mapping[str, Keypoints], max_distance: float
) -> tuple[np.ndarray, np.ndarray]:
    """For each anchor of the source the row of its nearest in the target, else -1, and the warp's weight there."""
    sample = graph.warp(source, target).at(anchors[graph.names[source]].xy)
    rows = np.full(len(sample.weights), -1, np.intp)
    usable = np.flatnonzero(sample.weights)
    points = anchors[graph.names[target]].xy
    rows[usable] = nearest(sample.targets[usable], points, max_distance * graph.scales[target])
    return rows, sample.weights
