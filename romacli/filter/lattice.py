"""Warps sampled on a coarse lattice over each image, small enough to keep those of a whole job in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from romacli.geometry.warp import decode_targets
from romacli.types import CompactWarp, Pair, Size

# Places along the longer side of an image.
LONG_SIDE = 48
Edge = tuple[int, int]


@dataclass(frozen=True)
class Lattice:
    """A grid of `columns` x `rows` places over an image, row-major."""

    columns: int
    rows: int

    @classmethod
    def over(cls, size: Size) -> Lattice:
        columns, rows = (max(2, round(LONG_SIDE * side / max(size))) for side in size)
        return cls(columns, rows)

    @property
    def count(self) -> int:
        return self.columns * self.rows

    def places(self) -> np.ndarray:
        """(count, 2) float32 x, y of the places in cells: the first lies at (0.5, 0.5)."""
        x, y = np.meshgrid(np.arange(self.columns), np.arange(self.rows))
        return np.stack((x.ravel(), y.ravel()), axis=1).astype(np.float32) + 0.5

    def nearest(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The indices (n,) of the cells that contain places (n, 2), and (n,) bool, which are inside the image."""
        column, row = np.floor(places).astype(np.intp).T
        inside = (column >= 0) & (row >= 0) & (column < self.columns) & (row < self.rows)
        return np.clip(row, 0, self.rows - 1) * self.columns + np.clip(column, 0, self.columns - 1), inside


@dataclass(frozen=True)
class Flow:
    """One direction of a pair: (count, 2) float32 places in cells of the other image, (count,) bool where matched."""

    targets: np.ndarray
    matched: np.ndarray


class Views:
    """All images of a job as lattices, and the flows between them.

    Attributes:
        names: ascending. lattices: of each image. edges: pairs of image indices (i, j), i < j, ascending.
        neighbours: for each image those it is paired with, ascending. copies: of each image, from `looks.small_copy`;
        None if there is no photograph.
    """

    def __init__(
        self,
        pairs: Iterable[Pair],
        read: Callable[[Pair], CompactWarp],
        copy: Callable[[str, Lattice], np.ndarray | None] = lambda name, lattice: None,
    ) -> None:
        """Read every record once; `read` returns it, A being the pair's first name. `copy` is called for each image."""
        listed = sorted(pairs)
        self.names = sorted({name for pair in listed for name in pair})
        number = {name: k for k, name in enumerate(self.names)}
        lattices: dict[int, Lattice] = {}
        self._flows: dict[Edge, tuple[np.ndarray, np.ndarray]] = {}
        for pair in listed:
            record, (i, j) = read(pair), (number[name] for name in pair)
            one, other = Lattice.over(record.size_A), Lattice.over(record.size_B)
            lattices[i], lattices[j] = one, other
            self._flows[i, j] = _flow(record.target_AB, record.weight_AB, record.size_B, one, other)
            self._flows[j, i] = _flow(record.target_BA, record.weight_BA, record.size_A, other, one)
        self.lattices = [lattices[k] for k in range(len(self.names))]
        self.copies = [copy(name, lattice) for name, lattice in zip(self.names, self.lattices, strict=True)]
        self.edges = sorted(edge for edge in self._flows if edge[0] < edge[1])
        self.neighbours: list[list[int]] = [[] for _ in self.names]
        for i, j in self.edges:
            self.neighbours[i].append(j)
            self.neighbours[j].append(i)

    def flow(self, i: int, j: int) -> Flow:
        """From image i to image j, which must be paired."""
        targets, matched = self._flows[i, j]
        return Flow(targets.astype(np.float32), matched)

    def pair_of(self, edge: Edge) -> Pair:
        return self.names[edge[0]], self.names[edge[1]]


def _flow(
    codes: np.ndarray, weights: np.ndarray, size: Size, source: Lattice, target: Lattice
) -> tuple[np.ndarray, np.ndarray]:
    """The targets (count, 2) float16 of a stored direction at the lattice's places, and where it has any."""
    places = source.places() * (np.array(weights.shape[::-1]) / (source.columns, source.rows))
    column, row = np.minimum(places.astype(np.intp), np.array(weights.shape[::-1]) - 1).T
    there = decode_targets(codes[row, column], size) * (np.array([target.columns, target.rows]) / size)
    return there.astype(np.float16), weights[row, column] > 0
