"""Photographs stored on their side: matched upright, and recorded in the frame they are stored in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.homography import HomographyMatcher, image_digest
from support.plane import photograph_plane

from romacli.geometry.turns import turn_image
from romacli.geometry.warp import cell_centres, decode_targets
from romacli.images.decode import read_image
from romacli.run.match import MatchSummary, match_images
from romacli.run.options import MatchOptions, Try
from romacli.store.journal import Journal, JournalWriter
from romacli.types import CompactWarp, Features, ImageList, Pair, PairList, PairResult, Rejected

NAMES = ["0.png", "1.png", "2.png"]
PAIRS = PairList((("0.png", "1.png"), ("1.png", "2.png"), ("0.png", "2.png")))


class UprightMatcher(HomographyMatcher):
    """Knows a plane, but like a network finds nothing if one photograph is rotated against the other."""

    def match(self, pairs: list[tuple[Features, Features]], seeds: list[int]) -> list[CompactWarp | Rejected]:
        found = super().match(pairs, seeds)
        return [
            result if _right_way(a) @ _right_way(b) > 0.9 else Rejected(0.0)
            for result, (a, b) in zip(found, pairs, strict=True)
        ]


def _right_way(features: Features) -> np.ndarray:
    """The direction of an image's rows in the plane, as a unit vector."""
    return features.tensors["plane_from_image"][0, :2, 0].numpy()


@pytest.fixture
def scene(tmp_path: Path):
    """Photographs of a plane, the second of which is stored on its side; the truth is in stored frames."""
    plane = photograph_plane(tmp_path / "photos", NAMES)
    truth, known = dict(plane.plane_from_image), {}
    stored = turn_image(read_image(tmp_path / "photos" / "1.png"), 3)
    truth["1.png"] = truth["1.png"] @ [[0, -1, stored.shape[0]], [1, 0, 0], [0, 0, 1]]  # from stored to upright
    for name in NAMES:
        image, matrix = stored if name == "1.png" else read_image(tmp_path / "photos" / name), truth[name]
        for _ in range(4):
            known[image_digest(image)] = matrix
            back = np.array([[0, 1, 0], [-1, 0, image.shape[0]], [0, 0, 1.0]])  # from rotated clockwise to the original
            matrix, image = matrix @ back, turn_image(image, 1)
    return tmp_path / "photos", stored, truth, UprightMatcher(known)


def run(root: Path, matcher: HomographyMatcher, **options) -> tuple[dict[Pair, PairResult], MatchSummary]:
    results: dict[Pair, PairResult] = {}
    images = ImageList(root, tuple(NAMES))
    summary = match_images(images, PAIRS, matcher, results.update, MatchOptions(**options))
    return results, summary


def require_true(result: PairResult, pair: Pair, truth: dict[str, np.ndarray]) -> None:
    assert isinstance(result, CompactWarp)
    for target, weight, (source, other), sizes in (
        (result.target_AB, result.weight_AB, pair, (result.size_A, result.size_B)),
        (result.target_BA, result.weight_BA, pair[::-1], (result.size_B, result.size_A)),
    ):
        points = cell_centres(weight.shape, sizes[0]).astype(np.float64)
        matrix = np.linalg.inv(truth[other]) @ truth[source]
        expected = points @ matrix[:2, :2].T + matrix[:2, 2]
        used = weight > 0
        assert used.mean() > 0.4
        assert np.abs(decode_targets(target, sizes[1]) - expected)[used].max() < 0.05


def save(root: Path, stored: np.ndarray, orientation: int | None) -> None:
    exif = Image.Exif()
    if orientation is not None:
        exif[0x112] = orientation
    Image.fromarray(stored).save(root / "1.png", exif=exif)


def test_what_exif_says_is_enough(scene):
    root, stored, truth, matcher = scene
    save(root, stored, 6)
    results, summary = run(root, matcher)
    assert (summary.matched, summary.turned, summary.encodes) == (3, 0, 3)
    for pair, result in results.items():
        require_true(result, pair, truth)


def test_without_a_word_in_exif_it_is_rejected(scene):
    root, stored, _, matcher = scene
    save(root, stored, None)
    assert run(root, matcher)[1].rejected == 2


@pytest.mark.parametrize("orientation", [None, 3, 8])
def test_turned_photographs_are_tried_and_recorded_as_stored(scene, orientation):
    root, stored, truth, matcher = scene
    save(root, stored, orientation)
    results, summary = run(root, matcher, try_rotations=Try.always)
    assert (summary.matched, summary.turned, summary.rejected) == (3, 2, 0)
    for pair, result in results.items():
        require_true(result, pair, truth)
    lying = {None: 1, 3: 3, 8: 2}[orientation]  # the rotation that remains after applying EXIF's
    assert [results[pair].quarter_turns for pair in PAIRS.pairs] == [lying, -lying % 4, 0]


def test_results_do_not_depend_on_batches_or_room(scene):
    root, stored, _, matcher = scene
    save(root, stored, None)
    plain, _ = run(root, matcher, try_rotations=Try.always)
    cramped, _ = run(root, matcher, try_rotations=Try.always, batch_size=3, cache_gb=300e-9)
    for pair, result in plain.items():
        assert all(np.array_equal(value, getattr(cramped[pair], name)) for name, value in vars(result).items())


def test_the_journal_keeps_the_turn_either_way_round(scene, tmp_path):
    root, stored, _, matcher = scene
    save(root, stored, None)
    results, _ = run(root, matcher, try_rotations=Try.always)
    with JournalWriter(tmp_path / "journal", "f") as writer:
        writer.append(list(results.items()))
    with Journal(tmp_path / "journal") as journal:
        for (a, b), result in results.items():
            assert journal.quarter_turns((a, b)) == journal.read((a, b)).quarter_turns == result.quarter_turns
            assert journal.quarter_turns((b, a)) == journal.read((b, a)).quarter_turns == -result.quarter_turns % 4


def test_pairs_that_match_are_not_tried_again(scene):
    root, stored, _, matcher = scene
    save(root, stored, 6)
    _, summary = run(root, matcher, try_rotations=Try.always)
    assert (summary.matched, summary.turned, summary.encodes) == (3, 0, 3)


class CoarseMatcher(UprightMatcher):
    """Returns only the overlap of a pair."""

    def match(self, pairs: list[tuple[Features, Features]], seeds: list[int]) -> list[CompactWarp | Rejected]:
        return [Rejected(result.overlap) for result in super().match(pairs, seeds)]


def test_a_coarse_stage_gives_the_overlap_of_the_best_quarter(scene):
    root, stored, _, matcher = scene
    save(root, stored, None)
    coarse = CoarseMatcher(matcher._plane_from_image)
    scores, _ = run(root, coarse, try_rotations=Try.always)
    fine, _ = run(root, matcher, try_rotations=Try.always)
    assert {pair: result.overlap for pair, result in scores.items()} == {
        pair: pytest.approx(result.overlap) for pair, result in fine.items()
    }
    assert all(isinstance(result, Rejected) for result in scores.values())
