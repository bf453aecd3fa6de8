"""Groups of photographs that no pair joins are joined where one was taken from much farther away."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from support.near import NearMatcher, photograph
from typer.testing import CliRunner

from romacli.cli.app import app
from romacli.matchers import registry
from romacli.types import MatcherSpec

JOB = ("match", "photos", "-o", "job", "--model", "near", "--no-refine", "--try-rotations", "never", "--json")
# Two from afar and two from near: centre and width in the plane.
VIEWS = {
    "far-1": ((200, 200), 320),
    "far-2": ((190, 200), 300),
    "near-1": ((230, 180), 100),
    "near-2": ((240, 190), 100),
}


@pytest.fixture(autouse=True)
def photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for name, view in VIEWS.items():
        photograph(Path("photos") / f"{name}.png", *view)
    monkeypatch.setitem(registry.MATCHERS, "near", MatcherSpec("near", lambda *_: NearMatcher(), "", ""))


def run(*words: str) -> dict:
    result = CliRunner().invoke(app, [*JOB, *words])
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_far_and_near_photographs_are_joined_once() -> None:
    told = run()
    assert (told["matched"], told["found_by"]) == (6, {"scale": 4})
    told = run()
    assert (told["matched"], told["encodes"]) == (6, 0)


def test_photographs_that_were_replaced_are_tried_again() -> None:
    run()
    for name in ("far-1", "far-2"):
        os.utime(Path("photos") / f"{name}.png", (1, 1))
    told = run("--changed", "rematch")
    assert (told["matched"], told["found_by"]) == (6, {"scale": 4})


def test_a_killed_trial_goes_on_with_the_same_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    match = NearMatcher.match
    matched = 0

    def killed(self: NearMatcher, pairs: list, seeds: list) -> list:
        nonlocal matched
        matched += len(pairs)
        if matched > 6 + 3:  # of the job, and of trials
            raise RuntimeError("killed")
        return match(self, pairs, seeds)

    monkeypatch.setattr(NearMatcher, "match", killed)
    with pytest.raises(RuntimeError, match="killed"):
        CliRunner().invoke(app, JOB, catch_exceptions=False)
    monkeypatch.setattr(NearMatcher, "match", match)
    told = run()
    assert (told["matched"], told["found_by"]) == (6, {"scale": 4})


def test_pairs_that_gain_nothing_are_refused_at_the_coarse_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("near-1", "near-2"):
        (Path("photos") / f"{name}.png").unlink()
    photograph(Path("photos/elsewhere.png"), (380, 380), 40)
    match, matched, coarse = NearMatcher.match, [], []
    monkeypatch.setattr(NearMatcher, "match", lambda self, *batch: [matched.extend(batch[0]), match(self, *batch)][1])
    encode = NearMatcher.encode_coarse
    monkeypatch.setattr(
        NearMatcher, "encode_coarse", lambda self, images: [coarse.extend(images), encode(self, images)][1]
    )
    assert run()["matched"] == 1
    assert (len(matched), len(coarse)) == (3, 3)  # every pair once in full, and its photographs once as wholes


def test_it_is_left_out_on_demand() -> None:
    told = run("--try-scales", "never")
    assert (told["matched"], told["found_by"]) == (2, {})


def test_where_one_group_holds_all_nothing_is_tried() -> None:
    for name in ("near-1", "near-2"):
        (Path("photos") / f"{name}.png").unlink()
    told = run()
    assert (told["matched"], told["encodes"]) == (1, 2)
