"""From the stored warps of many pairs to keypoints shared by all pairs, and the matches between them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from romacli.keypoints.graph import PairGraph, ReadWarp
from romacli.keypoints.tracks import AggregateOptions, TrackTable, confirm, grow, relax
from romacli.types import Keypoints, Matches, Pair

__all__ = ["AggregateOptions", "AggregateSummary", "Aggregation", "Progress", "aggregate"]


class Progress(Protocol):
    """A listener: `begin` opens a piece of work of `total` parts, `advance` finishes parts of it."""

    def begin(self, title: str, total: int) -> None: ...

    def advance(self, count: int = 1) -> None: ...


@dataclass(frozen=True)
class AggregateSummary:
    """What came out, in numbers.

    num_keypoints: over all images; num_tracks: points shared by at least two images; mean_track_length:
    images per track; num_matches: over all pairs; images_without_keypoints, pairs_without_matches: those left
    empty-handed.
    """

    num_keypoints: int
    num_tracks: int
    mean_track_length: float
    num_matches: int
    images_without_keypoints: tuple[str, ...]
    pairs_without_matches: tuple[Pair, ...]


@dataclass(frozen=True)
class Aggregation:
    """Keypoints of every image, with the length of their track as score, and the matches between them."""

    keypoints: Mapping[str, Keypoints]
    summary: AggregateSummary
    _tracks: Mapping[str, np.ndarray]
    _confirmed: Mapping[Pair, np.ndarray]

    def matches(self) -> Iterator[tuple[Pair, Matches]]:
        """Every pair, names ascending, with its matches; pairs without any are among them."""
        for pair in self._confirmed:
            yield pair, self.matches_of(pair)

    def matches_of(self, pair: Pair) -> Matches:
        """The matches of a pair, as rows of its images' keypoints in its order of names; scores in (0, 1].

        Raises:
            KeyError: the pair was not among those aggregated.
        """
        name0, name1 = pair
        scores = self._confirmed[min(pair), max(pair)]
        _, rows0, rows1 = np.intersect1d(
            self._tracks[name0], self._tracks[name1], assume_unique=True, return_indices=True
        )
        matched = scores > 0
        indices = np.stack((rows0[matched], rows1[matched]), axis=1).astype(np.int32)
        return Matches(indices, scores[matched] / np.float32(255))


def aggregate(
    pairs: Sequence[Pair],
    read: ReadWarp,
    options: AggregateOptions | None = None,
    *,
    progress: Progress | None = None,
) -> Aggregation:
    """Turn checked warps into keypoints that many pairs share, and matches backed by each pair's own warp.

    Every keypoint belongs to one track and every track has at most one keypoint in an image, so matches are
    one to one and no chain of them joins two points of an image. Neither the order of the pairs nor that of
    their names matters.

    Args:
        pairs: unique up to order, without self pairs.
        read: gives the record of a pair, A being its first name; called about ten times a pair, so it should
        be cheap. options: defaults to `AggregateOptions()`. progress: hears of three pieces of work, counted
        in pairs or images.

    Raises:
        ValueError: a pair occurs twice, or an image is paired with itself.
        StoreError: two records disagree about the size of an image.
    """
    options = options or AggregateOptions()
    listener = progress or _Nobody()
    listener.begin("reading pairs", len(pairs))
    graph = PairGraph(pairs, read, listener.advance)
    listener.begin("growing tracks", options.sweeps * len(graph.names))
    table = grow(graph, options, listener.advance)
    listener.begin("refining keypoints", (options.refinements + 1) * len(graph.edges))
    relax(table, graph, options, listener.advance)
    confirmed = confirm(table, graph, options, listener.advance)
    return _finish(table, graph, confirmed, options.min_track_length)


class _Nobody:
    def begin(self, title: str, total: int) -> None:
        pass

    def advance(self, count: int = 1) -> None:
        pass


def _finish(
    table: TrackTable, graph: PairGraph, confirmed: dict[tuple[int, int], np.ndarray], min_track_length: int
) -> Aggregation:
    """Drop keypoints without a match and tracks that became too short, and name what is left."""
    kept = _matched(table, confirmed)
    lengths = _lengths(table, kept)
    kept = [rows & (lengths[ids] >= min_track_length) for rows, ids in zip(kept, table.ids, strict=True)]
    scores: dict[Pair, np.ndarray] = {}
    for (i, j), agreed in confirmed.items():
        rows_i, rows_j = table.common(i, j)
        scores[graph.pair_of((i, j))] = agreed[kept[i][rows_i] & kept[j][rows_j]]
    keypoints, tracks = {}, {}
    for name, ids, xy, rows in zip(graph.names, table.ids, table.xy, kept, strict=True):
        tracks[name] = ids[rows]
        keypoints[name] = Keypoints(xy[rows], lengths[ids[rows]].astype(np.float32))
    return Aggregation(keypoints, _summarise(keypoints, tracks, scores), tracks, scores)


def _matched(table: TrackTable, confirmed: dict[tuple[int, int], np.ndarray]) -> list[np.ndarray]:
    """For each image (n,) bool: which observations have a match in some pair."""
    matched = [np.zeros(len(ids), bool) for ids in table.ids]
    for (i, j), agreed in confirmed.items():
        for image, rows in zip((i, j), table.common(i, j), strict=True):
            matched[image][rows[agreed > 0]] = True
    return matched


def _lengths(table: TrackTable, kept: list[np.ndarray]) -> np.ndarray:
    """How many kept observations each track has."""
    lengths = np.zeros(len(table.lengths), np.int32)
    for ids, rows in zip(table.ids, kept, strict=True):
        lengths[ids[rows]] += 1
    return lengths


def _summarise(
    keypoints: Mapping[str, Keypoints], tracks: Mapping[str, np.ndarray], scores: Mapping[Pair, np.ndarray]
) -> AggregateSummary:
    num_keypoints = sum(map(len, keypoints.values()))
    num_tracks = len(np.unique(np.concatenate([np.zeros(0, np.int64), *tracks.values()])))
    return AggregateSummary(
        num_keypoints=num_keypoints,
        num_tracks=num_tracks,
        mean_track_length=num_keypoints / max(num_tracks, 1),
        num_matches=sum(int(np.count_nonzero(values)) for values in scores.values()),
        images_without_keypoints=tuple(name for name, points in keypoints.items() if not len(points)),
        pairs_without_matches=tuple(pair for pair, values in scores.items() if not values.any()),
    )
