"""A job with a map grows: keypoints that database or model refer to are kept, or the run is refused."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.commands import database_keypoints
from support.plane import PlanePhotographs, photograph_plane
from support.told import Told

from romacli.colmap.options import VerifyOptions
from romacli.errors import UsageError
from romacli.images.options import ImageOptions
from romacli.job.check import check_job
from romacli.job.job import open_job
from romacli.job.matching import run_job
from romacli.job.options import ImportOptions, JobOptions, KeypointOptions
from romacli.job.outputs import hloc
from romacli.job.outputs.database import import_matches
from romacli.job.reaggregate import ReaggregateOptions, noted_options, reaggregate
from romacli.keypoints.options import AggregateOptions
from romacli.matchers import registry
from romacli.matchers.options import MatcherChoice
from romacli.refine.options import RefineOptions
from romacli.run.options import Changed
from romacli.stop import StopRequest
from romacli.store.hloc import FeaturesFile, MatchesFile
from romacli.store.layout import Layout
from romacli.types import Keypoints, MatcherSpec, Pair

OLD, NEW = ["0.png", "1.png", "2.png"], ["3.png", "4.png"]
FEWER = KeypointOptions(AggregateOptions(max_keypoints=300), typed=frozenset({"max_keypoints"}))


@pytest.fixture(scope="module")
def mapped(tmp_path_factory: pytest.TempPathFactory) -> PlanePhotographs:
    """Photographs, and a job of the first three with its database next to them."""
    root = tmp_path_factory.mktemp("mapped")
    made = photograph_plane(root / "photos", OLD + NEW)
    for name in NEW:
        (root / "photos" / name).rename(root / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry.MATCHERS, "plane", MatcherSpec("plane", lambda *_: made.matcher, "", ""))
        few = KeypointOptions(AggregateOptions(spacing=30.0), typed=frozenset({"spacing"}))
        match(Layout(root / "job"), keypoints=few)
    make_database(Layout(root / "job"))
    return made


@pytest.fixture
def job(mapped: PlanePhotographs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Layout]:
    monkeypatch.setitem(registry.MATCHERS, "plane", MatcherSpec("plane", lambda *_: mapped.matcher, "", ""))
    shutil.copytree(mapped.root, tmp_path / "photos", copy_function=shutil.copy2)
    shutil.copytree(mapped.root.parent / "job", tmp_path / "job")
    for name in NEW:
        shutil.copy2(mapped.root.parent / name, tmp_path / name)
    return Layout(tmp_path / "job")


def match(layout: Layout, told: Told | None = None, **more: object) -> None:
    options = JobOptions(ImageOptions(layout.root.parent / "photos"), layout.root, matcher=MatcherChoice("plane"))
    run_job(open_job(replace(options, **more), told or Told()), told or Told(), StopRequest())


def make_database(layout: Layout) -> None:
    importing = ImportOptions(verify=VerifyOptions(num_threads=1))
    import_matches(layout.root.parent / "photos", layout, importing, Told(), StopRequest())


def grow(layout: Layout, told: Told | None = None, **more: object) -> None:
    for name in NEW:
        if (layout.root.parent / name).exists():
            (layout.root.parent / name).rename(layout.root.parent / "photos" / name)
    match(layout, told, **more)


def keypoints(layout: Layout) -> dict[str, Keypoints]:
    with FeaturesFile(layout.features) as file:
        return {
            name: replace(file.keypoints(name, np.float64), uncertainty=file.uncertainty(name)) for name in file.names()
        }


def matches(layout: Layout) -> dict[Pair, np.ndarray]:
    with MatchesFile(layout.matches) as file:
        return {pair: file.matches(*pair).indices for pair in file.pairs(OLD + NEW)}


def assert_stay(before: dict[str, Keypoints], after: dict[str, Keypoints]) -> None:
    for name in OLD:
        np.testing.assert_array_equal(after[name].xy, before[name].xy)
        np.testing.assert_array_equal(after[name].scores, before[name].scores)
        np.testing.assert_array_equal(after[name].uncertainty.covariance, before[name].uncertainty.covariance)


def test_no_row_moves_when_a_mapped_job_grows(job: Layout) -> None:
    before, joined, told = keypoints(job), matches(job), Told()
    grow(job, told)
    after, grown = keypoints(job), matches(job)
    assert_stay(before, after)
    assert any("3 images that database.db refers to are kept" in sentence for sentence in told.sentences)
    for pair, rows in joined.items():
        np.testing.assert_array_equal(grown[pair], rows)
    assert len(grown["2.png", "3.png"]) > 0.6 * len(joined["1.png", "2.png"])
    assert len(grown["3.png", "4.png"]) > 0.6 * len(joined["1.png", "2.png"])
    assert (after["3.png"].uncertainty.quality > 0).mean() > 0.8
    make_database(job)
    for name, xy in database_keypoints(job.database).items():
        np.testing.assert_allclose(xy, after[name].xy, atol=1e-3)
    match(job, told := Told())
    assert "features.h5 and matches.h5 are up to date" in told.sentences
    assert check_job(job, told, StopRequest()).findings == ()


def test_a_model_alone_is_enough(job: Layout) -> None:
    before = keypoints(job)
    job.database.unlink()
    model = job.sparse / "0"
    model.mkdir(parents=True)
    (model / "cameras.txt").write_text("1 SIMPLE_PINHOLE 320 240 300 160 120\n")
    lines = []
    for number, name in enumerate(OLD, start=1):
        places = " ".join(f"{x:.9g} {y:.9g} -1" for x, y in before[name].xy)
        lines.append(f"{number} 1 0 0 0 {number} 0 0 1 {name}\n{places}\n")
    (model / "images.txt").write_text("".join(lines))
    (model / "points3D.txt").write_text("")
    grow(job, told := Told())
    assert_stay(before, keypoints(job))
    assert any("sparse refers to are kept" in sentence for sentence in told.sentences)


def test_other_options_are_refused_before_anything_is_matched_unless_all_is_to_be_replaced(job: Layout) -> None:
    before = job.features.read_bytes()
    with pytest.raises(UsageError, match=r"database\.db refers.*3 images.*max-keypoints.*300.*--replace-keypoints"):
        grow(job, keypoints=FEWER)
    unrefined = replace(noted_options(job), refine=RefineOptions(refine=False))
    for options, told in ((ReaggregateOptions(), "spacing 30.0, now 11.0"), (unrefined, "refine True, now False")):
        with pytest.raises(UsageError, match=f"{told}.*--replace-keypoints"):
            reaggregate(job, options, Told(), StopRequest())
    assert job.features.read_bytes() == before
    match(job, told := Told(), keypoints=replace(FEWER, replaces=True))
    assert max(map(len, keypoints(job).values())) <= 300
    assert any("are replaced; database and model" in sentence for sentence in told.sentences)


def test_what_nothing_refers_to_is_made_anew(job: Layout) -> None:
    job.database.unlink()
    before = keypoints(job)
    grow(job)
    assert any(len(before[name]) != len(after) for name, after in keypoints(job).items() if name in OLD)


def test_where_all_keypoints_are_kept_none_are_refined_again(job: Layout) -> None:
    before = keypoints(job)["0.png"].uncertainty
    (job.root.parent / "photos" / "2.png").unlink()
    match(job, told := Told())
    assert any("are kept" in sentence for sentence in told.sentences)
    assert not any("refined" in sentence for sentence in told.sentences)
    np.testing.assert_array_equal(keypoints(job)["0.png"].uncertainty.quality, before.quality)


def test_lost_features_come_back_with_the_same_rows(job: Layout) -> None:
    before = keypoints(job)
    grow(job)
    grown = keypoints(job)
    make_database(job)
    job.features.unlink()
    match(job)
    again = keypoints(job)
    for name in OLD + NEW:
        np.testing.assert_allclose(again[name].xy, grown[name].xy, atol=1e-3)
    assert before.keys() <= again.keys()


def test_growth_killed_between_the_two_files_ends_as_an_uninterrupted_one(
    job: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    shutil.copytree(tmp_path, whole := tmp_path.parent / f"{tmp_path.name}-whole", copy_function=shutil.copy2)
    grow(Layout(whole / "job"))
    with monkeypatch.context() as patch:
        patch.setattr(hloc, "write_matches", die)
        with pytest.raises(KeyboardInterrupt):
            grow(job)
    match(job)
    assert_stay(keypoints(Layout(whole / "job")), after := keypoints(job))
    for name in NEW:
        np.testing.assert_array_equal(after[name].xy, keypoints(Layout(whole / "job"))[name].xy)
    for pair, rows in matches(Layout(whole / "job")).items():
        np.testing.assert_array_equal(matches(job)[pair], rows)


def test_photographs_that_changed_since_are_not_matched_into_the_map(job: Layout) -> None:
    path = job.root.parent / "photos" / "1.png"
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(UsageError, match=r"1 photograph.*database\.db.*1\.png.*--replace-keypoints"):
        grow(job, changed=Changed.rematch)
