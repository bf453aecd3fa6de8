"""A doubtful model: which mapper runs next, which model is kept, and the messages."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
from support.small_scene import GIVEN, Scene, make_scene
from support.uncalibrated import wandering, write_views

from romacli.colmap.binding import load_pycolmap
from romacli.colmap.options import VerifyOptions
from romacli.colmap.poses import read_poses
from romacli.colmap.reading import read_focal_lengths
from romacli.mapping.evidence import Attempt, better, find_at_odds, judge
from romacli.mapping.incremental import HighWater, leave_out_unsupported, map_incrementally
from romacli.mapping.initial import apart, initial_pairs, least_angle_deg
from romacli.mapping.options import MapperName, MapperOptions
from romacli.mapping.reconstruct import reconstruct
from romacli.mapping.thinning import thin

ONE_THREAD = MapperOptions(num_threads=1)


def rows_of(database):
    with closing(sqlite3.connect(database)) as connection:
        return dict(connection.execute("SELECT pair_id, rows FROM two_view_geometries"))


def together(scenes):
    """Several scenes that no pair connects, as one."""
    poses, keypoints, matches = (
        {key: value for scene in scenes for key, value in getattr(scene, told).items()}
        for told in ("poses", "keypoints", "matches")
    )
    return Scene(poses, keypoints, matches)


def without_last_images(kept):
    """The incremental mapper, without the pairs of images after the first `kept`."""

    def mapped(given, output):
        blind = given.database.with_name("blind.db")
        blind.write_bytes(given.database.read_bytes())
        with closing(sqlite3.connect(blind)) as connection:
            connection.execute(f"DELETE FROM two_view_geometries WHERE pair_id % 2147483647 > {kept}")
            connection.commit()
        return map_incrementally(replace(given, database=blind), output)

    return mapped


def test_images_left_out_call_the_global_mapper_whose_better_model_is_kept(tmp_path, monkeypatch):
    make_scene(8).write(tmp_path / "a.db")
    monkeypatch.setattr("romacli.mapping.mappers.map_incrementally", without_last_images(4))
    counts = []
    summary = reconstruct(tmp_path / "a.db", tmp_path, tmp_path / "sparse", ONE_THREAD, progress=counts.append)
    assert (summary.registered, summary.models) == (8, 1)
    first, second = summary.attempts
    assert "incremental: 4 of 8 images (4 of 8 connected images not registered)" in first
    assert second == "global: 8 of 8 images, kept"
    assert sum(counts) <= 8
    assert [one.name for one in (tmp_path / "sparse").iterdir()] == ["0"]
    assert load_pycolmap().Reconstruction(tmp_path / "sparse" / "0").num_reg_images() == 8


def test_models_of_other_groups_stay_where_the_global_mapper_replaces_the_largest(tmp_path, monkeypatch):
    parts = make_scene([f"few/{n}.jpg" for n in range(3)]), make_scene([f"most/{n}.jpg" for n in range(8)], seed=1)
    together(parts).write(tmp_path / "a.db")
    monkeypatch.setattr("romacli.mapping.mappers.map_incrementally", without_last_images(7))
    summary = reconstruct(tmp_path / "a.db", tmp_path, tmp_path / "sparse", ONE_THREAD)
    assert (summary.registered, summary.others) == (8, (3,))
    assert summary.attempts[1] == "global: 8 of 11 images and 1 smaller model, kept"
    for number, part in enumerate(reversed(parts)):
        assert read_poses(tmp_path / "sparse" / str(number)).keys() == set(part.names)


def test_the_first_model_stays_where_the_second_is_no_better(tmp_path, monkeypatch):
    make_scene(8).write(tmp_path / "a.db")
    monkeypatch.setattr("romacli.mapping.mappers.map_incrementally", without_last_images(4))
    worse = Attempt("global", 8, 8, evidence=0.1)
    monkeypatch.setattr(
        "romacli.mapping.mappers.judge",
        lambda mapper, *rest: worse if mapper == "global" else judge(mapper, *rest),
    )
    summary = reconstruct(tmp_path / "a.db", tmp_path, tmp_path / "sparse", ONE_THREAD)
    assert summary.registered == 4
    assert "kept" in summary.attempts[0]
    assert "kept" not in summary.attempts[1]


@pytest.mark.parametrize(("seen", "kept"), [(8, 2), (7, 0)])
def test_cameras_that_run_away_are_held_if_as_many_images_are_registered(tmp_path, monkeypatch, seen, kept):
    make_scene(8).write(tmp_path / "a.db")
    wild = Attempt("incremental", 8, 8, (), ("the focal length of camera 1 ran away, from 1 to 9 px",), evidence=4.0)
    said = {"incremental": wild, "global": replace(wild, mapper="global", evidence=3.0)}
    monkeypatch.setattr(
        "romacli.mapping.mappers.judge",
        lambda mapper, *rest: said.get(mapper) or replace(judge(mapper, *rest), registered=seen),
    )
    summary = reconstruct(tmp_path / "a.db", tmp_path, tmp_path / "sparse", ONE_THREAD)
    assert [index for index, attempt in enumerate(summary.attempts) if "kept" in attempt] == [kept]
    assert "with cameras held" in summary.attempts[2]
    (camera,) = load_pycolmap().Reconstruction(tmp_path / "sparse" / "0").cameras.values()
    with closing(load_pycolmap().Database.open(tmp_path / "a.db")) as database:
        held = np.array_equal(camera.params, database.read_all_cameras()[0].params)
    assert held == (kept == 2)


def test_images_that_a_filter_keeps_apart_call_no_global_mapper(tmp_path, monkeypatch):
    make_scene(8).write(tmp_path / "a.db")
    monkeypatch.setattr("romacli.mapping.mappers.map_incrementally", without_last_images(4))
    doubted = {("000.jpg", "003.jpg")}
    summary = reconstruct(tmp_path / "a.db", tmp_path, tmp_path / "sparse", ONE_THREAD, without=doubted)
    assert summary.attempts == ("incremental: 4 of 8 images (4 of 8 connected images not registered), kept",)


def test_a_group_that_gives_no_model_leaves_the_others_theirs(tmp_path):
    parts = [make_scene([f"{count}/{n}.jpg" for n in range(count)], points=100) for count in (6, 5, 4)]
    rng = np.random.default_rng(0)
    for name, xy in parts[1].keypoints.items():
        parts[1].keypoints[name] = rng.uniform(0, 480, xy.shape).astype(np.float32)
    verify = VerifyOptions(min_inlier_ratio=0.0, min_inliers=8, max_error_px=3, num_threads=1)
    together(parts).write(tmp_path / "a.db", verify=verify)
    options = replace(ONE_THREAD, mapper=MapperName.incremental)
    assert reconstruct(tmp_path / "a.db", tmp_path, tmp_path / "sparse", options).models == 2
    assert read_poses(tmp_path / "sparse" / "1").keys() == set(parts[2].names)


def test_one_good_mapper_is_enough(tmp_path):
    make_scene(8).write(tmp_path / "a.db")
    summary = reconstruct(tmp_path / "a.db", tmp_path, tmp_path / "sparse", ONE_THREAD)
    assert summary.attempts == ("incremental: 8 of 8 images, kept",)


@pytest.mark.parametrize(("mode", "doubted"), [("single", True), ("per-image", False)])
def test_a_focal_length_far_from_that_of_many_photographs_is_doubted(tmp_path, mode, doubted):
    make_scene(6).write(tmp_path / "a.db", cameras=replace(GIVEN, mode=mode))
    with closing(sqlite3.connect(tmp_path / "a.db")) as database, database:
        database.execute("UPDATE cameras SET prior_focal_length = 0")
    reconstruct(tmp_path / "a.db", tmp_path, tmp_path / "sparse", replace(ONE_THREAD, refine_intrinsics=False))
    model = load_pycolmap().Reconstruction(tmp_path / "sparse" / "0")
    assert judge("global", {0: model}, tmp_path / "a.db").doubts == ()
    model.cameras[1].params = [2.8 * 700, 320, 240, 0.1]
    doubts = judge("global", {0: model}, tmp_path / "a.db").doubts
    assert doubts == (("the focal length of camera 1 ran away, from 700 to 1960 px",) if doubted else ())


def test_a_spherical_panorama_has_no_focal_length_to_doubt(tmp_path):
    make_scene(3).write(tmp_path / "a.db", cameras=replace(GIVEN, mode="per-image"))
    reconstruct(tmp_path / "a.db", tmp_path, tmp_path / "sparse", replace(ONE_THREAD, refine_intrinsics=False))
    model = load_pycolmap().Reconstruction(tmp_path / "sparse" / "0")
    with closing(sqlite3.connect(tmp_path / "a.db")) as database, database:
        params, number = np.array([640.0, 480.0]), load_pycolmap().CameraModelId.EQUIRECTANGULAR.value
        values = number, params.tobytes()
        database.execute("UPDATE cameras SET model = ?, params = ?, prior_focal_length = 0", values)
    for camera in model.cameras.values():
        camera.model, camera.params = load_pycolmap().CameraModelId.EQUIRECTANGULAR, params
    assert judge("incremental", {0: model}, tmp_path / "a.db").doubts == ()
    assert read_focal_lengths(tmp_path / "a.db") == {}


def test_evidence_is_what_points_hold_of_the_matches_and_not_a_count_of_images(tmp_path):
    scene = make_scene(6)
    scene.write(tmp_path / "a.db")
    reconstruct(tmp_path / "a.db", tmp_path, tmp_path / "sparse", ONE_THREAD)
    model = load_pycolmap().Reconstruction(tmp_path / "sparse" / "0")
    whole = judge("incremental", {0: model}, tmp_path / "a.db")
    assert 4 < whole.evidence <= 6
    for number in list(model.point3D_ids())[::2]:
        model.delete_point3D(number)
    hollow = judge("global", {0: model}, tmp_path / "a.db")
    assert hollow.registered == whole.registered
    assert hollow.evidence < 0.7 * whole.evidence
    assert better(whole, hollow)
    assert not better(hollow, whole)
    assert not better(Attempt("global", 6), whole)


def test_a_model_whose_camera_ran_away_comes_last():
    sane, wild = Attempt("global", 9, 6, evidence=1.0), Attempt("incremental", 9, 9, (), ("it ran away",), 4.0)
    assert better(sane, wild)
    assert not better(wild, sane)
    assert better(wild, replace(wild, evidence=3.0))


def test_progress_never_passes_the_images_there_are():
    heard = []
    placed = HighWater(heard.append, 5)
    for _ in range(3):  # models given up and restarted
        placed.first_pair()
        for _ in range(7):
            placed.add()
    assert sum(heard) == 5
    assert min(heard) > 0


def test_a_thinned_database_keeps_long_tracks_and_something_of_every_pair(tmp_path):
    path, sparse = tmp_path / "a.db", tmp_path / "sparse"
    write_views(path, wandering(np.array([0.5, 0, 0.1])), 640, points=9000)
    before = rows_of(path)
    thin(path)
    after = rows_of(path)
    assert after.keys() == before.keys()
    assert sum(after.values()) < 0.7 * sum(before.values())
    assert all(after[pair] >= min(before[pair], 100) for pair in before)
    assert reconstruct(path, tmp_path, sparse, ONE_THREAD).registered == 8


def test_the_first_pair_is_one_with_parallax(tmp_path):
    make_scene(8).write(tmp_path / "a.db")
    best = initial_pairs(tmp_path / "a.db")
    assert best[0].angle_deg > 14
    assert least_angle_deg(best) == 1.5
    assert abs(best[0].images[0] - best[0].images[1]) >= 2
    assert min(pair.angle_deg for pair in best[-5:]) < 9
    chosen = apart(best, range(1, 5))
    assert all(set(pair.images) <= {1, 2, 3, 4} for pair in chosen)
    assert len({image for pair in chosen for image in pair.images}) == 2 * len(chosen)


@pytest.mark.parametrize("step", [[0, 0, 0.4], [0.5, 0, 0.1]])
def test_an_uncalibrated_path_is_mapped_whole_at_the_first_attempt(tmp_path, step):
    write_views(tmp_path / "a.db", wandering(np.array(step), count=10), 500.0)
    summary = reconstruct(tmp_path / "a.db", tmp_path, tmp_path / "sparse", ONE_THREAD)
    assert summary.registered == 10
    assert len(summary.attempts) == 1
    (camera,) = load_pycolmap().Reconstruction(tmp_path / "sparse" / "0").cameras.values()
    assert camera.mean_focal_length() == pytest.approx(500, rel=0.05)


def test_a_long_lens_that_moves_forward_is_mapped_from_small_angles(tmp_path):
    poses = wandering(np.array([0, 0, 0.4]), 12, 101, look_deg=5 / 3)
    write_views(tmp_path / "a.db", poses, 1920.0, seed=101)
    assert least_angle_deg(initial_pairs(tmp_path / "a.db")) < 0.5
    summary = reconstruct(tmp_path / "a.db", tmp_path, tmp_path / "sparse", ONE_THREAD)
    assert summary.attempts == ("incremental: 12 of 12 images, kept",)
    (camera,) = load_pycolmap().Reconstruction(tmp_path / "sparse" / "0").cameras.values()
    assert camera.mean_focal_length() == pytest.approx(1920, rel=0.05)


@pytest.mark.parametrize("model", ["OPENCV_FISHEYE", "SIMPLE_RADIAL_FISHEYE"])
def test_fisheyes_nobody_calibrated_are_mapped_incrementally(tmp_path, model):
    views = wandering(np.array([0.5, 0, 0]), 6)
    write_views(tmp_path / "a.db", views, 400.0, points=600, is_fisheye=True, model=model)
    options = replace(ONE_THREAD, mapper="incremental")
    summary = reconstruct(tmp_path / "a.db", tmp_path, tmp_path / "sparse", options)
    assert summary.registered == 6
    (camera,) = load_pycolmap().Reconstruction(tmp_path / "sparse" / "0").cameras.values()
    assert camera.mean_focal_length() == pytest.approx(400, rel=0.02)


@pytest.mark.parametrize("distortion", [0.0, -0.1])
def test_cameras_have_distortion_where_it_explains_something(tmp_path, distortion):
    write_views(tmp_path / "a.db", wandering(np.array([0.5, 0, 0]), 6), 640.0, points=600, distortion=distortion)
    reconstruct(tmp_path / "a.db", tmp_path, tmp_path / "sparse", replace(ONE_THREAD, mapper="incremental"))
    (camera,) = load_pycolmap().Reconstruction(tmp_path / "sparse" / "0").cameras.values()
    assert camera.params[3] == pytest.approx(distortion, abs=0.03 * abs(distortion))
    assert camera.params[0] == pytest.approx(640, rel=0.02)


@pytest.mark.parametrize(("fewest", "left"), [(11, 3), (10, 4), (61, 4)])
def test_images_that_keep_hardly_a_point_leave_the_model_unless_all_would(fewest: int, left: int) -> None:
    pycolmap = load_pycolmap()
    options = pycolmap.SyntheticDatasetOptions(num_rigs=1, num_cameras_per_rig=1, num_frames_per_rig=4, num_points3D=60)
    model = pycolmap.synthesize_dataset(options)
    weak = min(model.reg_image_ids())
    seen = [row for row, point in enumerate(model.images[weak].points2D) if point.has_point3D()]
    for row in seen[10:]:
        model.delete_observation(weak, row)
    names = [model.images[weak].name] if left == 3 else []
    assert leave_out_unsupported(model, fewest) == names
    assert (len(model.reg_image_ids()), weak in model.reg_image_ids()) == (left, left == 4)


def weaken(model):
    """Leave the first image of a model a single point."""
    weak = min(model.reg_image_ids())
    for row in [row for row, point in enumerate(model.images[weak].points2D) if point.has_point3D()][1:]:
        model.delete_observation(weak, row)


def with_one_weak_image(given, output):
    """The incremental mapper, whose first image keeps a point only."""
    found = map_incrementally(given, output)
    weaken(found[0])
    return found, (replace(judge("incremental", found, given.database), is_kept=True),)


@pytest.mark.parametrize(("mapper", "left"), [(MapperName.auto, 3), (MapperName.hierarchical, 4)])
def test_images_placed_by_hardly_any_points_are_left_out_by_name(tmp_path, monkeypatch, mapper, left):
    make_scene(4).write(tmp_path / "a.db")
    monkeypatch.setattr("romacli.mapping.reconstruct.run_mapper", with_one_weak_image)
    summary = reconstruct(tmp_path / "a.db", tmp_path, tmp_path / "sparse", replace(ONE_THREAD, mapper=mapper))
    placed = read_poses(tmp_path / "sparse" / "0")
    assert len(placed) == summary.registered == left
    assert len(summary.left_out) == len(summary.warnings) == 4 - left
    for name in summary.left_out:
        assert name not in placed
        assert f"less than 4% of the usual number), and left out of the model: {name}" in str(summary.warnings)
    doubt = " (1 of 4 connected images not registered)" if left == 3 else ""
    assert summary.attempts == (f"incremental: {left} of 4 images{doubt}, kept",)


def test_images_that_only_a_mapper_given_up_left_out_are_not_named(tmp_path, monkeypatch):
    make_scene(4).write(tmp_path / "a.db")

    def finds_nothing(given, output):
        given.left_out.add("another.jpg")
        return {}

    monkeypatch.setattr("romacli.mapping.mappers.map_incrementally", finds_nothing)
    summary = reconstruct(tmp_path / "a.db", tmp_path, tmp_path / "sparse", ONE_THREAD)
    assert [attempt.startswith("global") for attempt in summary.attempts] == [False, True]
    assert (summary.registered, summary.left_out) == (4, ())


def with_focal_lengths(model, focals, size):
    """Parts of a model, by number: `size` images each, and the camera's focal length of each."""
    pycolmap, images = load_pycolmap(), sorted(model.reg_image_ids())
    found = {}
    for index, focal in enumerate(focals):
        found[index] = pycolmap.Reconstruction(model)
        for image in set(images) - set(images[size * index : size * (index + 1)]):
            found[index].deregister_frame(found[index].images[image].frame_id)
        for camera in found[index].cameras.values():
            camera.focal_length = focal
    return found


@pytest.mark.parametrize(
    ("focals", "off"),
    [
        ([500, 505, 400], [2]),
        ([400, 505, 500, 800], [0, 3]),
        ([500, 490, 510], []),
        ([500, 400], []),
        ([300, 400, 500], []),
    ],
)
def test_models_whose_focal_length_two_others_contradict_are_found(focals: list[float], off: list[int]) -> None:
    pycolmap = load_pycolmap()
    options = pycolmap.SyntheticDatasetOptions(num_rigs=1, num_cameras_per_rig=1, num_frames_per_rig=8, num_points3D=20)
    options.camera_model_id = pycolmap.CameraModelId.SIMPLE_RADIAL
    assert find_at_odds(with_focal_lengths(pycolmap.synthesize_dataset(options), focals, 2)) == off


def test_a_camera_that_took_few_images_of_a_model_does_not_count_against_it() -> None:
    pycolmap = load_pycolmap()
    options = pycolmap.SyntheticDatasetOptions(num_rigs=2, num_cameras_per_rig=1, num_frames_per_rig=7, num_points3D=20)
    options.camera_model_id = pycolmap.CameraModelId.SIMPLE_RADIAL
    model = pycolmap.synthesize_dataset(options)
    of_camera: dict[int, list[int]] = {}
    for image in sorted(model.reg_image_ids()):
        of_camera.setdefault(model.images[image].camera_id, []).append(image)
    one, other = of_camera.values()
    for first, off in ((one[:3] + other[:1], []), (one[:3] + other[:3], [0])):
        found = {}
        for index, (part, focal) in enumerate([(first, 400), (other[3:5], 500), (other[5:], 500)]):
            found[index] = pycolmap.Reconstruction(model)
            for image in set(model.reg_image_ids()) - set(part):
                found[index].deregister_frame(found[index].images[image].frame_id)
            found[index].cameras[list(of_camera)[1]].focal_length = focal
        assert find_at_odds(found) == off


@pytest.mark.parametrize(("without", "left"), [({("000.jpg", "001.jpg")}, 3), (set(), 0)])
def test_where_pairs_are_dropped_a_model_whose_focal_length_others_contradict_is_left_out(
    tmp_path, monkeypatch, without, left
):
    make_scene(9).write(tmp_path / "a.db")

    def in_parts(given, output):
        found = with_focal_lengths(map_incrementally(given, output)[0], [500, 650, 500], 3)
        for index, model in found.items():
            (output / str(index)).mkdir(exist_ok=True)
            model.write(output / str(index))
        return found, (replace(judge("incremental", found, given.database), is_kept=True),)

    monkeypatch.setattr("romacli.mapping.reconstruct.run_mapper", in_parts)
    summary = reconstruct(tmp_path / "a.db", tmp_path, tmp_path / "sparse", ONE_THREAD, without=without)
    assert (summary.registered, summary.models, len(summary.at_odds)) == (3, 3 - left // 3, left)
    placed = {name for folder in (tmp_path / "sparse").iterdir() for name in read_poses(folder)}
    assert len(placed) == 9 - left
    assert placed.isdisjoint(summary.at_odds)
    assert all(word in sentence for sentence in summary.warnings for word in ("contradicts", "--camera-mode"))
    assert len(summary.warnings) == (left > 0)


def test_images_that_the_mapper_itself_leaves_out_are_named(tmp_path, monkeypatch):
    make_scene(4).write(tmp_path / "a.db")
    monkeypatch.setattr(
        "romacli.mapping.incremental.leave_out_unsupported",
        lambda model, fewest: [weaken(model), leave_out_unsupported(model, fewest)][1],
    )
    summary = reconstruct(tmp_path / "a.db", tmp_path, tmp_path / "sparse", ONE_THREAD)
    placed = read_poses(tmp_path / "sparse" / "0")
    assert len(placed) == summary.registered == 3
    assert len(summary.left_out) == 1
    assert not placed.keys() & set(summary.left_out)
