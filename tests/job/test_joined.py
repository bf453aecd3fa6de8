"""Groups of photographs that no pair joins are joined by pairs that start from SIFT's matches."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from support.blobs import save
from support.homography import HomographyMatcher, image_digest
from typer.testing import CliRunner

from romacli.cli.app import app
from romacli.images.decode import read_image
from romacli.job.trials.groups import between_groups
from romacli.matchers import registry
from romacli.types import CompactWarp, Features, MatcherSpec, Rejected

JOB = ("match", "photos", "-o", "job", "--model", "near", "--no-refine", "--try-rotations", "never", "--json")
SHIFTS = {"0.png": (0, 0), "1.png": (40, 20), "2.png": (170, 60)}
FAR = 100  # px between photographs that the matcher alone does not bridge


class Near(HomographyMatcher):
    """Matches photographs of a plane from nearby, and any if it is given points to start from."""

    starts_from_points = True
    started = 0

    def match(self, pairs: Sequence[tuple[Features, Features]], seeds: Sequence[int]) -> list[CompactWarp | Rejected]:
        found = super().match(list(pairs), list(seeds))
        return [result if _near(*pair) else Rejected(0.02) for result, pair in zip(found, pairs, strict=True)]

    def match_from(self, pairs, points):
        self.started += len(pairs)
        return super().match(list(pairs), [0] * len(pairs))


def _near(a: Features, b: Features) -> bool:
    places = [features.tensors["plane_from_image"][0, :2, 2].numpy() for features in (a, b)]
    return bool(np.linalg.norm(places[0] - places[1]) < FAR)


@pytest.fixture
def matcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Near:
    """Two photographs from nearby, one from farther away, and one of another place."""
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    known = {}
    for name, (x, y) in {**SHIFTS, "other.png": (1000, 1000)}.items():
        save(Path("photos"), name, int(name == "other.png"), (x % 500, y % 400) if name in SHIFTS else (0, 0))
        known[image_digest(read_image(Path("photos") / name))] = np.array([[1.0, 0, x], [0, 1.0, y], [0, 0, 1]])
    made = Near(known)
    monkeypatch.setitem(registry.MATCHERS, "near", MatcherSpec("near", lambda *_: made, "", ""))
    return made


def run(*words: object) -> dict:
    result = CliRunner().invoke(app, [*JOB, *map(str, words)])
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_groups_are_joined_once(matcher: Near) -> None:
    told = run()
    assert (told["matched"], told["rejected"], told["found_by"]) == (3, 3, {"rescue": 2})
    assert matcher.started == 2
    told = run()
    assert (told["matched"], told["encodes"], matcher.started) == (3, 0, 2)


def test_it_is_left_out_on_demand(matcher: Near) -> None:
    told = run("--rescue", "never")
    assert (told["matched"], told["found_by"], matcher.started) == (1, {}, 0)


def test_a_job_that_ended_before_its_trials_gets_them_later(matcher: Near) -> None:
    assert CliRunner().invoke(app, [*JOB, "--shard", "0/1"]).exit_code == 0
    assert matcher.started == 0
    assert run()["found_by"] == {"rescue": 2}


@pytest.mark.parametrize(("words", "started"), [((), 0), (("--shard", "0/1"), 1)], ids=["jobs", "a shard and a job"])
def test_a_merged_job_repeats_no_trial_that_all_its_parts_finished(
    matcher: Near, words: Sequence[str], started: int
) -> None:
    Path("one.txt").write_text("0.png 1.png\n0.png 2.png\n")
    Path("two.txt").write_text("0.png 1.png\n0.png other.png\n1.png other.png\n")
    assert CliRunner().invoke(app, [*JOB, "-o", "one", "--pairs", "one.txt", *words]).exit_code == 0
    run("-o", "two", "--pairs", "two.txt")
    assert CliRunner().invoke(app, ["merge", "merged", "one", "two", "--no-refine"]).exit_code == 0
    before = matcher.started
    told = run("-o", "merged", "--pairs", "merged/pairs.txt")
    assert (told["found_by"], matcher.started - before) == ({"rescue": 1}, started)


def test_where_one_group_holds_all_nothing_is_tried(matcher: Near) -> None:
    for name in ("2.png", "other.png"):
        (Path("photos") / name).unlink()
    assert run()["matched"] == 1
    assert matcher.started == 0


def test_each_image_gets_its_likeliest_pair_before_others_get_more() -> None:
    overlaps = {
        ("a", "b"): 0.5,
        ("a", "c"): 0.05,
        ("b", "c"): 0.04,
        ("a", "d"): 0.02,
        ("b", "d"): 0.03,
        ("c", "d"): 0.0,
    }
    assert between_groups(overlaps) == [("a", "c"), ("b", "c"), ("b", "d"), ("a", "d"), ("c", "d")]
    assert between_groups({("a", "b"): 0.5, ("b", "c"): 0.1, ("a", "c"): 0.0}) == []
    assert between_groups({}) == []
