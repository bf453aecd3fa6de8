"""Jobs whose pairs or photographs have changed."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.commands import hloc_walk
from support.homography import HomographyMatcher, image_digest
from support.plane import PlanePhotographs, photograph_plane
from support.told import Told

from romacli.colmap.options import VerifyOptions
from romacli.errors import BusyError, InputError, SettingsDifferError, UsageError
from romacli.images import metadata
from romacli.images.decode import image_size, read_image
from romacli.images.metadata import read_metadata
from romacli.images.options import ImageOptions
from romacli.job import matching
from romacli.job.check import check_job
from romacli.job.job import Job, open_job
from romacli.job.matching import run_job
from romacli.job.options import ImportOptions, JobOptions, KeypointOptions
from romacli.job.outputs.database import import_matches
from romacli.job.reaggregate import ReaggregateOptions, reaggregate
from romacli.matchers import registry
from romacli.matchers.options import MatcherChoice
from romacli.progress import Silent
from romacli.refine.options import RefineOptions
from romacli.run.match import MatchSummary
from romacli.run.options import Changed, Shard
from romacli.run.photographs import look_at, with_contents
from romacli.stop import Stopped, StopRequest
from romacli.store.history import photographs_of
from romacli.store.hloc import FeaturesFile, MatchesFile
from romacli.store.images import KnownImage, read_images, sha256_of, stamp_of, write_images
from romacli.store.journal import Journal
from romacli.store.layout import Layout
from romacli.store.lease import lease
from romacli.store.manifest import read_manifest, write_manifest
from romacli.types import ImageList, MatcherSpec, Size

NAMES = [f"{i}.png" for i in range(5)]


@pytest.fixture
def photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PlanePhotographs:
    made = photograph_plane(tmp_path / "photos", NAMES)
    made = replace(made, matcher=HomographyMatcher(made.by_digest, nodes=20))
    spec = MatcherSpec("plane", lambda *_: made.matcher, "", "")
    monkeypatch.setitem(registry.MATCHERS, "plane", spec)
    return made


@pytest.fixture
def options(photographs: PlanePhotographs, tmp_path: Path) -> JobOptions:
    unrefined = KeypointOptions(refine=RefineOptions(refine=False), typed=frozenset({"refine"}))
    matcher = MatcherChoice("plane")
    return JobOptions(ImageOptions(photographs.root), tmp_path / "job", matcher=matcher, keypoints=unrefined)


def run(options: JobOptions, told: Told | None = None) -> tuple[Job, MatchSummary]:
    job = open_job(options, told or Told())
    return job, run_job(job, told or Told(), StopRequest())


def encoded(photographs: PlanePhotographs, work: Callable[[], object]) -> int:
    before = photographs.matcher.images_encoded
    work()
    return photographs.matcher.images_encoded - before


def list_pairs(options: JobOptions, *pairs: str) -> JobOptions:
    path = options.output.parent / "pairs.txt"
    path.write_text("\n".join(pairs) + "\n")
    return replace(options, pairs=str(path))


def files(options: JobOptions) -> tuple[set[str], int]:
    """The images in the features file, the pairs in the matches file."""
    with (
        FeaturesFile(options.output / "features.h5") as features,
        MatchesFile(options.output / "matches.h5") as matches,
    ):
        return set(features.names()), len(matches.pairs(features.names()))


def test_every_listed_pair_and_every_image_has_its_group(photographs: PlanePhotographs, options: JobOptions) -> None:
    (photographs.root / "broken.png").write_bytes(b"no picture")
    (photographs.root / "alone.png").write_bytes(b"no picture either")
    for digest, matrix in photographs.by_digest.items():
        if matrix is photographs.plane_from_image["4.png"]:
            photographs.by_digest[digest] = matrix + [[0, 0, 900], [0, 0, 0], [0, 0, 0]]
    _, summary = run(list_pairs(options, "1.png 0.png", "4.png 0.png", "2.png broken.png", "3.png 2.png"))
    assert (summary.rejected, summary.failed) == (1, 1)
    counts = hloc_walk(options.output, [*NAMES, "broken.png", "alone.png"])
    assert [count > 0 for count in counts.values()] == [True, False, False, True]
    told = Told()
    importing = ImportOptions(verify=VerifyOptions(num_threads=1))
    database = import_matches(photographs.root, Layout(options.output), importing, told, StopRequest())
    assert (database.images, database.pairs) == (5, 2)
    assert any("2 photographs are left out of the database, alone.png first" in sentence for sentence in told.sentences)
    unrefined = ReaggregateOptions(refine=RefineOptions(refine=False))
    assert reaggregate(Layout(options.output), unrefined, told, StopRequest()).pairs == 2
    assert hloc_walk(options.output, [*NAMES, "broken.png", "alone.png"]) == counts
    assert check_job(Layout(options.output), told, StopRequest()).findings == ()


def touch(path: Path) -> None:
    os.utime(path, ns=(1, 1))


def stopped(*_: object) -> None:
    raise Stopped(15)


def test_added_pairs_alone_are_matched_and_the_files_follow(photographs: PlanePhotographs, options: JobOptions) -> None:
    run(list_pairs(options, "0.png 1.png"))
    assert files(options) == ({*NAMES}, 1)
    assert encoded(photographs, lambda: run(list_pairs(options, "0.png 1.png", "2.png 3.png"))) == 2
    assert files(options) == ({*NAMES}, 2)
    run(list_pairs(options, "2.png 3.png"))
    assert files(options) == ({*NAMES}, 1)


def test_a_moved_folder_is_known_after_the_next_run(
    photographs: PlanePhotographs, options: JobOptions, tmp_path: Path
) -> None:
    run(options)
    moved = photographs.root.rename(tmp_path / "moved")
    run(replace(options, images=ImageOptions(moved)))
    assert photographs_of(Layout(options.output)) == moved.resolve()


def test_added_and_removed_images_change_what_is_theirs(
    photographs: PlanePhotographs, options: JobOptions, tmp_path: Path
) -> None:
    hidden = tmp_path / NAMES[4]
    (photographs.root / NAMES[4]).rename(hidden)
    _, summary = run(options)
    assert summary.pairs == 6
    hidden.rename(photographs.root / NAMES[4])
    assert encoded(photographs, lambda: run(options)) == 5
    with Journal(options.output / "journal") as journal:
        assert len(journal) == 10
    (photographs.root / NAMES[0]).unlink()
    assert encoded(photographs, lambda: run(options)) == 0
    assert files(options)[0] == {*NAMES[1:]}


def append_byte(path: Path) -> None:
    """Change a photograph's file, but not what it shows."""
    path.write_bytes(path.read_bytes() + b"\0")


def forget_contents(options: JobOptions) -> None:
    """Remove from a finished job what jobs of earlier versions do not record of photographs."""
    layout = Layout(options.output)
    write_images(layout.images, {name: replace(one, sha256=None) for name, one in read_images(layout.images).items()})


@pytest.mark.parametrize("change", ["size", "contents"])
def test_a_changed_photograph_is_noticed(photographs: PlanePhotographs, options: JobOptions, change: str) -> None:
    run(options)
    path = photographs.root / NAMES[2]
    append_byte(path)
    if change == "contents":
        run(replace(options, changed=Changed.keep))
        path.write_bytes(path.read_bytes()[:-1] + b"\1")
    with pytest.raises(InputError, match=r"has changed in size.* 2\.png\. .*--changed rematch.*--changed keep"):
        open_job(options, Silent())


def test_changed_photographs_are_matched_again_when_asked(photographs: PlanePhotographs, options: JobOptions) -> None:
    run(options)
    append_byte(photographs.root / NAMES[2])
    touch(photographs.root / NAMES[3])
    told = Told()
    assert encoded(photographs, lambda: run(replace(options, changed=Changed.rematch), told)) == 5
    assert "4 pairs were matched on photographs that have changed since; they are matched again" in told.sentences
    assert encoded(photographs, lambda: run(options)) == 0
    with Journal(options.output / "journal") as journal:
        assert journal.damaged == []


def test_photographs_that_show_the_same_are_kept_when_asked(photographs: PlanePhotographs, options: JobOptions) -> None:
    run(options)
    for name in NAMES:
        append_byte(photographs.root / name)
    assert encoded(photographs, lambda: run(replace(options, changed=Changed.keep))) == 0
    assert encoded(photographs, lambda: run(options)) == 0


@pytest.mark.parametrize("is_stopped", [False, True])
def test_copies_that_lost_their_times_are_the_same_photographs(
    photographs: PlanePhotographs, options: JobOptions, monkeypatch: pytest.MonkeyPatch, is_stopped: bool
) -> None:
    with monkeypatch.context() as patch:
        if is_stopped:
            patch.setattr(matching, "_try_more", stopped)
        with pytest.raises(Stopped) if is_stopped else nullcontext():
            run(options)
    for name in NAMES:
        touch(photographs.root / name)
    assert encoded(photographs, lambda: run(options)) == 0
    forget_contents(options)
    assert encoded(photographs, lambda: run(options)) == 0


def test_copies_that_lost_their_times_are_noted_where_nothing_is_matched(
    photographs: PlanePhotographs, options: JobOptions
) -> None:
    run(options)
    for name in NAMES:
        touch(photographs.root / name)
    reaggregate(
        Layout(options.output), ReaggregateOptions(refine=RefineOptions(refine=True)), told := Told(), StopRequest()
    )
    assert not any("cannot be used" in sentence for sentence in told.sentences)
    assert all(len(image.stamps) == 2 for image in read_images(Layout(options.output).images).values())


@pytest.mark.parametrize(("is_hashed", "steps"), [(True, 0), (False, len(NAMES))])
def test_photographs_are_read_under_a_title_or_not_at_all(
    photographs: PlanePhotographs, monkeypatch: pytest.MonkeyPatch, is_hashed: bool, steps: int
) -> None:
    told, advanced = Told(), []
    monkeypatch.setattr(told, "advance", lambda count=1: advanced.append(told.begun[-1]))
    images = {name: KnownImage((stamp_of(photographs.root / name),)) for name in NAMES}
    if is_hashed:
        images = {name: replace(one, sha256=sha256_of(photographs.root / name)) for name, one in images.items()}
    found = with_contents(photographs.root, images, told)
    assert advanced == ["reading photographs"] * steps
    assert all(one.header and one.sha256 for one in found.values())


def test_a_job_of_an_earlier_version_learns_what_its_photographs_contain(
    photographs: PlanePhotographs, options: JobOptions
) -> None:
    run(options)
    forget_contents(options)
    touch(photographs.root / NAMES[1])
    with pytest.raises(InputError, match=r"1 photograph has changed in size or modification time.* 1\.png\."):
        open_job(options, Silent())
    run(replace(options, changed=Changed.keep))
    os.utime(photographs.root / NAMES[1], ns=(2, 2))
    assert encoded(photographs, lambda: run(options)) == 0


def test_a_photograph_that_comes_back_changed_is_matched_again(
    photographs: PlanePhotographs, options: JobOptions, tmp_path: Path
) -> None:
    run(options)
    hidden = tmp_path / NAMES[1]
    (photographs.root / NAMES[1]).rename(hidden)
    run(options)
    append_byte(hidden)
    hidden.rename(photographs.root / NAMES[1])
    assert encoded(photographs, lambda: run(options)) == 5


def test_what_a_kill_cut_off_is_told_of_by_nobody_and_gone(photographs: PlanePhotographs, options: JobOptions) -> None:
    run(options)
    (file,) = options.output.glob("journal/*.jnl")
    os.truncate(file, file.stat().st_size - 10)
    told = Told()
    assert encoded(photographs, lambda: run(options, told)) == 2
    assert not any("byte" in sentence for sentence in told.sentences)
    with Journal(options.output / "journal") as journal:
        assert journal.torn == journal.damaged == []


def test_a_job_at_work_is_left_alone(photographs: PlanePhotographs, options: JobOptions) -> None:
    run(options)
    with lease(options.output / "leases"):
        for changed in (options, replace(options, overwrite=True), replace(options, shard=Shard(0, 2))):
            with pytest.raises(BusyError, match="is in use by process"):
                run(changed)
    assert files(options)[1] > 0


def test_shards_and_a_run_that_collects_them(
    photographs: PlanePhotographs, options: JobOptions, tmp_path: Path
) -> None:
    run(replace(options, output=tmp_path / "alone"))
    parts = [run(replace(options, shard=Shard(index, 3)))[1] for index in range(3)]
    assert [part.pairs for part in parts] == [3, 3, 4]
    assert sum(part.matched + part.rejected for part in parts) == 10
    assert not (options.output / "features.h5").exists()
    assert encoded(photographs, lambda: run(options)) == 0
    for name in ("features.h5", "matches.h5"):
        assert len((options.output / name).read_bytes()) == len((tmp_path / "alone" / name).read_bytes())
    assert files(options) == files(replace(options, output=tmp_path / "alone"))


def test_a_shard_does_not_begin_anew(options: JobOptions) -> None:
    with pytest.raises(UsageError, match="--overwrite with --shard would remove the results of other shards"):
        open_job(replace(options, shard=Shard(0, 2), overwrite=True), Silent())


def show_instead(photographs: PlanePhotographs, name: str, pixels: np.ndarray) -> None:
    """Replace a photograph by another image, which the matcher treats as the same view."""
    path = photographs.root / name
    path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    photographs.by_digest[image_digest(read_image(path))] = photographs.plane_from_image[name]


def made_before_stretching(options: JobOptions) -> None:
    """Remove from a finished job what jobs of earlier versions lack."""
    layout = Layout(options.output)
    manifest = read_manifest(layout.manifest)
    assert "%" in manifest.settings["sixteen_bit"]
    settings = {key: value for key, value in manifest.settings.items() if key != "sixteen_bit"}
    write_manifest(layout.manifest, replace(manifest, settings=settings))


def test_a_job_of_8_bit_photographs_made_before_16_bits_were_stretched_goes_on(photographs, options):
    run(options)
    made_before_stretching(options)
    assert encoded(photographs, lambda: run(options)) == 0


@pytest.mark.parametrize(("low", "is_refused"), [(0, False), (7200, True)])
def test_a_job_whose_16_bit_photographs_were_read_otherwise_does_not_go_on(photographs, options, low, is_refused):
    gray = cv2.imread(str(photographs.root / "1.png"), cv2.IMREAD_GRAYSCALE)
    gray = cv2.normalize(gray, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint16)
    show_instead(photographs, "1.png", low + gray * (1 if low else 257))
    run(options)
    made_before_stretching(options)
    if is_refused:
        with pytest.raises(SettingsDifferError, match=r"16-bit.*1\.png.*--overwrite"):
            run(options)
        run(replace(options, overwrite=True))
    assert encoded(photographs, lambda: run(options)) == 0


def test_flat_photographs_are_named(photographs, options):
    show_instead(photographs, "3.png", np.full((240, 320, 3), 77, np.uint8))
    run(options, told := Told())
    [flat] = [sentence for sentence in told.sentences if "flat" in sentence]
    assert "1 photograph" in flat
    assert "3.png" in flat


def test_each_header_is_read_once_a_run_and_remembered(
    photographs: PlanePhotographs, options: JobOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in NAMES:
        touch(photographs.root / name)
    opened: list[str] = []

    def noting(path: Path) -> Size:
        opened.append(path.name)
        return image_size(path)

    monkeypatch.setattr(metadata, "image_size", noting)
    run(options)
    layout = Layout(options.output)
    import_matches(photographs.root, layout, ImportOptions(verify=VerifyOptions(num_threads=1)), Told(), StopRequest())
    assert sorted(opened) == NAMES
    known = read_images(layout.images)
    assert all(known[name].header == {"size": list(known[name].size or ())} for name in NAMES)
    (photographs.root.parent / "moved").mkdir()
    moved = photographs.root.rename(photographs.root.parent / "moved" / "photos")
    look_at(ImageList(moved, tuple(NAMES)), known)
    assert [read_metadata(moved / name).size for name in NAMES] == [known[name].size for name in NAMES]
    assert sorted(opened) == NAMES
