"""Images added to a model get their true poses, and no existing id, position or frame changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.small_scene import GIVEN, Scene, make_scene

from romacli.colmap.poses import compare_poses, load_model, read_poses
from romacli.errors import InputError, NothingFoundError
from romacli.mapping.options import MapperOptions
from romacli.mapping.reconstruct import extend_model, reconstruct

OPTIONS = MapperOptions(num_threads=1, refine_intrinsics=False)


def part(scene: Scene, names: list[str]) -> Scene:
    matches = {pair: rows for pair, rows in scene.matches.items() if set(pair) <= set(names)}
    return replace(scene, poses={name: scene.poses[name] for name in names}, matches=matches)


@pytest.fixture(scope="module")
def scene() -> Scene:
    """Eight views on an arc; the last sees nothing that the others see."""
    made = make_scene(8, seed=1)
    return replace(made, matches={pair: rows for pair, rows in made.matches.items() if "007.jpg" not in pair})


@pytest.fixture
def mapped(scene: Scene, tmp_path: Path) -> Path:
    """A folder with a model of five of the views in `sparse`, and a database extended to all."""
    database = tmp_path / "database.db"
    part(scene, scene.names[:5]).write(database)
    reconstruct(database, tmp_path, tmp_path / "sparse", OPTIONS)
    scene.write(database)
    return tmp_path


@pytest.mark.parametrize("adjusts_all", [False, True])
def test_new_images_are_posed_and_what_was_there_stays(scene: Scene, mapped: Path, *, adjusts_all: bool) -> None:
    before = load_model(mapped / "sparse" / "0")
    (mapped / "sparse" / "0" / "georeference.json").write_text("{}")
    added, _ = extend_model(
        mapped / "database.db", mapped, mapped / "sparse" / "0", scene.names[5:], OPTIONS, adjusts_all=adjusts_all
    )
    assert added == ["005.jpg", "006.jpg"]
    after = load_model(mapped / "sparse" / "0")
    errors = compare_poses(read_poses(mapped / "sparse" / "0"), scene.poses)
    assert errors.missing == ("007.jpg",)
    assert errors.rotation_deg.max() < 0.2
    assert errors.position.max() < 0.01
    extent = np.ptp([image.projection_center() for image in before.images.values()], axis=0).max()
    for key, image in before.images.items():
        moved = np.linalg.norm(after.images[key].projection_center() - image.projection_center())
        assert after.images[key].name == image.name
        assert moved < (0.01 * extent if adjusts_all else 1e-9)
    places = [np.array([model.points3D[key].xyz for key in before.points3D]) for model in (before, after)]
    assert np.median(np.linalg.norm(places[0] - places[1], axis=1)) < (0.01 * extent if adjusts_all else 1e-9)
    assert after.num_points3D() >= before.num_points3D()
    assert max(after.points3D[key].track.length() for key in before.points3D) > 5
    assert (mapped / "sparse" / "0" / "georeference.json").exists()


def test_a_model_stays_when_nothing_can_be_added(scene: Scene, mapped: Path) -> None:
    before = (mapped / "sparse" / "0" / "images.bin").read_bytes()
    with pytest.raises(NothingFoundError, match="none of 1 photograph"):
        extend_model(mapped / "database.db", mapped, mapped / "sparse" / "0", ["007.jpg"], OPTIONS)
    assert (mapped / "sparse" / "0" / "images.bin").read_bytes() == before


def test_a_database_with_other_keypoints_is_refused(scene: Scene, mapped: Path) -> None:
    moved = {name: xy + np.float32(1) for name, xy in scene.keypoints.items()}
    replace(scene, keypoints=moved).write(mapped / "database.db")
    with pytest.raises(InputError, match=r"was not made of .*database\.db.*romacli reconstruct"):
        extend_model(mapped / "database.db", mapped, mapped / "sparse" / "0", scene.names[5:], OPTIONS)


@pytest.mark.parametrize(("modes", "cameras"), [(("single", "per-image"), 3), (("per-image", "single"), 4)])
def test_images_of_a_model_keep_its_cameras_whatever_the_database_shares(
    scene: Scene, tmp_path: Path, modes: tuple[str, str], cameras: int
) -> None:
    database, new = tmp_path / "database.db", ["000.jpg", "005.jpg"]
    part(scene, scene.names[1:5]).write(database, cameras=replace(GIVEN, mode=modes[0]))
    reconstruct(database, tmp_path, tmp_path / "sparse", OPTIONS)
    before = camera_of(load_model(tmp_path / "sparse" / "0"))
    scene.write(database, cameras=replace(GIVEN, mode=modes[1]))
    added, model = extend_model(database, tmp_path, tmp_path / "sparse" / "0", new, OPTIONS)
    assert added == new
    after = camera_of(model)
    assert {name: after[name] for name in before} == before
    assert len(set(after.values())) == cameras


def camera_of(model: Any) -> dict[str, int]:
    return {image.name: image.camera_id for image in model.images.values() if image.has_pose}
