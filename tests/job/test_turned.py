"""Photographs stored rotated without EXIF orientation are detected where they hardly match, and matched rotated."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from support.homography import HomographyMatcher, image_digest
from support.plane import photograph_plane
from typer.testing import CliRunner, Result

from romacli.cli.app import app
from romacli.geometry.turns import turn_image
from romacli.images.decode import read_image
from romacli.job.trials.turned import starved
from romacli.matchers import registry
from romacli.types import CompactWarp, Features, MatcherSpec, Rejected

NAMES = [f"{number}.png" for number in range(6)]
TURNED = "2.png"
JOB = ("photos", "-o", "job", "--model", "plane", "--no-refine", "--try-scales", "never")
Run = Callable[..., Result]


class Upright(HomographyMatcher):
    """Knows a plane, but like a network finds nothing if one photograph is rotated against the other."""

    coarse = 0

    def __init__(self, known: dict[str, np.ndarray]) -> None:
        super().__init__(known, nodes=20)
        self.known = known

    def match(self, pairs: list[tuple[Features, Features]], seeds: list[int]) -> list[CompactWarp | Rejected]:
        found = super().match(pairs, seeds)
        return [result if _agree(a, b) else Rejected(0.0) for result, (a, b) in zip(found, pairs, strict=True)]

    def encode_coarse(self, images: list) -> list[Features]:
        self.coarse += len(images)
        return self.encode(images)

    def describe(self, images: list) -> np.ndarray:
        raise NotImplementedError

    def overlap(self, pairs: list[tuple[Features, Features]]) -> list[float]:
        return [0.6 if _agree(a, b) else 0.01 for a, b in pairs]


def _agree(a: Features, b: Features) -> bool:
    rows = [features.tensors["plane_from_image"][0, :2, 0].numpy() for features in (a, b)]
    return bool(rows[0] @ rows[1] > 0.9)


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Upright:
    """Six photographs, one of them stored on its side."""
    monkeypatch.chdir(tmp_path)
    plane = photograph_plane(Path("photos"), NAMES)
    known = dict(plane.by_digest)
    image, matrix = read_image(Path("photos") / TURNED), plane.plane_from_image[TURNED]
    for _ in range(4):
        known[image_digest(image)] = matrix
        back = np.array([[0, 1, 0], [-1, 0, image.shape[0]], [0, 0, 1.0]])
        matrix, image = matrix @ back, turn_image(image, 1)
    for name in NAMES:  # the images that trials of other photographs use
        image, matrix = read_image(Path("photos") / name), plane.plane_from_image[name]
        for _ in range(4):
            known.setdefault(image_digest(image), matrix)
            back = np.array([[0, 1, 0], [-1, 0, image.shape[0]], [0, 0, 1.0]])
            matrix, image = matrix @ back, turn_image(image, 1)
    matcher = Upright(known)
    monkeypatch.setitem(registry.MATCHERS, "plane", MatcherSpec("plane", lambda *_: matcher, "", ""))
    return matcher


def lay_on_its_side() -> None:
    path = Path("photos") / TURNED
    cv2.imwrite(str(path), cv2.cvtColor(turn_image(read_image(path), 3), cv2.COLOR_RGB2BGR))


def add_another_place(made: Upright) -> None:
    cv2.imwrite("photos/other.png", np.random.default_rng(1).integers(0, 255, (90, 120, 3), np.uint8))
    far = np.array([[1, 0, 1e5], [0, 1, 1e5], [0, 0, 1.0]])
    image = read_image(Path("photos/other.png"))
    for turns in range(4):
        made.known[image_digest(turn_image(image, turns))] = far


def run(*words: object) -> dict:
    result = CliRunner().invoke(app, ["match", *JOB, "--json", *map(str, words)])
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_a_photograph_on_its_side_is_found_matched_and_named(made: Upright) -> None:
    lay_on_its_side()
    told = run()
    assert (told["matched"], told["turned"], told["rejected"]) == (15, 5, 0)
    assert told["turned_images"] == [TURNED]
    tried = made.coarse
    assert 0 < tried <= 4 + 3
    assert run()["turned_images"] == [TURNED]
    assert made.coarse == tried


def test_a_merged_job_knows_what_its_part_found(made: Upright) -> None:
    lay_on_its_side()
    run()
    tried = made.coarse
    assert CliRunner().invoke(app, ["merge", "merged", "job", "--no-refine"]).exit_code == 0
    assert run("-o", "merged")["turned_images"] == [TURNED]
    assert made.coarse == tried


def test_a_photograph_that_gains_nothing_is_tried_once(made: Upright) -> None:
    lay_on_its_side()
    add_another_place(made)
    assert run()["turned_images"] == [TURNED]
    tried = made.coarse
    assert run()["turned_images"] == [TURNED]
    assert made.coarse == tried


def test_a_killed_trial_goes_on_where_it_ended(made: Upright, monkeypatch: pytest.MonkeyPatch) -> None:
    lay_on_its_side()
    matched, match = 0, Upright.match

    def killed(self: Upright, pairs: list, seeds: list) -> list:
        nonlocal matched
        matched += len(pairs)
        if matched > 15 + 2 * 4:  # of the job, and of two pairs tried
            raise RuntimeError("killed")
        return match(self, pairs, seeds)

    monkeypatch.setattr(Upright, "match", killed)
    with pytest.raises(RuntimeError, match="killed"):
        CliRunner().invoke(app, ["match", *JOB], catch_exceptions=False)
    monkeypatch.setattr(Upright, "match", match)
    told = run()
    assert (told["matched"], told["turned"], told["turned_images"]) == (15, 5, [TURNED])


def test_photographs_stored_mirrored_are_named(made: Upright) -> None:
    for name, orientation in (("0.png", 6), ("1.png", 2), ("3.png", 7)):
        exif = Image.Exif()
        exif[0x112] = orientation
        Image.fromarray(read_image(Path("photos") / name)).save(Path("photos") / name, exif=exif)
    result = CliRunner().invoke(app, ["match", *JOB])
    assert result.exit_code == 0, result.stderr
    warnings = [line for line in result.stderr.splitlines() if "mirrored" in line]
    assert len(warnings) == 1
    assert "2 photographs are stored mirrored, by the EXIF orientation: 1.png, 3.png." in warnings[0]


def test_what_was_turned_is_told_until_the_photograph_is_replaced(made: Upright) -> None:
    upright = (Path("photos") / TURNED).read_bytes()
    lay_on_its_side()
    run()
    add_another_place(made)
    assert run()["turned_images"] == [TURNED]
    (Path("photos") / TURNED).write_bytes(upright)
    told = run("--changed", "rematch")
    assert (told["turned"], told["turned_images"]) == (0, [])


def test_never_leaves_it_and_always_needs_no_trial(made: Upright) -> None:
    lay_on_its_side()
    assert run("--try-rotations", "never")["rejected"] == 5
    assert run("--overwrite", "--try-rotations")["turned"] == 5
    assert made.coarse == 0


def test_where_all_match_nothing_is_tried(made: Upright) -> None:
    assert run()["turned"] == 0
    assert made.coarse == 0


def test_starved_images_come_with_partners_that_match_others() -> None:
    pairs = [("a", "b"), ("a", "c"), ("b", "c"), ("a", "d"), ("b", "d")]
    found = starved(pairs, {("a", "b"): 0.5, ("a", "c"): 0.3, ("b", "c"): 0.2})
    assert list(found) == ["d"]
    assert found["d"] == ["a", "b"]


def again(*words: object) -> tuple[dict, int]:
    """What a run with rotations reports, and how many pairs it says it retries."""
    words = ("match", *JOB, "--json", "--try-rotations", "always", *words)
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.stderr
    found = re.search(r"(\d+) pairs? that hardly match", result.stderr)
    return json.loads(result.stdout), int(found[1]) if found else 0


def test_a_way_asked_for_later_tries_what_hardly_matched_and_nothing_else(made: Upright) -> None:
    lay_on_its_side()
    assert run("--try-rotations", "never")["rejected"] == 5
    told, tried = again()
    assert (told["matched"], told["turned"], told["rejected"], tried) == (15, 5, 0, 5)
    told, tried = again()
    assert (told["encodes"], tried) == (0, 0)
    words = ["match", *JOB, "--try-rotations", "never"]
    refused = CliRunner().invoke(app, words)
    assert refused.exit_code != 0
    assert "--try-rotations" in refused.stderr


def test_what_no_other_try_mends_is_tried_once(made: Upright) -> None:
    add_another_place(made)
    assert run("--try-rotations", "never")["rejected"] == 6
    told, tried = again()
    assert (told["rejected"], tried) == (6, 6)
    told, tried = again()
    assert (told["encodes"], tried) == (0, 0)


def test_tries_asked_for_later_go_on_where_they_were_ended(made: Upright) -> None:
    lay_on_its_side()
    run("--try-rotations", "never")
    names = Path("pairs.txt")
    names.write_text("".join(f"{name} {TURNED}\n" for name in NAMES[:2]))
    told, tried = again("--pairs", names)
    assert (told["turned"], tried) == (2, 2)
    told, tried = again()
    assert (told["turned"], told["matched"], tried) == (5, 15, 3)
