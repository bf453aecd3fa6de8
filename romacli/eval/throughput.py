"""Measure the speed of matching a folder: with the usual loop, and with one that reuses nothing."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any, TypeVar

import numpy as np
import torch

from romacli.matchers.device import wait_for
from romacli.matchers.matcher import Matcher, StagedMatcher, StartedPair
from romacli.matchers.memory import peak_bytes
from romacli.run.match import match_images
from romacli.run.options import MatchOptions
from romacli.run.schedule import fewest_loads
from romacli.types import Features, ImageList, Pair, PairList, PairResult, PreparedImage, Rejected

Item = TypeVar("Item")
STAGES = ("encode", "match")
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Run:
    """One pass over the pairs. Seconds are wall-clock time; `steady_s` excludes the time up to the first result."""

    wall_s: float
    steady_s: float
    steady_pairs: int
    prepare_s: float
    encode_s: float
    match_s: float
    prepares: int
    encodes: int
    pairs: int
    rejected: int

    @property
    def outside(self) -> float:
        """Share of the wall time outside the network."""
        return max(0.0, 1 - (self.encode_s + self.match_s) / self.wall_s)

    @property
    def encode_each_s(self) -> float:
        """Seconds per image."""
        return self.encode_s / max(1, self.encodes)

    @property
    def match_each_s(self) -> float:
        """Seconds per pair of encoded images."""
        return self.match_s / max(1, self.pairs)


class Timed:
    """A matcher that measures the time of its stages, synchronising with the GPU after each."""

    def __init__(self, matcher: Matcher) -> None:
        self._matcher = matcher
        self.name, self.batch_size = matcher.name, matcher.batch_size
        self.device = getattr(matcher, "device", None)
        self.seconds = dict.fromkeys(("prepare", *STAGES), 0.0)
        self.calls = dict.fromkeys(("prepare", *STAGES), 0)

    @property
    def settings(self) -> dict[str, Any]:
        return self._matcher.settings

    def prepare(self, image: np.ndarray) -> PreparedImage:
        start = time.perf_counter()
        prepared = self._matcher.prepare(image)
        self._note("prepare", start, 1)
        return prepared

    def encode(self, images: Sequence[PreparedImage]) -> list[Features]:
        with self._on_device("encode", len(images)):
            return self._matcher.encode(images)

    def match(self, pairs: Sequence[tuple[Features, Features]], seeds: Sequence[int]) -> list[PairResult]:
        with self._on_device("match", len(pairs)):
            return self._matcher.match(pairs, seeds)

    @contextmanager
    def _on_device(self, stage: str, count: int) -> Iterator[None]:
        start = time.perf_counter()
        yield
        wait_for(self.device or CPU)
        self._note(stage, start, count)

    def _note(self, stage: str, start: float, count: int) -> None:
        self.seconds[stage] += time.perf_counter() - start
        self.calls[stage] += count


class StagedTimed(Timed):
    """The same for a matcher with two stages of matching, which count as one."""

    def __init__(self, matcher: StagedMatcher) -> None:
        super().__init__(matcher)
        self._staged = matcher
        self.coarse_batch_size = matcher.coarse_batch_size

    def start(self, pairs: Sequence[tuple[Features, Features]]) -> list[StartedPair | Rejected]:
        with self._on_device("match", len(pairs)):
            return self._staged.start(pairs)

    def finish(self, pairs: Sequence[StartedPair], seeds: Sequence[int]) -> list[PairResult]:
        with self._on_device("match", 0):
            return self._staged.finish(pairs, seeds)


@dataclass(frozen=True)
class Bench:
    """Images, matcher and options to measure."""

    images: ImageList
    matcher: Matcher
    options: MatchOptions

    def cached(self, pairs: PairList) -> Run:
        """The loop of `romacli match`, without a journal."""
        return self._timed([pairs], self.options)

    def uncached(self, pairs: PairList) -> Run:
        """Pairs one by one: both photographs are read and encoded for each pair."""
        return self._timed([PairList((pair,)) for pair in pairs.pairs], replace(self.options, batch_size=1))

    def _timed(self, lists: Iterable[PairList], options: MatchOptions) -> Run:
        matcher = self.matcher
        timed = StagedTimed(matcher) if isinstance(matcher, StagedMatcher) else Timed(matcher)
        results: list[tuple[float, int, int]] = []

        def note(batch: Sequence[tuple[Pair, PairResult]]) -> None:
            rejected = sum(isinstance(result, Rejected) for _, result in batch)
            results.append((time.perf_counter(), len(batch), rejected))

        start = time.perf_counter()
        for pairs in lists:
            match_images(self.images, pairs, timed, note, options)
        end = time.perf_counter()
        first_end, first_pairs, _ = results[0] if results else (start, 0, 0)
        pairs_done = sum(count for _, count, _ in results)
        return Run(
            wall_s=end - start,
            steady_s=end - first_end,
            steady_pairs=pairs_done - first_pairs,
            prepare_s=timed.seconds["prepare"],
            encode_s=timed.seconds["encode"],
            match_s=timed.seconds["match"],
            prepares=timed.calls["prepare"],
            encodes=timed.calls["encode"],
            pairs=pairs_done,
            rejected=sum(rejected for _, _, rejected in results),
        )


@dataclass(frozen=True)
class Compared:
    """A run with caching between two halves of pairs matched without it, so all run under the same load."""

    cached: Run
    uncached: tuple[Run, ...]
    images: int

    @property
    def uncached_each_s(self) -> float:
        """Seconds per pair without caching."""
        return sum(run.wall_s for run in self.uncached) / sum(run.pairs for run in self.uncached)

    @property
    def ratio(self) -> float:
        """Speed relative to matching without caching, extrapolated to all pairs."""
        return self.cached.pairs * self.uncached_each_s / self.cached.wall_s

    @property
    def bound(self) -> float:
        """The upper bound of the ratio by the run's stage times, if each image is encoded once without overhead."""
        run = self.cached
        alone = run.pairs * (2 * run.encode_each_s + run.match_each_s)
        return alone / (self.images * run.encode_each_s + run.pairs * run.match_each_s)


def bench(
    images: ImageList,
    pairs: PairList,
    matcher: Matcher,
    options: MatchOptions,
    *,
    repeats: int,
    compare: bool,
    say: Callable[[str], None],
    uncached_pairs: int | None = None,
) -> dict[str, Any]:
    """Medians over `repeats` runs, after a warm-up with one pair.

    uncached_pairs: number of pairs per run matched without caching, evenly spaced; by default all.

    Returns:
        A dictionary for JSON: `cached`, the `shares` of each stage in the wall time, with `compare` also `uncached`,
        `ratio` and `bound`, and `peak_gb`.
    """
    measured = Bench(images, matcher, options)
    used = len({name for pair in pairs.pairs for name in pair})
    measured.cached(PairList(pairs.pairs[:1]))
    sample = spread(pairs.pairs, uncached_pairs or len(pairs))
    cached, compared = [], []
    for index in range(repeats):
        say(f"run {index + 1} of {repeats}")
        before = measured.uncached(PairList(sample[::2])) if compare else None
        cached.append(measured.cached(pairs))
        if before is not None:
            halves = [before, measured.uncached(PairList(sample[1::2]))] if sample[1:] else [before]
            compared.append(Compared(cached[-1], tuple(halves), used))
    peak = peak_bytes(getattr(matcher, "device", CPU))
    result: dict[str, Any] = {
        "images": used,
        "pairs": len(pairs),
        "rejected": cached[-1].rejected,
        "repeats": repeats,
        "fewest_encodes": fewest_loads(used, len(pairs), used),
        "cached": _medians([(run,) for run in cached], used),
        "shares": _shares(cached),
        "dtype": matcher.settings.get("dtype", "float32"),
        "peak_gb": round(peak / 1e9, 3),
    }
    if compare:
        result["uncached"] = _medians([each.uncached for each in compared], used)
        result["uncached_pairs"] = len(sample)
        result["ratio"] = round(statistics.median(each.ratio for each in compared), 3)
        result["ratios"] = [round(each.ratio, 3) for each in compared]
        result["bound"] = round(statistics.median(each.bound for each in compared), 3)
        result["of_bound"] = round(statistics.median(each.ratio / each.bound for each in compared), 3)
    return result


def spread(pairs: Sequence[Item], count: int) -> tuple[Item, ...]:
    """At most `count` items of a list, evenly spaced."""
    count = min(count, len(pairs))
    return tuple(pairs[round((index + 0.5) * len(pairs) / count - 0.5)] for index in range(count))


def _medians(runs: Sequence[Sequence[Run]], used: int) -> dict[str, float]:
    """Medians over runs, each of which may consist of several parts."""

    def of(value: Callable[[Run], float], per: Callable[[Run], float] = lambda _: 0.0) -> float:
        sums = [(sum(map(value, pieces)), sum(map(per, pieces))) for pieces in runs]
        return round(statistics.median(top / bottom if bottom else top for top, bottom in sums), 4)

    wall, pairs = attrgetter("wall_s"), attrgetter("pairs")
    return {
        "seconds": of(wall),
        "pairs_per_s": of(pairs, wall),
        "steady_pairs_per_s": of(lambda run: run.steady_pairs, lambda run: run.steady_s),
        "encodes": of(lambda run: run.encodes),
        "encodes_per_pair": of(lambda run: run.encodes, pairs),
        "decodes_per_image": of(lambda run: run.prepares / used),
        "decode_and_resize_s": of(lambda run: run.prepare_s),
        "encode_s": of(lambda run: run.encode_s),
        "match_s": of(lambda run: run.match_s),
        "outside_model": of(lambda run: run.outside * run.wall_s, wall),
    }


def _shares(runs: Sequence[Run]) -> dict[str, float]:
    """Median shares of the wall time, by stage and outside the network; they need not add up to one."""
    values: dict[str, Callable[[Run], float]] = {
        "encode": lambda run: run.encode_s / run.wall_s,
        "match": lambda run: run.match_s / run.wall_s,
        "outside": lambda run: run.outside,
    }
    return {stage: round(statistics.median(map(value, runs)), 4) for stage, value in values.items()}
