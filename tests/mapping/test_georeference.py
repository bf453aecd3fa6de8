"""A model compared with its photographs' GPS positions: residuals in metres, and the model moved to these positions."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from support.small_scene import make_scene

from romacli.colmap.poses import read_poses
from romacli.errors import NothingFoundError, StoreError
from romacli.geometry.globe import east_north_up, position_fault
from romacli.mapping.georeference import GEOREFERENCE, compare_with_gps, fit_gps, georeference, read_gps
from romacli.mapping.options import MapperOptions
from romacli.mapping.reconstruct import check_holds_models_only, reconstruct

ORIGIN = (48.5, 9.0, 412.0)


def on_the_globe(metres, origin=ORIGIN):
    """Latitude, longitude and altitude of positions (N, 3) a few hundred m east, north and up of an origin."""
    places = np.tile(origin, (len(metres), 1))
    for _ in range(5):
        left = metres - east_north_up(places, origin)
        places += left @ np.diag([0, 0, 1]) + left[:, [1, 0, 2]] * [1 / 111_200, 1 / (111_200 * 0.6626), 0]
    return [tuple(place) for place in places]


@pytest.fixture(scope="module")
def walk():
    """Camera centres in a model's frame by name, and the positions in m they correspond to."""
    rng = np.random.default_rng(0)
    places = rng.uniform(-50, 50, (12, 3)) * [1, 1, 0.1]
    centres = 0.03 * places @ Rotation.random(rng=rng).as_matrix().T + [5, -2, 1]
    names = [f"{index:02}.jpg" for index in range(len(places))]
    return dict(zip(names, centres, strict=True)), dict(zip(names, on_the_globe(places), strict=True))


def test_metres_of_the_globe():
    north, east = 0.001, 0.001
    found = east_north_up(np.array([(48.5 + north, 9, 412), (48.5, 9 + east, 412), (48.5, 9, 420)]), ORIGIN)
    assert found[0] == pytest.approx([0, 111.2, 0], abs=0.1)
    assert found[1] == pytest.approx([73.9, 0, 0], abs=0.1)
    assert found[2] == pytest.approx([0, 0, 8], abs=1e-6)


def test_a_true_model_has_no_residual_whatever_its_frame(walk):
    centres, gps = walk
    fit = fit_gps(centres, gps)
    assert fit.largest_m < 1e-3
    assert fit.to_metres.scale == pytest.approx(1 / 0.03, rel=1e-4)
    assert set(fit.residuals_m) == set(centres)


def test_a_single_wrong_position_keeps_its_error_to_itself(walk):
    centres, gps = walk
    latitude, longitude, altitude = gps["03.jpg"]
    fit = fit_gps(centres, gps | {"03.jpg": (latitude + 0.002, longitude, altitude)})
    assert fit.worst == "03.jpg"
    assert fit.largest_m == pytest.approx(222, rel=0.05)
    assert fit.median_m < 5
    assert "03.jpg" in str(fit)


def test_a_wrong_model_is_far_from_its_positions(walk):
    centres, gps = walk
    rng = np.random.default_rng(1)
    fit = fit_gps({name: rng.normal(size=3) for name in centres}, gps)
    assert fit.median_m > 0.1 * fit.extent_m


def test_too_few_or_equal_positions_tell_nothing(walk):
    centres, gps = walk
    assert fit_gps(centres, {name: gps[name] for name in list(gps)[:2]}) is None
    assert fit_gps(centres, dict.fromkeys(gps, ORIGIN)) is None
    assert fit_gps(dict.fromkeys(gps, np.zeros(3)), gps) is None


@pytest.mark.parametrize(
    ("place", "word"),
    [
        ((0.0, 0.0, 0.0), "fix"),
        ((0.0, 0.0, 33.0), "fix"),
        ((48.5, float("nan"), 0.0), "number"),
        ((48.5, 9.0, float("inf")), "number"),
        ((48.5, 9.0, 4294962.296), "4294962 m"),
        ((95.0, 9.0, 0.0), "90"),
    ],
)
def test_a_position_that_cannot_be_true_says_why(place, word):
    assert word in (position_fault(*place) or "")


@pytest.mark.parametrize("place", [(0.0, 9.0, 0.0), (48.5, 9.0, -4.0), (-90.0, 180.0, 8848.0)])
def test_unusual_positions_are_believed(place):
    assert position_fault(*place) is None


@pytest.fixture
def mapped(tmp_path):
    """A model of six photographs with a database whose priors are the true positions in metres."""
    scene = make_scene(6)
    metres = np.array([pose.centre for pose in scene.poses.values()]) @ Rotation.from_euler("x", 90, True).as_matrix()
    gps = dict(zip(scene.names, on_the_globe(20 * metres), strict=True))
    scene.write(tmp_path / "a.db", gps=gps | {scene.names[1]: (0.0, 0.0, 0.0)})
    options = MapperOptions(refine_intrinsics=False, num_threads=1)
    reconstruct(tmp_path / "a.db", tmp_path, tmp_path / "sparse", options)
    return tmp_path / "sparse" / "0", tmp_path / "a.db", gps


def test_georeferenced_cameras_stand_where_their_positions_are(mapped):
    model, database, gps = mapped
    assert len(read_gps(database)) == 5  # without 0, 0
    before = compare_with_gps(model, database)
    assert georeference(model, database).median_m == pytest.approx(before.median_m)
    held = json.loads((model / GEOREFERENCE).read_text())["origin"]
    origin = held["latitude"], held["longitude"], held["altitude"]
    for name, pose in read_poses(model).items():
        (place,) = east_north_up(np.array([gps[name]]), origin)
        assert np.linalg.norm(pose.centre - place) < 0.5
    check_holds_models_only(model.parent)
    written = (model / "images.bin").read_bytes()
    georeference(model, database)
    assert (model / "images.bin").read_bytes() == written
    assert [one.name for one in model.parent.iterdir()] == ["0"]


def test_positions_on_a_line_leave_the_model_as_it_is(tmp_path):
    scene = make_scene(4)
    line = on_the_globe(np.arange(4)[:, None] * np.array([[10.0, 0, 0]]))
    scene.write(tmp_path / "a.db", gps=dict(zip(scene.names, line, strict=True)))
    reconstruct(tmp_path / "a.db", tmp_path, tmp_path / "sparse", MapperOptions(refine_intrinsics=False, num_threads=1))
    with pytest.raises(NothingFoundError, match="line"):
        georeference(tmp_path / "sparse" / "0", tmp_path / "a.db")
    assert not (tmp_path / "sparse" / "0" / GEOREFERENCE).exists()


def test_a_file_that_is_no_database_is_named(tmp_path):
    (tmp_path / "a.db").write_bytes(b"no database" * 100)
    with pytest.raises(StoreError, match=r"a\.db"):
        read_gps(tmp_path / "a.db")
