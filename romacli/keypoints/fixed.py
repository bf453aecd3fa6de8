"""Match existing keypoints, of all images or some, through the warps without moving them."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from romacli.keypoints.components import join_tracks
from romacli.keypoints.graph import Edge, PairGraph
from romacli.keypoints.options import AggregateOptions
from romacli.keypoints.points import is_first
from romacli.keypoints.spacing import nearest
from romacli.keypoints.tracks import TrackTable
from romacli.progress import Progress
from romacli.types import Keypoints, Matches, Pair


@dataclass(frozen=True)
class FixedKeypoints:
    """Keypoints of images of a graph that keep their order, matched or not, and their matches.

    matches: names ascending.
    """

    keypoints: Mapping[str, Keypoints]
    matches: Mapping[Pair, Matches]

    @classmethod
    def of(
        cls,
        graph: PairGraph,
        anchors: Mapping[str, Keypoints],
        kept: Mapping[Pair, Matches],
        options: AggregateOptions,
        progress: Progress,
    ) -> FixedKeypoints:
        """Match keypoints that are mutually nearest to each other's warped position, within `max_distance`.

        Args:
            anchors: in COLMAP pixels; images outside the graph are left out.
            kept: matches between them to keep instead of new ones; names ascending.
        """
        keypoints = {name: anchors[name] for name in graph.names if name in anchors}
        pairs = {edge: graph.pair_of(edge) for edge in graph.edges}
        edges = {edge: pair for edge, pair in pairs.items() if keypoints.keys() >= set(pair)}
        progress.begin("matching keypoints", len(edges))
        matches = {}
        for edge, pair in edges.items():
            if not len(kept.get(pair, ())):
                matches[pair] = _match(graph, edge, keypoints, options.max_distance)
            progress.advance()
        return cls(keypoints, ChainMap(matches, kept))  # type: ignore[arg-type]

    def seat(self, table: TrackTable, graph: PairGraph) -> dict[int, np.ndarray]:
        """Add the keypoints to a table as tracks connected by their matches.

        Returns:
            For each of their images the order of its rows in the table.
        """
        counts = {name: len(points) for name, points in self.keypoints.items()}
        pairs = [pair for pair in map(graph.pair_of, graph.edges) if counts.keys() >= set(pair)]
        joined = join_tracks(counts, ((pair, self.matches[pair].indices) for pair in pairs))
        orders, unused = {}, sum(counts.values())
        for image, name in enumerate(graph.names):
            if name not in joined:
                continue
            ids = joined[name].astype(np.int32)
            # Unmatched keypoints, and those chained to another of the same image, are tracks of their own.
            own = np.flatnonzero(~is_first(ids) | (ids < 0))
            ids[own] = np.arange(unused, unused + len(own))
            unused += len(own)
            orders[image] = np.argsort(ids)
            table.hold(image, ids[orders[image]], self.keypoints[name].xy[orders[image]].astype(np.float32))
        return orders


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
