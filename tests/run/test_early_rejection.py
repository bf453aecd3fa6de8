"""A two-stage matcher in the loop: pairs without overlap end early, and the others are fitted into memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from support.homography import HomographyMatcher, same
from support.plane import PlanePhotographs, photograph_plane
from support.told import Told

from romacli.eval.throughput import Bench
from romacli.matchers.matcher import StagedMatcher, StartedPair
from romacli.pairs.exhaustive import exhaustive
from romacli.run.match import MatchSummary, match_images
from romacli.run.options import MatchOptions
from romacli.types import CompactWarp, Features, ImageList, Pair, PairList, PairResult, Rejected

NAMES = [f"{i}.png" for i in range(6)]
PAIRS = exhaustive(NAMES)
SMALL_CACHE = 3 * 9 * 8


class StagedPlane(HomographyMatcher):
    """Knows a plane, and rejects pairs whose overlap is below `least` at the first stage; simulates limited memory.

    most_started, most_finished: number of pairs that each stage has memory for.
    """

    batch_size, coarse_batch_size = 2, 8

    def __init__(
        self, photographs: PlanePhotographs, least: float, *, most_started: int = 99, most_finished: int = 99
    ) -> None:
        super().__init__(photographs.by_digest)
        self.least, self.most = least, (most_started, most_finished)
        self.started: list[int] = []
        self.finished: list[int] = []

    def start(self, pairs: Sequence[tuple[Features, Features]]) -> list[StartedPair | Rejected]:
        if len(pairs) > self.most[0]:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
        self.started.append(len(pairs))
        found = super().match(pairs, [0] * len(pairs))
        return [
            StartedPair(pair, None) if each.overlap >= self.least else Rejected(each.overlap)
            for pair, each in zip(pairs, found, strict=True)
        ]

    def finish(self, pairs: Sequence[StartedPair], seeds: Sequence[int]) -> list[PairResult]:
        if len(pairs) > self.most[1]:
            raise MemoryError
        self.finished.append(len(pairs))
        return super().match([pair.features for pair in pairs], seeds)

    def match(self, pairs: Sequence[tuple[Features, Features]], seeds: Sequence[int]) -> list[PairResult]:
        raise AssertionError("the stages of a matcher that has them are run one by one")


@pytest.fixture
def photographs(tmp_path: Path) -> PlanePhotographs:
    return photograph_plane(tmp_path, NAMES)


@pytest.fixture
def truth(photographs: PlanePhotographs) -> dict[Pair, PairResult]:
    """The result of every pair when nothing is rejected."""
    return run(photographs, photographs.matcher)[0]


@pytest.fixture
def least(truth: dict[Pair, PairResult]) -> float:
    """A threshold between the overlaps of the pairs."""
    overlaps = sorted(result.overlap for result in truth.values())
    assert overlaps[0] < overlaps[-1]
    return float(np.mean(overlaps))


def run(
    photographs: PlanePhotographs, matcher: HomographyMatcher, pairs: PairList = PAIRS, **options: int
) -> tuple[dict[Pair, PairResult], MatchSummary, list[str]]:
    order: list[tuple[Pair, PairResult]] = []
    told, images = Told(), ImageList(photographs.root, photographs.names)
    summary = match_images(images, pairs, matcher, order.extend, MatchOptions(**options), progress=told)
    assert len(order) == len(dict(order))
    return dict(order), summary, told.warnings


def require_expected(found: dict[Pair, PairResult], truth: dict[Pair, PairResult], least: float) -> None:
    assert found.keys() == truth.keys()
    for pair, result in truth.items():
        assert same(found[pair], result if result.overlap >= least else Rejected(result.overlap))


@pytest.mark.parametrize(
    "options", [{}, {"batch_size": 1}, {"batch_size": 5}, {"cache_gb": SMALL_CACHE / 1e9, "batch_size": 3}]
)
@pytest.mark.parametrize("order", [1, -1])
def test_every_pair_is_recorded_once_whatever_the_batches_the_room_and_the_order(
    photographs, truth, least, options, order
) -> None:
    matcher = StagedPlane(photographs, least)
    found, summary, _ = run(photographs, matcher, PairList(PAIRS.pairs[::order]), **options)
    require_expected(found, truth, least)
    rejected = sum(isinstance(result, Rejected) for result in found.values())
    assert 0 < rejected < len(PAIRS)
    assert (summary.rejected, summary.matched, summary.run) == (rejected, len(PAIRS) - rejected, len(PAIRS))
    assert sum(matcher.started) == len(PAIRS)
    assert sum(matcher.finished) == len(PAIRS) - rejected


def test_the_first_stage_takes_more_pairs_at_once(photographs, truth, least) -> None:
    matcher = StagedPlane(photographs, least)
    run(photographs, matcher)
    assert isinstance(matcher, StagedMatcher)
    assert max(matcher.started) == 8
    assert max(matcher.finished) == 2
    larger = StagedPlane(photographs, 0.0)
    run(photographs, larger, batch_size=3)
    assert (larger.started, max(larger.finished)) == ([12, 3], 3)


def test_without_a_threshold_every_pair_is_refined(photographs, truth) -> None:
    matcher = StagedPlane(photographs, 0.0)
    found, summary, _ = run(photographs, matcher)
    require_expected(found, truth, 0.0)
    assert sum(matcher.finished) == len(PAIRS)
    assert summary.rejected == 0


def test_a_second_stage_short_of_memory_halves_and_loses_nothing(photographs, truth, least) -> None:
    matcher = StagedPlane(photographs, least, most_finished=1)
    found, _, warnings = run(photographs, matcher, batch_size=4)
    require_expected(found, truth, least)
    assert sum(matcher.started) == len(PAIRS)  # no pair starts twice
    assert set(matcher.finished) <= {0, 1}
    assert warnings[-1] == "the device ran out of memory; --batch-size is 1 from now on"


def test_a_first_stage_short_of_memory_halves_alone(photographs, truth, least) -> None:
    matcher = StagedPlane(photographs, least, most_started=3)
    found, _, warnings = run(photographs, matcher)
    require_expected(found, truth, least)
    assert max(matcher.finished) == 2
    assert warnings == [
        f"the device ran out of memory; the coarse stage takes {count} pairs at once from now on" for count in (4, 2)
    ]


def test_the_benchmark_runs_the_stages_and_counts_both(photographs, truth, least) -> None:
    matcher = StagedPlane(photographs, least)
    bench = Bench(ImageList(photographs.root, photographs.names), matcher, MatchOptions())
    timed = bench.cached(PAIRS)
    assert sum(matcher.started) == timed.pairs == len(PAIRS)
    assert sum(matcher.finished) == sum(
        isinstance(each, CompactWarp) and each.overlap >= least for each in truth.values()
    )
    assert timed.rejected == len(PAIRS) - sum(matcher.finished)
    assert timed.match_s > 0
