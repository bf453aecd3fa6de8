"""Near and distant photographs: found with a part enlarged, and recorded in the frames of the whole photographs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from support.homography import HomographyMatcher

from romacli.geometry.warp import cell_centres, decode_targets
from romacli.matchers.matcher import CoarseMatcher
from romacli.run.match import MatchSummary, match_images
from romacli.run.options import MatchOptions
from romacli.store.journal import Journal, JournalWriter
from romacli.types import CompactWarp, Features, ImageList, Pair, PairList, PairResult, PreparedImage, Rejected

SIZE = (240, 160)
PLANE = 400.0  # side length, in units of 1/255 grey level
FARTHEST = 2.2  # ratio of scales that the matcher bridges


class NearMatcher(HomographyMatcher):
    """Reads from colours where in the plane a photograph was taken, and finds nothing if scales differ too much."""

    coarse_batch_size = 1

    def __init__(self) -> None:
        super().__init__({})

    def prepare(self, image: np.ndarray) -> PreparedImage:
        height, width = image.shape[:2]
        centres = cell_centres((height, width), (width, height)).reshape(-1, 2)
        affine = np.linalg.lstsq(
            np.column_stack((centres, np.ones(len(centres)))), image[..., :2].reshape(-1, 2) * PLANE / 255, rcond=None
        )[0].T
        matrix = torch.from_numpy(np.vstack((affine, [0, 0, 1])))
        return PreparedImage({"plane_from_image": matrix[None]}, (width, height))

    def match(self, pairs: Sequence[tuple[Features, Features]], seeds: Sequence[int]) -> list[CompactWarp | Rejected]:
        return [result if self._near(*pair) else Rejected(0.01) for pair, result in self._found(pairs, seeds)]

    def overlap(self, pairs: Sequence[tuple[Features, Features]]) -> list[float]:
        return [
            result.overlap if self._near(*pair) else 0.05 * (result.overlap > 0)
            for pair, result in self._found(pairs, [0] * len(pairs))
        ]

    def encode_coarse(self, images: Sequence[PreparedImage]) -> list[Features]:
        return [Features(image.tensors, image.size) for image in images]

    def describe(self, features: Sequence[Features]) -> np.ndarray:
        return np.ones((len(features), 1), np.float32)

    def _found(self, pairs: Sequence[tuple[Features, Features]], seeds: Sequence[int]):
        return zip(pairs, super().match(list(pairs), list(seeds)), strict=True)

    def _near(self, a: Features, b: Features) -> bool:
        """Whether their contents have about the same size when each is stretched to a square."""
        extents = [float(f.tensors["plane_from_image"][0, 0, 0]) * f.size[0] for f in (a, b)]
        return max(extents) / min(extents) < FARTHEST


def photograph(path: Path, centre: tuple[float, float], across: float) -> np.ndarray:
    """An image whose colours encode positions in the plane; returns plane_from_image."""
    per_px = across / SIZE[0]
    matrix = np.array([[per_px, 0, centre[0] - across / 2], [0, per_px, centre[1] - per_px * SIZE[1] / 2], [0, 0, 1]])
    plane = cell_centres(SIZE[::-1], SIZE) * per_px + matrix[:2, 2]
    levels = np.clip(np.rint(np.dstack((plane, plane[..., :1])) * 255 / PLANE), 0, 255).astype(np.uint8)
    cv2.imwrite(str(path), levels[..., ::-1])
    return matrix


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


def run(folder: Path, pairs: list[Pair], **options) -> tuple[dict[Pair, PairResult], MatchSummary]:
    results: dict[Pair, PairResult] = {}
    names = tuple(sorted({name for pair in pairs for name in pair}))
    matcher = NearMatcher()
    assert isinstance(matcher, CoarseMatcher)
    images = ImageList(folder, names)
    summary = match_images(images, PairList(tuple(pairs)), matcher, results.update, MatchOptions(**options))
    return results, summary


@pytest.mark.parametrize("pair", [("far.png", "near.png"), ("near.png", "far.png")])
def test_a_photograph_from_near_is_found_in_one_from_far(scene, pair):
    folder, truth = scene
    assert run(folder, [pair])[1].rejected == 1
    results, summary = run(folder, [pair], try_scales=True)
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
    results, summary = run(folder, [("far.png", "other.png")], try_scales=True)
    assert (summary.matched, summary.found_by, summary.encodes) == (1, {}, 2)
    assert results["far.png", "other.png"].found_by == ""


def test_the_journal_keeps_what_helped_either_way_round(scene, tmp_path):
    pair = ("far.png", "near.png")
    results, _ = run(scene[0], [pair], try_scales=True)
    plain = {("far.png", "other.png"): replace(results[pair], found_by="")}
    with JournalWriter(tmp_path / "journal", "f") as writer:
        writer.append(list((results | plain).items()))
    with Journal.open(tmp_path / "journal") as journal:
        for names in (pair, pair[::-1]):
            assert journal.found_by(names) == journal.read(names).found_by == "scale"
        assert journal.found_by(("far.png", "other.png")) == ""
