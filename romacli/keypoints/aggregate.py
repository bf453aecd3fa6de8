"""From the stored warps of many pairs to keypoints shared by all of them, and their matches."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from romacli.errors import UsageError
from romacli.keypoints.cells import by_cells
from romacli.keypoints.fixed import FixedKeypoints
from romacli.keypoints.graph import PairGraph, ReadWarp
from romacli.keypoints.options import AggregateOptions
from romacli.keypoints.result import AggregateSummary, Aggregation, LazyMatches
from romacli.keypoints.tracks import TrackTable, confirm, grow, relax
from romacli.progress import Progress, Silent
from romacli.types import Keypoints, Matches, Pair

__all__ = ["METHODS", "AggregateOptions", "AggregateSummary", "Aggregation", "Progress", "aggregate", "derive"]


def aggregate(
    pairs: Sequence[Pair],
    read: ReadWarp,
    options: AggregateOptions | None = None,
    *,
    anchors: Mapping[str, Keypoints] | None = None,
    kept: Mapping[Pair, Matches] | None = None,
    progress: Progress | None = None,
) -> Aggregation:
    """Turn checked warps into keypoints that many pairs share, and matches backed by each pair's own warp.

    Matches are one-to-one. With the method "tracks" no chain of matches connects two points of the same image. The
    result does not depend on the order of pairs or names.

    Args:
        pairs: unique up to order, without self pairs.
        read: returns the record of a pair, A being its first name; called about ten times per pair, so it should be
            cheap.
        options: defaults to `AggregateOptions()`.
        anchors: keypoints to match unmoved instead of new ones; images without any get keypoints transferred from them
            and new ones.
        kept: matches between anchors to keep, names ascending.
        progress: reports work, counted in pairs or images.

    Raises:
        ValueError: a pair occurs twice, or an image is paired with itself.
        UsageError: the method is unknown.
        StoreError: two records disagree about the size of an image.
    """
    listener = progress or Silent()
    listener.begin("reading pairs", len(pairs))
    graph = PairGraph(pairs, read, listener.advance)
    return derive(graph, options or AggregateOptions(), anchors=anchors, kept=kept, progress=listener)


def derive(
    graph: PairGraph,
    options: AggregateOptions,
    *,
    anchors: Mapping[str, Keypoints] | None = None,
    kept: Mapping[Pair, Matches] | None = None,
    progress: Progress,
) -> Aggregation:
    """The same for pairs already read."""
    if options.method not in METHODS:
        raise UsageError(f"--method {options.method} is unknown. Known: {', '.join(METHODS)}.")
    fixed = None if anchors is None else FixedKeypoints.of(graph, anchors, kept or {}, options, progress)
    if fixed and len(fixed.keypoints) == len(graph.names):
        pairs = map(graph.pair_of, graph.edges)
        return Aggregation.joined(fixed.keypoints, {pair: fixed.matches[pair] for pair in pairs})
    return METHODS[options.method](graph, options, progress, fixed)


def by_tracks(
    graph: PairGraph, options: AggregateOptions, progress: Progress, fixed: FixedKeypoints | None = None
) -> Aggregation:
    """Follow points from image to image through the warps; a keypoint's score is its track length."""
    table = TrackTable(len(graph.names))
    orders = fixed.seat(table, graph) if fixed else {}
    progress.begin("growing tracks", options.sweeps * len(graph.names))
    grow(table, graph, options, progress.advance)
    progress.begin("averaging keypoints", (options.refinements + 1) * len(graph.edges))
    relax(table, graph, options, progress.advance)
    confirmed = confirm(table, graph, options, progress.advance)
    return _finish(table, graph, confirmed, options.min_track_length, fixed, orders)


METHODS: dict[str, Callable[[PairGraph, AggregateOptions, Progress, FixedKeypoints | None], Aggregation]] = {
    "tracks": by_tracks,
    "cells": by_cells,
}


def _shared(pair: Pair, tracks: Mapping[str, np.ndarray], scores: np.ndarray) -> Matches:
    """The matches of a pair: the tracks (n,) that both images share and it confirms, by a byte (n,) each."""
    ids0, ids1 = (tracks[name] for name in pair)
    _, rows0, rows1 = np.intersect1d(ids0, ids1, assume_unique=True, return_indices=True)
    matched = scores > 0
    indices = np.stack((rows0[matched], rows1[matched]), axis=1).astype(np.int32)
    return Matches(indices, scores[matched] / np.float32(255))


def _finish(
    table: TrackTable,
    graph: PairGraph,
    confirmed: dict[tuple[int, int], np.ndarray],
    min_track_length: int,
    fixed: FixedKeypoints | None,
    orders: Mapping[int, np.ndarray],
) -> Aggregation:
    """Drop keypoints without a match and tracks that became too short, and collect the rest.

    Consumes `table` and `confirmed`, as memory does not hold both them and the result for many images.

    Args:
        fixed: keypoints of the table's fixed images to keep, matched or not.
        orders: of their rows in the table.
    """
    allowed = [graph.allows(image, xy) for image, xy in enumerate(table.xy)]
    for (i, j), agreed in confirmed.items():
        rows_i, rows_j = table.common(i, j)
        agreed *= allowed[i][rows_i] & allowed[j][rows_j]
    kept = [rows | (image in table.fixed) for image, rows in enumerate(_matched(table, confirmed))]
    lengths = _lengths(table, kept)
    kept = [
        rows & ((lengths[ids] >= min_track_length) | (image in table.fixed))
        for image, (rows, ids) in enumerate(zip(kept, table.ids, strict=True))
    ]
    lengths = _lengths(table, kept)
    scores: dict[Pair, np.ndarray] = {}
    num_matches: dict[Pair, int] = {}
    for i, j in graph.edges:
        if fixed and table.fixed >= {i, j}:
            num_matches[graph.pair_of((i, j))] = len(fixed.matches[graph.pair_of((i, j))])
            continue
        rows_i, rows_j = table.common(i, j)
        agreed = confirmed.pop((i, j))[kept[i][rows_i] & kept[j][rows_j]]
        scores[graph.pair_of((i, j))] = agreed
        num_matches[graph.pair_of((i, j))] = int(np.count_nonzero(agreed))
    keypoints, tracks = {}, {}
    for image, (name, rows) in enumerate(zip(graph.names, kept, strict=True)):
        table.keep(image, rows)
        tracks[name] = table.ids[image]
        if fixed and image in orders:
            tracks[name] = np.empty_like(table.ids[image])
            tracks[name][orders[image]] = table.ids[image]
            keypoints[name] = fixed.keypoints[name]
        else:
            keypoints[name] = Keypoints(table.xy[image], lengths[table.ids[image]].astype(np.float32))
    shared = LazyMatches(scores.keys(), lambda pair: _shared(pair, tracks, scores[pair]))
    return Aggregation.of(
        keypoints,
        ChainMap(shared, fixed.matches if fixed else {}),  # type: ignore[arg-type]
        tracks={name: np.where(lengths[ids] > 1, ids, -1) for name, ids in tracks.items()},
        num_matches=num_matches,
    )


def _matched(table: TrackTable, confirmed: dict[tuple[int, int], np.ndarray]) -> list[np.ndarray]:
    """For each image (n,) bool: which observations are matched in any pair."""
    matched = [np.zeros(len(ids), bool) for ids in table.ids]
    for (i, j), agreed in confirmed.items():
        for image, rows in zip((i, j), table.common(i, j), strict=True):
            matched[image][rows[agreed > 0]] = True
    return matched


def _lengths(table: TrackTable, kept: list[np.ndarray]) -> np.ndarray:
    """The number of kept observations per track."""
    lengths = np.zeros(len(table.lengths), np.int32)
    for ids, rows in zip(table.ids, kept, strict=True):
        lengths[ids[rows]] += 1
    return lengths
