"""Connected components of graphs (union-find), vectorised."""

from __future__ import annotations

import numpy as np


class Forest:
    """Nodes 0 to count - 1, each its own component until joined."""

    def __init__(self, count: int) -> None:
        self._parents = np.arange(count)

    def join(self, one: np.ndarray, other: np.ndarray) -> None:
        """Join the components of `one[i]` and `other[i]` for every i; both are (n,) node indices."""
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

    def parts(self) -> list[tuple[int, ...]]:
        """The components with their nodes ascending, the largest first, then by their nodes."""
        parts: dict[int, list[int]] = {}
        for node, root in enumerate(self.roots().tolist()):
            parts.setdefault(root, []).append(node)
        return sorted(map(tuple, parts.values()), key=lambda part: (-len(part), part))

    def _roots_of(self, nodes: np.ndarray) -> np.ndarray:
        roots = self._parents[nodes]
        while True:
            above = self._parents[roots]
            if np.array_equal(above, roots):
                self._parents[nodes] = roots
                return roots
            roots = above
