"""Masks through the command line: on rendered photographs, and on a street with pedestrians."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.commands import REPOSITORY, hloc_keypoints, result_of, romacli
from support.plane import photograph_plane

LENIENT = ("--min-overlap", 0, "--min-certainty", 0, "--coarse-resolution", 96, "--no-upsample", "--no-refine")
BERLIN = REPOSITORY.parent / "shared" / "data" / "berlin"
QUICK = ["--coarse-resolution", "192", "--upsample-resolution", "384", "--no-refine"]


def share_in_black(job: Path, masks: Path, name: str) -> float:
    """How many of an image's keypoints are on black pixels of its mask."""
    keypoints = hloc_keypoints(job / "features.h5", name)
    assert len(keypoints) > 100
    black = cv2.imread(str(masks / f"{name}.png"), cv2.IMREAD_GRAYSCALE) == 0
    x, y = np.floor(keypoints + 0.5).astype(int).T
    return float(black[y, x].mean())


@pytest.mark.skipif(not BERLIN.is_dir(), reason=f"{BERLIN} is not here")
def test_no_keypoint_lies_on_the_people_of_berlin(tmp_path: Path) -> None:
    images, masks, job = BERLIN / "images", BERLIN / "masks", tmp_path / "job"
    names = sorted(path.name for path in images.iterdir())
    result_of(romacli("match", images, *QUICK, "-o", job, "--json"))
    assert share_in_black(job, masks, "02.jpg") > 0
    again = result_of(romacli("match", images, *QUICK, "-o", job, "--mask-dir", masks, "--json"))
    assert again["encodes"] == 0
    assert [share_in_black(job, masks, name) for name in names] == [0, 0, 0]


def test_masks_hold_for_every_later_view_of_the_job(tmp_path: Path) -> None:
    photograph_plane(tmp_path / "photos", ["ä 1.png", "2.png", "3.png"])
    masks, job = tmp_path / "masks", tmp_path / "job"
    masks.mkdir()
    mask = np.full((240, 320), 255, np.uint8)
    mask[:, 100:180] = 0
    cv2.imwrite(str(masks / "2.png.png"), mask)
    words = ("match", tmp_path / "photos", "-o", job, *LENIENT, "--json")
    result_of(romacli(*words))
    assert share_in_black(job, masks, "2.png") > 0
    result_of(romacli(*words, "--mask_path", masks))
    assert share_in_black(job, masks, "2.png") == 0
    shutil.rmtree(tmp_path / "photos")
    for method in ("cells", "tracks"):
        result_of(romacli("aggregate", job, "--method", method, "--json"))
        assert share_in_black(job, masks, "2.png") == 0
    shutil.rmtree(masks)
    refused = romacli("aggregate", job)
    assert refused.returncode == 3
    assert "masks is not a folder" in refused.stderr


def test_masks_that_keep_nothing_or_ignore_nothing_are_named(tmp_path: Path) -> None:
    photograph_plane(tmp_path / "photos", ["1.png", "2.png", "3.png"])
    masks, job = tmp_path / "masks", tmp_path / "job"
    masks.mkdir()
    for name, share in (("1.png", 0), ("2.png", 120), ("3.png", 240)):
        mask = np.zeros((240, 320), np.uint8)
        mask[:share] = 255
        cv2.imwrite(str(masks / f"{name}.png"), mask)
    words = ("match", tmp_path / "photos", "-o", job, *LENIENT, "--mask-dir", masks)
    for _ in range(2):  # a run that finds everything up to date says it again
        run = romacli(*words)
        assert run.returncode == 0
        warnings = [line for line in run.stderr.splitlines() if "the masks of" in line]
        assert ["keep nothing: 1.png" in line for line in warnings] == [True, False]
        assert ["ignore nothing: 3.png" in line for line in warnings] == [False, True]


@pytest.mark.parametrize("option", ["--mask-dir", "--camera-mask"])
def test_masks_that_do_not_fit_are_refused_before_any_work(tmp_path: Path, option: str) -> None:
    photograph_plane(tmp_path / "photos", ["1.png", "2.png"])
    mask = tmp_path / "masks" / "1.png"
    mask.parent.mkdir()
    cv2.imwrite(str(mask), np.zeros((24, 32), np.uint8))
    given = mask.parent if option == "--mask-dir" else mask
    run = romacli("match", tmp_path / "photos", "-o", tmp_path / "job", option, given)
    assert run.returncode == 3
    assert "masks/1.png is 32x24 px and 1.png is 320x240 px" in run.stderr
    assert not (tmp_path / "job").exists()
