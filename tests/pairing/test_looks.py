"""Pairs by appearance: descriptors are stored and reused, and the coarse stage thins out candidates."""

from __future__ import annotations

from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
import torch
from support.homography import HomographyMatcher

from romacli.errors import InputError, NothingFoundError, PartialError, StoreError, UsageError
from romacli.images.listing import list_images
from romacli.pairing.describe import Describer
from romacli.pairing.kept import match_kept
from romacli.pairing.preselect import preselect
from romacli.pairs.exhaustive import exhaustive
from romacli.progress import Silent
from romacli.run.options import MatchOptions
from romacli.types import Features, PreparedImage, Rejected


class GreyMatcher:
    """Uses the mean grey: descriptors are angles, and the overlap falls with the difference."""

    name = "grey"
    batch_size = 2

    def __init__(self, *, weights: str = "1", dtype: str = "float32", fail_after: int = 10**9) -> None:
        self.settings = {"model": self.name, "weights_sha256": weights, "dtype": dtype}
        self.in_either_dtype = True
        self.encoded, self.compared, self._fail_after = 0, 0, fail_after

    def prepare(self, image):
        return PreparedImage({"grey": torch.tensor([float(image.mean()) / 255])}, image.shape[1::-1])

    def encode_coarse(self, images):
        self._count(images)
        return [Features(image.tensors, image.size) for image in images]

    encode = encode_coarse

    def describe(self, images):
        self._count(images)
        angles = np.array([float(image.tensors["grey"]) for image in images]) * np.pi / 2
        return np.stack((np.cos(angles), np.sin(angles)), axis=1).astype(np.float32)

    def overlap(self, pairs):
        self.compared += len(pairs)
        return [1 - abs(float(a.tensors["grey"] - b.tensors["grey"])) for a, b in pairs]

    def _count(self, images):
        self.encoded += len(images)
        if self.encoded > self._fail_after:
            raise KeyboardInterrupt

    def match(self, pairs, seeds):
        raise AssertionError("only the coarse stage is asked")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six photographs in pairs of similar grey."""
    for index, grey in enumerate((10, 200, 100, 12, 202, 102)):
        (tmp_path / "ä b").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "ä b" / f"{index}.png"), np.full((8, 8, 3), grey, np.uint8))
    return tmp_path


def describer(matcher, path: Path | None, **options) -> Describer:
    return Describer(matcher, path, Silent(), **options)


def test_descriptors_are_in_hlocs_layout_and_used_again(folder: Path) -> None:
    images, path, matcher = list_images(folder), folder / "global features.h5", GreyMatcher()
    first = describer(matcher, path)(images)
    assert first.names == images.names
    with h5py.File(path) as file:
        rows = np.stack([file[name]["global_descriptor"][()] for name in images.names])
    np.testing.assert_allclose(rows, first.descriptors, atol=1e-6)
    again = describer(matcher, path)(images)
    np.testing.assert_allclose(again.descriptors, first.descriptors, atol=1e-7)
    assert matcher.encoded == 6


def test_a_file_that_cannot_be_written_is_told_before_the_work_with_its_option(folder: Path) -> None:
    matcher = GreyMatcher()
    with pytest.raises(StoreError, match=r"5\.png is a file\. Choose another --descriptors"):
        describer(matcher, folder / "ä b" / "5.png" / "g.h5", option="--descriptors")(list_images(folder))
    assert matcher.encoded == 0


def test_a_changed_or_new_photograph_is_described_and_the_others_are_not(folder: Path) -> None:
    path, matcher = folder / "g.h5", GreyMatcher()
    describer(matcher, path)(list_images(folder))
    cv2.imwrite(str(folder / "ä b" / "0.png"), np.full((9, 9, 3), 60, np.uint8))
    cv2.imwrite(str(folder / "ä b" / "6.png"), np.full((8, 8, 3), 61, np.uint8))
    described = describer(matcher, path)(list_images(folder))
    assert matcher.encoded == 6 + 2
    assert described.descriptors[0] @ described.descriptors[6] > 0.9999


def test_other_weights_begin_anew(folder: Path) -> None:
    path, other = folder / "g.h5", GreyMatcher(weights="2")
    describer(GreyMatcher(), path)(list_images(folder))
    describer(other, path)(list_images(folder))
    assert other.encoded == 6


def test_descriptors_and_matches_in_either_number_type_are_used_again(folder: Path) -> None:
    class Whole(GreyMatcher):
        def match(self, pairs, seeds):
            return [Rejected(overlap) for overlap in self.overlap(pairs)]

    images = list_images(folder)
    pairs, run = exhaustive(images.names), []
    for matcher in (Whole(dtype="float32"), Whole(dtype="bfloat16")):
        describer(matcher, folder / "g.h5")(images)
        run.append(matcher.encoded)
        journal, summary = match_kept(folder / "kept", images, pairs, matcher, MatchOptions(), Silent())
        journal.close()
        run.append(summary.run)
    assert run == [6, len(pairs), 0, 0]


def test_what_was_described_before_a_stop_is_kept(folder: Path) -> None:
    path, matcher = folder / "g.h5", GreyMatcher()
    with pytest.raises(KeyboardInterrupt):
        describer(GreyMatcher(fail_after=4), path)(list_images(folder))
    describer(matcher, path)(list_images(folder))
    assert matcher.encoded == 2


def test_another_tools_descriptors_are_taken_as_they_are(folder: Path) -> None:
    images, path = list_images(folder), folder / "netvlad.h5"
    with h5py.File(path, "w") as file:
        for index, name in enumerate(images.names):
            file.create_group(name)["global_descriptor"] = np.array([3.0, index], np.float32)
    before = path.read_bytes()
    rows = describer(None, path)(images).descriptors
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    assert path.read_bytes() == before
    cv2.imwrite(str(folder / "ä b" / "new.png"), np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(InputError, match=r"has no descriptors of 1 of 7 photographs, starting with ä b/new.png"):
        describer(None, path)(list_images(folder))


def test_photographs_that_cannot_be_read_are_named_and_get_no_pairs(folder: Path) -> None:
    (folder / "ä b" / "7.png").write_bytes(b"no image")
    work = describer(GreyMatcher(), None)
    assert "ä b/7.png" not in work(list_images(folder)).names
    assert list(work.failures) == ["ä b/7.png"]
    with pytest.raises(PartialError, match="stopped by --strict"):
        describer(GreyMatcher(), None, strict=True)(list_images(folder))


def test_a_matcher_without_a_coarse_stage_is_refused(folder: Path) -> None:
    matcher, images = HomographyMatcher({}), list_images(folder)
    with pytest.raises(UsageError, match="--descriptors"):
        describer(matcher, None)(images)
    with pytest.raises(UsageError, match="'homography' has none"):
        thinned(folder, matcher, folder / "scores")


def thinned(folder: Path, matcher, scores: Path, least: float = 0.9):
    images = list_images(folder)
    return preselect(
        images, exhaustive(images.names), matcher, scores, min_overlap=least, options=MatchOptions(), progress=Silent()
    ).pairs


def test_preselection_keeps_what_overlaps_and_remembers_the_scores(folder: Path) -> None:
    matcher = GreyMatcher()
    like = {("ä b/0.png", "ä b/3.png"), ("ä b/1.png", "ä b/4.png"), ("ä b/2.png", "ä b/5.png")}
    assert set(thinned(folder, matcher, folder / "scores")) == like
    assert (matcher.encoded, matcher.compared) == (6, 15)
    assert len(thinned(folder, matcher, folder / "scores", least=0.0)) == 15
    assert matcher.compared == 15
    with pytest.raises(NothingFoundError, match="none of 15 candidate pairs overlaps by 1 or more"):
        thinned(folder, matcher, folder / "scores", least=1.0)


def test_preselection_goes_on_after_a_stop(folder: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        thinned(folder, GreyMatcher(fail_after=5), folder / "scores")
    matcher = GreyMatcher()
    assert len(thinned(folder, matcher, folder / "scores")) == 3
    assert 0 < matcher.compared < 15


def test_preselection_leaves_unreadable_photographs_to_matching(folder: Path) -> None:
    (folder / "ä b" / "7.png").write_bytes(b"no image")
    pairs = thinned(folder, GreyMatcher(), folder / "scores")
    assert len(pairs) == 3 + 6
    assert sum("ä b/7.png" in pair for pair in pairs) == 6
