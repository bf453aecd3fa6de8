"""Near and distant photographs: found with a part enlarged, and recorded in the frames of the whole photographs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from support.near import SIZE, NearMatcher, photograph
from support.walls import warp as shifted

from romacli.geometry.warp import cell_centres, decode_targets
from romacli.matchers.matcher import CoarseMatcher
from romacli.run.match import MatchSummary, match_images
from romacli.run.options import MatchOptions, Try
from romacli.run.retries.retry import least_overlap
from romacli.store.journal import Journal, JournalWriter
from romacli.types import CompactWarp, ImageList, Pair, PairList, PairResult, Rejected


@pytest.fixture
def scene(tmp_path: Path):
    folder = tmp_path / "photos"
    folder.mkdir()
    truth = {
        "far.png": photograph(folder / "far.png", (200, 200), 320),
        "near.png": photograph(folder / "near.png", (230, 180), 100),
        "other.png": photograph(folder / "other.png", (200, 200), 300),
    }
    return folder, truth


def run(
    folder: Path, pairs: list[Pair], matcher: NearMatcher | None = None, **options
) -> tuple[dict[Pair, PairResult], MatchSummary]:
    results: dict[Pair, PairResult] = {}
    names = tuple(sorted({name for pair in pairs for name in pair}))
    matcher = matcher or NearMatcher()
    assert isinstance(matcher, CoarseMatcher)
    images = ImageList(folder, names)
    summary = match_images(images, PairList(tuple(pairs)), matcher, results.update, MatchOptions(**options))
    return results, summary


@pytest.mark.parametrize("pair", [("far.png", "near.png"), ("near.png", "far.png")])
def test_a_photograph_from_near_is_found_in_one_from_far(scene, pair):
    folder, truth = scene
    assert run(folder, [pair])[1].rejected == 1
    results, summary = run(folder, [pair], try_scales=Try.always)
    result = results[pair]
    assert isinstance(result, CompactWarp)
    assert (result.found_by, summary.matched, summary.found_by) == ("scale", 1, {"scale": 1})
    for target, weight, (source, other) in (
        (result.target_AB, result.weight_AB, pair),
        (result.target_BA, result.weight_BA, pair[::-1]),
    ):
        points = cell_centres(weight.shape, SIZE).astype(np.float64)
        matrix = np.linalg.inv(truth[other]) @ truth[source]
        expected = points @ matrix[:2, :2].T + matrix[:2, 2]
        used = weight > 0
        shown = ((expected > 0) & (expected < SIZE)).all(-1)
        assert used[shown].mean() > 0.7
        assert not used[~shown].any()
        assert np.abs(decode_targets(target, SIZE) - expected)[used].max() < 1
    assert result.overlap == pytest.approx(np.mean([(w > 0).mean() for w in (result.weight_AB, result.weight_BA)]))


def test_pairs_that_match_stay_as_they_are(scene):
    folder, _ = scene
    results, summary = run(folder, [("far.png", "other.png")], try_scales=Try.always)
    assert (summary.matched, summary.found_by, summary.encodes) == (1, {}, 2)
    assert results["far.png", "other.png"].found_by == ""


def test_a_retry_that_finds_far_more_need_not_find_twice_as_much():
    found = replace(shifted(("front/0", "front/1")), overlap=0.3)
    assert 0.3 < least_overlap(found) < 0.5
    assert least_overlap(replace(found, overlap=0.05)) == pytest.approx(0.1)
    assert least_overlap(Rejected(0.3)) == 0.0


class Patchy(NearMatcher):
    """Matches only the uppermost rows of photographs."""

    rows = 0

    def match(self, pairs, seeds):
        found = super().match(pairs, seeds)
        for warp in found:
            if isinstance(warp, CompactWarp):
                warp.weight_AB[self.rows :] = 0
        return found


def test_a_part_must_show_more_than_an_edge_of_the_other_photograph(scene):
    pair = ("near.png", "far.png")
    height = cast(CompactWarp, run(scene[0], [pair], try_scales=Try.always)[0][pair]).weight_AB.shape[0]
    for share, matched in ((0.5, 1), (0.1, 0)):
        matcher = Patchy()
        matcher.rows = int(share * height)
        assert run(scene[0], [pair], matcher, try_scales=Try.always)[1].matched == matched


def test_the_journal_keeps_what_helped_either_way_round(scene, tmp_path):
    pair = ("far.png", "near.png")
    results, _ = run(scene[0], [pair], try_scales=Try.always)
    plain = {("far.png", "other.png"): replace(results[pair], found_by="")}
    with JournalWriter(tmp_path / "journal", "f") as writer:
        writer.append(list((results | plain).items()))
    with Journal(tmp_path / "journal") as journal:
        for names in (pair, pair[::-1]):
            assert journal.found_by(names) == journal.read(names).found_by == "scale"
        assert journal.found_by(("far.png", "other.png")) == ""
