"""Ids that stay the same when a job grows, as existing models and other programs need them."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from support.small_scene import GIVEN, SIZE, Scene, make_scene

from romacli.colmap.binding import load_pycolmap
from romacli.colmap.numbers import Numbers, continued, give_own_cameras, read_numbers
from romacli.colmap.options import CameraOptions
from romacli.colmap.rigs import read_rigs
from romacli.mapping.options import MapperOptions
from romacli.mapping.reconstruct import reconstruct

NAMES = ["b.jpg", "c.jpg", "d.jpg", "f.jpg"]


def part(scene: Scene, names: list[str]) -> Scene:
    """The scene without some of its images."""
    matches = {pair: rows for pair, rows in scene.matches.items() if {*pair} <= {*names}}
    return Scene({n: scene.poses[n] for n in names}, {n: scene.keypoints[n] for n in names}, matches)


def test_images_keep_their_numbers_and_new_ones_come_after(tmp_path: Path) -> None:
    scene, path = make_scene(["a.jpg", *NAMES[:2], "e.jpg", *NAMES[2:]]), tmp_path / "database.db"
    cameras = CameraOptions(mode="per-image")
    part(scene, NAMES).write(path, cameras=cameras)
    before = read_numbers(path, NAMES)
    scene.write(path, cameras=cameras)
    after = read_numbers(path, scene.names)
    for name in NAMES:
        assert [getattr(after, kind)[name] for kind in vars(after)] == [
            getattr(before, kind)[name] for kind in vars(before)
        ]
    for numbers in vars(after).values():
        assert (numbers["a.jpg"], numbers["e.jpg"]) == (5, 6)


@pytest.mark.parametrize(
    ("former", "expected"),
    [
        ({}, {"a.jpg": 1, "b.jpg": 2, "c.jpg": 1, "d.jpg": 3, "f.jpg": 1}),
        ({"d.jpg": 7, "b.jpg": 1}, {"a.jpg": 8, "b.jpg": 1, "c.jpg": 8, "d.jpg": 7, "f.jpg": 8}),
    ],
    ids=["first", "grown"],
)
def test_cameras_of_their_own_keep_their_numbers(
    tmp_path: Path, former: dict[str, int], expected: dict[str, int]
) -> None:
    scene, path = make_scene(["a.jpg", *NAMES]), tmp_path / "database.db"
    scene.write(path, cameras=CameraOptions(mode="single"), gps={name: (1.0, 2.0, 3.0) for name in scene.names})
    with closing(sqlite3.connect(path)) as database:
        give_own_cameras(database, ["b.jpg", "d.jpg"], Numbers(cameras=former))
        database.commit()
        assert database.execute("PRAGMA foreign_key_check").fetchall() == []
        query = "SELECT name, corr_sensor_id FROM pose_priors JOIN images ON corr_data_id = image_id"
        priors = dict(database.execute(query))
    numbers = read_numbers(path, scene.names)
    assert numbers.cameras == priors == expected
    assert len(set(numbers.rigs.values())) == 3
    with closing(load_pycolmap().Database.open(path)) as database:
        for image in database.read_all_images():
            frame = database.read_frame(numbers.frames[image.name])
            assert database.read_rig(frame.rig_id).ref_sensor_id.id == image.camera_id
            assert database.read_camera(image.camera_id).width == SIZE[0]


def test_a_new_image_that_comes_first_does_not_take_the_camera_of_another(tmp_path: Path) -> None:
    names = ["0.jpg", *NAMES]
    make_scene(names).write(tmp_path / "a.db", cameras=CameraOptions(mode="single"))
    with closing(sqlite3.connect(tmp_path / "a.db")) as database:
        give_own_cameras(database, names, Numbers(cameras={name: 1 + place for place, name in enumerate(NAMES)}))
        database.commit()
    assert read_numbers(tmp_path / "a.db", names).cameras == {"0.jpg": 5, **{n: 1 + k for k, n in enumerate(NAMES)}}


@pytest.mark.parametrize("fewer", [0, 5], ids=["same keypoints", "other keypoints"])
def test_colmap_goes_on_from_a_model_of_the_smaller_job(tmp_path: Path, fewer: int) -> None:
    scene, path = make_scene(["a.jpg", *NAMES[:2], "e.jpg", *NAMES[2:]]), tmp_path / "database.db"
    (tmp_path / "photos").mkdir()
    part(scene, NAMES).write(path)
    reconstruct(path, tmp_path / "photos", tmp_path / "sparse", MapperOptions(num_threads=1))
    for pair, rows in scene.matches.items():
        scene.matches[pair] = rows[(rows >= fewer).all(axis=1)] - fewer
    scene.keypoints.update({name: xy[fewer:] for name, xy in scene.keypoints.items()})
    scene.write(path)
    (tmp_path / "more").mkdir()
    pycolmap, model = load_pycolmap(), tmp_path / "sparse" / "0"
    if fewer:  # as described in romacli-formats(7)
        former, model = pycolmap.Reconstruction(model), tmp_path / "triangulated"
        model.mkdir()
        pycolmap.triangulate_points(former, path, tmp_path / "photos", model, clear_points=True)
    options = pycolmap.IncrementalPipelineOptions(num_threads=1, extract_colors=False)
    models = pycolmap.incremental_mapping(
        path, tmp_path / "photos", tmp_path / "more", input_path=model, options=options
    )
    assert [model.num_reg_images() for model in models.values()] == [6]


def test_geometries_fit_numbers_that_are_not_in_order(tmp_path: Path) -> None:
    scene, path = make_scene(["a.jpg", *NAMES]), tmp_path / "database.db"
    part(scene, NAMES).write(path)
    scene.write(path)
    numbers = read_numbers(path, scene.names).images
    with closing(sqlite3.connect(path)) as database:
        found = dict(database.execute("SELECT pair_id, data FROM matches").fetchall())
    for (one, other), rows in scene.matches.items():
        low, high = sorted((numbers[one], numbers[other]))
        stored = np.frombuffer(found[2147483647 * low + high], np.uint32).reshape(-1, 2)
        assert np.array_equal(stored, rows if numbers[one] == low else rows[:, ::-1])


def test_frames_of_rigs_keep_their_numbers(tmp_path: Path) -> None:
    left, right = (
        {"image_prefix": "l/", "ref_sensor": True},
        {
            "image_prefix": "r/",
            "cam_from_rig_rotation": [1, 0, 0, 0],
            "cam_from_rig_translation": [-1, 0, 0.0],
        },
    )
    (tmp_path / "rig.json").write_text(json.dumps([{"cameras": [left, right]}]))
    rigs, path = read_rigs(tmp_path / "rig.json"), tmp_path / "database.db"
    names = [f"{side}/{number}.jpg" for side in "lr" for number in (1, 2, 4)]
    scene = make_scene(sorted([*names, "l/0.jpg", "r/0.jpg", "l/3.jpg", "r/3.jpg"]), reach=2)
    cameras = CameraOptions(params=GIVEN.params, rigs=rigs)
    part(scene, names).write(path, cameras=cameras, rigs=rigs)
    before = read_numbers(path, names)
    assert len({*before.frames.values()}) == 3
    scene.write(path, cameras=cameras, rigs=rigs)
    after = read_numbers(path, scene.names)
    assert all(after.frames[name] == before.frames[name] for name in names)
    assert all(after.rigs[name] == before.rigs[name] for name in names)
    assert {after.frames["l/0.jpg"], after.frames["r/3.jpg"]} == {4, 5}
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA foreign_key_check").fetchall() == []


def test_groups_that_split_or_join_have_numbers_of_their_own() -> None:
    former = {"a": 1, "b": 1, "c": 1, "d": 7}
    assert continued([["a"], ["b", "c"], ["d", "e"], ["f"]], former) == [8, 1, 7, 9]
    assert continued([["a", "d"], ["b"]], former) == [1, 8]
    assert continued([["x"], ["y"]], {}) == [1, 2]


@pytest.mark.parametrize("content", [None, b"", b"no database" * 100])
def test_a_file_that_is_no_database_has_no_numbers(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "a.db").write_bytes(content)
    assert read_numbers(tmp_path / "a.db", ["a"]) == Numbers()
