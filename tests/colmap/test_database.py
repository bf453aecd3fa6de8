"""The content of the file, read with sqlite3 alone; and what happens to files that are in the way."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing

import numpy as np
import pytest
from support.small_scene import GIVEN, PARAMS, SIZE, make_scene

from romacli.colmap.access import database_faults
from romacli.colmap.binding import load_pycolmap
from romacli.colmap.database import is_ours, write_database
from romacli.colmap.options import CameraOptions, VerifyOptions
from romacli.colmap.reading import read_inliers
from romacli.colmap.verify import MAPPED_CONFIGS
from romacli.errors import BusyError, StoreError
from romacli.geometry.coordinates import colmap_to_hloc
from romacli.geometry.epipolar import sampson_error
from romacli.mapping.reconstruct import reconstruct
from romacli.mapping.views import read_listed_pairs

ODD_NAMES = ["Straße 2/größer.jpg", "a b/c d.webp", "a-b.jpg", "a/b.jpg", "zoë.png"]
COLMAP_PAIRS = 2147483647


def rows_of(path, sql):
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
        return database.execute(sql).fetchall()


def array(blob, dtype, columns=2):
    return np.frombuffer(blob, dtype).reshape(-1, columns)


@pytest.fixture(scope="module")
def scene():
    return make_scene(ODD_NAMES, points=120)


@pytest.fixture
def written(scene, tmp_path):
    path = tmp_path / "my job" / "database.db"
    return path, scene.write(path)


def test_images_are_numbered_in_plain_string_order_whatever_their_names(written):
    path, _ = written
    assert rows_of(path, "SELECT image_id, name FROM images ORDER BY image_id") == [
        (index + 1, name) for index, name in enumerate(sorted(ODD_NAMES))
    ]


def test_keypoints_are_the_points_in_memory_bit_for_bit(written, scene):
    path, _ = written
    for name, columns, blob in rows_of(path, "SELECT name, cols, data FROM keypoints JOIN images USING (image_id)"):
        assert columns == 2
        assert np.array_equal(array(blob, np.float32), scene.keypoints[name])


def test_keypoints_are_half_a_pixel_from_those_of_hloc_files(written, scene):
    path, _ = written
    ((blob,),) = rows_of(path, "SELECT data FROM keypoints JOIN images USING (image_id) WHERE name = 'zoë.png'")
    hloc = colmap_to_hloc(scene.keypoints["zoë.png"])
    np.testing.assert_allclose(array(blob, np.float32), hloc + 0.5, atol=1e-4)


def test_matches_stand_under_the_smaller_image_first(written, scene):
    path, _ = written
    ids = {name: image_id for image_id, name in rows_of(path, "SELECT image_id, name FROM images")}
    found = {pair_id: array(blob, np.uint32) for pair_id, blob in rows_of(path, "SELECT pair_id, data FROM matches")}
    assert len(found) == len(scene.matches)
    for (name0, name1), rows in scene.matches.items():
        low, high = sorted((ids[name0], ids[name1]))
        expected = rows if ids[name0] == low else rows[:, ::-1]
        assert np.array_equal(found[COLMAP_PAIRS * low + high], expected)


def test_cameras_carry_the_given_parameters(written):
    path, _ = written
    cameras = rows_of(path, "SELECT width, height, params, prior_focal_length FROM cameras")
    assert {(width, height, prior) for width, height, _, prior in cameras} == {(*SIZE, 1)}
    assert all(np.frombuffer(blob).tolist() == list(PARAMS) for _, _, blob, _ in cameras)


def test_every_camera_has_a_rig_and_every_image_a_frame(written):
    path, summary = written
    assert rows_of(path, "SELECT count(*) FROM rigs") == [(summary.cameras,)]
    assert rows_of(path, "SELECT count(*) FROM frames") == [(len(ODD_NAMES),)]
    assert rows_of(path, "SELECT count(*) FROM frame_data f JOIN images i ON f.data_id = i.image_id") == [
        (len(ODD_NAMES),)
    ]


@pytest.mark.parametrize("method", ["magsac", "colmap"])
@pytest.mark.parametrize("cameras", [GIVEN, CameraOptions()], ids=["given", "guessed"])
def test_every_two_view_geometry_is_one_that_mappers_use(tmp_path, method, cameras):
    scene = make_scene(4, points=100)
    shuffled = scene.matches["000.jpg", "001.jpg"].copy()
    shuffled[:, 1] = np.roll(shuffled[:, 1], 37)
    matches = {**scene.matches, ("000.jpg", "001.jpg"): shuffled}
    summary = scene.write(
        tmp_path / "a.db",
        cameras=cameras,
        verify=VerifyOptions(method=method, num_threads=1),
        matches=matches.items(),
    )
    geometries = rows_of(tmp_path / "a.db", "SELECT config, rows FROM two_view_geometries")
    assert len(geometries) == summary.verified == len(matches) - 1
    assert sum(rows for _, rows in geometries) == summary.inliers
    assert all(config in MAPPED_CONFIGS and rows >= 15 for config, rows in geometries)


def test_fundamental_matrices_belong_to_the_order_of_the_image_numbers(scene, tmp_path):
    scene.write(tmp_path / "a.db", cameras=CameraOptions())
    names = dict(rows_of(tmp_path / "a.db", "SELECT image_id, name FROM images"))
    pycolmap = load_pycolmap()
    with closing(pycolmap.Database.open(tmp_path / "a.db")) as database:
        pair_ids, geometries = database.read_two_view_geometries()
        for pair_id, geometry in zip(pair_ids, geometries, strict=True):
            low, high = divmod(pair_id, COLMAP_PAIRS)[0], pair_id % COLMAP_PAIRS
            points = [
                scene.keypoints[names[image_id]][geometry.inlier_matches[:, side]]
                for side, image_id in enumerate((low, high))
            ]
            assert np.median(sampson_error(geometry.F, *points)) < 1


def test_summary_counts_what_is_in_the_file(written, scene):
    path, summary = written
    assert summary.images == len(ODD_NAMES)
    assert summary.keypoints == sum(map(len, scene.keypoints.values()))
    assert (summary.pairs, summary.matches) == (len(scene.matches), sum(map(len, scene.matches.values())))
    assert rows_of(path, "SELECT count(*), sum(rows) FROM two_view_geometries") == [(summary.verified, summary.inliers)]


def test_summary_tells_shared_keypoints_from_private_ones(tmp_path):
    shared = make_scene(5, points=100, reach=4)
    assert shared.write(tmp_path / "shared.db").pairs_per_keypoint > 3
    private = make_scene(5, points=100, reach=4)
    offsets = dict.fromkeys(private.names, 0)
    keypoints, matches = {name: [] for name in private.names}, {}
    for pair, rows in private.matches.items():
        for side, name in enumerate(pair):
            keypoints[name].append(private.keypoints[name][rows[:, side]])
        matches[pair] = np.column_stack([offsets[name] + np.arange(len(rows)) for name in pair])
        for name in pair:
            offsets[name] += len(rows)
    private.keypoints.update({name: np.concatenate(parts) for name, parts in keypoints.items()})
    assert private.write(tmp_path / "private.db", matches=matches.items()).pairs_per_keypoint == 1


def test_images_without_keypoints_and_pairs_without_matches_are_welcome(tmp_path):
    scene = make_scene(4, points=100)
    del scene.keypoints["003.jpg"]
    matches = {("000.jpg", "001.jpg"): scene.matches["000.jpg", "001.jpg"]}
    matches["000.jpg", "003.jpg"] = np.zeros((0, 2), np.int32)
    summary = scene.write(tmp_path / "a.db", matches=matches.items())
    assert (summary.images, summary.pairs) == (4, 1)


def test_a_finished_database_is_one_file(written):
    path, _ = written
    assert [one.name for one in path.parent.iterdir()] == ["database.db"]
    assert rows_of(path, "PRAGMA journal_mode") == [("delete",)]


def failing(scene):
    for number, item in enumerate(scene.matches.items()):
        if number == 3:
            raise RuntimeError("the source of matches broke")
        yield item


@pytest.mark.parametrize("method", ["magsac", "colmap"])
def test_failure_in_the_middle_leaves_no_file(scene, tmp_path, method):
    with pytest.raises(RuntimeError, match="broke"):
        scene.write(tmp_path / "a.db", matches=failing(scene), verify=VerifyOptions(method=method))
    assert list(tmp_path.iterdir()) == []


def test_failure_in_the_middle_leaves_the_database_of_before(written, scene):
    path, _ = written
    before = path.read_bytes()
    with pytest.raises(RuntimeError, match="broke"):
        scene.write(path, matches=failing(scene))
    assert path.read_bytes() == before
    assert len(list(path.parent.iterdir())) == 1


def test_our_own_database_is_replaced(written, scene):
    path, _ = written
    first_pair = dict([next(iter(scene.matches.items()))])
    assert scene.write(path, matches=first_pair.items()).pairs == 1
    assert rows_of(path, "SELECT count(*) FROM matches") == [(1,)]


@pytest.fixture
def foreign(tmp_path):
    path = tmp_path / "mine.db"
    load_pycolmap().Database.open(path).close()
    return path


def test_a_foreign_database_stays_byte_for_byte(foreign, scene):
    before = foreign.read_bytes()
    with pytest.raises(StoreError, match=r"mine\.db exists and was not made by romacli.*--overwrite"):
        scene.write(foreign)
    assert foreign.read_bytes() == before
    assert not is_ours(foreign)
    assert [one.name for one in foreign.parent.iterdir()] == ["mine.db"]


@pytest.mark.parametrize("content", [b"", b"no database at all" * 99])
def test_any_other_file_stays_as_well(tmp_path, scene, content):
    (tmp_path / "notes.db").write_bytes(content)
    with pytest.raises(StoreError, match="was not made by romacli"):
        scene.write(tmp_path / "notes.db")
    assert (tmp_path / "notes.db").read_bytes() == content


def test_a_foreign_database_is_replaced_when_asked(foreign, scene):
    scene.write(foreign, overwrite=True)
    assert is_ours(foreign)


def test_a_folder_in_the_place_of_the_database_is_named(tmp_path, scene):
    (tmp_path / "a.db").mkdir()
    with pytest.raises(StoreError, match=r"a\.db is a folder"):
        scene.write(tmp_path / "a.db", overwrite=True)


def test_a_database_that_is_open_elsewhere_is_left_alone(written, scene):
    path, _ = written
    path.with_name("database.db-wal").write_bytes(b"")
    with pytest.raises(BusyError, match=r"database\.db is open in another program"):
        scene.write(path)


def crash_while_changing(path):
    """Leave a database as a program does that is killed in the middle of a transaction."""
    program = (
        "import os, sqlite3, sys\n"
        "database = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "database.execute('PRAGMA cache_size = 1')\n"
        "database.execute('BEGIN IMMEDIATE')\n"
        "database.execute('UPDATE keypoints SET data = zeroblob(100000)')\n"
        "os._exit(9)\n"
    )
    subprocess.run([sys.executable, "-c", program, path], check=False)
    assert path.with_name(path.name + "-journal").stat().st_size > 0


def test_a_database_that_a_program_died_on_is_left_alone_and_not_believed(written, scene):
    path, _ = written
    before = rows_of(path, "SELECT data FROM keypoints")
    crash_while_changing(path)
    reads = (
        lambda: scene.write(path),
        lambda: read_listed_pairs(path, min_inliers=1),
        lambda: read_inliers(path),
        lambda: reconstruct(path, path.parent, path.parent / "sparse"),
    )
    for read in reads:
        with pytest.raises(BusyError, match=r"database\.db-journal contains an unfinished change"):
            read()
    assert any("database.db-journal" in fault for fault in database_faults(path))
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT data FROM keypoints").fetchall() == before
    scene.write(path)


@pytest.mark.parametrize("left", [b"", bytes(512)], ids=["cut", "zeroed"])
def test_a_journal_that_is_done_with_is_no_obstacle(written, scene, left):
    path, summary = written
    path.with_name("database.db-journal").write_bytes(left)
    assert scene.write(path) == summary


def test_matches_of_an_unknown_image_are_refused(scene, tmp_path):
    matches = {("a/b.jpg", "gone.jpg"): np.zeros((20, 2), np.int32)}
    with pytest.raises(StoreError, match=r"name gone\.jpg, which is not among the images"):
        scene.write(tmp_path / "a.db", matches=matches.items())


@pytest.mark.parametrize("row", [-1, 120])
def test_matches_outside_the_keypoints_are_refused(scene, tmp_path, row):
    matches = {("a/b.jpg", "zoë.png"): np.array([[0, 0]] * 20 + [[0, row]], np.int32)}
    with pytest.raises(StoreError, match=r"point outside the 120 keypoints of zoë\.png"):
        scene.write(tmp_path / "a.db", matches=matches.items())


@pytest.mark.parametrize("second", [("a/b.jpg", "zoë.png"), ("zoë.png", "a/b.jpg"), ("a-b.jpg", "a-b.jpg")])
def test_a_pair_may_come_once(scene, tmp_path, second):
    rows = np.zeros((20, 2), np.int32)
    with pytest.raises(StoreError, match="twice, or an image with itself"):
        scene.write(tmp_path / "a.db", matches=[(("a/b.jpg", "zoë.png"), rows), (second, rows)])


def test_keypoints_of_another_shape_are_a_bug(tmp_path):
    with pytest.raises(ValueError, match=r"keypoints of 1\.jpg are \(3, 4\), expected \(K, 2\)"):
        write_database(
            tmp_path / "a.db",
            cameras=[],
            camera_of={"1.jpg": 0},
            keypoints={"1.jpg": np.zeros((3, 4), np.float32)},
            matches=[],
            verify=VerifyOptions(),
        )


def test_progress_hears_of_every_pair_in_order(scene, tmp_path):
    heard = []
    scene.write(tmp_path / "a.db", progress=heard.append)
    assert heard == list(scene.matches)
