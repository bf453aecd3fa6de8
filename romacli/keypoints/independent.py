"""Private keypoints for every pair: samples of its own warp and nothing shared. Here to be compared with.

Every track has two views, so a mapper that starts from one pair finds no third image to add: COLMAP registers none
or two of the photographs. What it serves is work that looks at one pair at a time.
"""

from __future__ import annotations

import numpy as np

from romacli.keypoints.aggregation import Aggregation, Progress
from romacli.keypoints.graph import PairGraph
from romacli.keypoints.options import AggregateOptions
from romacli.keypoints.samples import draw
from romacli.types import Keypoints, Matches, Pair

# As many as RoMa's own demonstrations sample of a pair.
_SAMPLES_PER_PAIR = 5_000


def by_pairs(graph: PairGraph, options: AggregateOptions, progress: Progress) -> Aggregation:
    """Give each pair keypoints of its own, an equal share of what its images may have."""
    progress.begin("sampling pairs", len(graph.edges))
    xy: list[list[np.ndarray]] = [[np.zeros((0, 2), np.float32)] for _ in graph.names]
    scores: list[list[np.ndarray]] = [[np.zeros(0, np.float32)] for _ in graph.names]
    counts = np.zeros(len(graph.names), np.int64)
    matches: dict[Pair, Matches] = {}
    for edge in graph.edges:
        busiest = max(len(graph.neighbours[image]) for image in edge)
        samples = draw(graph, edge, min(_SAMPLES_PER_PAIR, options.max_keypoints // busiest), seed=options.seed)
        rows = counts[list(edge)] + np.arange(len(samples))[:, None]
        matches[graph.pair_of(edge)] = Matches(rows.astype(np.int32), samples.scores)
        for image, points in zip(edge, (samples.keypoints0, samples.keypoints1), strict=True):
            xy[image].append(points)
            scores[image].append(samples.scores)
            counts[image] += len(points)
        progress.advance()
    keypoints = {
        name: Keypoints(np.concatenate(places), np.concatenate(weights))
        for name, places, weights in zip(graph.names, xy, scores, strict=True)
    }
    return Aggregation.joined(keypoints, matches)
