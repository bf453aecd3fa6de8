"""`romacli aggregate` on a job whose warps are exact: five photographs of a plane."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
from support.plane import PlanePhotographs, photograph_plane
from typer.testing import CliRunner, Result

from romacli.cli.app import app
from romacli.images.listing import list_images
from romacli.images.options import ImageOptions
from romacli.job.job import Job
from romacli.job.matching import run_job
from romacli.job.options import JobOptions
from romacli.keypoints.options import AggregateOptions
from romacli.matchers import registry
from romacli.pairs.exhaustive import exhaustive
from romacli.progress import Silent
from romacli.stop import StopRequest
from romacli.store.hloc import FeaturesFile, MatchesFile
from romacli.store.layout import Layout
from romacli.types import Manifest, MatcherSpec

Run = Callable[..., Result]
NAMES = [f"{number}.png" for number in range(5)]


def job_of(photographs: PlanePhotographs, output: Path) -> Job:
    manifest = Manifest({**photographs.matcher.settings, "seed": 0}, "0")
    images = list_images(photographs.root)
    return Job(
        JobOptions(ImageOptions(photographs.root), output),
        Layout(output),
        images,
        exhaustive(images.names),
        photographs.matcher,
        manifest,
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> PlanePhotographs:
    """Photographs, with a finished job next to them in `job`."""
    folder = tmp_path_factory.mktemp("plane")
    photographs = photograph_plane(folder / "photos", NAMES)
    run_job(job_of(photographs, folder / "job"), Silent(), StopRequest())
    return photographs


@pytest.fixture
def run(made: PlanePhotographs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command line in a folder with a copy of the job; the photographs are elsewhere."""
    shutil.copytree(made.root.parent / "job", tmp_path / "job")
    monkeypatch.chdir(tmp_path)
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


def values_of(result: Result) -> dict:
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_keypoints_are_made_anew_without_photographs(run: Run) -> None:
    values = values_of(run("aggregate", "job", "--max-keypoints", 100, "--json"))
    assert list(values) == [
        "images", "pairs", "keypoints", "tracks", "mean_track_length", "matches", "images_without_tracks", "components",
        "triangle_agreement", "longest_track", "warnings", "refined", "median_shift", "seconds",
    ]  # fmt: skip
    assert (values["images"], values["pairs"], values["components"], values["longest_track"]) == (5, 10, 1, 5)
    assert values["images_without_tracks"] == []
    assert values["triangle_agreement"] > 0.99
    with FeaturesFile(Path("job/features.h5")) as features:
        assert features.names() == NAMES
        assert sum(len(features.keypoints(name)) for name in NAMES) == values["keypoints"] <= 500


def test_the_same_again_is_up_to_date_and_other_options_are_not(run: Run) -> None:
    words = ("aggregate", "job", "--spacing", 25, "--json")
    first = values_of(run(*words))
    again = run(*words)
    assert "features.h5 and matches.h5 are up to date" in again.stderr
    assert {**values_of(again), "seconds": 0} == {**first, "seconds": 0}
    other = run("aggregate", "job", "--json")
    assert "up to date" not in other.stderr
    assert values_of(other)["tracks"] != first["tracks"]


@pytest.fixture
def match(run: Run, made: PlanePhotographs, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `match` on the job's photographs, with the matcher that made it."""
    monkeypatch.setitem(registry.MATCHERS, "plane", MatcherSpec("plane", lambda *_: made.matcher, "", ""))
    return lambda *words: run("match", made.root, "-o", "job", "--model", "plane", *words)


def options_of(path: str) -> dict:
    with h5py.File(path) as file:
        return json.loads(file.attrs["options"])


def test_what_aggregate_made_stays_until_other_options_are_given(run: Run, match: Run, made: PlanePhotographs) -> None:
    before = made.matcher.images_encoded
    values_of(run("aggregate", "job", "--method", "cells", "--max-keypoints", 300, "--json"))
    aggregated = Path("job/features.h5").read_bytes()
    again = match()
    assert again.exit_code == 0
    assert "keypoints by --method cells --max-keypoints 300" in again.stderr
    assert "features.h5 and matches.h5 are up to date" in again.stderr
    assert Path("job/features.h5").read_bytes() == aggregated
    assert match("--max-keypoints", 200).exit_code == 0
    assert (options_of("job/features.h5")["method"], options_of("job/features.h5")["max_keypoints"]) == ("cells", 200)
    default, unset = AggregateOptions.max_keypoints, {"keypoints": None, "refine": None}
    assert match("--method", "tracks", "--max-keypoints", default, "--min-track-length", 3).exit_code == 0
    assert options_of("job/features.h5") == {**asdict(AggregateOptions()), "min_track_length": 3, **unset}
    assert run("merge", "job").exit_code == 0
    assert options_of("job/features.h5")["min_track_length"] == 3
    assert run("aggregate", "job").exit_code == 0
    assert "keypoints by" not in match().stderr
    assert made.matcher.images_encoded == before


def test_given_keypoints_and_masks_of_aggregate_stay(run: Run, match: Run) -> None:
    with h5py.File("found.h5", "w") as file:
        for name in NAMES:
            file[f"{name}/keypoints"] = np.random.default_rng(0).random((50, 2)).astype("f4") * 200
    masks = Path("masks")
    masks.mkdir()
    left = np.zeros((240, 320), np.uint8)
    left[:, 160:] = 255
    cv2.imwrite(str(masks / "0.png.png"), left)
    masked = ("--keypoints", "found.h5", "--mask-dir", masks, "--max-distance", 20)
    fewer = values_of(run("aggregate", "job", *masked, "--json"))["matches"]
    again = match()
    assert "--keypoints" in again.stderr
    assert "are up to date" in again.stderr
    unmasked = match("--mask-dir", "none")
    assert unmasked.exit_code == 0
    with FeaturesFile(Path("job/features.h5")) as features, MatchesFile(Path("job/matches.h5")) as matches:
        assert {len(features.keypoints(name)) for name in NAMES} == {50}
        assert sum(len(matches.matches(*pair)) for pair in exhaustive(NAMES).pairs) > fewer
    shutil.rmtree(masks)
    assert match("--method", "tracks").exit_code == 0
    assert options_of("job/features.h5")["keypoints"] is None


def test_files_tell_the_options_they_were_made_with(run: Run) -> None:
    assert run("aggregate", "job", "--method", "cells", "--max-keypoints", 400).exit_code == 0
    for name in ("features.h5", "matches.h5"):
        with h5py.File(f"job/{name}") as file:
            options = json.loads(file.attrs["options"])
        assert (options["method"], options["max_keypoints"], options["keypoints"]) == ("cells", 400, None)


def test_warnings_are_repeated_when_nothing_changed(run: Run) -> None:
    for _ in range(2):
        result = run("aggregate", "job", "--nms-radius", 200, "--spacing", 400, "--quiet")
        assert "two groups of images" in result.stderr


@pytest.mark.parametrize("dtype", ["f2", "f4"])
def test_keypoints_of_a_detectors_file_are_kept_exactly_and_in_order(run: Run, dtype: str) -> None:
    rng = np.random.default_rng(0)
    given = {name: (rng.random((300, 2)) * (319, 239)).astype(dtype) for name in NAMES}
    with h5py.File("superpoint.h5", "w") as file:
        for name, keypoints in given.items():
            file[f"{name}/keypoints"] = keypoints
            file[f"{name}/descriptors"] = np.zeros((256, 300), "f2")
    values = values_of(run("aggregate", "job", "--keypoints", "superpoint.h5", "--max-distance", 20, "--json"))
    assert values["keypoints"] == 1500
    assert values["matches"] > 100
    with h5py.File("job/features.h5") as file:
        for name, keypoints in given.items():
            np.testing.assert_array_equal(file[name]["keypoints"][()], keypoints.astype("f4"))


def test_sift_keypoints_are_matched_where_the_plane_says(run: Run, made: PlanePhotographs) -> None:
    words = ("--keypoints", "sift", "--images", made.root, "--max-keypoints", 300, "--json")
    values = values_of(run("aggregate", "job", *words))
    assert 300 < values["keypoints"] <= 1500
    errors = []
    with FeaturesFile(Path("job/features.h5")) as features, MatchesFile(Path("job/matches.h5")) as matches:
        for name0, name1 in exhaustive(NAMES).pairs:
            indices = matches.matches(name0, name1).indices
            points0, points1 = (features.keypoints(n).xy[k] for n, k in zip((name0, name1), indices.T, strict=True))
            matrix = np.linalg.inv(made.plane_from_image[name1]) @ made.plane_from_image[name0]
            moved = np.c_[points0, np.ones(len(points0))] @ matrix.T
            errors.append(moved[:, :2] / moved[:, 2:] - points1)
    errors = np.concatenate(errors)
    assert len(errors) == values["matches"] > 300
    assert np.median(np.linalg.norm(errors, axis=1)) < 0.2
    assert np.abs(np.median(errors, axis=0)).max() < 0.03


def test_sift_without_the_photographs_asks_for_them(run: Run, tmp_path: Path) -> None:
    result = run("aggregate", "job", "--keypoints", "sift")
    assert result.exit_code == 2
    assert "Give their folder with --images DIR" in result.stderr
    (tmp_path / "empty").mkdir()
    result = run("aggregate", "job", "--keypoints", "sift", "--images", "empty")
    assert result.exit_code == 3
    assert "0.png was matched but no longer exists" in result.stderr


def test_images_that_a_detectors_file_lacks_get_keypoints_carried_from_the_others(run: Run) -> None:
    places = np.random.default_rng(0).random((400, 2)).astype("f4") * [320, 240]
    with h5py.File("some.h5", "w") as file:
        file["0.png/keypoints"], file["1.png/keypoints"] = places, places
    result = run("aggregate", "job", "--keypoints", "some.h5", "--spacing", 40)
    assert result.exit_code == 0, result.stderr
    assert "some.h5 lacks 3 of 5 images, starting with 2.png" in result.stderr
    with FeaturesFile(Path("job/features.h5")) as features, MatchesFile(Path("job/matches.h5")) as matches:
        np.testing.assert_array_equal(features.keypoints("0.png").xy, places.astype(np.float32) + np.float32(0.5))
        assert len(features.keypoints("2.png")) > 200
        assert len(matches.matches("0.png", "2.png")) > 100


def test_a_detectors_file_of_other_images_is_refused(run: Run) -> None:
    with h5py.File("some.h5", "w") as file:
        file["other.png/keypoints"] = np.zeros((1, 2), "f4")
    result = run("aggregate", "job", "--keypoints", "some.h5")
    assert result.exit_code == 3
    assert "some.h5 has no keypoints of 5 of 5 images, starting with 0.png" in result.stderr
    assert (
        "none.h5 cannot be read: No such file or directory" in run("aggregate", "job", "--keypoints", "none.h5").stderr
    )


def test_match_refuses_a_detectors_file_before_it_begins(run: Run, made: PlanePhotographs) -> None:
    with h5py.File("some.h5", "w") as file:
        file["other.png/keypoints"] = np.zeros((1, 2), "f4")
    result = run("match", made.root, "-o", "new", "--keypoints", "some.h5")
    assert result.exit_code == 3
    assert "some.h5 has no keypoints of 5 of 5 images, starting with 0.png" in result.stderr
    assert not Path("new").exists()


def test_keypoints_of_scaled_photographs_are_refused(run: Run) -> None:
    with h5py.File("scaled.h5", "w") as file:
        for name in NAMES:
            file[f"{name}/keypoints"] = np.zeros((1, 2), "f4")
            file[f"{name}/image_size"] = np.array([160, 120])
    result = run("aggregate", "job", "--keypoints", "scaled.h5")
    assert result.exit_code == 3
    assert "0.png is 160x120 px in scaled.h5 but 320x240 px in the job" in result.stderr


def test_given_keypoints_and_another_method_contradict_each_other(run: Run) -> None:
    result = run("aggregate", "job", "--keypoints", "sift", "--method", "cells")
    assert result.exit_code == 2
    assert "--method cells makes its own. Leave one of them out." in result.stderr


def test_unknown_methods_list_the_known_ones(run: Run) -> None:
    result = run("aggregate", "job", "--method", "votes")
    assert result.exit_code == 2
    for name in ("tracks", "cells"):
        assert name in result.stderr


def test_a_folder_without_a_job_is_named(run: Run) -> None:
    result = run("aggregate", "elsewhere")
    assert result.exit_code == 3
    assert "elsewhere contains no job. Give a job's folder, or run `romacli match`" in result.stderr
    assert "--output elsewhere first." in result.stderr


def test_an_unfinished_job_says_how_much_is_done(run: Run) -> None:
    with Path("job/pairs.txt").open("a") as file:
        file.write("0.png 7.png\n")
    result = run("aggregate", "job", "--json")
    assert "job/pairs.txt: 10 of 11 pairs are done" in result.stderr
    assert values_of(result)["pairs"] == 10


def test_a_job_in_which_nothing_matched_ends_with_its_own_code(run: Run) -> None:
    shutil.rmtree("job/journal")
    result = run("aggregate", "job")
    assert result.exit_code == 5
    assert "job contains no pair that matched (0 of 10 are done)" in result.stderr


def test_an_image_that_nothing_matches_stays_in_the_features(made: PlanePhotographs, tmp_path: Path) -> None:
    photographs = photograph_plane(tmp_path / "photos", ["0.png", "1.png", "far.png"], step=30.0)
    far = photographs.matcher._plane_from_image
    for digest, matrix in list(far.items()):
        if matrix is photographs.plane_from_image["far.png"]:
            far[digest] = matrix @ np.array([[1, 0, 900], [0, 1, 0], [0, 0, 1.0]])
    run_job(job_of(photographs, tmp_path / "job"), Silent(), StopRequest())
    result = CliRunner().invoke(app, ["aggregate", str(tmp_path / "job"), "--max-keypoints", "50", "--json"])
    assert values_of(result)["images_without_tracks"] == ["far.png"]
    assert "warning: 1 of 3 images shares no keypoint with another: far.png" in result.stderr
    with FeaturesFile(tmp_path / "job" / "features.h5") as features:
        assert len(features.keypoints("far.png")) == 0
        assert features.image_size("far.png") == (320, 240)
