"""How fast a matcher works through a folder: our loop as it is, and beside it one that reuses nothing."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from romacli.matching.matcher import Matcher
from romacli.pipeline.match import MatchOptions, match_images
from romacli.pipeline.schedule import fewest_loads
from romacli.types import Features, ImageList, PairList, PairResult, PreparedImage


@dataclass(frozen=True)
class Run:
    """One pass over the pairs. Seconds are of the wall clock; `steady_s` leaves out all up to the first result."""

    wall_s: float
    steady_s: float
    steady_pairs: int
    prepare_s: float
    encode_s: float
    match_s: float
    prepares: int
    encodes: int
    pairs: int

    @property
    def outside(self) -> float:
        """Share of the wall time in which no network ran."""
        return max(0.0, 1 - (self.encode_s + self.match_s) / self.wall_s)


class Timed:
    """A matcher that notes what its stages take; work on a GPU is waited for at the end of each."""

    def __init__(self, matcher: Matcher) -> None:
        self._matcher = matcher
        self.name, self.batch_size = matcher.name, matcher.batch_size
        self.device = getattr(matcher, "device", None)
        self.seconds = dict.fromkeys(("prepare", "encode", "match"), 0.0)
        self.calls = dict.fromkeys(("prepare", "encode", "match"), 0)

    @property
    def settings(self) -> dict[str, Any]:
        return self._matcher.settings

    def prepare(self, image: np.ndarray) -> PreparedImage:
        start = time.perf_counter()
        prepared = self._matcher.prepare(image)
        return self._noted("prepare", start, 1, prepared)

    def encode(self, images: Sequence[PreparedImage]) -> list[Features]:
        start = time.perf_counter()
        return self._noted("encode", start, len(images), self._matcher.encode(images))

    def match(self, pairs: Sequence[tuple[Features, Features]], seeds: Sequence[int]) -> list[PairResult]:
        start = time.perf_counter()
        return self._noted("match", start, len(pairs), self._matcher.match(pairs, seeds))

    def _noted(self, stage: str, start: float, count: int, value: Any) -> Any:
        if stage != "prepare" and self.device is not None and self.device.type == "cuda":
            import torch

            torch.cuda.synchronize(self.device)
        self.seconds[stage] += time.perf_counter() - start
        self.calls[stage] += count
        return value


def run_cached(images: ImageList, pairs: PairList, matcher: Matcher, options: MatchOptions) -> Run:
    """The loop of `romacli match`, without a journal."""

    def work(timed: Timed, note: Callable[[int], None]) -> None:
        match_images(images, pairs, timed, lambda batch: note(len(batch)), options)

    return _timed(matcher, work)


def run_uncached(images: ImageList, pairs: PairList, matcher: Matcher, options: MatchOptions) -> Run:
    """The same pairs one by one: both photographs are read and encoded for each."""
    alone = replace(options, batch_size=1)

    def work(timed: Timed, note: Callable[[int], None]) -> None:
        for pair in pairs.pairs:
            match_images(images, PairList((pair,)), timed, lambda batch: note(len(batch)), alone)

    return _timed(matcher, work)


def _timed(matcher: Matcher, work: Callable[[Timed, Callable[[int], None]], None]) -> Run:
    timed = Timed(matcher)
    results: list[tuple[float, int]] = []
    start = time.perf_counter()
    work(timed, lambda count: results.append((time.perf_counter(), count)))
    end = time.perf_counter()
    pairs = sum(count for _, count in results)
    first = results[0] if results else (start, 0)
    return Run(
        wall_s=end - start,
        steady_s=end - first[0],
        steady_pairs=pairs - first[1],
        prepare_s=timed.seconds["prepare"],
        encode_s=timed.seconds["encode"],
        match_s=timed.seconds["match"],
        prepares=timed.calls["prepare"],
        encodes=timed.calls["encode"],
        pairs=pairs,
    )


def bench(
    images: ImageList,
    pairs: PairList,
    matcher: Matcher,
    options: MatchOptions,
    *,
    repeats: int,
    compare: bool,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Medians over `repeats` runs, after one pair to warm up; compared runs take turns and meet the same load.

    Returns:
        A dictionary for JSON: `cached`, with `compare` also `uncached` and their `ratio`, and what the machine does.
    """
    run_cached(images, PairList(pairs.pairs[:1]), matcher, options)
    cached, uncached = [], []
    for index in range(repeats):
        say(f"run {index + 1} of {repeats}")
        cached.append(run_cached(images, pairs, matcher, options))
        if compare:
            uncached.append(run_uncached(images, pairs, matcher, options))
    used = len({name for pair in pairs.pairs for name in pair})
    result: dict[str, Any] = {
        "images": used,
        "pairs": len(pairs),
        "repeats": repeats,
        "fewest_encodes": fewest_loads(used, len(pairs), used),
        "cached": _median(cached, used),
        "matrix_gflops": round(matrix_rate(matcher) / 1e9, 1),
        "copy_gb_s": round(copy_rate(matcher) / 1e9, 2),
        "peak_gb": round(peak_bytes(matcher) / 1e9, 3),
    }
    if compare:
        ratios = [other.wall_s / own.wall_s for own, other in zip(cached, uncached, strict=True)]
        result["uncached"] = _median(uncached, used)
        result["ratio"] = round(statistics.median(ratios), 3)
        result["ratios"] = [round(ratio, 3) for ratio in ratios]
    return result


def _median(runs: Sequence[Run], used: int) -> dict[str, float]:
    def of(value: Callable[[Run], float]) -> float:
        return round(statistics.median(value(run) for run in runs), 4)

    return {
        "seconds": of(lambda run: run.wall_s),
        "pairs_per_s": of(lambda run: run.pairs / run.wall_s),
        "steady_pairs_per_s": of(lambda run: run.steady_pairs / run.steady_s if run.steady_s else 0.0),
        "encodes": of(lambda run: run.encodes),
        "encodes_per_pair": of(lambda run: run.encodes / max(1, run.pairs)),
        "decodes_per_image": of(lambda run: run.prepares / used),
        "decode_and_resize_s": of(lambda run: run.prepare_s),
        "encode_s": of(lambda run: run.encode_s),
        "match_s": of(lambda run: run.match_s),
        "outside_model": of(lambda run: run.outside),
    }


def matrix_rate(matcher: Matcher, side: int = 1024) -> float:
    """Floating-point operations a second in a product of square float32 matrices on the matcher's device."""
    import torch

    device = getattr(matcher, "device", None) or torch.device("cpu")
    matrix = torch.full((side, side), 0.5, device=device)
    return 2 * side**3 / _fastest(lambda: matrix @ matrix, device)


def copy_rate(matcher: Matcher, num_bytes: int = 1 << 27) -> float:
    """Bytes a second read and written by a copy in the device's memory."""
    import torch

    device = getattr(matcher, "device", None) or torch.device("cpu")
    source = torch.zeros(num_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * num_bytes / _fastest(lambda: target.copy_(source), device)


def _fastest(work: Callable[[], object], device: Any) -> float:
    """The least of five times, after one to warm up."""
    import torch

    seconds = []
    for _ in range(6):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])


def peak_bytes(matcher: Matcher) -> int:
    """The most memory this process has had: on its GPU, where it has one."""
    device = getattr(matcher, "device", None)
    if device is not None and device.type == "cuda":
        import torch

        return int(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
