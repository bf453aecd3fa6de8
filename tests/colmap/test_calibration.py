"""Focal lengths from fundamental matrices: found where the pairs determine them, and not invented elsewhere."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from support.small_scene import GIVEN, PARAMS, make_scene
from support.uncalibrated import Poses, orbit, told, turned, wandering, write_views

from romacli.colmap.calibration.calibrate import calibrate_database
from romacli.colmap.calibration.lengths import joint_lengths
from romacli.colmap.calibration.pairs import Camera, Pairs
from romacli.geometry.focal import joint_focal, residuals

STEP = np.array([0.4, 0.05, 0.15])


def focal_in(path: Path) -> float:
    with closing(sqlite3.connect(path)) as database:
        (data,) = database.execute("SELECT params FROM cameras").fetchone()
    return float(np.frombuffer(data)[0])


@pytest.mark.parametrize(
    ("poses", "focal"),
    [(wandering(STEP), 350.0), (wandering(STEP), 640.0), (wandering(STEP), 1200.0), (orbit(), 350.0), (orbit(), 640.0)],
)
def test_the_focal_length_is_found_and_said(tmp_path: Path, poses: Poses, focal: float) -> None:
    (said,) = told(write_views(tmp_path / "a.db", poses, focal))
    assert focal_in(tmp_path / "a.db") == pytest.approx(focal, rel=0.05)
    assert "EXIF data have none" in said


@pytest.mark.parametrize("distortion", [-0.12, 0.12])
def test_distortion_does_not_pass_for_another_focal_length(tmp_path: Path, distortion: float) -> None:
    (found,) = write_views(tmp_path / "a.db", wandering(STEP), 640, distortion=distortion).calibrated
    assert found.focal_length_px == pytest.approx(640, rel=0.03)
    assert found.low_px < 640 < found.high_px


def test_the_spread_of_a_forward_motion_allows_for_a_centre_off_the_middle(tmp_path: Path) -> None:
    forward, sideways = (np.array(step) for step in ([0, 0, 0.4], [0.5, 0, 0]))
    found = [
        write_views(tmp_path / f"{index}.db", wandering(step), 640).calibrated[0]
        for index, step in enumerate((forward, sideways))
    ]
    spread = [one.high_px / one.low_px for one in found]
    assert spread[0] > 1.08 > spread[1]


def test_cropped_photographs_are_named_and_their_centre_is_taken(tmp_path: Path) -> None:
    summary = write_views(tmp_path / "a.db", wandering(STEP), 640, off_centre=(64.0, -30.0))
    (odd,) = summary.odd
    assert "cropped" in odd
    assert summary.calibrated[0].focal_length_px == pytest.approx(640, rel=0.03)
    with closing(sqlite3.connect(tmp_path / "a.db")) as database:
        (data,) = database.execute("SELECT params FROM cameras").fetchone()
    assert np.frombuffer(data)[1:3] == pytest.approx([384, 210], abs=6)
    exif = write_views(tmp_path / "b.db", wandering(STEP), 640, off_centre=(64.0, -30.0), focal_length_px=640.0)
    assert "give --camera-params" in exif.odd[0]


def test_a_fisheye_is_named(tmp_path: Path) -> None:
    (odd,) = write_views(tmp_path / "a.db", wandering(STEP), 320, is_fisheye=True).odd
    assert "OPENCV_FISHEYE" in odd


def test_a_plane_tells_nothing(tmp_path: Path) -> None:
    assert told(write_views(tmp_path / "a.db", wandering(STEP), 640, relief=0.0)) == []
    assert focal_in(tmp_path / "a.db") == pytest.approx(1.2 * 640)


def test_exif_that_pairs_contradict_is_named_and_stays(tmp_path: Path) -> None:
    (said,) = told(write_views(tmp_path / "a.db", wandering(STEP), 640, focal_length_px=1100.0))
    assert "EXIF data say 1100 px" in said
    assert focal_in(tmp_path / "a.db") == 1100
    assert told(write_views(tmp_path / "b.db", wandering(STEP), 640, focal_length_px=660.0)) == []


def test_given_parameters_are_never_touched(tmp_path: Path) -> None:
    make_scene(6).write(tmp_path / "a.db", cameras=GIVEN)
    assert [found for found in calibrate_database(tmp_path / "a.db").calibrations if not found.is_prior] == []
    assert focal_in(tmp_path / "a.db") == PARAMS[0]


@pytest.mark.parametrize(("other", "method"), [(400.0, "magsac"), (900.0, "magsac"), (400.0, "colmap")])
def test_photographs_of_another_focal_length_that_share_a_camera_are_named(
    tmp_path: Path, other: float, method: str
) -> None:
    focal = [640.0] * 4 + [other] * 3 + [640.0] * 5
    said = told(write_views(tmp_path / "a.db", wandering(STEP, 12), focal, method=method))
    (mixed,) = [sentence for sentence in said if "by their pairs" in sentence]
    assert "3 of its 12 photographs, 4.jpg first" in mixed
    found = float(mixed.partition("near ")[2].partition(" px")[0])
    assert found == pytest.approx(other, rel=0.08)


def test_photographs_of_one_focal_length_are_not_named(tmp_path: Path) -> None:
    assert told(write_views(tmp_path / "a.db", wandering(STEP, 12), 640))[1:] == []


def test_two_cameras_taken_for_one_are_named_where_no_focal_length_fits(tmp_path: Path) -> None:
    summary = write_views(tmp_path / "a.db", wandering(STEP, 12), [640.0] * 6 + [420.0] * 6)
    assert summary.calibrated == ()
    (mixed,) = summary.mixed
    found = [float(word) for word in re.findall(r"(\d+) px", mixed)]
    assert sorted(found) == pytest.approx([420, 640], rel=0.05)


def focal_lengths_in(path: Path) -> dict[str, float]:
    with closing(sqlite3.connect(path)) as database:
        rows = database.execute("SELECT name, params FROM images JOIN cameras USING (camera_id)").fetchall()
    return {name: float(np.frombuffer(params)[0]) for name, params in rows}


@pytest.mark.parametrize("method", ["magsac", "colmap"])
def test_photographs_that_share_a_camera_for_want_of_exif_get_their_own_where_zooms_differ(
    tmp_path: Path, method: str
) -> None:
    focal = np.random.default_rng(3).uniform(400, 1100, 10).tolist()
    summary = write_views(tmp_path / "a.db", orbit(), focal, is_loose=True, method=method)
    (said,) = summary.separated
    assert "10 photographs without EXIF data, 0.jpg first," in said
    assert summary.cameras == 10
    calibrated = {one.camera: one.focal_length_px for one in summary.calibrated}
    assert len(calibrated) >= 5
    found = focal_lengths_in(tmp_path / "a.db")
    for number, px in calibrated.items():
        assert px == pytest.approx(focal[number - 1], rel=0.06)
        assert found[f"{number - 1}.jpg"] == px
    assert summary.mixed == ()


def test_wide_zooms_are_told_apart_though_all_are_far_from_the_usual_focal_length(tmp_path: Path) -> None:
    focal = np.random.default_rng(2).uniform(330, 430, 16).tolist()
    summary = write_views(tmp_path / "a.db", wandering(STEP / 2, 16), focal, is_loose=True)
    assert summary.cameras == 16
    found = focal_lengths_in(tmp_path / "a.db")
    known = [index for index in range(16) if found[f"{index}.jpg"] < 500]
    assert len(known) >= 8
    assert [found[f"{index}.jpg"] for index in known] == pytest.approx([focal[index] for index in known], rel=0.06)


def test_most_zooms_may_be_alike_and_yet_fit_no_shared_camera(tmp_path: Path) -> None:
    focal = np.random.default_rng(0).uniform(590, 700, 12).tolist()
    focal[5] = 1100.0
    assert write_views(tmp_path / "a.db", wandering(STEP, 12), focal, is_loose=True).cameras == 12


def test_cameras_of_one_photograph_whose_few_pairs_determine_nothing_start_from_what_all_pairs_say(
    tmp_path: Path,
) -> None:
    focal = np.random.default_rng(3).uniform(330, 600, 5).tolist()
    summary = write_views(tmp_path / "a.db", orbit(5), focal, is_loose=True)
    assert (summary.cameras, summary.calibrated) == (5, ())
    assert list(focal_lengths_in(tmp_path / "a.db").values()) == pytest.approx(focal, rel=0.1)


def test_those_of_another_focal_length_get_their_own_and_the_others_go_on_sharing(tmp_path: Path) -> None:
    focal = [640.0] * 4 + [400.0] * 2 + [640.0] * 6
    summary = write_views(tmp_path / "a.db", wandering(STEP, 12), focal, is_loose=True)
    assert "2 photographs without EXIF data, 4.jpg first, have a focal length of 40" in summary.separated[0]
    assert "the other 10 share one" in summary.separated[0]
    assert summary.cameras == 3
    found = focal_lengths_in(tmp_path / "a.db")
    assert [found[f"{index}.jpg"] for index in range(12)] == pytest.approx(focal, rel=0.05)


@pytest.mark.parametrize("distortion", [0.0, -0.12])
@pytest.mark.parametrize("step", [STEP, np.array([0, 0, 0.4])], ids=["aslant", "forward"])
def test_a_camera_that_is_shared_in_truth_stays_so(tmp_path: Path, step: np.ndarray, distortion: float) -> None:
    summary = write_views(tmp_path / "a.db", wandering(step), 640, distortion=distortion, is_loose=True)
    assert (summary.separated, summary.cameras) == ((), 1)


def test_a_shared_camera_stays_where_a_plane_tells_nothing(tmp_path: Path) -> None:
    assert write_views(tmp_path / "a.db", wandering(STEP), 640, relief=0.0, is_loose=True).cameras == 1


def test_matrices_of_zeros_count_as_none(tmp_path: Path) -> None:
    write_views(tmp_path / "a.db", wandering(STEP), 640)
    with closing(sqlite3.connect(tmp_path / "a.db")) as database:
        (pair,) = database.execute("SELECT min(pair_id) FROM two_view_geometries").fetchone()
        database.execute("UPDATE two_view_geometries SET F = ? WHERE pair_id = ?", (np.zeros(9).tobytes(), pair))
        database.commit()
    (found,) = calibrate_database(tmp_path / "a.db").calibrations
    assert found.focal_length_px == pytest.approx(640, rel=0.05)


def test_few_pairs_tell_nothing(tmp_path: Path) -> None:
    assert told(write_views(tmp_path / "a.db", wandering(STEP, count=3), 640)) == []


def matrices_of(truth: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """(N, 3, 3) of pairs (N, 2) of cameras with focal lengths (C,), with random poses."""
    rng, matrices = np.random.default_rng(0), []
    for first, second in truth[pairs]:
        translation = np.cross(np.eye(3), rng.normal(size=3))
        essential = turned(*rng.normal(0, 15, 3)) @ translation
        one, other = (np.diag([1 / focal, 1 / focal, 1]) for focal in (first, second))
        matrix = other @ essential @ one
        matrices.append(matrix / np.linalg.norm(matrix))
    return np.array(matrices)


def test_focal_lengths_are_found_together_and_those_without_pairs_stay_usual() -> None:
    truth = np.array([0.5, 0.7, 1.0, 1.5, 2.2, 3.0])
    pairs = np.array(list(combinations(range(5), 2)))
    matrices = matrices_of(truth, pairs)
    found = joint_focal(matrices, pairs, np.full(6, 1.2), np.ones(6, bool))
    assert found[:5] == pytest.approx(truth[:5], rel=0.01)
    assert found[5] == pytest.approx(1.2)
    held = joint_focal(matrices, pairs, np.where(np.arange(6) == 2, 1.0, 1.2), np.arange(6) != 2)
    assert held[2] == 1.0
    assert held[:5] == pytest.approx(truth[:5], rel=0.01)


@pytest.mark.parametrize(("told", "untold", "left"), [(8, 1, 0.64), (8, 12, 0.64), (5, 1, 1.2), (5, 12, 1.2)])
def test_among_many_cameras_those_that_nothing_determines_are_taken_to_be_like_the_others(
    told: int, untold: int, left: float
) -> None:
    truth = np.linspace(0.56, 0.72, told)
    pairs = np.array(list(combinations(range(told), 2)))
    camera = Camera(2, (100, 80), np.array([120.0, 50, 40, 0]), is_prior=False)
    known = replace(camera, params=np.array([56.0, 50, 40, 0]), is_prior=True)
    cameras = {0: known, **dict.fromkeys(range(1, told + untold), camera)}
    found = joint_lengths(Pairs(matrices_of(truth, pairs), pairs, pairs), cameras)
    assert found[0] == 0.56
    assert found[1:told] == pytest.approx(truth[1:], rel=0.05)
    assert found[told:] == pytest.approx(np.full(untold, left), rel=0.03)


def test_an_essential_matrix_leaves_no_residual() -> None:
    translation = np.array([[0, -0.3, 0.1], [0.3, 0, -0.9], [-0.1, 0.9, 0]])
    essential = translation @ turned(3, 8, 2)
    first, second = np.diag([1.3, 1.3, 1]), np.diag([0.7, 0.7, 1])
    matrix = np.linalg.inv(second).T @ essential @ np.linalg.inv(first)
    found = residuals(np.stack([matrix, matrix]), np.array([1.3, 1.0]), np.array([0.7, 0.7]))
    assert found[0] == pytest.approx(0, abs=1e-6)
    assert found[1] > 0.05
