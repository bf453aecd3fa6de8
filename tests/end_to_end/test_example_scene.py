"""The bundled example scene through the command line: photographs in, hloc files, a database and true cameras out."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from support.commands import (
    REPOSITORY,
    database_keypoints,
    database_rows,
    hloc_keypoints,
    hloc_names,
    hloc_walk,
    result_of,
    romacli_alone,
)

from romacli.colmap.poses import align_similarity, read_poses

SCENE = REPOSITORY / "examples" / "scene"
MAX_POSITION_ERROR = 0.01  # relative to the largest distance between two true cameras
USED_CONFIGS = {2, 3, 4, 5, 6, 9}  # of COLMAP's two-view geometries; its mappers skip the others


@dataclass(frozen=True)
class Run:
    folder: Path
    result: dict[str, Any]


@pytest.fixture(scope="module")
def images() -> list[str]:
    return sorted(path.name for path in (SCENE / "images").iterdir())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("job") / "out"
    return Run(folder, result_of(romacli_alone("reconstruct", SCENE / "images", "-o", folder, "--json")))


def test_every_image_is_registered(run: Run, images: list[str]) -> None:
    assert run.result["registered"] == run.result["images"] == len(images)
    assert run.result["attempts"] == [f"incremental: {len(images)} of {len(images)} images, kept"]
    assert sorted(read_poses(run.folder / "sparse" / "0")) == images


def test_cameras_stand_within_one_percent_of_the_extent(run: Run) -> None:
    truth, found = read_poses(SCENE / "truth"), read_poses(run.folder / "sparse" / "0")
    true_centres = np.array([truth[name].centre for name in sorted(truth)])
    centres = np.array([found[name].centre for name in sorted(truth)])
    extent = np.linalg.norm(true_centres[:, None] - true_centres, axis=-1).max()
    moved = align_similarity(centres, true_centres).apply(centres)
    assert np.linalg.norm(moved - true_centres, axis=1).max() < MAX_POSITION_ERROR * extent


def test_the_result_tells_what_was_done(run: Run, images: list[str]) -> None:
    result = run.result
    pairs = len(images) * (len(images) - 1) // 2
    assert result["pairs"] == pairs == result["matched"] + result["rejected"]
    assert result["failed"] == 0
    assert result["encodes"] == len(images)
    assert result["points3D"] > 1000
    assert result["mean_track_length"] > 3
    assert 0 < result["mean_reprojection_error"] < 2
    assert result["seconds"] > 0


def test_the_output_folder_is_as_documented(run: Run) -> None:
    expected = {
        "manifest.json", "pairs.txt", "images.json", "journal", "features.h5", "matches.h5", "database.db", "sparse",
        "runs.jsonl",
    }  # fmt: skip
    assert {path.name for path in run.folder.iterdir()} == expected


def test_hloc_reads_features_and_matches(run: Run, images: list[str]) -> None:
    features = run.folder / "features.h5"
    assert hloc_names(features) == images
    assert min(len(hloc_keypoints(features, name)) for name in images) > 100
    assert len(hloc_walk(run.folder, images)) == len(hloc_names(run.folder / "matches.h5")) == run.result["pairs"]


def test_hloc_keypoints_are_half_a_pixel_from_the_database(run: Run, images: list[str]) -> None:
    in_database = database_keypoints(run.folder / "database.db")
    assert sorted(in_database) == images
    for name, keypoints in in_database.items():
        in_file = hloc_keypoints(run.folder / "features.h5", name)
        np.testing.assert_allclose(in_file + 0.5, keypoints, atol=1e-4)


def test_every_two_view_geometry_is_one_the_mappers_use(run: Run) -> None:
    rows = list(database_rows(run.folder / "database.db", "SELECT config, rows FROM two_view_geometries"))
    assert rows
    assert {config for config, inliers in rows if inliers} <= USED_CONFIGS


def test_the_same_command_again_reuses_everything(run: Run) -> None:
    made = [path for path in run.folder.rglob("*") if path.suffix in (".h5", ".db", ".bin", ".jnl")]
    before = {path: path.stat().st_mtime_ns for path in made}
    again = result_of(romacli_alone("reconstruct", SCENE / "images", "-o", run.folder, "--json"))
    assert {path: path.stat().st_mtime_ns for path in made} == before
    assert again.pop("encodes") == 0
    assert again.pop("encodes_per_pair") == 0
    assert again.pop("seconds") < run.result["seconds"]
    assert again == {key: run.result[key] for key in again}


def test_the_overview_of_the_demo_is_drawn(run: Run, tmp_path: Path) -> None:
    picture = tmp_path / "overview.jpg"
    words = [SCENE.parent / "draw_overview.py", SCENE / "images", run.folder, picture]
    drawn = subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True)
    assert (drawn.returncode, drawn.stderr) == (0, "")
    assert cv2.imread(str(picture)).shape == (360, 1440, 3)
