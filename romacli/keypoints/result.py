"""The result of every method: keypoints of all images, their matches, and statistics."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from romacli.keypoints.components import join_tracks
from romacli.types import Keypoints, Matches, Pair, canonical


@dataclass(frozen=True)
class LazyMatches(Mapping[Pair, Matches]):
    """The matches of pairs, made each time they are asked for, as memory does not hold those of many images."""

    pairs: Collection[Pair]
    make: Callable[[Pair], Matches]

    def __getitem__(self, pair: Pair) -> Matches:
        if pair not in self.pairs:
            raise KeyError(pair)
        return self.make(pair)

    def __iter__(self) -> Iterator[Pair]:
        return iter(self.pairs)

    def __len__(self) -> int:
        return len(self.pairs)


@dataclass(frozen=True)
class AggregateSummary:
    """Statistics of an aggregation.

    num_tracks: points of two images or more, as followed through warps, by other methods as matches join them;
    mean_track_length, longest_track: in keypoints; num_overlong_tracks: tracks with more keypoints than there are
        images; num_matches: over all pairs.
    """

    num_tracks: int
    mean_track_length: float
    longest_track: int
    num_overlong_tracks: int
    num_matches: int


@dataclass(frozen=True)
class Aggregation:
    """Keypoints of every image and the matches between them; see `Aggregation.of`.

    num_matches: by pair, names ascending; pairs without any are among them.
    """

    keypoints: Mapping[str, Keypoints]
    num_matches: Mapping[Pair, int]
    summary: AggregateSummary
    _matches: Mapping[Pair, Matches]

    @classmethod
    def of(
        cls,
        keypoints: Mapping[str, Keypoints],
        matches: Mapping[Pair, Matches],
        *,
        tracks: Mapping[str, np.ndarray],
        num_matches: Mapping[Pair, int],
    ) -> Aggregation:
        """Combine keypoints and matches and compute statistics.

        Args:
            keypoints: of every paired image.
            matches: of every pair, names ascending; they may be made when they are asked for.
            tracks: for each image (K,) the track every keypoint belongs to, -1 for none.
            num_matches: of every pair.
        """
        lengths = _lengths(tracks)
        summary = AggregateSummary(
            num_tracks=len(lengths),
            mean_track_length=float(lengths.sum()) / max(len(lengths), 1),
            longest_track=int(lengths.max(initial=0)),
            num_overlong_tracks=int(np.count_nonzero(lengths > len(keypoints))),
            num_matches=sum(num_matches.values()),
        )
        return cls(keypoints, num_matches, summary, matches)

    @classmethod
    def joined(cls, keypoints: Mapping[str, Keypoints], matches: Mapping[Pair, Matches]) -> Aggregation:
        """The same, with tracks derived from the matches alone."""
        counts = {name: len(points) for name, points in keypoints.items()}
        num_matches = {}

        def counted() -> Iterator[tuple[Pair, np.ndarray]]:
            for pair, found in matches.items():
                num_matches[pair] = len(found)
                yield pair, found.indices

        tracks = join_tracks(counts, counted())
        return cls.of(keypoints, matches, tracks=tracks, num_matches=num_matches)

    def matches(self) -> Iterator[tuple[Pair, Matches]]:
        """Every pair, names ascending, with its matches; pairs without any are among them."""
        for pair in self.num_matches:
            yield pair, self._matches[pair]

    def matches_of(self, pair: Pair) -> Matches:
        """The matches of a pair, as rows of its images' keypoints in its order of names; scores in (0, 1].

        Raises:
            KeyError: the pair was not among those aggregated.
        """
        matches = self._matches[canonical(pair)]
        return matches if pair[0] < pair[1] else Matches(matches.indices[:, ::-1], matches.scores)


def _lengths(tracks: Mapping[str, np.ndarray]) -> np.ndarray:
    """The number of keypoints per track, counted image by image to save memory."""
    highest = max((int(row.max(initial=-1)) for row in tracks.values()), default=-1)
    lengths = np.zeros(highest + 1, np.int32)
    for row in tracks.values():
        np.add.at(lengths, row[row >= 0], 1)
    return lengths[lengths > 0]
