"""All observations of many tracks, refined against each other: who is compared with whom, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat

import numpy as np

from romacli.forest import Forest
from romacli.geometry.warp import WarpField, precisions_of
from romacli.refine.align import Alignment, align
from romacli.refine.options import RefineOptions
from romacli.refine.photograph import Photograph

ReadPhotograph = Callable[[int], Photograph | None]
Allows = Callable[[int, np.ndarray], np.ndarray]
Edge = tuple[int, int]
# Covariance (n, 2, 2) and quality (n,) of observations that were refined before.
Known = tuple[np.ndarray, np.ndarray]
# Puts the pairs of images of a round into an order, in groups whose photographs are at hand when the group comes.
Batches = Callable[[Sequence[Edge]], Iterable[Sequence[Edge]]]
# A warp that shrinks more than this says nothing of the way back.
_LEAST_AREA = 0.05
# Links of which sums are made at once.
_PART = 1 << 20


@dataclass(frozen=True)
class Links:
    """Observations of one track in two images: rows (m,) int32 in the first and in the second, and the shear between.

    affines: (m, 2, 2) float32, px of the second image per px of the first; precisions: (m,) float32 1 / px² of the
    second image, inverse variance per axis of the warp, 0 if the network does not predict it.
    """

    first: np.ndarray
    second: np.ndarray
    affines: np.ndarray
    precisions: np.ndarray

    @classmethod
    def of(
        cls, first: np.ndarray, second: np.ndarray, ways: tuple[WarpField, WarpField], xy: tuple[np.ndarray, np.ndarray]
    ) -> Links:
        """Links where a warp speaks, either way; where both do, the mean of the shears and precisions.

        Args:
            first, second: (m,) rows that belong together. ways: the warps there and back. xy: (m, 2) their places.
        """
        there, back = (way.at(places, with_jacobian=True) for way, places in zip(ways, xy, strict=True))
        assert there.jacobians is not None
        assert back.jacobians is not None
        turnable = (back.weights > 0) & (np.abs(np.linalg.det(back.jacobians)) > _LEAST_AREA)
        turned = np.linalg.inv(np.where(turnable[:, None, None], back.jacobians, np.eye(2, dtype=np.float32)))
        votes = np.stack((there.weights > 0, turnable)).astype(np.float32)
        total = np.maximum(votes.sum(axis=0), 1)
        affines = (there.jacobians * votes[0][:, None, None] + turned * votes[1][:, None, None]) / total[:, None, None]
        told = [
            precisions_of(sample.weights, way.target_size) * way.precise
            for way, sample in zip(ways, (there, back), strict=True)
        ]
        told[1] /= np.abs(np.linalg.det(turned))
        precisions = ((np.stack(told) * votes).sum(axis=0) / total).astype(np.float32)
        spoken = votes.any(axis=0)
        first, second = (rows[spoken].astype(np.int32) for rows in (first, second))
        return cls(first, second, affines[spoken], precisions[spoken])


@dataclass(frozen=True)
class RefinedTracks:
    """Per image: xy (n, 2) float32 COLMAP pixels, covariance (n, 2, 2) float32 px², quality (n,) float32.

    Quality is the correlation with the view it was compared with; 0 where the observation was not refined: it kept its
    place, or moved with its track alone.
    """

    xy: list[np.ndarray]
    covariance: list[np.ndarray]
    quality: list[np.ndarray]


def refine_tracks(
    xy: Sequence[np.ndarray],
    links: Iterable[tuple[Edge, Links]],
    read: ReadPhotograph,
    options: RefineOptions | None = None,
    *,
    allows: Allows = lambda image, xy: np.ones(len(xy), bool),
    threads: int = 1,
    batches: Batches = lambda edges: [edges],
    fixed: Mapping[int, Known | None] | None = None,
) -> RefinedTracks:
    """Move the observations of each track to where the photographs agree with its most central view.

    A track first moves to where that view is fixed well. What cannot be aligned with it is tried with others of the
    track that were; what fails with all keeps a wide covariance. Neither the order of `links` nor the number of threads
    matters.

    Args:
        xy: per image (n, 2) COLMAP pixels. links: with their images (i, j), i < j; what they join is a track.
        read: a photograph, or None where there is none; called from threads, several times each. allows: which places
        (n, 2) of an image a track may move to. batches: called once a round. fixed: images whose observations stay, and
        to which others are aligned; with what is known of them, if anything.
    """
    options = options or RefineOptions()
    table = _Table(xy, links, options, fixed or {})
    with ThreadPoolExecutor(threads) as pool:
        chosen, sought = table.choose(), set[int]()
        for batch in batches(sorted(table.works(chosen))):
            new = {image for edge in batch for image in edge} - sought
            for image in sorted(new):
                table.find_seeds(image, read(image))
            sought |= new
        table.move_seeds(allows)
        for _ in range(options.rounds):
            works = table.works(table.choose())
            for batch in batches(sorted(works)):
                groups = [work for edge in batch for work in works[edge]]
                for work, found in zip(groups, pool.map(table.align, groups, repeat(read)), strict=True):
                    table.learn(work, found)
            table.close_round()
    return table.result()


@dataclass(frozen=True)
class _Ways:
    """Links, each of which can be gone both ways, from what may be settled to what is to be aligned.

    A way is the number of its link, plus the number of links if it goes back.

    first, second: (m,) int32 observations; affines: (m, 2, 2) float32; precisions: (m,) float32 1 / px² of the second,
    0 if unknown; closeness: (m,) float32 in [0, 1], the lower the more one view shrinks or shears what the other shows.
    """

    first: np.ndarray
    second: np.ndarray
    affines: np.ndarray
    precisions: np.ndarray
    closeness: np.ndarray

    @classmethod
    def of(cls, links: Iterable[tuple[Edge, Links]], starts: np.ndarray, smallest_area: float) -> _Ways:
        # Link by link and column by column, as temporary arrays over all of them would double the memory.
        starts = starts.astype(np.int32)
        no_rows, no_numbers = np.zeros(0, np.int32), np.zeros(0, np.float32)
        parts = {(-1, -1): (no_rows, no_rows, np.zeros((0, 2, 2), np.float32), no_numbers, no_numbers)}
        for (i, j), link in links:
            longest, shortest = _stretches(link.affines)
            area = longest * shortest
            sound = (area > smallest_area) & (area < 1 / smallest_area)
            closeness = np.minimum(shortest, 1 / np.maximum(longest, 1e-12))
            first, second = link.first + starts[i], link.second + starts[j]
            parts[i, j] = (first, second, link.affines, link.precisions, closeness)
            parts[i, j] = tuple(values[sound] for values in parts[i, j])
        columns = [list(column) for column in zip(*(parts[edge] for edge in sorted(parts)), strict=True)]
        parts.clear()
        return cls(*(np.concatenate(columns.pop(0)) for _ in range(len(columns))))

    def __len__(self) -> int:
        return 2 * len(self.first)

    def where(self, from_: np.ndarray, to: np.ndarray) -> np.ndarray:
        """The ways from one kind of observations to another, both (count,) bool."""
        there = np.flatnonzero(from_[self.first] & to[self.second])
        back = np.flatnonzero(from_[self.second] & to[self.first])
        return np.concatenate((there, back + len(self.first)))

    def ends(self, ways: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The observations that ways come from and lead to."""
        links, back = ways % len(self.first), ways >= len(self.first)
        first, second = self.first[links], self.second[links]
        return np.where(back, second, first), np.where(back, first, second)

    def shears(self, ways: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The shear along ways (k, 2, 2), and the precision (k,) of what they lead to."""
        links, back = ways % len(self.first), ways >= len(self.first)
        affines, precisions = self.affines[links], self.precisions[links]
        precisions[back] *= np.abs(np.linalg.det(affines[back]))
        affines[back] = np.linalg.inv(affines[back])
        return affines, precisions

    def closest(self, ways: np.ndarray) -> np.ndarray:
        """Of ways that lead to the same observation the closest; of equal ones that from the first observation."""
        source, target = self.ends(ways)
        order = np.lexsort((source, -self.closeness[ways % len(self.first)], target))
        return ways[order][np.unique(target[order], return_index=True)[1]]

    def merits(self, count: int) -> np.ndarray:
        """How close each observation (count,) is to all others together."""
        merit = np.zeros(count)
        for part in self._parts():
            for end in (self.first[part], self.second[part]):
                merit += np.bincount(end, self.closeness[part], count)
        return merit

    def start_variances(self, count: int, untold_px: float) -> np.ndarray:
        """Variance per axis (count,) px² of observations before refinement, from the mean precision of their warps."""
        total, times = np.zeros((2, count))
        for part in self._parts():
            told = part.start + np.flatnonzero(self.precisions[part] > 0)
            if not len(told):
                continue
            for ends, ways in ((self.second, told), (self.first, told + len(self.first))):
                total += np.bincount(ends[told], self.shears(ways)[1], count)
                times += np.bincount(ends[told], minlength=count)
        return np.where(total > 0, times / np.maximum(total, 1e-12), untold_px**2)

    def _parts(self) -> Iterator[slice]:
        """All links in parts, as sums take several times their memory."""
        return (slice(start, start + _PART) for start in range(0, len(self.first), _PART))


class _Table:
    """All observations in one row: where they are, and which of them the photographs have settled."""

    def __init__(
        self,
        xy: Sequence[np.ndarray],
        links: Iterable[tuple[Edge, Links]],
        options: RefineOptions,
        fixed: Mapping[int, Known | None],
    ) -> None:
        self._starts = np.cumsum([0, *map(len, xy)])
        count = int(self._starts[-1])
        self._image = np.repeat(np.arange(len(xy)), np.diff(self._starts))
        tracks = Forest(count)
        self._ways = _Ways.of(_joining(tracks, links, self._starts), self._starts, options.smallest_area)
        self._track = np.unique(tracks.roots(), return_inverse=True)[1]
        self._options = options
        self.xy = np.concatenate([np.zeros((0, 2)), *xy])
        self._start_variance = self._ways.start_variances(count, options.start_px)
        self.covariance = np.eye(2) * self._start_variance[:, None, None]
        self.quality = np.zeros(count)
        self._moves = np.zeros((count, 2))
        self._untried = np.ones(len(self._ways), bool)
        self._merit = self._ways.merits(count)
        self._settled, self._aligned, self._root, self._was_root, self._fixed = np.zeros((5, count), bool)
        for image, known in fixed.items():
            rows = slice(self._starts[image], self._starts[image + 1])
            self._fixed[rows] = True
            if known is not None:
                self.covariance[rows], self._settled[rows] = known[0], known[1] > 0
        # In tracks without a confirmed observation, all fixed ones are used.
        self._settled |= self._fixed & ~self._in_tracks_of(self._settled)
        # Of each root: how many views agreed with it, and the sums of their covariances in its px and qualities.
        self._agreed, self._agreed_quality = np.zeros((2, count))
        self._agreed_covariance = np.zeros((count, 2, 2))

    def choose(self) -> np.ndarray:
        """The ways to try next: for each observation that is not settled, the closest settled view of its track."""
        self._choose_roots()
        usable = self._ways.where(self._settled, ~(self._settled | self._fixed))
        return self._ways.closest(usable[self._untried[usable]])

    def _choose_roots(self) -> None:
        """A track without a settled view begins at the one closest to all others that was not tried yet."""
        begun = self._in_tracks_of(self._settled)
        free = np.flatnonzero(~begun & ~self._was_root & (self._merit > 0))
        # Sums of the same numbers in another order differ in the last bits.
        order = free[np.lexsort((free, -np.round(self._merit[free], 6), self._track[free]))]
        roots = order[np.unique(self._track[order], return_index=True)[1]]
        self._root[roots] = self._settled[roots] = self._was_root[roots] = True

    def _in_tracks_of(self, marked: np.ndarray) -> np.ndarray:
        """Which observations are of a track that has a marked one; (count,) bool."""
        return (np.bincount(self._track, marked, minlength=1) > 0)[self._track]

    def find_seeds(self, image: int, photograph: Photograph | None) -> None:
        """Note for the tracks that begin in an image where near by it fixes them best."""
        rows = np.flatnonzero(self._root & (self._image == image))
        if photograph is None or not self._options.seed_radius:
            return
        best = photograph.best_near(self.xy[rows], self._options.seed_radius)
        moves = best - self.xy[rows]
        # Of several tracks that would meet in a place the nearest gets it.
        order = np.lexsort((rows, (moves**2).sum(axis=1)))
        first = order[np.unique(best[order], axis=0, return_index=True)[1]]
        self._moves[rows[first]] = moves[first]

    def move_seeds(self, allows: Allows) -> None:
        """Move whole tracks by what was noted, from view to view by the shears: all views of a track, where all may."""
        ways, moves, known = self._ways, self._moves, self._root.copy()
        while True:
            chosen = ways.closest(ways.where(known, ~known))
            if not len(chosen):
                break
            source, target = ways.ends(chosen)
            moves[target] = np.einsum("nab,nb->na", ways.shears(chosen)[0], moves[source])
            known[target] = True
        for image, (start, end) in enumerate(zip(self._starts[:-1], self._starts[1:], strict=True)):
            known[start:end] &= allows(image, self.xy[start:end] + moves[start:end])
        whole = np.bincount(self._track, ~known, minlength=len(self._track)) == 0
        moves[~whole[self._track]] = 0
        self.xy += moves
        self.covariance += np.eye(2) * (self._options.carried**2 * (moves**2).sum(axis=1))[:, None, None]

    def works(self, chosen: np.ndarray) -> dict[Edge, list[np.ndarray]]:
        """Ways by (i, j), i < j, of their images, in groups of one source and one target."""
        source, target = (self._image[rows] for rows in self._ways.ends(chosen))
        order = np.lexsort((chosen, target, source))
        changes = np.diff(source[order]).astype(bool) | np.diff(target[order]).astype(bool)
        works: dict[Edge, list[np.ndarray]] = {}
        for rows in np.split(order, np.flatnonzero(changes) + 1) if len(order) else ():
            images = int(source[rows[0]]), int(target[rows[0]])
            works.setdefault((min(images), max(images)), []).append(chosen[rows])
        return works

    def align(self, work: np.ndarray, read: ReadPhotograph) -> Alignment | None:
        """Align a group; changes nothing, so that groups can be aligned at once."""
        source, target = self._ways.ends(work)
        shown, sought = read(int(self._image[source[0]])), read(int(self._image[target[0]]))
        if shown is None or sought is None:
            return None
        affines, precisions = self._ways.shears(work)
        return align(shown, sought, self.xy[source], self.xy[target], affines, self._options, precisions)

    def learn(self, work: np.ndarray, found: Alignment | None) -> None:
        """Note what came of a group; what it aligned serves others from the next round on."""
        self._untried[work] = False
        if found is None:
            return
        work, good = work[found.good], found.good
        source, target = self._ways.ends(work)
        affines, _ = self._ways.shears(work)
        # A chain is as uncertain as its parts together; the view a track begins at is not one of them.
        inherited = np.where(self._root[source][:, None, None], 0, self.covariance[source])
        self.xy[target], self.quality[target] = found.xy[good], found.quality[good]
        self.covariance[target] = found.covariance[good] + affines @ inherited @ affines.transpose(0, 2, 1)
        self._aligned[target] = True
        # A view meets each other view of its track once, so rows differ within a group.
        self._agreed[source] += 1
        self._agreed_quality[source] += found.quality[good]
        self._agreed_covariance[source] += found.source_covariance[good]

    def close_round(self) -> None:
        """Settle what was aligned, and let views that nothing agreed with go."""
        self._settled |= self._aligned
        alone = self._root & (self._agreed == 0)
        self._settled[alone] = self._root[alone] = False
        count = self._agreed[self._root]
        self.quality[self._root] = self._agreed_quality[self._root] / count
        self.covariance[self._root] = self._agreed_covariance[self._root] / count[:, None, None]

    def result(self) -> RefinedTracks:
        lost = ~self._in_tracks_of(self._settled)
        self.xy[lost] -= self._moves[lost]
        self.covariance[lost] = np.eye(2) * self._start_variance[lost, None, None]
        cuts = self._starts[1:-1]
        return RefinedTracks(
            *(np.split(values.astype(np.float32), cuts) for values in (self.xy, self.covariance, self.quality))
        )


def _stretches(affines: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The larger and the smaller singular values (m,) of (m, 2, 2)."""
    (a, b), (c, d) = affines.transpose(1, 2, 0)
    turned, mirrored = np.hypot(a + d, b - c) / 2, np.hypot(a - d, b + c) / 2
    return turned + mirrored, np.abs(turned - mirrored)


def _joining(tracks: Forest, links: Iterable[tuple[Edge, Links]], starts: np.ndarray) -> Iterator[tuple[Edge, Links]]:
    """The same links, whose observations are joined on the way."""
    for (i, j), link in links:
        tracks.join(link.first + starts[i], link.second + starts[j])
        yield (i, j), link
