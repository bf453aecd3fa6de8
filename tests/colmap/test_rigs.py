"""COLMAP's rig file: which images belong to one camera and one frame, and the messages for files that do not fit."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

import numpy as np
import pytest
from support.small_scene import FOCAL, PARAMS, SIZE, look_at, make_scene

from romacli.colmap.cameras import ImageInfo, assign_cameras, shared_untold
from romacli.colmap.database import write_database
from romacli.colmap.options import CameraOptions, VerifyOptions
from romacli.colmap.poses import read_poses
from romacli.colmap.rigs import check_rigs, read_rigs, require_placed
from romacli.errors import InputError, UsageError
from romacli.mapping.options import MapperOptions
from romacli.mapping.reconstruct import reconstruct

LEFT = {"image_prefix": "links ä/", "ref_sensor": True}
RIGHT = {"image_prefix": "rechts/", "cam_from_rig_rotation": [1, 0, 0, 0], "cam_from_rig_translation": [-1, 0, 0.0]}
NAMES = [f"{side}/{index}.jpg" for side in ("links ä", "rechts") for index in range(3)] + ["other.jpg"]


@pytest.fixture
def rig(tmp_path):
    """Return a function that writes a file of one rig and reads it."""

    def write(*cameras, content=None):
        path = tmp_path / "rig.json"
        path.write_text(json.dumps([{"cameras": list(cameras)}]) if content is None else content)
        return read_rigs(path)

    return write


def rows(path, query):
    with closing(sqlite3.connect(path)) as database:
        return database.execute(query).fetchall()


def test_images_of_one_time_share_a_frame(rig, tmp_path):
    rigs = rig(LEFT, RIGHT)
    assert check_rigs(rigs, NAMES) == 3
    scene = make_scene(NAMES)
    cameras, camera_of = assign_cameras([ImageInfo(name, SIZE) for name in NAMES], CameraOptions(rigs=rigs))
    write_database(
        tmp_path / "a.db",
        cameras=cameras,
        camera_of=camera_of,
        keypoints=scene.keypoints,
        matches=scene.matches.items(),
        verify=VerifyOptions(num_threads=1),
        rigs=rigs,
    )
    query = (
        "SELECT group_concat(name, '+') FROM (SELECT * FROM images ORDER BY name) JOIN frame_data ON data_id = image_id"
    )
    frames = {row for (row,) in rows(tmp_path / "a.db", f"{query} GROUP BY frame_id")}
    assert frames == {*(f"links ä/{n}.jpg+rechts/{n}.jpg" for n in range(3)), "other.jpg"}
    assert rows(tmp_path / "a.db", "SELECT count(*) FROM rig_sensors") == [(1,)]
    assert rows(tmp_path / "a.db", "SELECT count(*) FROM two_view_geometries WHERE rows > 0")[0][0] > 10


@pytest.mark.parametrize("mode", ["auto", "single", "per-image"])
def test_a_rigs_camera_is_one_camera_whatever_the_mode(rig, mode):
    infos = [ImageInfo(name, SIZE, 500.0 + index) for index, name in enumerate(NAMES)]
    cameras, camera_of = assign_cameras(infos, CameraOptions(mode=mode, rigs=rig(LEFT, RIGHT)))
    assert len({camera_of[name] for name in NAMES[:3]}) == len({camera_of[name] for name in NAMES[3:6]}) == 1
    assert len(cameras) == 3


def test_intrinsics_of_the_file_are_given(rig):
    known = {**LEFT, "camera_model_name": "PINHOLE", "camera_params": [500, 500, 320, 240]}
    options = CameraOptions(rigs=rig(known, RIGHT))
    cameras, camera_of = assign_cameras([ImageInfo(name, SIZE) for name in NAMES], options)
    camera = cameras[camera_of[NAMES[0]]]
    assert (camera.model, camera.params, camera.origin) == ("PINHOLE", (500, 500, 320, 240), "given")
    assert not options.are_given
    assert [options.gives(name) for name in NAMES[2:4]] == [True, False]
    right = {**RIGHT, "camera_model_name": "PINHOLE", "camera_params": [500, 500, 320, 240]}
    assert CameraOptions(rigs=rig(known, right)).are_given
    assert cameras[camera_of[NAMES[3]]].origin == "guess"


def test_images_of_a_rigs_camera_share_it_by_the_file_and_not_by_their_size(rig):
    options = CameraOptions(rigs=rig(LEFT, RIGHT))
    infos = [ImageInfo(name, SIZE) for name in (*NAMES, "another.jpg")]
    _, camera_of = assign_cameras(infos, options)
    assert [[info.name for info in group] for group in shared_untold(infos, camera_of, options)] == [
        ["another.jpg", "other.jpg"]
    ]


def test_intrinsics_that_do_not_fit_their_model_are_refused(rig):
    rigs = rig({**LEFT, "camera_model_name": "PINHOLE", "camera_params": [500, 320, 240]}, RIGHT)
    with pytest.raises(UsageError, match=r"PINHOLE takes .*: 4 numbers; .*camera_params of links ä/ has 3 numbers"):
        assign_cameras([ImageInfo(name, SIZE) for name in NAMES], CameraOptions(rigs=rigs))


def test_images_of_one_camera_have_one_size(rig):
    infos = [ImageInfo(name, SIZE if index else (64, 48)) for index, name in enumerate(NAMES)]
    with pytest.raises(UsageError, match="0.jpg is 64x48 and .*1.jpg is 640x480 px, but --rig-config gives them one"):
        assign_cameras(infos, CameraOptions(rigs=rig(LEFT, RIGHT)))


def test_a_camera_without_photographs_is_named(rig):
    with pytest.raises(InputError, match="rig.json: no photograph's name begins with up/; they are named like links"):
        check_rigs(rig(LEFT, {"image_prefix": "up/"}), NAMES)


def test_cameras_that_never_took_one_frame_are_named(rig):
    names = ["links ä/1.jpg", "rechts/one.jpg"]
    with pytest.raises(InputError, match="no two photographs of links ä/ and rechts/ form a frame"):
        check_rigs(rig(LEFT, RIGHT), names)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("nonsense", "is not valid JSON: "),
        ("[" * 100_000, "is not valid JSON: "),
        ("[]", "it contains no rig"),
        ("[3]", 'a rig is {"cameras": [...]}'),
        ('[{"cameras": []}]', 'a rig is {"cameras": [...]}'),
        ('[{"cameras": [3]}]', "a camera is not a JSON object"),
        ('[{"cameras": [{"ref_sensor": true}]}]', "a camera lacks its image_prefix"),
        ('[{"cameras": [{"image_prefix": "a"}]}]', '0 cameras of a rig have "ref_sensor": true, but one must'),
    ],
)
def test_a_file_that_is_no_rig_file_says_where(rig, content, message):
    with pytest.raises(InputError) as caught:
        rig(content=content)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cam_from_rig_rotation": [1, 0, 0]}, "cam_from_rig_rotation of rechts/ is not w, x, y, z"),
        ({"cam_from_rig_translation": "x"}, "cam_from_rig_translation of rechts/ is not x, y, z"),
        ({"cam_from_rig_translation": None}, "rechts/ has one of rotation and translation without the other"),
        ({"camera_params": [1, 2]}, "rechts/ has camera_params without a camera_model_name"),
        ({"cam_from_rig_rotaton": 1}, "cam_from_rig_rotaton is unknown; known are image_prefix, "),
        ({"image_prefix": "links ä/sub"}, "image_prefix links ä/ is that of two cameras, or begins another's"),
    ],
)
def test_what_colmap_would_read_past_is_refused(rig, change, message):
    with pytest.raises(InputError) as caught:
        rig(LEFT, RIGHT | change)
    assert message in str(caught.value)


def test_a_camera_without_a_place_in_its_rig_is_named(rig):
    require_placed(rig(LEFT, RIGHT), "")
    with pytest.raises(InputError, match="rechts/ has no cam_from_rig_rotation .* Add it"):
        require_placed(rig(LEFT, {"image_prefix": "rechts/"}), "Add it.")


@pytest.mark.parametrize(("mapper", "is_placed"), [("incremental", True), ("global", True), ("auto", False)])
def test_cameras_of_a_rig_keep_their_places(rig, tmp_path, mapper, is_placed):
    """Two cameras 0.4 apart, moved together around a box of points; the model has the rig's scale if that is given."""
    rng = np.random.default_rng(0)
    world = rng.uniform(-1, 1, (250, 3)) * [1.5, 1.1, 1.0]
    keypoints = {}
    for index in range(4):
        angle = np.radians(12 * index)
        left = look_at(np.array([6 * np.sin(angle), 0.3 * (index % 3), -6 * np.cos(angle)]), np.zeros(3))
        for side, shift in (("links ä", 0.0), ("rechts", -0.4)):
            camera = world @ left.rotation.T + left.translation + [shift, 0, 0]
            xy = FOCAL * camera[:, :2] / camera[:, 2:] + np.array(SIZE) / 2 + rng.normal(0, 0.3, (250, 2))
            keypoints[f"{side}/{index}.jpg"] = xy.astype(np.float32)
    names = sorted(keypoints)
    all_points = np.stack([np.arange(250)] * 2, axis=1)
    matches = [((a, b), all_points) for k, a in enumerate(names) for b in names[k + 1 :]]
    placed = RIGHT | {"cam_from_rig_translation": [-0.4, 0, 0]}
    rigs = rig(LEFT, placed if is_placed else {"image_prefix": "rechts/"})
    cameras, camera_of = assign_cameras(
        [ImageInfo(name, SIZE) for name in names], CameraOptions(params=PARAMS, rigs=rigs)
    )
    write_database(
        tmp_path / "a.db",
        cameras=cameras,
        camera_of=camera_of,
        keypoints=keypoints,
        matches=matches,
        verify=VerifyOptions(num_threads=1),
        rigs=rigs,
    )
    options = MapperOptions(mapper, refine_intrinsics=False, num_threads=1)
    summary = reconstruct(tmp_path / "a.db", tmp_path, tmp_path / "sparse", options)
    assert summary.registered == 8
    poses = read_poses(tmp_path / "sparse" / "0")
    size = np.linalg.norm(poses["links ä/3.jpg"].centre - poses["links ä/0.jpg"].centre)
    scale = 1 if is_placed else size / (2 * 6 * np.sin(np.radians(18)))
    for index in range(4):
        apart = poses[f"links ä/{index}.jpg"].centre - poses[f"rechts/{index}.jpg"].centre
        assert np.linalg.norm(apart) == pytest.approx(0.4 * scale, rel=0.05)


def test_a_missing_file_is_missing(tmp_path):
    with pytest.raises(InputError, match=r"none\.json cannot be read: No such file or directory"):
        read_rigs(tmp_path / "none.json")
