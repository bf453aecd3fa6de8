"""Queries are posed by exact warps as exactly as these are; what has no pose says why, and nothing is invented."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from support.homography import HomographyMatcher, image_digest
from support.posed_job import FOCAL, SIZE, PosedJob, plane_from_image, posed_job, write_photograph
from support.small_scene import look_at
from typer.testing import CliRunner, Result

from romacli.cli.app import app
from romacli.colmap.poses import Pose
from romacli.geometry.epipolar import rotation_angle_deg
from romacli.localize.attach import Sighting, attach
from romacli.matchers import registry
from romacli.types import Features, MatcherSpec

FAR = np.array([400.0, 0.0, 0.0])


class PosedMatcher(HomographyMatcher):
    """Exact warps of the plane, and descriptors by where on it a photograph looks."""

    def encode_coarse(self, images):
        return [Features(image.tensors, image.size) for image in images]

    def describe(self, features):
        middles = [each.tensors["plane_from_image"][0].numpy() @ [SIZE[0] / 2, SIZE[1] / 2, 1] for each in features]
        angles = np.array([middle[0] / middle[2] for middle in middles]) / 10
        return np.stack((np.cos(angles), np.sin(angles)), axis=1).astype(np.float32)

    def overlap(self, pairs):
        return [1.0 for _ in pairs]


@dataclass(frozen=True)
class Walk:
    job: PosedJob
    queries: Path
    poses: dict[str, Pose]
    matcher: PosedMatcher


@pytest.fixture
def walk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Walk:
    """A posed job, two queries between its cameras and one that looks elsewhere."""
    job, queries = posed_job(tmp_path), tmp_path / "queries"
    poses = {
        "a/near.png": look_at(np.array([0.5, -0.7, -5.0]), np.zeros(3)),
        "b.png": look_at(np.array([-1.5, 0.3, -6.5]), np.array([0.4, 0.2, 0.0])),
        "lost.png": look_at(FAR + [0, 0, -6.0], FAR),
    }
    by_digest = {}
    for index, (path, pose) in enumerate(
        [
            *((job.photographs / name, pose) for name, pose in job.poses.items()),
            *((queries / name, pose) for name, pose in poses.items()),
        ]
    ):
        by_digest[image_digest(write_photograph(path, index))] = plane_from_image(pose)
    matcher = PosedMatcher(by_digest)
    monkeypatch.setitem(registry.MATCHERS, "posed", MatcherSpec("posed", lambda *_: matcher, "", ""))
    return Walk(job, queries, poses, matcher)


def run(walk: Walk, *words: object, images: bool = True) -> Result:
    folders = [walk.queries, "--model", walk.job.layout.root, "-o", walk.job.layout.root.parent / "out"]
    where = ["--images", walk.job.photographs] if images else []
    return CliRunner().invoke(app, ["localize", *map(str, [*folders, *where, "--matcher", "posed", *words])])


def poses_in(path: Path) -> dict[str, Pose]:
    found = {}
    for line in path.read_text().splitlines():
        name, *numbers = line.split()
        w, x, y, z, *translation = map(float, numbers)
        vector = np.array([x, y, z])
        cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
        rotation = np.eye(3) * (w * w - vector @ vector) + 2 * np.outer(vector, vector) + 2 * w * cross
        found[name] = Pose(rotation, np.array(translation))
    return found


def assert_right(found: dict[str, Pose], true: dict[str, Pose], names: set[str]) -> None:
    assert found.keys() == names
    for name, pose in found.items():
        assert rotation_angle_deg(pose.rotation.T @ true[name].rotation) < 0.05
        assert np.linalg.norm(pose.centre - true[name].centre) < 0.01


def test_queries_are_posed_and_a_lost_one_is_not(walk: Walk) -> None:
    result = run(walk, "--json")
    assert result.exit_code == 4
    assert "lost.png" in result.stderr
    out = walk.job.layout.root.parent / "out"
    assert_right(poses_in(out / "poses.txt"), walk.poses, {"a/near.png", "b.png"})
    values = json.loads(result.stdout)
    assert (values["queries"], values["posed"]) == (3, 2)
    by_name = {row["name"]: row for row in json.loads((out / "localized.json").read_text())}
    near = by_name["a/near.png"]
    assert near["inliers"] > 0.9 * near["points"] > 100
    assert np.array(near["covariance"]).shape == (6, 6)
    assert len(near["map_images"]) == 5
    assert not by_name["lost.png"]["posed"]
    assert "overlaps none" in by_name["lost.png"]["why"]


def test_nothing_is_matched_twice_and_nothing_at_all_is_said(walk: Walk) -> None:
    run(walk)
    before, first = walk.matcher.images_encoded, (walk.job.layout.root.parent / "out" / "poses.txt").read_text()
    run(walk)
    assert walk.matcher.images_encoded == before
    assert (walk.job.layout.root.parent / "out" / "poses.txt").read_text() == first
    shutil.rmtree(walk.queries / "a")
    (walk.queries / "b.png").unlink()
    lost = run(walk)
    assert lost.exit_code == 5
    assert "lost.png" in lost.stderr


def test_pairs_and_intrinsics_may_be_given(walk: Walk, tmp_path: Path) -> None:
    (tmp_path / "pairs.txt").write_text("b.png 1.png\n2.png b.png\n")
    (tmp_path / "list.txt").write_text(f"b.png PINHOLE {SIZE[0]} {SIZE[1]} {FOCAL} {FOCAL} 320 240\n")
    result = run(walk, "--pairs", tmp_path / "pairs.txt", "--query-list", tmp_path / "list.txt", "--json")
    assert result.exit_code == 0, result.stderr
    (row,) = json.loads(result.stdout)["results"]
    assert row["map_images"] == ["1.png", "2.png"]
    assert row["camera"] == {"model": "PINHOLE", "params": [FOCAL, FOCAL, 320, 240]}
    assert_right(poses_in(walk.job.layout.root.parent / "out" / "poses.txt"), walk.poses, {"b.png"})


def test_a_query_of_the_map_is_posed_without_itself(walk: Walk) -> None:
    shutil.rmtree(walk.queries)
    shutil.copytree(walk.job.photographs, walk.queries)
    words = ["localize", str(walk.job.photographs), "--model", str(walk.job.layout.root), "--matcher", "posed"]
    out = walk.job.layout.root.parent / "self"
    result = CliRunner().invoke(app, [*words, "--images", str(walk.job.photographs), "-o", str(out), "--json"])
    assert result.exit_code == 0, result.stderr
    assert all(row["name"] not in row["map_images"] for row in json.loads(result.stdout)["results"])
    assert_right(poses_in(out / "poses.txt"), walk.job.poses, set(walk.job.poses))


def test_a_broken_query_is_named_with_its_fault(walk: Walk) -> None:
    whole = (walk.queries / "b.png").read_bytes()
    (walk.queries / "half.png").write_bytes(whole[: len(whole) // 2])
    result = run(walk, "--json")
    assert result.exit_code == 4
    (row,) = [row for row in json.loads(result.stdout)["results"] if row["name"] == "half.png"]
    assert "half.png" in row["why"]
    assert "overlaps none" not in row["why"]


def test_a_fallback_is_marked(walk: Walk) -> None:
    result = run(walk, "--fallback", "retrieval", "--json")
    assert result.exit_code == 4
    rows = {row["name"]: row for row in json.loads(result.stdout)["results"]}
    assert rows["lost.png"]["fallback"] in walk.job.poses
    assert rows["b.png"]["fallback"] is None
    assert "lost.png" in poses_in(walk.job.layout.root.parent / "out" / "poses.txt")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("b.png PINHOLE 640 480 700", "takes fx, fy, cx, cy"),
        ("b.png", "NAME MODEL WIDTH HEIGHT"),
        ("gone.png SIMPLE_PINHOLE 640 480 700 320 240", "lacks: gone.png"),
        ("", "lists no query"),
    ],
)
def test_bad_lists_are_named(walk: Walk, tmp_path: Path, line: str, words: str) -> None:
    (tmp_path / "list.txt").write_text(line + "\n")
    result = run(walk, "--query-list", tmp_path / "list.txt")
    assert result.exit_code == 3
    assert words in result.stderr
    assert "list.txt" in result.stderr


def test_maps_that_cannot_serve_are_refused(walk: Walk, tmp_path: Path) -> None:
    assert "--images DIR" in run(walk, images=False).stderr
    points = walk.job.layout.sparse / "0" / "points3D.txt"
    (tmp_path / "empty").mkdir()
    elsewhere = run(walk, "--images", tmp_path / "empty", images=False)
    assert "holds none of the 5 photographs" in elsewhere.stderr
    points.write_text("")
    images = walk.job.layout.sparse / "0" / "images.txt"
    images.write_text("".join(f"{line}\n\n" for line in images.read_text().splitlines()[::2]))
    assert "needs a model with points" in run(walk).stderr


def test_a_matcher_without_warps_is_refused(walk: Walk) -> None:
    result = run(walk, "--matcher", "mini-sparse")
    assert result.exit_code == 2
    assert "gives none" in result.stderr


def test_points_are_where_most_of_the_weight_is() -> None:
    ids = np.array([1, 2])
    sightings = [
        Sighting(ids, np.array([[10.0, 10.0], [50.0, 50.0]]), np.array([1.0, 1.0])),
        Sighting(ids, np.array([[12.0, 10.0], [90.0, 50.0]]), np.array([1.0, 1.0])),
        Sighting(ids[:1], np.array([[80.0, 80.0]]), np.array([0.9])),
    ]
    found = attach(sightings, 4.0)
    assert found.ids.tolist() == [1]
    np.testing.assert_allclose(found.places, [[11, 10]])
    assert found.views.tolist() == [2]
