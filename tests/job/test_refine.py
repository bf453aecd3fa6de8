"""Keypoints of a job refined against its photographs: what is written, what is kept, and after interruptions."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
from support.plane import SIZE, PlanePhotographs
from support.small_job import NAMES, plane_job
from support.told import Told

from romacli.colmap.reading import read_inliers
from romacli.errors import InputError
from romacli.images.decode import read_image
from romacli.images.options import MaskOptions
from romacli.job.check import check_job
from romacli.job.external import SIFT, ExternalKeypoints
from romacli.job.options import ImportOptions
from romacli.job.outputs.database import import_matches
from romacli.job.outputs.hloc import HlocSources, HlocSummary, derive_hloc, refined_in_words
from romacli.job.reaggregate import ReaggregateOptions, noted_options, reaggregate, refined_options
from romacli.keypoints.options import AggregateOptions
from romacli.pairs.exhaustive import exhaustive
from romacli.progress import Silent
from romacli.refine import photograph
from romacli.refine.options import RefineOptions
from romacli.run.refine import Refinement
from romacli.stop import Stopped, StopRequest
from romacli.store.hloc import FeaturesFile, MatchesFile
from romacli.store.images import KnownImage, read_images, write_images
from romacli.store.journal import Journal
from romacli.store.layout import Layout
from romacli.store.manifest import fingerprint, read_manifest
from romacli.types import Keypoints, PairList

TITLE = "refining against the photographs"
PLAIN = ReaggregateOptions(refine=RefineOptions(refine=False))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> PlanePhotographs:
    """Photographs in `photos`, with a finished job next to them in `job`."""
    return plane_job(tmp_path_factory.mktemp("made"), refine=True)[1]


@pytest.fixture
def job(made: PlanePhotographs, tmp_path: Path) -> Layout:
    """A copy of the job and of the photographs."""
    shutil.copytree(made.root, tmp_path / "photos", copy_function=shutil.copy2)
    shutil.copytree(made.root.parent / "job", tmp_path / "job")
    layout = Layout(tmp_path / "job")
    states = {name: (tmp_path / "photos" / name).stat() for name in NAMES}
    write_images(
        layout.images, {name: KnownImage(((state.st_size, state.st_mtime_ns),), SIZE) for name, state in states.items()}
    )
    return layout


def again(layout: Layout, options: ReaggregateOptions | None = None, told: Told | None = None) -> HlocSummary:
    options = replace(options or ReaggregateOptions(), images=layout.root.parent / "photos")
    return reaggregate(layout, options, told or Told(), StopRequest())


def keypoints(layout: Layout) -> dict[str, Keypoints]:
    with FeaturesFile(layout.features) as file:
        return {name: replace(file.keypoints(name), uncertainty=file.uncertainty(name)) for name in file.names()}


def refined(points: Keypoints) -> np.ndarray:
    assert points.uncertainty is not None
    return points.uncertainty.quality > 0


def test_a_job_refines_its_keypoints_and_says_by_how_much(made: PlanePhotographs, job: Layout) -> None:
    moved = keypoints(job)
    summary = again(job)
    assert summary.refined is not None
    assert summary.refined > 0.5
    assert summary.median_shift is not None
    assert 0 < summary.median_shift < 10
    again(job, PLAIN)
    for name, before in keypoints(job).items():
        after = moved[name].uncertainty
        assert before.uncertainty is None
        assert after is not None
        np.testing.assert_allclose(moved[name].xy - after.shift, before.xy, atol=1e-4)
        kept = ~refined(moved[name])
        assert np.linalg.eigvalsh(after.covariance[kept]).min(initial=1) > 0.99
        assert np.linalg.eigvalsh(after.covariance).min() > 0


def test_what_was_refined_is_not_refined_again(job: Layout) -> None:
    again(job)
    written, told = job.features.stat().st_mtime_ns, Told()
    again(job, refined_options(job, None), told)
    assert job.features.stat().st_mtime_ns == written
    assert any("up to date" in sentence for sentence in told.sentences)


def test_the_order_of_pairs_changes_nothing(job: Layout) -> None:
    pairs, manifest = exhaustive(NAMES), read_manifest(job.manifest)
    assert manifest is not None
    found = []
    for order in (pairs.pairs, pairs.pairs[::-1]):
        job.features.unlink()
        refinement = Refinement(RefineOptions(), job.root.parent / "photos", read_images(job.images))
        with Journal(job.journal, fingerprint(manifest)) as journal:
            sizes, listed = dict.fromkeys(NAMES, SIZE), PairList(tuple(order))
            sources = HlocSources(journal, listed, sizes, AggregateOptions(), refinement=refinement)
            derive_hloc(job, sources, Silent(), StopRequest())
        found.append(keypoints(job))
    for name in NAMES:
        np.testing.assert_array_equal(found[0][name].xy, found[1][name].xy)
        np.testing.assert_array_equal(*(vars(points[name].uncertainty)["covariance"] for points in found))


@pytest.mark.parametrize(("harm", "word"), [("gone", "gone"), ("touched", "changed"), ("broken", "unreadable")])
def test_photographs_that_are_not_as_matched_are_named_and_their_keypoints_stay(
    job: Layout, harm: str, word: str
) -> None:
    path = job.root.parent / "photos" / NAMES[1]
    if harm == "gone":
        path.unlink()
    elif harm == "touched":
        os.utime(path, ns=(0, 0))
    else:
        state = path.stat()
        path.write_bytes(b"x" * state.st_size)
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    job.features.unlink()
    told = Told()
    summary = again(job, told=told)
    assert any(NAMES[1] in sentence and word in sentence for sentence in told.sentences)
    assert any(NAMES[1] in sentence for sentence in summary.warnings)
    points = keypoints(job)
    assert not refined(points[NAMES[1]]).any()
    assert refined(points[NAMES[0]]).any()


def test_a_photograph_of_another_size_is_named(job: Layout) -> None:
    path = job.root.parent / "photos" / NAMES[2]
    image = read_image(path)
    assert cv2.imwrite(str(path), cv2.resize(image, None, fx=0.5, fy=0.5))
    write_images(job.images, {})
    job.features.unlink()
    told = Told()
    again(job, told=told)
    assert any(NAMES[2] in sentence and "size" in sentence for sentence in told.sentences)


def test_photographs_of_sixteen_bits_and_narrow_range_are_refined_as_those_of_eight(job: Layout) -> None:
    of_eight = keypoints(job)
    for name in NAMES:
        path = job.root.parent / "photos" / name
        assert cv2.imwrite(str(path), read_image(path)[..., ::-1].astype(np.uint16) * 16 + 300)
    write_images(job.images, {})
    job.features.unlink()
    assert again(job).warnings == ()
    for name, points in keypoints(job).items():
        both = refined(points) & refined(of_eight[name])
        assert both.sum() > 0.9 * refined(of_eight[name]).sum() > 0
        assert np.median(np.abs(points.xy - of_eight[name].xy)[both]) < 0.05


def test_photographs_too_long_to_be_read_between_pixels_are_named(job: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("romacli.run.refine.LONGEST_SIDE", SIZE[0] - 1)
    job.features.unlink()
    told = Told()
    again(job, told=told)
    assert any(NAMES[0] in sentence and "too long" in sentence for sentence in told.sentences)
    assert not any(refined(points).any() for points in keypoints(job).values())


def test_without_photographs_keypoints_are_made_and_it_is_said_that_they_are_not_refined(job: Layout) -> None:
    job.runs.unlink()
    told = Told()
    summary = reaggregate(job, ReaggregateOptions(), told, StopRequest())
    assert summary.refined is None
    assert any("not refined" in sentence and "--images" in sentence for sentence in told.sentences)
    assert all(points.uncertainty is None for points in keypoints(job).values())


@pytest.mark.parametrize("harm", ["gone", "touched"])
def test_refining_against_a_folder_without_the_photographs_is_refused_and_changes_nothing(
    job: Layout, harm: str
) -> None:
    before, photos = job.features.read_bytes(), job.root.parent / "photos"
    for name in NAMES:
        (photos / name).unlink() if harm == "gone" else os.utime(photos / name, ns=(0, 0))
    with pytest.raises(InputError, match=r"photos has none of the \d+ photographs of .*--images DIR") as told:
        refined_options(job, photos)
    assert ("--changed keep" in str(told.value)) == (harm == "touched")
    if harm == "gone":
        with pytest.raises(InputError, match="photos has none of the"):
            again(job, replace(ReaggregateOptions(), aggregate=AggregateOptions(max_keypoints=9)))
    assert job.features.read_bytes() == before


def test_no_patch_reaches_into_masked_pixels(job: Layout) -> None:
    mask = np.full((SIZE[1], SIZE[0]), 255, np.uint8)
    mask[:, 150:170] = 0
    assert cv2.imwrite(str(job.root / "mask.png"), mask)
    again(job, ReaggregateOptions(masks=MaskOptions(camera_mask=job.root / "mask.png")))
    for points in keypoints(job).values():
        near = np.abs(points.xy[:, 0] - 160) < 20
        assert near.any()
        assert not refined(points)[near].any()
        assert refined(points)[~near].any()


def test_given_keypoints_are_refined_only_when_asked(job: Layout) -> None:
    sift = ExternalKeypoints(SIFT, job.root.parent / "photos")
    assert again(job, ReaggregateOptions(external=sift)).refined is None
    summary = again(job, ReaggregateOptions(external=sift, refine=RefineOptions(refine=True)))
    assert summary.refined is not None


def test_that_keypoints_are_not_to_be_refined_is_remembered(job: Layout) -> None:
    again(job, PLAIN)
    assert noted_options(job).refine.refine is False
    again(job, refined_options(job, None))
    assert keypoints(job)[NAMES[0]].uncertainty is not None
    assert noted_options(job).refine.refine is True


def test_a_signal_ends_refinement_where_it_is_and_leaves_the_old_file(job: Layout) -> None:
    again(job, PLAIN)
    before, stop = job.features.read_bytes(), StopRequest()

    class Signalling(Told):
        def begin(self, title: str, total: int) -> None:
            if title == TITLE:
                stop.set(signal.SIGINT)

    with pytest.raises(Stopped):
        reaggregate(job, refined_options(job, job.root.parent / "photos"), Signalling(), stop)
    assert job.features.read_bytes() == before


def test_a_job_killed_while_it_refines_ends_as_an_uninterrupted_one(job: Layout) -> None:
    again(job)
    whole = keypoints(job)
    again(job, PLAIN)
    program = (
        "import os, pathlib, sys\n"
        "from romacli.job.reaggregate import reaggregate, refined_options\n"
        "from romacli.progress import Silent\n"
        "from romacli.stop import StopRequest\n"
        "from romacli.store.layout import Layout\n"
        "class Killing(Silent):\n"
        "    def begin(self, title, total):\n"
        f"        self.refines = title == {TITLE!r}\n"
        "    def advance(self, count=1):\n"
        "        if self.refines: os.kill(os.getpid(), 9)\n"
        "layout = Layout(pathlib.Path(sys.argv[1]))\n"
        "reaggregate(layout, refined_options(layout, layout.root.parent / 'photos'), Killing(), StopRequest())\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(job.root)], capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert keypoints(job)[NAMES[0]].uncertainty is None
    again(job)
    after = keypoints(job)
    for name in NAMES:
        np.testing.assert_array_equal(after[name].xy, whole[name].xy)
    assert check_job(job, Silent(), StopRequest()).findings == ()


def test_photographs_that_fit_into_memory_are_decoded_once(job: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[str] = []

    def counting(path: Path) -> np.ndarray:
        decoded.append(path.name)
        return read_image(path)

    monkeypatch.setattr("romacli.run.refine.read_image", counting)
    job.features.unlink()
    told = Told()
    again(job, replace(PLAIN, refine=RefineOptions(refine=True)), told)
    assert TITLE in told.begun
    assert sorted(decoded) == sorted(Path(name).name for name in NAMES)


def test_photographs_too_large_for_memory_are_decoded_again_and_give_the_same(
    job: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once, decoded = keypoints(job), 0

    def counting(path: Path) -> np.ndarray:
        nonlocal decoded
        decoded += 1
        return read_image(path)

    monkeypatch.setattr("romacli.run.refine.HELD_BYTES", 1)
    monkeypatch.setattr("romacli.run.refine.read_image", counting)
    job.features.unlink()
    again(job)
    assert decoded > len(NAMES)
    for name, points in keypoints(job).items():
        np.testing.assert_array_equal(points.xy, at_once[name].xy)
        np.testing.assert_array_equal(refined(points), refined(at_once[name]))


def test_a_photograph_takes_no_more_memory_than_is_planned() -> None:
    prepared = photograph.Photograph.prepare(
        np.zeros((600, 800), np.uint8), RefineOptions().levels, np.ones((600, 800), bool)
    )
    held: Sequence[np.ndarray] = [*prepared.levels, *([] if prepared.kept is None else [prepared.kept])]
    assert sum(level.nbytes for level in held) <= photograph.Photograph.BYTES_PER_PX * 600 * 800


def test_what_photographs_do_not_confirm_is_left_out_of_the_database(job: Layout) -> None:
    again(job)
    points = keypoints(job)
    with h5py.File(job.features, "r+") as file:
        for name in NAMES:  # every third keypoint
            file[name]["quality"][::3] = 0
    import_matches(job.root.parent / "photos", job, ImportOptions(), Silent(), StopRequest())
    with MatchesFile(job.matches) as matches:
        rows = matches.matches(*NAMES[:2]).indices
    both = (rows % 3 > 0).all(axis=1) & np.all(
        [refined(points[n])[rows[:, k]] for k, n in enumerate(NAMES[:2])], axis=0
    )
    assert both.sum() >= 100
    assert 15 < read_inliers(job.database)[min(NAMES[:2]), max(NAMES[:2])] <= both.sum()


def test_where_none_are_refined_no_figures_are_given():
    summary = HlocSummary(2, 1, 0, 0, 0.0, 0, (), 2, None, 0, (), refined=0.0, median_shift=0.0)
    assert refined_in_words(summary) == "; no keypoints refined"
    assert "by a median of 1.50 px" in refined_in_words(replace(summary, refined=0.5, median_shift=1.5))
    assert refined_in_words(replace(summary, refined=None)) == ""
