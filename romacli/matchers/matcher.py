"""The seam every matcher stands behind."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from romacli.matchers.options import MatcherOptions
from romacli.types import DenseMatch, Features, PairResult, PreparedImage, Rejected


class Matcher(Protocol):
    """Finds what two photographs share.

    batch_size: pairs it likes to be given at once; settings: the values that results depend on.
    """

    name: str
    batch_size: int

    @property
    def settings(self) -> dict[str, Any]: ...

    def prepare(self, image: np.ndarray) -> PreparedImage:
        """Turn RGB uint8 (H, W, 3) into the network's inputs; thread-safe, on the CPU."""
        ...

    def encode(self, images: Sequence[PreparedImage]) -> list[Features]:
        """Compute all that depends on one image alone, once an image."""
        ...

    def match(self, pairs: Sequence[tuple[Features, Features]], seeds: Sequence[int]) -> list[PairResult]:
        """Match a batch of pairs. Seeds make random choices depend on the pair alone."""
        ...


@runtime_checkable
class DenseMatcher(Matcher, Protocol):
    """A matcher that has a full-resolution warp to give."""

    def warp(self, pairs: Sequence[tuple[Features, Features]]) -> list[DenseMatch]:
        """The dense warps of a batch of pairs, left on the device."""
        ...


@runtime_checkable
class KeypointMatcher(Matcher, Protocol):
    """A matcher that may be told where in a photograph to look, by the photograph's name."""

    def prepare_named(self, name: str, image: np.ndarray, turns: int) -> PreparedImage:
        """`prepare` for a photograph of a name, upright; turns: the quarters clockwise that it was turned for that."""
        ...


@dataclass(frozen=True)
class StartedPair:
    """A pair that a matcher's first stage found worth the rest of the work. state: the matcher's own."""

    features: tuple[Features, Features]
    state: Any


@runtime_checkable
class StagedMatcher(Matcher, Protocol):
    """A matcher that learns from a first stage which pairs are worth the second; `match` is both.

    coarse_batch_size: pairs it likes to be given to the first at once, as `batch_size` is to the second.
    """

    coarse_batch_size: int

    def start(self, pairs: Sequence[tuple[Features, Features]]) -> list[StartedPair | Rejected]:
        """Run the first stage on a batch of pairs."""
        ...

    def finish(self, pairs: Sequence[StartedPair], seeds: Sequence[int]) -> list[PairResult]:
        """Run the second on some of those that `start` gave, in any batches."""
        ...


@runtime_checkable
class CoarseMatcher(Matcher, Protocol):
    """A matcher whose first stage can run alone: it says cheaply what looks alike and what overlaps."""

    def encode_coarse(self, images: Sequence[PreparedImage]) -> list[Features]:
        """What the two below need of one image."""
        ...

    def describe(self, features: Sequence[Features]) -> np.ndarray:
        """Descriptors (N, D) float32 of unit length, whose products say which images look alike."""
        ...

    def overlap(self, pairs: Sequence[tuple[Features, Features]]) -> list[float]:
        """A score in [0, 1] of how much the images of each pair share."""
        ...


class PointStartMatcher(Matcher, Protocol):
    """A matcher that may begin from points found elsewhere; asked for by `starts_from_points`, which is then true."""

    starts_from_points: bool

    def match_from(
        self,
        pairs: Sequence[tuple[Features, Features]],
        points: Sequence[tuple[np.ndarray, np.ndarray]],
        seeds: Sequence[int],
    ) -> list[PairResult]:
        """`match` with pairs of points, (N, 2) COLMAP px in both images of each pair, in place of the first stage."""
        ...


def least_coarse_overlap(options: MatcherOptions, default: float) -> float:
    """The coarse overlap below which a pair is not refined; 0 refines all.

    A matcher's own `default` gives way to a lower `min_overlap`, and `min_overlap` 0 to nothing.
    """
    if options.min_overlap == 0:
        return 0.0
    return min(default, options.min_overlap) if options.min_coarse_overlap is None else options.min_coarse_overlap


def pair_seed(name0: str, name1: str, *, seed: int) -> int:
    """A 63-bit seed from two names and the run's seed, the same in any order, shard, batch or resume."""
    first, second = sorted((name0, name1))
    digest = hashlib.blake2b(f"{seed}\0{first}\0{second}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
