"""The matching loop: from photographs and pairs to checked warps in the journal."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar, cast

import numpy as np

from romacli.errors import BusyError, EstimationError, PartialError, RomacliError, UsageError, is_out_of_memory
from romacli.geometry.turns import turn_back, turn_correspondences_back
from romacli.images.decode import is_flat
from romacli.images.upright import read_upright
from romacli.matchers.matcher import (
    CoarseMatcher,
    KeypointMatcher,
    Matcher,
    PointStartMatcher,
    StagedMatcher,
    StartedPair,
    pair_seed,
)
from romacli.matchers.memory import cache_bytes, free_bytes, give_back
from romacli.progress import Progress, Silent
from romacli.run.options import WEAK_OVERLAP, MatchOptions
from romacli.run.retries.rescue import Rescue
from romacli.run.retries.retry import Retry
from romacli.run.retries.rotations import Rotations
from romacli.run.retries.scales import Scales
from romacli.run.retries.sparse import FileMatches, SiftMatches
from romacli.run.schedule import SMALLEST_CAPACITY, plan
from romacli.run.stream import Prefetched, RecordThread
from romacli.stop import StopRequest
from romacli.store.images import sha256_of
from romacli.types import (
    CompactWarp,
    Correspondences,
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
In = TypeVar("In")
Out = TypeVar("Out")
# A pair and the result of its first stage, None for a matcher without stages.
Begun = tuple[Pair, StartedPair | Rejected | None]


@dataclass
class MatchSummary:
    """The result of a run. `failed` counts pairs; `failures` has an error per photograph that caused them.

    turned: matched pairs that needed a rotation.
    found_by: number of matched pairs by the retry that found them, a key of `FOUND_BY`.
    given_up: pairs on which every process died.
    run: pairs that this run matched or rejected; run_in: the same by the number type of the matcher; encodes: its
        image encodes.
    flat: photographs of this run in a single colour.
    turned_images: photographs found to be stored rotated without an EXIF orientation.
    """

    images: int = 0
    pairs: int = 0
    matched: int = 0
    turned: int = 0
    found_by: Counter[str] = field(default_factory=Counter)
    rejected: int = 0
    failed: int = 0
    run: int = 0
    run_in: Counter[str] = field(default_factory=Counter)
    encodes: int = 0
    seconds: float = 0.0
    failures: dict[str, str] = field(default_factory=dict)
    given_up: tuple[Pair, ...] = ()
    flat: set[str] = field(default_factory=set)
    turned_images: tuple[str, ...] = ()

    @property
    def encodes_per_pair(self) -> float:
        """Encodes per pair of this run; two without any reuse."""
        return self.encodes / self.run if self.run else 0.0


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
    summary: MatchSummary | None = None,
) -> MatchSummary:
    """Match every pair of `todo` and pass the results to `append`, batch by batch.

    If memory runs out, batches are halved, then fewer features are cached and the rest is replanned.

    Args:
        summary: updated during the run, so that it is valid if this raises.

    Raises:
        PartialError: with `strict`, at the first unreadable photograph.
        UsageError: `cache_gb` cannot hold the features of a pair.
        BusyError: the device lacks memory for one pair.
        Stopped: by a signal; results so far are appended.
    """
    progress, stop = progress or Silent(), stop or StopRequest()
    start = time.monotonic()
    summary = summary if summary is not None else MatchSummary()
    summary.images, summary.pairs = len(images), len(todo)
    if not todo.pairs:
        return summary
    run = _Run(images, matcher, options, summary, progress)
    capacity = run.capacity(todo)
    progress.begin(title, len(todo))
    with RecordThread(append) as records:
        while left := run.left(todo):
            try:
                _run_schedule(run, plan(left, capacity), records, options, progress, stop)
                continue
            except _CacheTooLarge:
                pass  # the error's frames must release their memory before anything else fits
            capacity = run.shrink(capacity)
    summary.seconds = time.monotonic() - start
    return summary


def _run_schedule(
    run: _Run, schedule: Schedule, records: RecordThread, options: MatchOptions, progress: Progress, stop: StopRequest
) -> None:
    """Process a schedule, decoding ahead of it."""
    with Prefetched(
        run.to_decode(schedule), run.prepare, workers=options.num_workers, ahead=2 * options.num_workers
    ) as decoded:
        for batch in run.batches(schedule, decoded, stop):
            for results in run.match(batch):
                records.put(results)
                progress.advance(len(results))


class _CacheTooLarge(Exception):
    """The device ran out of memory with the smallest batch."""


@dataclass
class _BatchLimit:
    """The batch size of a stage, and the message if memory reduces it."""

    pairs: int
    words: str


class _Run:
    """The state of one run of the loop: the cache and the failures."""

    def __init__(
        self, images: ImageList, matcher: Matcher, options: MatchOptions, summary: MatchSummary, progress: Progress
    ) -> None:
        self._images = images
        self._matcher = matcher
        self._options = options
        self._summary = summary
        self._progress = progress
        self._cache: dict[str, Features] = {}
        self._first: dict[str, Features] = {}
        self._prepared: dict[str, PreparedImage] = {}  # encoded for the first pair whose other photograph is readable
        self._turns: dict[str, int] = {}  # rotation of a photograph from stored to upright
        self._retries: list[Retry] = []
        self._staged = matcher if isinstance(matcher, StagedMatcher) else None
        self._batch = _BatchLimit(options.batch_size or matcher.batch_size, "--batch-size is {}")
        self._group = self._batch
        if self._staged is not None:
            times = max(1, self._staged.coarse_batch_size // self._staged.batch_size)
            self._group = _BatchLimit(times * self._batch.pairs, "the coarse stage takes {} pairs at once")
        self._handled: set[Pair] = set()

    def capacity(self, todo: PairList) -> int:
        """The number of images whose features fit, measured on the first readable image."""
        names = dict.fromkeys(name for pair in todo.pairs for name in pair)
        for name in names:
            try:
                prepared = self.prepare(name)
            except RomacliError:
                continue
            try:
                features = self._encode(prepared)
            except _CacheTooLarge as error:
                raise _too_little_for_a_pair() from error
            self._first[name] = features
            return min(len(names), self._share_memory(features.nbytes))
        return len(names)

    def _share_memory(self, feature_bytes: int) -> int:
        """The number of cached images; each kind of retry takes an equal share of memory."""
        fit = images_that_fit(self._matcher, self._options, feature_bytes)
        room = fit * feature_bytes
        if self._options.turns_every_pair:
            self._retries.append(Rotations(self._matcher, self._read, capacity_bytes=room))
        if self._options.scales_every_pair and isinstance(self._matcher, CoarseMatcher):
            self._retries.append(Scales(self._matcher, self._read, capacity_bytes=room))
        if getattr(self._matcher, "starts_from_points", False):
            matcher = cast(PointStartMatcher, self._matcher)
            if self._options.rescue_from:
                given = FileMatches(self._options.rescue_from, self._turns)
                self._retries.append(Rescue(matcher, given, WEAK_OVERLAP["rescue_from"]))
            if self._options.rescues_every_pair:
                sift = SiftMatches(self._read, capacity_bytes=room)
                self._retries.append(Rescue(matcher, sift, WEAK_OVERLAP["rescue"]))
        return fit

    def left(self, todo: PairList) -> list[Pair]:
        """The pairs that have neither succeeded nor failed."""
        return [pair for pair in todo.pairs if pair not in self._handled]

    def shrink(self, capacity: int) -> int:
        """Empty the cache and reduce its size by a quarter.

        Raises:
            BusyError: less would not hold a pair.
        """
        held = min(capacity, len(self._cache))
        self._cache, self._first, self._prepared = {}, {}, {}
        for retry in self._retries:
            retry.clear()
        give_back(self._matcher)
        if held <= SMALLEST_CAPACITY:
            raise _too_little_for_a_pair()
        fewer = max(SMALLEST_CAPACITY, held * 3 // 4)
        self._progress.warn(
            f"the device ran out of memory with {held} images cached; continuing with {fewer}. Set a smaller "
            "--cache-gb to start with less."
        )
        return fewer

    def to_decode(self, schedule: Schedule) -> list[str]:
        """The names to decode, in order, without the one already encoded."""
        order = [name for step in schedule.steps for name in step.encode]
        for name in self._first:
            order.remove(name)
        return order

    def prepare(self, name: str) -> PreparedImage:
        image = self._read(name)
        if isinstance(self._matcher, KeypointMatcher):
            return self._matcher.prepare_named(name, image, self._turns[name])
        return self._matcher.prepare(image)

    def _read(self, name: str) -> np.ndarray:
        path = self._images.root / name
        image, self._turns[name] = read_upright(path)
        with suppress(OSError):
            sha256_of(path)  # remembered, while the file is in memory
        if is_flat(image):
            self._summary.flat.add(name)
        return image

    def batches(
        self, schedule: Schedule, decoded: Prefetched[PreparedImage], stop: StopRequest
    ) -> Iterator[list[Pair]]:
        """First-stage batches of pairs whose features are in the cache, in the schedule's order."""
        waiting: list[Pair] = []
        for step in schedule.steps:
            if waiting and not {name for pair in waiting for name in pair}.isdisjoint(step.release):
                yield waiting
                waiting = []
            for name in step.release:
                self._cache.pop(name, None)
                self._prepared.pop(name, None)
            for name in step.encode:
                stop.check()
                self._load(name, decoded)
            for pair in step.pairs:
                if self._can_run(pair):
                    waiting.append(pair)
                if len(waiting) >= self._group.pairs:
                    stop.check()
                    yield waiting
                    waiting = []
        if waiting:
            yield waiting

    def match(self, group: Sequence[Pair]) -> Iterator[list[tuple[Pair, PairResult]]]:
        """The results of a group, batch by batch."""
        begun: list[Begun] = [(pair, None) for pair in group]
        if self._staged is not None:
            begun = [each for part in self._in_parts(self._start, group, self._group) for each in part]
            # Pairs that continue come first, so that their batches are full.
            begun.sort(key=lambda each: isinstance(each[1], Rejected))
        for results in self._in_parts(self._finish, begun, self._batch):
            self._handled.update(pair for pair, _ in results)
            yield results

    def _in_parts(
        self, work: Callable[[Sequence[In]], list[Out]], jobs: Sequence[In], at_once: _BatchLimit
    ) -> Iterator[list[Out]]:
        """Process jobs in batches, and in smaller ones if memory runs out."""
        start = 0
        while start < len(jobs):
            part = jobs[start : start + at_once.pairs]
            try:
                done = work(part)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                if len(part) == 1:
                    raise _CacheTooLarge from error
                at_once.pairs = len(part) // 2
                self._progress.warn(f"the device ran out of memory; {at_once.words.format(at_once.pairs)} from now on")
                continue
            start += len(part)
            yield done

    def _start(self, pairs: Sequence[Pair]) -> list[Begun]:
        """The first stage of a two-stage matcher."""
        assert self._staged is not None
        return list(zip(pairs, self._staged.start(self._features(pairs)), strict=True))

    def _finish(self, begun: Sequence[Begun]) -> list[tuple[Pair, PairResult]]:
        """The remaining stages of pairs."""
        batch = [pair for pair, _ in begun]
        seeds = [pair_seed(a, b, seed=self._options.seed) for a, b in batch]
        found = self._results(begun, seeds)
        if self._retries:
            found = [self._tried_again(*job) for job in zip(batch, seeds, found, strict=True)]
        results = [self._as_stored(pair, result) for pair, result in zip(batch, found, strict=True)]
        warps = [result for result in results if isinstance(result, CompactWarp)]
        self._summary.turned += sum(warp.quarter_turns > 0 for warp in warps)
        self._summary.found_by.update(warp.found_by for warp in warps if warp.found_by)
        rejected = sum(isinstance(result, Rejected) for result in results)
        self._summary.rejected += rejected
        self._summary.matched += len(results) - rejected
        self._summary.run += len(results)
        if dtype := self._matcher.settings.get("dtype"):
            self._summary.run_in[dtype] += len(results)
        return list(zip(batch, results, strict=True))

    def _results(self, begun: Sequence[Begun], seeds: Sequence[int]) -> list[PairResult]:
        if self._staged is None:
            return self._matcher.match(self._features([pair for pair, _ in begun]), seeds)
        going_on = [(each, seed) for (_, each), seed in zip(begun, seeds, strict=True) if isinstance(each, StartedPair)]
        finished = self._staged.finish([each for each, _ in going_on], [seed for _, seed in going_on])
        return finished + [each for _, each in begun if isinstance(each, Rejected)]

    def _features(self, pairs: Sequence[Pair]) -> list[tuple[Features, Features]]:
        return [(self._cache[a], self._cache[b]) for a, b in pairs]

    def _tried_again(self, pair: Pair, seed: int, result: PairResult) -> PairResult:
        """The result of a pair, or a better one from a retry if it is rejected or weak."""
        for retry in self._retries:
            before = retry.encodes
            result = retry.improve(result, pair, (self._cache[pair[0]], self._cache[pair[1]]), seed)
            self._summary.encodes += retry.encodes - before
        return result

    def _as_stored(self, pair: Pair, result: PairResult) -> PairResult:
        """A result in the frames of the photographs as stored."""
        turns_A, turns_B = (self._turns[name] for name in pair)
        if isinstance(result, CompactWarp):
            return turn_back(result, turns_A, turns_B + result.quarter_turns)
        if isinstance(result, Correspondences):
            return turn_correspondences_back(
                result, self._cache[pair[0]].size, turns_A, self._cache[pair[1]].size, turns_B
            )
        return result

    def _load(self, name: str, decoded: Prefetched[PreparedImage]) -> None:
        if name in self._first:
            self._cache[name] = self._first.pop(name)
            return
        prepared = decoded.take(name)
        if isinstance(prepared, RomacliError):
            self._fail(name, prepared)
        else:
            self._prepared[name] = prepared

    def _encode(self, prepared: PreparedImage) -> Features:
        try:
            features = self._matcher.encode([prepared])[0]
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise _CacheTooLarge from error
        self._summary.encodes += 1
        return features

    def _fail(self, name: str, error: RomacliError) -> None:
        if self._options.strict:
            raise PartialError(f"stopped by --strict: {error}") from error
        if name not in self._summary.failures:
            self._summary.failures[name] = str(error)
            self._progress.warn(str(error))

    def _can_run(self, pair: Pair) -> bool:
        """Whether the features of both photographs are in the cache; encodes them if both are readable."""
        is_readable = all(name in self._cache or name in self._prepared for name in pair)
        if is_readable and all([self._is_encoded(name) for name in pair]):
            return True
        self._handled.add(pair)
        self._summary.failed += 1
        self._progress.advance()
        return False

    def _is_encoded(self, name: str) -> bool:
        if name in self._prepared:
            try:
                self._cache[name] = self._encode(self._prepared.pop(name))
            except EstimationError as error:
                self._fail(name, EstimationError(f"{name} cannot be described: {error}"))
        return name in self._cache


def images_that_fit(matcher: Matcher, options: MatchOptions, feature_bytes: int) -> int:
    """The number of images whose features fit into the cache, at least two.

    Raises:
        UsageError: the requested cache does not hold two.
    """
    # Each of these retries keeps features of photographs.
    parts = 1 + sum((options.turns_every_pair, options.scales_every_pair, options.rescues_every_pair))
    if options.cache_gb is None:
        free = free_bytes(matcher) // options.processes
        room = cache_bytes(free, feature_bytes, options.batch_size or matcher.batch_size)
        return max(SMALLEST_CAPACITY, room // parts // feature_bytes)
    fit = round(options.cache_gb * 1e9) // parts // feature_bytes
    if fit < SMALLEST_CAPACITY:
        least = SMALLEST_CAPACITY * parts * feature_bytes / 1e9
        raise UsageError(
            f"--cache-gb {options.cache_gb:.3g} is too small: the features of a pair need {least:.3g}. Give at least "
            "that, or leave it out."
        )
    return fit


def _too_little_for_a_pair() -> BusyError:
    return BusyError(
        "the device does not have enough memory for one pair. Use a smaller --coarse-resolution or "
        "--upsample-resolution, or free memory; finished pairs are kept."
    )
