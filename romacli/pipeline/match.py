"""The loop that everything serves: photographs and pairs in, checked warps in the journal out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import numpy as np

from romacli.errors import BusyError, PartialError, RomacliError
from romacli.geometry.turns import turn_back
from romacli.images.upright import read_upright
from romacli.matching.cache import FeatureCache
from romacli.matching.matcher import Matcher, pair_seed
from romacli.pipeline.progress import Progress, Silent
from romacli.pipeline.rotations import Rotations
from romacli.pipeline.schedule import plan
from romacli.pipeline.stop import StopRequest
from romacli.pipeline.stream import Prefetched, RecordThread
from romacli.types import (
    CompactWarp,
    Features,
    ImageList,
    Pair,
    PairList,
    PairResult,
    PreparedImage,
    Rejected,
    Schedule,
)

Append = Callable[[Sequence[tuple[Pair, PairResult]]], None]


@dataclass(frozen=True)
class MatchOptions:
    """How the loop runs; seed and try_rotations alone change what a pair's result is, up to rounding in batches.

    batch_size: pairs matched at once; None leaves it to the matcher.
    num_workers: threads that decode and resize.
    cache_bytes: room for features. Below the whole job's need, images are encoded more than once.
    seed: of every random choice, together with the two names.
    strict: stop at the first photograph that cannot be read.
    try_rotations: try a rejected or weak pair again with its second photograph turned by 90, 180 and 270 degrees.
    """

    batch_size: int | None = None
    num_workers: int = 2
    cache_bytes: int = 4 << 30
    seed: int = 0
    strict: bool = False
    try_rotations: bool = False


@dataclass
class MatchSummary:
    """What was done. `failed` counts pairs; `failures` has a sentence for each photograph to blame.

    turned: of the matched pairs, those that match when a photograph is turned. given_up: pairs that ended every
        process that tried them.
    """

    images: int = 0
    pairs: int = 0
    matched: int = 0
    turned: int = 0
    rejected: int = 0
    failed: int = 0
    encodes: int = 0
    seconds: float = 0.0
    failures: dict[str, str] = field(default_factory=dict)
    given_up: tuple[Pair, ...] = ()


def match_images(
    images: ImageList,
    todo: PairList,
    matcher: Matcher,
    append: Append,
    options: MatchOptions,
    *,
    progress: Progress | None = None,
    stop: StopRequest | None = None,
    title: str = "matching",
) -> MatchSummary:
    """Match every pair of `todo` and hand the results to `append`, batch by batch.

    Raises:
        PartialError: with `strict`, at the first photograph that cannot be read.
        Stopped: a signal asked for it; results so far are appended.
    """
    progress, stop = progress or Silent(), stop or StopRequest()
    start = time.monotonic()
    summary = MatchSummary(images=len(images), pairs=len(todo))
    if not todo.pairs:
        return summary
    run = _Run(images, matcher, options, summary, progress)
    schedule = plan(todo.pairs, run.capacity(todo))
    progress.begin(title, len(todo))
    with ExitStack() as stack:
        records = stack.enter_context(RecordThread(append))
        decoded = stack.enter_context(
            Prefetched(run.to_decode(schedule), run.prepare, workers=options.num_workers, ahead=2 * options.num_workers)
        )
        for batch in run.batches(schedule, decoded, stop):
            records.put(run.match(batch))
            progress.advance(len(batch))
    summary.seconds = time.monotonic() - start
    return summary


class _Run:
    """The state of one run of the loop: the cache, and what has failed."""

    def __init__(
        self, images: ImageList, matcher: Matcher, options: MatchOptions, summary: MatchSummary, progress: Progress
    ) -> None:
        self._images = images
        self._matcher = matcher
        self._options = options
        self._summary = summary
        self._progress = progress
        self._cache = FeatureCache()
        self._first: dict[str, Features] = {}
        self._turns: dict[str, int] = {}  # of a photograph, from how it is stored to upright
        self._rotations: Rotations | None = None
        self._capacity_bytes = options.cache_bytes
        if options.try_rotations:
            self._capacity_bytes //= 2
            self._rotations = Rotations(matcher, self._read, capacity_bytes=self._capacity_bytes)

    def capacity(self, todo: PairList) -> int:
        """How many images' features fit, learnt by encoding the first that can be read."""
        names = dict.fromkeys(name for pair in todo.pairs for name in pair)
        for name in names:
            try:
                prepared = self.prepare(name)
            except RomacliError:
                continue
            self._first[name] = self._encode(prepared)
            return max(2, min(len(names), self._capacity_bytes // self._first[name].nbytes))
        return len(names)

    def to_decode(self, schedule: Schedule) -> list[str]:
        """The names to decode, in order, without the one that is encoded already."""
        order = [name for step in schedule.steps for name in step.encode]
        for name in self._first:
            order.remove(name)
        return order

    def prepare(self, name: str) -> PreparedImage:
        return self._matcher.prepare(self._read(name))

    def _read(self, name: str) -> np.ndarray:
        image, self._turns[name] = read_upright(self._images.root / name)
        return image

    def batches(
        self, schedule: Schedule, decoded: Prefetched[PreparedImage], stop: StopRequest
    ) -> Iterator[list[Pair]]:
        """Groups of pairs whose features are in the cache, in the schedule's order."""
        waiting: list[Pair] = []
        for step in schedule.steps:
            if waiting and not {name for pair in waiting for name in pair}.isdisjoint(step.release):
                yield waiting
                waiting = []
            for name in step.release:
                self._cache.release(name)
            for name in step.encode:
                stop.check()
                self._load(name, decoded)
            for pair in step.pairs:
                if self._can_run(pair):
                    waiting.append(pair)
                if len(waiting) == (self._options.batch_size or self._matcher.batch_size):
                    stop.check()
                    yield waiting
                    waiting = []
        if waiting:
            yield waiting

    def match(self, batch: Sequence[Pair]) -> list[tuple[Pair, PairResult]]:
        features = [(self._cache[a], self._cache[b]) for a, b in batch]
        seeds = [pair_seed(a, b, seed=self._options.seed) for a, b in batch]
        with _memory_errors("--batch-size"):
            found = self._matcher.match(features, seeds)
            if self._rotations is not None:
                found = [self._turned(*job) for job in zip(batch, seeds, found, strict=True)]
        results = [self._as_stored(pair, result) for pair, result in zip(batch, found, strict=True)]
        self._summary.turned += sum(isinstance(result, CompactWarp) and result.quarter_turns > 0 for result in results)
        rejected = sum(isinstance(result, Rejected) for result in results)
        self._summary.rejected += rejected
        self._summary.matched += len(results) - rejected
        return list(zip(batch, results, strict=True))

    def _turned(self, pair: Pair, seed: int, result: PairResult) -> PairResult:
        """The result of a pair, or where it is rejected or weak that of a turned photograph."""
        assert self._rotations is not None
        before = self._rotations.encodes
        result = self._rotations.improve(result, self._cache[pair[0]], pair[1], seed)
        self._summary.encodes += self._rotations.encodes - before
        return result

    def _as_stored(self, pair: Pair, result: PairResult) -> PairResult:
        """A result in the frames of the photographs as they are stored."""
        if not isinstance(result, CompactWarp):
            return result
        return turn_back(result, self._turns[pair[0]], self._turns[pair[1]] + result.quarter_turns)

    def _load(self, name: str, decoded: Prefetched[PreparedImage]) -> None:
        if name in self._first:
            self._cache.put(name, self._first.pop(name))
            return
        prepared = decoded.take(name)
        if isinstance(prepared, RomacliError):
            self._fail(name, prepared)
        else:
            self._cache.put(name, self._encode(prepared))

    def _encode(self, prepared: PreparedImage) -> Features:
        with _memory_errors("--coarse-resolution"):
            features = self._matcher.encode([prepared])[0]
        self._summary.encodes += 1
        return features

    def _fail(self, name: str, error: RomacliError) -> None:
        if self._options.strict:
            raise PartialError(f"stopped by --strict: {error}") from error
        if name not in self._summary.failures:
            self._summary.failures[name] = str(error)
            self._progress.warn(str(error))

    def _can_run(self, pair: Pair) -> bool:
        if all(name in self._cache for name in pair):
            return True
        self._summary.failed += 1
        self._progress.advance()
        return False


@contextmanager
def _memory_errors(option: str) -> Iterator[None]:
    """Turn a device that runs out of memory into a sentence with the remedy."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "out of memory" not in str(error) and "can't allocate" not in str(error):
            raise
        raise BusyError(f"the device ran out of memory. Use a smaller {option}; finished pairs are kept.") from error
