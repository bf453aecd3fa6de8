"""The interfaces of matchers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from romacli.matchers.options import MatcherOptions
from romacli.types import CompactWarp, DenseMatch, Features, PairResult, PreparedImage, Rejected


class Matcher(Protocol):
    """Matches photographs.

    batch_size: preferred pairs per batch; settings: the values that results depend on.
    """

    name: str
    batch_size: int

    @property
    def settings(self) -> dict[str, Any]: ...

    def prepare(self, image: np.ndarray) -> PreparedImage:
        """Turn RGB uint8 (H, W, 3) into the network's inputs; thread-safe, on the CPU."""
        ...

    def encode(self, images: Sequence[PreparedImage]) -> list[Features]:
        """Compute everything that depends on one image only, once per image."""
        ...

    def match(self, pairs: Sequence[tuple[Features, Features]], seeds: Sequence[int]) -> list[PairResult]:
        """Match a batch of pairs. Seeds make random choices depend only on the pair."""
        ...


@runtime_checkable
class DenseMatcher(Matcher, Protocol):
    """A matcher that produces full-resolution warps."""

    def warp(self, pairs: Sequence[tuple[Features, Features]]) -> list[DenseMatch]:
        """The dense warps of a batch of pairs, left on the device."""
        ...


@runtime_checkable
class KeypointMatcher(Matcher, Protocol):
    """A matcher that can use given keypoints of a photograph, looked up by its name."""

    def prepare_named(self, name: str, image: np.ndarray, turns: int) -> PreparedImage:
        """`prepare` for a named, upright photograph; turns: the clockwise quarter turns that made it upright."""
        ...


# Of a matcher that `--dtype auto` runs in the faster of two types on CPUs, as exact in both.
CPU_DTYPES = ("float32", "bfloat16")
EITHER_DTYPE = " or ".join(CPU_DTYPES)


def kept_settings(matcher: Matcher) -> dict[str, Any]:
    """The settings that results are stored under: those of a matcher, the same on all machines that may continue."""
    in_either = getattr(matcher, "in_either_dtype", False)
    return {**matcher.settings, **({"dtype": EITHER_DTYPE} if in_either else {})}


@dataclass(frozen=True)
class StartedPair:
    """A pair that passed a matcher's first stage. state: private to the matcher."""

    features: tuple[Features, Features]
    state: Any


@runtime_checkable
class StagedMatcher(Matcher, Protocol):
    """A matcher with a first stage that selects pairs for the second; `match` runs both.

    coarse_batch_size: preferred batch size of the first stage, as `batch_size` of the second.
    """

    coarse_batch_size: int

    def start(self, pairs: Sequence[tuple[Features, Features]]) -> list[StartedPair | Rejected]:
        """Run the first stage on a batch of pairs."""
        ...

    def finish(self, pairs: Sequence[StartedPair], seeds: Sequence[int]) -> list[PairResult]:
        """Run the second stage on pairs from `start`, in any batches."""
        ...


@runtime_checkable
class CoarseMatcher(Matcher, Protocol):
    """A matcher whose first stage can run alone, for cheap similarity and overlap."""

    def encode_coarse(self, images: Sequence[PreparedImage]) -> list[Features]:
        """The features of each image for `overlap`."""
        ...

    def describe(self, images: Sequence[PreparedImage]) -> np.ndarray:
        """Descriptors (N, D) float32 of unit length, whose dot products measure similarity."""
        ...

    def overlap(self, pairs: Sequence[tuple[Features, Features]]) -> list[float]:
        """The overlap of each pair, in [0, 1]."""
        ...


class PointStartMatcher(Matcher, Protocol):
    """A matcher that can start from given point matches, if `starts_from_points` is true."""

    starts_from_points: bool

    def match_from(
        self, pairs: Sequence[tuple[Features, Features]], points: Sequence[tuple[np.ndarray, np.ndarray]]
    ) -> list[CompactWarp]:
        """The warps that start from point pairs, (N, 2) COLMAP px in both images of each pair, instead of the first
        stage, however little they overlap."""
        ...


def least_coarse_overlap(options: MatcherOptions, default: float) -> float:
    """The minimum coarse overlap of a pair to be refined; 0 refines all.

    A lower `min_overlap` limits the matcher's own `default`; `min_overlap` 0 overrides everything.
    """
    if options.min_overlap == 0:
        return 0.0
    return min(default, options.min_overlap) if options.min_coarse_overlap is None else options.min_coarse_overlap


def pair_seed(name0: str, name1: str, *, seed: int) -> int:
    """A 63-bit seed from two names and the run's seed, the same in any order, shard, batch or resume."""
    first, second = sorted((name0, name1))
    digest = hashlib.blake2b(f"{seed}\0{first}\0{second}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
