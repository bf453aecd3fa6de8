"""The two stages of matching: pairs without overlap end after the first; the others give the same result as alone."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from support.homography import same
from support.small_roma import small_matcher

from romacli.matchers.dense import TwoPassMatcher
from romacli.matchers.matcher import StagedMatcher, StartedPair, least_coarse_overlap
from romacli.matchers.options import MatcherOptions
from romacli.matchers.registry import load_matcher
from romacli.types import CompactWarp, Features, PairResult, Rejected

Pairs = list[tuple[Features, Features]]


def encoded_pairs(matcher: TwoPassMatcher, count: int = 4) -> Pairs:
    rng = np.random.default_rng(0)
    smooth = [np.kron(rng.integers(0, 255, (6, 9, 3), np.uint8), np.ones((10, 10, 1), np.uint8)) for _ in range(count)]
    features = [matcher.encode([matcher.prepare(image)])[0] for image in smooth]
    return list(combinations(features, 2))


def middle(overlaps: list[float]) -> float:
    """A threshold that some of the overlaps pass and others do not."""
    distinct = sorted(set(overlaps))
    assert len(distinct) > 1
    return (distinct[len(distinct) // 2 - 1] + distinct[len(distinct) // 2]) / 2


@pytest.fixture(scope="module")
def least() -> float:
    matcher = small_matcher()
    return middle(matcher.overlap(encoded_pairs(matcher)))


def test_matchers_of_two_passes_have_two_stages() -> None:
    assert isinstance(small_matcher(), StagedMatcher)
    assert isinstance(load_matcher("mini"), StagedMatcher)


def test_pairs_below_the_threshold_are_rejected_with_their_score_and_the_others_are_what_they_were(least) -> None:
    plain, strict = small_matcher(), small_matcher(min_coarse_overlap=least)
    pairs = encoded_pairs(plain)
    outcomes = Counter()
    for pair, overlap in zip(pairs, plain.overlap(pairs), strict=True):
        result = strict.match([pair], [0])[0]
        outcomes[type(result)] += 1
        assert same(result, Rejected(overlap) if overlap < least else plain.match([pair], [0])[0])
    assert set(outcomes) == {Rejected, CompactWarp}


def test_a_rejected_pair_runs_no_refiner_and_no_pair_the_decoder_twice(least) -> None:
    matcher = small_matcher(min_coarse_overlap=least)
    network, calls = matcher.network, Counter()
    network.decoder.register_forward_hook(lambda *_: calls.update(["decoder"]))
    for refiner in network.refiners.values():
        refiner.register_forward_hook(lambda *_: calls.update(["refiner"]))
    pairs = encoded_pairs(matcher)
    for pair, overlap in zip(pairs, matcher.overlap(pairs), strict=True):
        calls.clear()
        result = matcher.match([pair], [0])[0]
        assert calls["decoder"] == 1
        assert isinstance(result, Rejected) == (overlap < least) == (calls["refiner"] == 0)
        assert calls["refiner"] in (0, 9)


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("sizes", [(1, 1), (6, 2), (3, 3), (6, 1)])
def test_results_do_not_depend_on_batches_or_order(least, order: int, sizes: tuple[int, int]) -> None:
    matcher = small_matcher(min_coarse_overlap=least)
    pairs = encoded_pairs(matcher)
    alone = {index: matcher.match([pair], [0])[0] for index, pair in enumerate(pairs)}
    todo = list(enumerate(pairs))[::order]
    found: dict[int, PairResult] = {}
    for first in range(0, len(todo), sizes[0]):
        group = todo[first : first + sizes[0]]
        started = dict(zip([i for i, _ in group], matcher.start([pair for _, pair in group]), strict=True))
        found |= {index: each for index, each in started.items() if isinstance(each, Rejected)}
        going_on = [(index, each) for index, each in started.items() if isinstance(each, StartedPair)]
        for second in range(0, len(going_on), sizes[1]):
            part = going_on[second : second + sizes[1]]
            results = matcher.finish([each for _, each in part], [0] * len(part))
            found |= dict(zip([index for index, _ in part], results, strict=True))
    assert found.keys() == alone.keys()
    for index, result in alone.items():
        assert type(found[index]) is type(result)
        if isinstance(result, Rejected) or sizes == (1, 1):
            assert same(found[index], result)
        else:  # batches differ by rounding, which the forward-backward check can turn into a whole cell
            assert found[index].overlap == pytest.approx(result.overlap, abs=0.01)


def test_no_threshold_refines_every_pair() -> None:
    matcher = small_matcher()
    pairs = encoded_pairs(matcher)
    assert min(matcher.overlap(pairs)) < 0.05
    assert all(isinstance(each, StartedPair) for each in matcher.start(pairs))
    assert matcher.finish([], []) == []


def test_the_threshold_follows_what_was_asked_for() -> None:
    assert least_coarse_overlap(MatcherOptions(), 0.01) == 0.01
    assert least_coarse_overlap(MatcherOptions(min_overlap=0.005), 0.01) == 0.005
    assert least_coarse_overlap(MatcherOptions(min_overlap=0.005, min_coarse_overlap=0.2), 0.01) == 0.2
    assert least_coarse_overlap(MatcherOptions(min_overlap=0, min_coarse_overlap=0.2), 0.01) == 0
    assert least_coarse_overlap(MatcherOptions(min_coarse_overlap=0), 0.01) == 0


def test_the_threshold_is_a_setting_that_results_depend_on() -> None:
    assert load_matcher("mini").settings["min_coarse_overlap"] > 0
    assert load_matcher("mini", MatcherOptions(min_overlap=0)).settings["min_coarse_overlap"] == 0


def test_whether_photographs_are_looked_at_mirrored_too_is_a_setting_that_others_lack() -> None:
    assert load_matcher("mini").settings["mirrored"] is True
    assert small_matcher().settings["mirrored"] is None
