"""The images of a job as a graph with the warps of its pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

from romacli.errors import StoreError
from romacli.geometry.warp import REFERENCE_LONG_SIDE, WarpField, lie_in, masked, warp_fields
from romacli.types import CompactWarp, Pair, PairList, Size

ReadWarp = Callable[[Pair], CompactWarp]
# The unmasked cells of a (gh, gw) grid over an image; None without a mask.
KeptCells = Callable[[str, tuple[int, int]], np.ndarray | None]
Edge = tuple[int, int]

# Smaller images use the lengths of this one, such as 1.2 px between keypoints: denser ones did not improve the cameras
# of photographs of 64 to 320 px.
_SMALLEST_LONG_SIDE = 640

# Cached decoded pairs, 1.4 MB each at 140 x 140 cells: all of 14 images, else neighbours in the visiting order share
# many of them.
_CACHED_PAIRS = 96


def scale_of(size: Size) -> float:
    """The scale from lengths at `REFERENCE_LONG_SIDE` to an image of this size."""
    return max(*size, _SMALLEST_LONG_SIDE) / REFERENCE_LONG_SIDE


class PairGraph:
    """Images by index, in the order of their names, and the warps between them, read on demand.

    Attributes:
        names: ascending.
        sizes: (width, height) px of each image.
        scales: what a length at `REFERENCE_LONG_SIDE` is in each image, by its long side.
        edges: the pairs as (i, j) with i < j, ascending.
        neighbours: for each image the images it is paired with, ascending.
    """

    def __init__(
        self, pairs: Sequence[Pair], read: ReadWarp, advance: Callable[[], None], kept: KeptCells | None = None
    ) -> None:
        """Read every record once for its sizes and overlap; `read` returns it, A being the pair's first name.

        Cells outside `kept` have no weight, and no warp ends there.

        Raises:
            ValueError: a pair occurs twice, or an image is paired with itself.
            StoreError: two records disagree about the size of an image.
        """
        PairList(tuple(pairs))
        self.names = sorted({name for pair in pairs for name in pair})
        self._read_whole, self._kept = read, kept
        self._cells: dict[str, np.ndarray | None] = {}
        number = {name: k for k, name in enumerate(self.names)}
        self._pairs = {(number[a], number[b]) if a < b else (number[b], number[a]): (a, b) for a, b in pairs}
        self.edges = sorted(self._pairs)
        self.neighbours: list[list[int]] = [[] for _ in self.names]
        for i, j in self.edges:
            self.neighbours[i].append(j)
            self.neighbours[j].append(i)
        self._survey(advance)
        self.scales = [scale_of(size) for size in self.sizes]
        self._fields = lru_cache(maxsize=_CACHED_PAIRS)(self._load)

    def _survey(self, advance: Callable[[], None]) -> None:
        sizes: dict[str, Size] = {}
        self._overlaps: dict[Edge, float] = {}
        for edge in self.edges:
            pair = self._pairs[edge]
            record = self._read(pair)
            self._overlaps[edge] = record.overlap
            for name, size in zip(pair, (record.size_A, record.size_B), strict=True):
                known = sizes.setdefault(name, size)
                if known != size:
                    raise StoreError(_size_conflict(name, known, size, pair))
            advance()
        self.sizes = [sizes[name] for name in self.names]

    def _read(self, pair: Pair) -> CompactWarp:
        """The record of a pair without masked cells."""
        record = self._read_whole(pair)
        if self._kept is None:
            return record
        grids = zip(pair, (record.weight_AB, record.weight_BA), strict=True)
        kept = [self._kept(name, weights.shape) for name, weights in grids]
        self._cells.update(zip(pair, kept, strict=True))
        return masked(record, *kept)

    def allows(self, image: int, points: np.ndarray) -> np.ndarray:
        """Which of (n, 2) points of an image are not masked; (n,) bool."""
        cells = self._cells.get(self.names[image])
        return np.ones(len(points), bool) if cells is None else lie_in(cells, points, self.sizes[image])

    def _load(self, edge: Edge) -> tuple[WarpField, WarpField]:
        pair = self._pairs[edge]
        forward, backward = warp_fields(self._read(pair))
        return (forward, backward) if pair[0] < pair[1] else (backward, forward)

    def warp(self, i: int, j: int) -> WarpField:
        """The warp from image i to image j, which must be paired."""
        return self._fields((i, j))[0] if i < j else self._fields((j, i))[1]

    def overlap(self, edge: Edge) -> float:
        """The overlap of a pair outside of masks, in [0, 1]."""
        return self._overlaps[edge]

    def resolution(self, source: int, target: int) -> float:
        """Px of one image per px of another at equal size."""
        return max(self.sizes[source]) / max(self.sizes[target])

    def pair_of(self, edge: Edge) -> Pair:
        """The two names of an edge, ascending."""
        return self.names[edge[0]], self.names[edge[1]]

    def visiting_order(self) -> list[int]:
        """All images, each the one with the largest overlap with those before it; ties go to the first name.

        The order starts at, and jumps between components to, the image with the largest total overlap.
        """
        overlaps: list[dict[int, float]] = [{} for _ in self.names]
        for (i, j), overlap in self._overlaps.items():
            overlaps[i][j] = overlaps[j][i] = overlap
        # A connected image always beats an unconnected one; among the unconnected the total overlap decides.
        gain = 1e-6 * np.array([sum(row.values()) for row in overlaps])
        order = []
        for _ in self.names:
            best = int(np.argmax(gain))
            order.append(best)
            gain[best] = -np.inf
            for other, overlap in overlaps[best].items():
                gain[other] += overlap
        return order


def _size_conflict(name: str, known: Size, size: Size, pair: Pair) -> str:
    return (
        f"{name} has {known[0]} x {known[1]} px in one stored pair and {size[0]} x {size[1]} px in "
        f"{pair[0]} {pair[1]}. If the photograph was replaced, match into another --output."
    )
