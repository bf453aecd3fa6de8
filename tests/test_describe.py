"""Keypoints with descriptors in a file, and jobs that read them from there."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image
from support.commands import hloc_matches, result_of, romacli
from support.plane import photograph_plane

from romacli.images.decode import read_image
from romacli.matchers.describers.mini import MiniDescriber
from romacli.matchers.describers.sparse import SparseMatcher
from romacli.matchers.options import MatcherOptions
from romacli.matchers.registry import load_matcher

NAMES = ["0.png", "1.png"]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    plane = photograph_plane(tmp_path / "photos", NAMES)
    exif = Image.Exif()
    exif[0x112] = 6
    Image.fromarray(np.rot90(read_image(plane.root / "1.png"))).save(plane.root / "1.png", exif=exif)
    return plane.root


def test_a_job_takes_stored_descriptors_as_they_are(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = result_of(romacli("describe", photos, "-o", tmp_path / "local.h5", "--top-k", 300, "--json"))
    assert (told["images"], told["failed"]) == (2, 0)
    with h5py.File(tmp_path / "local.h5") as file:
        count = len(file["0.png"]["keypoints"])
        assert file["0.png"]["descriptors"].shape == (128, count)
        assert file["0.png"]["descriptors"].dtype == np.float16
        assert file["1.png"]["image_size"][()].tolist() == [240, 320]
    found = {}
    for name, given in (("own", ()), ("stored", ("--keypoints", tmp_path / "local.h5"))):
        sparse = ("--model", "mini-sparse", "--no-refine", "--top-k", 300)
        words = ("match", photos, "-o", tmp_path / name, *sparse, *given, "--json")
        assert result_of(romacli(*words))["matched"] == 1
        found[name] = len(hloc_matches(tmp_path / name / "matches.h5", *NAMES)[0])
    assert abs(found["own"] - found["stored"]) <= 0.05 * found["own"]
    monkeypatch.setattr(MiniDescriber, "describe", None)  # no longer called
    matcher = load_matcher("mini-sparse", MatcherOptions(keypoints=str(tmp_path / "local.h5")))
    assert isinstance(matcher, SparseMatcher)
    prepared = matcher.prepare_named("0.png", read_image(photos / "0.png"), 0)
    assert matcher.encode([prepared])[0].tensors["descriptors"].shape == (1, count, 128)


def test_descriptors_of_other_settings_are_made_anew(photos: Path, tmp_path: Path) -> None:
    romacli("describe", photos, "-o", tmp_path / "local.h5", "--coarse-resolution", "320x240")
    options = MatcherOptions(keypoints=str(tmp_path / "local.h5"), device="cpu")
    matcher = load_matcher("mini-sparse", options)
    assert isinstance(matcher, SparseMatcher)
    assert "descriptors" not in matcher.prepare_named("0.png", read_image(photos / "0.png"), 0).tensors


def test_photographs_that_cannot_be_described_are_listed(photos: Path, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(photos / "small.png")
    (photos / "broken.png").write_bytes(b"no picture")
    (photos / "left.jxl").touch()
    run = romacli("describe", photos, "-o", tmp_path / "local.h5")
    assert run.returncode == 4
    assert "small.png" in run.stderr
    assert "30x20 px is too small" in run.stderr
    assert "broken.png" in run.stderr
    assert "1 file is left out, starting with left.jxl" in run.stderr
    with h5py.File(tmp_path / "local.h5") as file:
        assert sorted(file) == NAMES


def test_dense_matchers_describe_no_keypoints(photos: Path, tmp_path: Path) -> None:
    run = romacli("describe", photos, "-o", tmp_path / "local.h5", "--model", "mini")
    assert run.returncode == 2
    assert "produces warps" in run.stderr
