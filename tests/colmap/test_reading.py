"""A model and a database read back equal what was written."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from support.small_scene import FOCAL, SIZE, make_scene

from romacli.colmap.binding import load_pycolmap
from romacli.colmap.cameras import ImageInfo
from romacli.colmap.poses import compare_poses, read_poses
from romacli.colmap.reading import read_inliers, read_keypoints, read_model, verified_places
from romacli.errors import InputError, StoreError
from romacli.mapping.cameras import known_cameras
from romacli.mapping.options import MapperOptions
from romacli.mapping.reconstruct import reconstruct
from romacli.mapping.views import read_points_seen, read_views


def test_a_model_is_read_as_arrays(tmp_path: Path) -> None:
    scene = make_scene(5)
    scene.write(tmp_path / "database.db")
    for name in scene.names:
        cv2.imwrite(str(tmp_path / name), np.full((SIZE[1], SIZE[0], 3), (10, 20, 200), np.uint8))
    options = MapperOptions(refine_intrinsics=False, num_threads=1)
    summary = reconstruct(tmp_path / "database.db", tmp_path, tmp_path / "sparse", options)
    model = read_model(tmp_path / "sparse" / "0")
    assert (len(model.poses), len(model.xyz)) == (summary.registered, summary.points3D)
    assert model.track_lengths.sum() == sum(model.observations.values()) == summary.observations
    assert float(model.errors.mean()) == pytest.approx(summary.mean_reprojection_error, rel=1e-3)
    assert np.abs(np.median(model.colours, axis=0) - (200, 20, 10)).max() < 5
    assert {camera.focal_length_px for camera in model.cameras.values()} == {FOCAL}
    assert compare_poses(model.poses, scene.poses).rotation_deg.max() < 0.5


def test_places_of_inliers_are_relative_to_the_images_in_either_order(tmp_path: Path) -> None:
    scene, path = make_scene(4), tmp_path / "database.db"
    scene.write(path)
    (one, other), count = next(iter(read_inliers(path).items()))
    keypoints = read_keypoints(path)
    with verified_places(path) as places:
        first, second = places((one, other))
        assert len(first) == len(second) == count
        for name, found in ((one, first), (other, second)):
            own = {tuple(place) for place in (keypoints[name] / SIZE).round(6).tolist()}
            assert {tuple(place) for place in found.round(6).tolist()} <= own
        swapped = places((other, one))
        assert (swapped[0] == second).all()
        assert (swapped[1] == first).all()
        assert places((one, "missing.jpg")) is None


def test_damaged_and_missing_models_and_databases_are_sentences(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="contains no COLMAP model"):
        read_model(tmp_path)
    with pytest.raises(InputError, match="is missing"):
        read_inliers(tmp_path / "database.db")
    (tmp_path / "database.db").write_bytes(b"not a database")
    with pytest.raises(StoreError, match="cannot be read"):
        read_inliers(tmp_path / "database.db")


@pytest.mark.parametrize("name", ["cameras", "images", "points3D", "frames"])
def test_a_model_that_is_cut_off_is_damaged(tmp_path: Path, name: str) -> None:
    scene = make_scene(3)
    scene.write(tmp_path / "database.db")
    reconstruct(tmp_path / "database.db", tmp_path, tmp_path / "sparse", MapperOptions(num_threads=1))
    path = tmp_path / "sparse" / "0" / f"{name}.bin"
    whole = path.read_bytes()
    for length in (0, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(StoreError, match="0 is damaged"):
            read_model(path.parent)
    path.write_bytes(whole)
    assert len(read_model(path.parent).poses) == 3


def test_names_with_blanks_are_whole_in_text_models(tmp_path: Path) -> None:
    names = ["Bild 01 (Kopie).jpg", "Bild 02 (Kopie).jpg", "straße 3/ a  b.jpg", "plain.jpg", "ohne punkte 5.jpg"]
    scene = make_scene(names)
    scene.write(tmp_path / "database.db")
    (tmp_path / "photos").mkdir()
    reconstruct(tmp_path / "database.db", tmp_path / "photos", tmp_path / "sparse", MapperOptions(num_threads=1))
    text = tmp_path / "text"
    text.mkdir()
    model = load_pycolmap().Reconstruction(tmp_path / "sparse" / "0")
    model.write_text(text)
    assert set(read_model(text).poses) == {*names}
    assert read_poses(text).keys() == read_views(text).keys() == read_points_seen(text).keys() == {*names}
    infos = [ImageInfo(name, SIZE) for name in names]
    assert set(known_cameras(text, infos)[1]) == {*names}
    whole = (text / "images.txt").read_text()
    (text / "images.txt").write_text(whole.replace("Bild 01 (Kopie).jpg", ""))
    with pytest.raises(InputError, match="cannot be read as a COLMAP model"):
        read_poses(text)
