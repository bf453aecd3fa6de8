"""Merge the point pairs of a keypoint matcher into keypoints shared by all pairs.

Such a matcher describes each image once, so a keypoint has bit-identical coordinates in all pairs of its image.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from romacli.keypoints.result import Aggregation
from romacli.keypoints.spacing import nearest
from romacli.progress import Progress
from romacli.types import Correspondences, Keypoints, Matches, Pair, canonical

ReadPoints = Callable[[Pair], Correspondences]
# Which of (n, 2) points of an image are not masked.
Allows = Callable[[str, np.ndarray], np.ndarray]
# Rows of an image's keypoints for (n, 2) points of a pair, -1 if there is none.
Find = Callable[[str, np.ndarray], np.ndarray]


def by_points(
    pairs: Sequence[Pair],
    read: ReadPoints,
    progress: Progress,
    *,
    allows: Allows | None = None,
    anchors: Mapping[str, Keypoints] | None = None,
    reach: Mapping[str, float] | None = None,
) -> Aggregation:
    """Keypoints of every image: the points of all its pairs, each once, scored by the number of its matches.

    Args:
        pairs: unique up to order.
        read: returns the points of a pair, 0 being its first name.
        allows: which points are not masked; the others are left out.
        anchors: keypoints of some or all images to use instead of the points. A point becomes the nearest one within
            `reach`, in px of its image.
    """
    ordered = sorted(map(canonical, pairs))
    known, limits = anchors or {}, reach or {}
    progress.begin("reading points", 2 * len(ordered))
    places = _places(ordered, read, allows, progress, known.keys())

    def row(name: str, xy: np.ndarray) -> np.ndarray:
        if name in known:
            rows = nearest(xy, known[name].xy, limits[name])
            return rows if allows is None else np.where(allows(name, xy), rows, -1)
        keys, held = _keys(xy), places[name][0]
        rows = np.minimum(np.searchsorted(held, keys), len(held) - 1)
        return np.where(held[rows] == keys, rows, -1) if len(held) else np.full(len(keys), -1)

    names = {name for pair in ordered for name in pair}
    made = {name: Keypoints(_xy(keys), counts) for name, (keys, counts) in places.items()}
    keypoints = {name: known[name] if name in known else made[name] for name in names}
    return Aggregation.joined(keypoints, _PairMatches(ordered, read, row, progress))


@dataclass(frozen=True)
class _PairMatches(Mapping[Pair, Matches]):
    """The matches of pairs, computed lazily from their points."""

    pairs: Sequence[Pair]
    read: ReadPoints
    find: Find
    progress: Progress

    def __getitem__(self, pair: Pair) -> Matches:
        points = self.read(pair)
        rows = [self.find(name, xy) for name, xy in zip(pair, (points.keypoints0, points.keypoints1), strict=True)]
        return one_to_one(rows[0], rows[1], points.scores)

    def __iter__(self) -> Iterator[Pair]:
        for pair in self.pairs:
            yield pair
            self.progress.advance()

    def __len__(self) -> int:
        return len(self.pairs)


def one_to_one(rows0: np.ndarray, rows1: np.ndarray, scores: np.ndarray) -> Matches:
    """One-to-one matches of (n,) rows without -1: the mutual best."""
    found = np.flatnonzero((rows0 >= 0) & (rows1 >= 0))
    best_first = found[np.argsort(-scores[found], kind="stable")]
    kept = best_first[is_first(rows0[best_first]) & is_first(rows1[best_first])]
    return Matches(np.stack((rows0[kept], rows1[kept]), axis=1).astype(np.int32), scores[kept])


def is_first(rows: np.ndarray) -> np.ndarray:
    """Which of (n,) rows occur for the first time; (n,) bool."""
    first = np.zeros(len(rows), bool)
    first[np.unique(rows, return_index=True)[1]] = True
    return first


def _places(
    pairs: Sequence[Pair], read: ReadPoints, allows: Allows | None, progress: Progress, known: Collection[str]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The unique points of each image not yet known, and the number of pairs of each."""
    none = np.zeros(0, np.uint64), np.zeros(0, np.float32)
    found = {name: none for pair in pairs for name in pair if name not in known}
    for pair in pairs:
        points = read(pair)
        for name, xy in zip(pair, (points.keypoints0, points.keypoints1), strict=True):
            if name in known:
                continue
            keys, counts = found[name]
            new = np.unique(_keys(xy))
            merged, places = np.unique(np.concatenate((keys, new)), return_inverse=True)
            votes = np.concatenate((counts, np.ones(len(new), np.float32)))
            found[name] = merged, np.bincount(places.ravel(), votes, len(merged)).astype(np.float32)
        progress.advance()
    if allows is not None:
        for name, (keys, counts) in found.items():
            kept = allows(name, _xy(keys))
            found[name] = keys[kept], counts[kept]
    return found


def _keys(xy: np.ndarray) -> np.ndarray:
    """(n, 2) float32 coordinates as one number each; minus zero counts as zero."""
    return np.ascontiguousarray(xy + np.float32(0), np.float32).view(np.uint64).ravel()


def _xy(keys: np.ndarray) -> np.ndarray:
    return keys.view(np.float32).reshape(-1, 2)
