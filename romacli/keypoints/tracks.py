"""Tracks over a graph of images: propagated by warps, averaged over neighbours, confirmed pair by pair.

Positions are propagated by the warps, never snapped to a grid or to detected corners.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from romacli.geometry.warp import WarpSample
from romacli.keypoints.consensus import combine
from romacli.keypoints.graph import PairGraph
from romacli.keypoints.options import AggregateOptions
from romacli.keypoints.spacing import choose_spread, close_pairs, seed_lattice, suppress

# Weight of a track's own position against its neighbours' (at most 1 each), which keeps isolated ones in place.
_OWN_WEIGHT = 0.2
# A track enters an image if more than this fraction of its predictions' weight agrees.
_MIN_SHARE_TO_ENTER = 0.55
# A new track needs so much weight over all pairs of its image, and keeps this share of the spacing from
# others.
_MIN_WEIGHT_TO_START = 0.05
_ROOM_TO_START = 0.7
# Fixed keypoints were spaced when they were made, and may have converged on the same texture since.
_REFINED_ROOM = 0.3
# The reverse warp is turned round by its Jacobian while the area scale lies above the first value; its weight
# is scaled by the area within the other two.
_MIN_AREA = 0.02
_AREA_RANGE = (0.1, 4.0)


class TrackTable:
    """The observations of tracks: for each image ascending track ids and their positions.

    ids: per image (n,) int32; xy: per image (n, 2) float32 COLMAP pixels; fixed: images whose observations stay.
    """

    def __init__(self, num_images: int) -> None:
        self.ids = [np.zeros(0, np.int32) for _ in range(num_images)]
        self.xy = [np.zeros((0, 2), np.float32) for _ in range(num_images)]
        self.fixed: set[int] = set()
        self._num_tracks = 0
        self._room = np.zeros(0, np.int32)  # of lengths; twice as much when full: a copy an image would not end

    @property
    def lengths(self) -> np.ndarray:
        """(num_tracks,) images of each track."""
        return self._room[: self._num_tracks]

    def hold(self, image: int, ids: np.ndarray, xy: np.ndarray) -> None:
        """Add fixed observations of these tracks, ids ascending, at (n, 2) positions to an image."""
        self._make_room(int(ids.max(initial=-1)) + 1)
        self.replace(image, ids, xy)
        self.fixed.add(image)

    def _make_room(self, num_tracks: int) -> None:
        first, self._num_tracks = self._num_tracks, max(num_tracks, self._num_tracks)
        if self._num_tracks > len(self._room):
            room = np.zeros(2 * self._num_tracks, np.int32)
            room[:first], self._room = self._room[:first], room
        self._room[first : self._num_tracks] = 0

    def replace(self, image: int, ids: np.ndarray, xy: np.ndarray) -> None:
        """Replace the observations of an image; ids ascending."""
        self.lengths[self.ids[image]] -= 1
        self.lengths[ids] += 1
        self.ids[image], self.xy[image] = ids, xy

    def start(self, image: int, xy: np.ndarray) -> None:
        """Start a new track at each of (n, 2) positions."""
        first = self._num_tracks
        self._make_room(first + len(xy))
        self.lengths[first:] = 1
        self.ids[image] = np.concatenate((self.ids[image], np.arange(first, self._num_tracks, dtype=np.int32)))
        self.xy[image] = np.concatenate((self.xy[image], xy))

    def keep(self, image: int, kept: np.ndarray) -> None:
        """Remove the observations of an image not marked in `kept` (n,) bool, unless fixed."""
        if image not in self.fixed:
            self.replace(image, self.ids[image][kept], self.xy[image][kept])

    def drop_single(self) -> None:
        """Remove tracks in fewer than two images and renumber the others in the same order.

        Tracks with a fixed observation are kept.
        """
        long_enough = self.lengths >= 2
        for image in self.fixed:
            long_enough[self.ids[image]] = True
        for image, ids in enumerate(self.ids):
            self.keep(image, long_enough[ids])
        new_ids = np.cumsum(long_enough, dtype=np.int32) - np.int32(1)
        self._room = self.lengths[long_enough]
        self._num_tracks = len(self._room)
        self.ids = [new_ids[ids] for ids in self.ids]

    def common(self, i: int, j: int) -> tuple[np.ndarray, np.ndarray]:
        """The rows in image i and in image j of the tracks both see, ascending."""
        ids_i, ids_j = self.ids[i], self.ids[j]
        if not len(ids_i):
            return np.zeros(0, np.intp), np.zeros(0, np.intp)
        rows = np.minimum(np.searchsorted(ids_i, ids_j), len(ids_i) - 1)
        shared = ids_i[rows] == ids_j
        return rows[shared], np.flatnonzero(shared)


def grow(table: TrackTable, graph: PairGraph, options: AggregateOptions, advance: Callable[[], None]) -> None:
    """Propagate tracks from image to image, best connected first, and start new ones where there are none.

    In the first sweep an image uses the predictions of images visited before it, afterwards those of all neighbours,
    which merges duplicate tracks. Images that remain half empty get seeds twice as dense in later sweeps. Fixed images
    make predictions for all others, but do not change.
    """
    order = graph.visiting_order()
    spacing = [options.spacing] * len(order)
    for sweep in range(options.sweeps):
        heard = set(table.fixed) if sweep == 0 else set(order)
        for image in order:
            if image in table.fixed:
                advance()
                continue
            others = sorted(heard & set(graph.neighbours[image]))
            _choose_observations(table, graph, image, others, options, both_ways=sweep == options.sweeps - 1)
            _seed(table, graph, image, spacing[image], options)
            heard.add(image)
            advance()
        # Isolated observations would only block others.
        table.drop_single()
        sparse = [len(ids) < options.max_keypoints / 2 for ids in table.ids]
        spacing = [options.spacing / (2 if is_sparse else 1) for is_sparse in sparse]


def _choose_observations(
    table: TrackTable,
    graph: PairGraph,
    image: int,
    others: Sequence[int],
    options: AggregateOptions,
    *,
    both_ways: bool,
) -> None:
    """Replace an image's observations by the consensus of it and its neighbours, longer tracks first."""
    scale = graph.scales[image]
    ids, xy, weights = (
        np.concatenate(parts) for parts in zip(*_predictions(table, graph, image, others, both_ways), strict=True)
    )
    agreed = combine(ids, xy, weights, options.tolerance * scale)
    inside = ((agreed.xy > 0) & (agreed.xy < graph.sizes[image])).all(axis=1)
    accepted = np.flatnonzero(inside & (agreed.share > _MIN_SHARE_TO_ENTER))
    ids, xy, support = agreed.ids[accepted], agreed.xy[accepted], agreed.support[accepted]
    elsewhere = table.lengths[ids] - np.isin(ids, table.ids[image], assume_unique=True)
    merit = elsewhere + 0.5 * support / (1 + support)
    radius = options.nms_radius * (_REFINED_ROOM if table.fixed else 1)
    kept = np.flatnonzero(suppress(xy, merit, radius * scale))
    rows = kept[choose_spread(xy[kept], merit[kept], graph.sizes[image], options.max_keypoints)]
    table.replace(image, ids[rows], xy[rows])


def _predictions(
    table: TrackTable, graph: PairGraph, image: int, others: Sequence[int], both_ways: bool
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Track ids, positions in the image and weights: its own, then predictions from pairs with `others`.

    Reverse warps cost a third of the time and improve positions more than the choice of tracks: only the last sweep,
    before `relax`, uses them.
    """
    own = table.ids[image], table.xy[image]
    yield *own, np.full(len(own[0]), _OWN_WEIGHT, np.float32)
    for other in others:
        sample = graph.warp(other, image).at(table.xy[other])
        usable = sample.weights > 0
        yield table.ids[other][usable], sample.targets[usable], sample.weights[usable]
        if not both_ways:
            continue
        rows, rows_other = table.common(image, other)
        start, arrival = own[1][rows], table.xy[other][rows_other]
        reverse = graph.warp(image, other).at(start, with_jacobian=True)
        turned, weights = _turn_round(reverse, start, arrival, graph.resolution(image, other))
        usable = weights > 0
        yield own[0][rows][usable], turned[usable], weights[usable]


def _turn_round(
    sample: WarpSample, start: np.ndarray, arrival: np.ndarray, scale: float
) -> tuple[np.ndarray, np.ndarray]:
    """Invert a warp: the source positions, near (n, 2) `start`, that it maps to `arrival`.

    Averaging only forward predictions drifts; with inverted reverse ones the error falls with every round.

    Args:
        sample: the warp at `start`, with Jacobians.
        scale: px of the source image per px of the target image at equal size.

    Returns:
        (n, 2) positions by one Newton step and (n,) weights in the source, 0 where the warp is unusable.
    """
    assert sample.jacobians is not None
    (xx, xy), (yx, yy) = sample.jacobians.transpose(1, 2, 0)
    det = xx * yy - xy * yx
    area = np.abs(det) * np.float32(scale**2)
    usable = (sample.weights > 0) & (area > _MIN_AREA)
    x, y = (arrival - sample.targets).T
    step = np.stack((yy * x - xy * y, xx * y - yx * x), axis=1)
    step /= np.where(usable, det, 1)[:, None]
    return start + step, np.where(usable, sample.weights * np.clip(area, *_AREA_RANGE), 0)


def _seed(table: TrackTable, graph: PairGraph, image: int, spacing: float, options: AggregateOptions) -> None:
    """Start tracks at grid points away from other tracks that some pair can propagate, best supported first."""
    room = options.max_keypoints - len(table.ids[image])
    if room <= 0:
        return
    spacing = spacing * graph.scales[image]
    places = seed_lattice(graph.sizes[image], spacing, name=graph.names[image], seed=options.seed)
    taken, _ = close_pairs(places, table.xy[image], _ROOM_TO_START * spacing)
    places = np.delete(places, taken, axis=0)
    support = np.zeros(len(places), np.float32)
    for other in graph.neighbours[image]:
        support += graph.warp(image, other).at(places).weights
    started = np.flatnonzero(support > _MIN_WEIGHT_TO_START)
    strongest = started[np.argsort(-support[started], kind="stable")[:room]]
    table.start(image, places[np.sort(strongest)])


def relax(table: TrackTable, graph: PairGraph, options: AggregateOptions, advance: Callable[[], None]) -> None:
    """Move every observation that is not fixed to the weighted mean of its neighbours' predictions.

    All move together, `refinements` times. Predictions further away than the tolerance are ignored; if they outweigh
    the others in the last round, the observation is removed.
    """
    for _ in range(options.refinements):
        votes = [_Votes.none(len(ids)) for ids in table.ids]
        for i, j in graph.edges:
            for image, rows, xy, weights in (
                _mutual_predictions(table, graph, i, j) if not table.fixed >= {i, j} else ()
            ):
                votes[image].add(rows, xy - table.xy[image][rows], weights, options.tolerance * graph.scales[image])
            advance()
        for image, vote in enumerate(votes):
            if image not in table.fixed:
                table.xy[image] += vote.shift / (vote.near + _OWN_WEIGHT)[:, None]
    if options.refinements:
        for image, vote in enumerate(votes):
            table.keep(image, vote.near + _OWN_WEIGHT > vote.total / 2)


def _mutual_predictions(
    table: TrackTable, graph: PairGraph, i: int, j: int
) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
    """The predictions of both directions of a pair for its shared tracks: image, rows, positions and weights."""
    rows = dict(zip((i, j), table.common(i, j), strict=True))
    xy = {image: table.xy[image][rows[image]] for image in (i, j)}
    for source, target in ((i, j), (j, i)):
        sample = graph.warp(source, target).at(xy[source], with_jacobian=True)
        yield target, rows[target], sample.targets, sample.weights
        turned, weights = _turn_round(sample, xy[source], xy[target], graph.resolution(source, target))
        yield source, rows[source], turned, weights


@dataclass(frozen=True)
class _Votes:
    """Sums over the predictions for one image's observations; each row occurs once in a call of `add`."""

    shift: np.ndarray
    near: np.ndarray
    total: np.ndarray

    @classmethod
    def none(cls, count: int) -> _Votes:
        return cls(*(np.zeros(shape, np.float32) for shape in ((count, 2), count, count)))

    def add(self, rows: np.ndarray, shift: np.ndarray, weights: np.ndarray, tolerance: float) -> None:
        near = np.where((shift**2).sum(axis=1) < tolerance**2, weights, 0)
        self.shift[rows] += near[:, None] * shift
        self.near[rows] += near
        self.total[rows] += weights


def confirm(
    table: TrackTable, graph: PairGraph, options: AggregateOptions, advance: Callable[[], None]
) -> dict[tuple[int, int], np.ndarray]:
    """Check which shared tracks each pair's own warps confirm within the tolerance, in either direction.

    Pairs of fixed images are skipped.

    Returns:
        For each edge (m,) uint8 over the tracks both images share, ascending: 255 times the weight of the
        better warp that agrees, 0 where neither does.
    """
    confirmed = {}
    for i, j in graph.edges:
        advance()
        if table.fixed >= {i, j}:
            continue
        rows_i, rows_j = table.common(i, j)
        xy_i, xy_j = table.xy[i][rows_i], table.xy[j][rows_j]
        agreed = np.zeros(len(rows_i), np.float32)
        for source, target, start, arrival in ((i, j, xy_i, xy_j), (j, i, xy_j, xy_i)):
            sample = graph.warp(source, target).at(start)
            distance = np.linalg.norm(sample.targets - arrival, axis=1)
            near = distance < options.match_tolerance * graph.scales[target]
            agreed = np.maximum(agreed, np.where(near, sample.weights, 0))
        confirmed[i, j] = np.rint(agreed * 255).astype(np.uint8)
    return confirmed
