"""Group images by their pairs: groups are merged in order of evidence, strongest first.

Two pairs between the same two groups are right or wrong together if their triangle agrees, so they form a bundle whose
evidence is summed. Groups without a bundle of sufficient evidence stay apart.
"""

from __future__ import annotations

from heapq import heappop, heappush

import numpy as np


class _Bundles:
    """Sets of pairs that are right or wrong together, merged step by step; each is named by one of its pairs.

    Attributes:
        members: the pairs of each bundle.
    """

    def __init__(self, evidence: np.ndarray, worth: np.ndarray, least: np.ndarray) -> None:
        self.members = [[pair] for pair in range(len(evidence))]
        self._of = list(range(len(evidence)))
        self._sums, self._worth, self._least = evidence.tolist(), worth.tolist(), least.tolist()
        self._waiting: list[tuple[float, int, int]] = []
        for pair in range(len(evidence)):
            self._offer(pair)

    def join(self, one: int, other: int) -> None:
        """Join the bundles of two pairs."""
        kept, gone = sorted((self._of[one], self._of[other]), key=lambda bundle: -len(self.members[bundle]))
        if kept == gone:
            return
        for pair in self.members[gone]:
            self._of[pair] = kept
        self.members[kept] += self.members[gone]
        self.members[gone] = []
        self._sums[kept] += self._sums[gone]
        self._worth[kept] = max(self._worth[kept], self._worth[gone])
        self._least[kept] = min(self._least[kept], self._least[gone])
        self._offer(kept)

    def surest(self) -> list[int]:
        """The pairs of the bundle with the most evidence that was not returned yet; empty if none has enough."""
        while self._waiting:
            _, bundle, size = heappop(self._waiting)
            if size == len(self.members[bundle]):
                return self.members[bundle]
        return []

    def evidence(self) -> np.ndarray:
        """(E,) the evidence of each pair's bundle."""
        return np.array([self._sums[bundle] for bundle in self._of])

    def _offer(self, bundle: int) -> None:
        size = len(self.members[bundle])
        sure = self._sums[bundle] / size**0.5 + self._worth[bundle]
        if sure > self._least[bundle]:
            heappush(self._waiting, (-sure, bundle, size))


def join_images(
    edges: list[tuple[int, int]], evidence: np.ndarray, worth: np.ndarray, least: np.ndarray, together: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(E,) bool, which pairs join images, or agree with those that do; and (E,) the evidence of each pair's bundle.

    Args:
        evidence: (E,) for each pair, in percent of an image; negative if against it.
        worth: (E,) what each pair's overlap adds to its evidence.
        least: (E,) the evidence that a bundle must exceed; its lowest value counts.
        together: (T, 3) the numbers of the pairs of triangles that agree.
    """
    bundles, is_joined = _Bundles(evidence, worth, least), np.zeros(len(edges), bool)
    others: list[list[tuple[int, int]]] = [[] for _ in edges]
    for a, b, c in together.tolist():
        for one, rest in ((a, (b, c)), (b, (a, c)), (c, (a, b))):
            others[one].append(rest)
    group = list(range(1 + max((max(edge) for edge in edges), default=-1)))
    members = [[image] for image in group]
    while found := bundles.surest():
        one, other = (group[image] for image in edges[found[0]])
        if one == other:
            continue
        kept, gone = sorted((one, other), key=lambda number: -len(members[number]))
        for image in members[gone]:
            group[image] = kept
        members[kept] += members[gone]
        left = list(found)
        while left:
            pair = left.pop()
            if is_joined[pair]:
                continue
            is_joined[pair] = True
            for a, b in others[pair]:
                if is_joined[a] or is_joined[b]:
                    left += (a, b)  # two sides of an agreeing triangle are right, so is the third
                else:
                    bundles.join(a, b)
    return is_joined, bundles.evidence()
