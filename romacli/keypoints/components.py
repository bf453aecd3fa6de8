"""What hangs together through matches: nodes joined by edges, in bulk. Knows neither images nor keypoints' places."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from romacli.types import Pair


class Forest:
    """Nodes 0 to count - 1, each alone until it is joined with others."""

    def __init__(self, count: int) -> None:
        self._parents = np.arange(count)

    def join(self, one: np.ndarray, other: np.ndarray) -> None:
        """Put the nodes of (n,) `one` and (n,) `other` into one component, row by row."""
        while True:
            roots_one, roots_other = self._roots_of(one), self._roots_of(other)
            apart = roots_one != roots_other
            if not apart.any():
                return
            lower, upper = np.minimum(roots_one, roots_other), np.maximum(roots_one, roots_other)
            np.minimum.at(self._parents, upper[apart], lower[apart])

    def roots(self) -> np.ndarray:
        """(count,) the smallest node of each node's component."""
        return self._roots_of(np.arange(len(self._parents)))

    def _roots_of(self, nodes: np.ndarray) -> np.ndarray:
        roots = self._parents[nodes]
        while True:
            above = self._parents[roots]
            if np.array_equal(above, roots):
                self._parents[nodes] = roots
                return roots
            roots = above


def join_tracks(counts: Mapping[str, int], matches: Iterable[tuple[Pair, np.ndarray]]) -> dict[str, np.ndarray]:
    """For each image (K,) int64 the track of each of its keypoints, -1 for those without a match.

    Keypoints that a chain of matches joins are one track, even where it comes back to an image it has seen.

    Args:
        counts: the number of keypoints of each image.
        matches: (M, 2) rows of the two images' keypoints for each pair.
    """
    ends = np.cumsum([0, *counts.values()])
    start = dict(zip(counts, ends[:-1].tolist(), strict=True))
    forest, matched = Forest(int(ends[-1])), np.zeros(ends[-1], bool)
    for (name0, name1), indices in matches:
        one, other = start[name0] + indices[:, 0], start[name1] + indices[:, 1]
        forest.join(one, other)
        matched[one] = matched[other] = True
    tracks = np.where(matched, forest.roots(), -1)
    return {name: tracks[start[name] : start[name] + count] for name, count in counts.items()}
