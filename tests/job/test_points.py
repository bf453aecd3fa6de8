"""Jobs of a keypoint matcher, from photographs to hloc's files and COLMAP's database."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.commands import hloc_keypoints, hloc_matches, result_of, romacli
from support.plane import PlanePhotographs, photograph_plane

from romacli.images.decode import read_image

NAMES = ["0.png", "1.png", "2.png"]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> PlanePhotographs:
    """Photographs of a plane, one of which is stored rotated, with an EXIF orientation."""
    plane = photograph_plane(tmp_path_factory.mktemp("plane") / "photos", NAMES)
    upright = read_image(plane.root / "1.png")
    exif = Image.Exif()
    exif[0x112] = 6  # rotate clockwise by a quarter turn
    Image.fromarray(np.rot90(upright)).save(plane.root / "1.png", exif=exif)
    plane.plane_from_image["1.png"] = plane.plane_from_image["1.png"] @ [[0, -1, 320], [1, 0, 0], [0, 0, 1]]
    return plane


def errors(scene: PlanePhotographs, job: Path, name0: str, name1: str) -> np.ndarray:
    """The distance on the plane between the two ends of matches, in px."""
    indices, _ = hloc_matches(job / "matches.h5", name0, name1)
    ends = []
    for name, rows in ((name0, indices[:, 0]), (name1, indices[:, 1])):
        xy = hloc_keypoints(job / "features.h5", name)[rows] + 0.5
        ends.append((np.column_stack([xy, np.ones(len(xy))]) @ scene.plane_from_image[name].T)[:, :2])
    return np.linalg.norm(ends[0] - ends[1], axis=1)


def test_a_job_matches_and_is_imported(scene: PlanePhotographs, tmp_path: Path) -> None:
    job = tmp_path / "job"
    run = romacli("match", scene.root, "-o", job, "--model", "mini-sparse", "--no-refine", "--json")
    assert result_of(run)["matched"] == 3
    assert "match" in run.stderr
    assert "warp" not in run.stderr
    for pair in ((NAMES[0], NAMES[1]), (NAMES[1], NAMES[2]), (NAMES[0], NAMES[2])):
        found = errors(scene, job, *pair)
        assert len(found) > 100
        assert np.mean(found < 2) > 0.8
    assert result_of(romacli("colmap-import", scene.root, "-o", job, "--json"))["verified"] == 3
    assert "3 of them matched" in romacli("status", job).stdout
    again = romacli("match", scene.root, "-o", job, "--model", "mini-sparse", "--no-refine")
    assert "up to date" in again.stderr
    refused = romacli("match", scene.root, "-o", job, "--model", "mini-sparse", "--no-refine", "--top-k", "99")
    assert refused.returncode == 2
    assert "--top-k 2048" in refused.stderr
    refused = romacli("aggregate", job, "--method", "cells", "--replace-keypoints")
    assert refused.returncode == 2
    assert "dense matcher" in refused.stderr


def test_sift_keypoints_are_described_and_kept_and_masked(scene: PlanePhotographs, tmp_path: Path) -> None:
    job, masks = tmp_path / "job", tmp_path / "masks"
    masks.mkdir()
    mask = np.full((240, 320), 255, np.uint8)
    mask[:, :160] = 0
    Image.fromarray(mask).save(masks / "0.png.png")
    sparse = ("--model", "mini-sparse", "--no-refine")
    words = ("match", scene.root, "-o", job, *sparse, "--keypoints", "sift", "--mask-dir", masks)
    assert result_of(romacli(*words, "--json"))["matched"] == 3
    indices, _ = hloc_matches(job / "matches.h5", NAMES[0], NAMES[1])
    xy = hloc_keypoints(job / "features.h5", NAMES[0])
    assert len(indices) > 20
    assert len(indices) < len(xy)
    assert xy[:, 0].min() > 158
    assert np.mean(errors(scene, job, NAMES[0], NAMES[1]) < 2) > 0.8


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--try-rotations", "always"), "needs a dense matcher"),
        (("--try-scales", "always"), "needs a matcher with a coarse stage"),
        (("--rescue",), "start from points"),
    ],
)
def test_trying_pairs_again_needs_a_matcher_that_can(scene: PlanePhotographs, tmp_path: Path, words, reason) -> None:
    run = romacli("match", scene.root, "-o", tmp_path / "job", "--model", "mini-sparse", "--no-refine", *words)
    assert run.returncode == 2
    assert reason in run.stderr
