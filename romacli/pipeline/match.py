"""The loop that everything serves: photographs and pairs in, checked warps in the journal out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from romacli.errors import BusyError, PartialError, RomacliError
from romacli.images.decode import read_image
from romacli.matching.cache import FeatureCache
from romacli.matching.matcher import Matcher, pair_seed
from romacli.pipeline.progress import Progress, Silent
from romacli.pipeline.schedule import plan
from romacli.pipeline.stop import StopRequest
from romacli.pipeline.stream import Prefetched, RecordThread
from romacli.types import Features, ImageList, Pair, PairList, PairResult, PreparedImage, Rejected, Schedule

Append = Callable[[Sequence[tuple[Pair, PairResult]]], None]


@dataclass(frozen=True)
class MatchOptions:
    """How the loop runs; nothing here changes what a pair's result is, up to rounding in batches.

    batch_size: pairs matched at once; None leaves it to the matcher.
    num_workers: threads that decode and resize.
    cache_bytes: room for features. Below the whole job's need, images are encoded more than once.
    seed: of every random choice, together with the two names.
    strict: stop at the first photograph that cannot be read.
    """

    batch_size: int | None = None
    num_workers: int = 2
    cache_bytes: int = 4 << 30
    seed: int = 0
    strict: bool = False


@dataclass
class MatchSummary:
    """What was done. `failed` counts pairs; `failures` has a sentence for each photograph to blame.

    given_up: pairs that ended every process that tried them.
    """

    images: int = 0
    pairs: int = 0
    matched: int = 0
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
    progress.begin("matching", len(todo))
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

    def capacity(self, todo: PairList) -> int:
        """How many images' features fit, learnt by encoding the first that can be read."""
        names = dict.fromkeys(name for pair in todo.pairs for name in pair)
        for name in names:
            try:
                prepared = self.prepare(name)
            except RomacliError:
                continue
            self._first[name] = self._encode(prepared)
            return max(2, min(len(names), self._options.cache_bytes // self._first[name].nbytes))
        return len(names)

    def to_decode(self, schedule: Schedule) -> list[str]:
        """The names to decode, in order, without the one that is encoded already."""
        order = [name for step in schedule.steps for name in step.encode]
        for name in self._first:
            order.remove(name)
        return order

    def prepare(self, name: str) -> PreparedImage:
        return self._matcher.prepare(read_image(self._images.root / name))

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
            results = self._matcher.match(features, seeds)
        rejected = sum(isinstance(result, Rejected) for result in results)
        self._summary.rejected += rejected
        self._summary.matched += len(results) - rejected
        return list(zip(batch, results, strict=True))

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
