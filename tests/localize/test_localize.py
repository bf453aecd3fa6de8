"""Exact warps give exact poses of queries; a query without a pose has a reason, and nothing is invented."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from support.homography import HomographyMatcher, image_digest
from support.posed_job import FOCAL, NUM_POINTS, SIZE, PosedJob, plane_from_image, posed_job, write_photograph
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
    """Exact warps of the plane, and descriptors that depend on where on it a photograph looks."""

    def encode_coarse(self, images):
        return [Features(image.tensors, image.size) for image in images]

    def describe(self, images):
        middles = [each.tensors["plane_from_image"][0].numpy() @ [SIZE[0] / 2, SIZE[1] / 2, 1] for each in images]
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


def test_queries_are_localized_in_the_model_that_is_named(walk: Walk) -> None:
    sparse = walk.job.layout.sparse
    (sparse / "0").rename(sparse / "1")
    (sparse / "0").mkdir()
    assert "2 models" in run(walk).stderr
    run(walk, "--model", sparse / "1")
    out = walk.job.layout.root.parent / "out"
    assert_right(poses_in(out / "poses.txt"), walk.poses, {"a/near.png", "b.png"})
    assert "sparse/2 does not exist" in run(walk, "--model", sparse / "2").stderr


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
    (tmp_path / "list.txt").write_text(f"\ufeffb.png PINHOLE {SIZE[0]} {SIZE[1]} {FOCAL} {FOCAL} 320 240\n")
    result = run(walk, "--pairs", tmp_path / "pairs.txt", "--query-list", tmp_path / "list.txt", "--json")
    assert result.exit_code == 0, result.stderr
    (row,) = json.loads(result.stdout)["results"]
    assert row["map_images"] == ["1.png", "2.png"]
    assert row["camera"] == {"model": "PINHOLE", "params": [FOCAL, FOCAL, 320, 240]}
    assert_right(poses_in(walk.job.layout.root.parent / "out" / "poses.txt"), walk.poses, {"b.png"})


def test_a_zoomed_query_does_not_get_the_maps_camera(walk: Walk) -> None:
    zoomed, middle = walk.queries / "b.png", [[2, 0, -SIZE[0] / 2], [0, 2, -SIZE[1] / 2], [0, 0, 1]]
    digest = image_digest(cv2.imread(str(zoomed))[..., ::-1])
    known = walk.matcher._plane_from_image
    walk.matcher._plane_from_image = {**known, digest: known[digest] @ np.linalg.inv(middle)}
    for path, millimetres in (*((path, 38) for path in walk.job.photographs.glob("*.png")), (zoomed, 76)):
        exif = Image.Exif()
        exif[0x8769] = {0xA405: millimetres}  # FocalLengthIn35mmFilm
        Image.open(path).save(path, exif=exif)
    assert run(walk).exit_code == 4
    out = walk.job.layout.root.parent / "out"
    assert_right(poses_in(out / "poses.txt"), walk.poses, {"a/near.png", "b.png"})
    by_name = {row["name"]: row for row in json.loads((out / "localized.json").read_text())}
    assert by_name["b.png"]["camera"]["params"][0] == pytest.approx(2 * FOCAL, rel=1e-3)


def quaternion(rotation: np.ndarray) -> tuple[float, ...]:
    """w, x, y, z of a rotation matrix."""
    axis_angle = cv2.Rodrigues(rotation)[0].ravel()
    angle = float(np.linalg.norm(axis_angle))
    return tuple(map(float, (np.cos(angle / 2), *(np.sinc(angle / 2 / np.pi) / 2 * axis_angle))))


def write_poses(path: Path, poses: dict[str, Pose]) -> Path:
    """Poses, one per line."""
    lines = [
        f"{name} {' '.join(map(str, (*quaternion(pose.rotation), *pose.translation)))}\n"
        for name, pose in poses.items()
    ]
    path.write_text("".join(lines), encoding="utf-8")
    return path


def test_rough_poses_choose_map_images(walk: Walk, tmp_path: Path) -> None:
    rough = {name: Pose(pose.rotation, pose.translation + [0.3, -0.1, 0.2]) for name, pose in walk.poses.items()}
    del rough["a/near.png"]
    result = run(walk, "--near", write_poses(tmp_path / "rough.txt", rough), "--num-matched", 3, "--json")
    assert result.exit_code == 4, result.stderr
    rows = {row["name"]: row for row in json.loads(result.stdout)["results"]}
    assert len(rows["b.png"]["map_images"]) == 3
    assert "rough.txt has no pose for it" in rows["a/near.png"]["why"]
    assert "sees nothing that a map image shows" in rows["lost.png"]["why"]
    assert_right(poses_in(walk.job.layout.root.parent / "out" / "poses.txt"), walk.poses, {"b.png"})
    strangers = run(walk, "--near", write_poses(tmp_path / "rough.txt", {"queries/b.png": rough["b.png"]}))
    assert strangers.exit_code == 3
    assert "did you mean b.png?" in strangers.stderr


def test_of_map_images_that_share_no_points_one_group_gives_the_pose(walk: Walk) -> None:
    model = walk.job.layout.sparse / "0"
    images = (model / "images.txt").read_text().splitlines()
    for row in (7, 9):  # the points of the last two images become separate ones, elsewhere
        x, y, ids = (images[row].split()[part::3] for part in range(3))
        images[row] = " ".join(f"{a} {b} {int(each) + NUM_POINTS}" for a, b, each in zip(x, y, ids, strict=True))
    (model / "images.txt").write_text("\n".join(images) + "\n")
    rows = []
    for line in (model / "points3D.txt").read_text().splitlines():
        identity, x, *words = line.split()
        track = list(zip(words[6::2], words[7::2], strict=True))
        for shift, views in ((0, "123"), (1, "45")):
            kept = [f"{image} {point}" for image, point in track if image in views]
            moved = [str(int(identity) + shift * NUM_POINTS), str(float(x) + 3 * shift), *words[:6]]
            rows += [" ".join((*moved, *kept)) + "\n"] if kept else []
    (model / "points3D.txt").write_text("".join(rows))
    result = run(walk, "--clusters", "--json")
    assert result.exit_code == 4, result.stderr
    near = json.loads(result.stdout)["results"][0]
    assert (near["name"], set(near["map_images"])) == ("a/near.png", {"0.png", "1.png", "2.png"})
    assert near["inliers"] > 0.9 * near["points"]
    found = poses_in(walk.job.layout.root.parent / "out" / "poses.txt")
    assert_right({"a/near.png": found["a/near.png"]}, walk.poses, {"a/near.png"})


def test_queries_of_a_rig_have_one_pose(walk: Walk, tmp_path: Path) -> None:
    true = {"left/1.png": walk.poses["a/near.png"], "right/1.png": walk.poses["lost.png"]}
    for name, old in zip(true, ("a/near.png", "lost.png"), strict=True):
        (walk.queries / name).parent.mkdir()
        (walk.queries / old).rename(walk.queries / name)
    apart = true["left/1.png"].to(true["right/1.png"])
    placed = {"cam_from_rig_rotation": quaternion(apart.rotation), "cam_from_rig_translation": list(apart.translation)}
    left, right = {"image_prefix": "left/", "ref_sensor": True}, {"image_prefix": "right/"}
    rig = tmp_path / "rig.json"
    rig.write_text(json.dumps([{"cameras": [left, {**right, **placed}]}]))
    result = run(walk, "--rig-config", rig, "--json")
    assert result.exit_code == 0, result.stderr
    rows = {row["name"]: row for row in json.loads(result.stdout)["results"]}
    assert rows["left/1.png"]["frame_inliers"] == rows["right/1.png"]["frame_inliers"] > 100
    assert rows["right/1.png"]["inliers"] == 0
    assert "frame" not in rows["b.png"]
    assert_right(poses_in(walk.job.layout.root.parent / "out" / "poses.txt"), {**walk.poses, **true}, {"b.png", *true})
    rig.write_text(json.dumps([{"cameras": [left, right]}]))
    assert "right/ has no cam_from_rig_rotation" in run(walk, "--rig-config", rig).stderr


def test_photographs_of_the_map_may_be_spelled_otherwise_but_not_be_others(walk: Walk) -> None:
    images = walk.job.layout.sparse / "0" / "images.txt"
    images.write_text(images.read_text().replace("0.png", "caf\u00e9.png"))
    (walk.job.photographs / "0.png").rename(walk.job.photographs / "cafe\u0301.png")
    (walk.job.photographs / "4.png").unlink()
    result = run(walk, "--json")
    assert "lacks 1 of 5 photographs" in result.stderr
    assert set(json.loads(result.stdout)["results"][0]["map_images"]) == {"caf\u00e9.png", "1.png", "2.png", "3.png"}
    (walk.job.layout.sparse / "0" / "cameras.txt").write_text("1 SIMPLE_PINHOLE 320 240 350 160 120\n")
    assert "was built from" in run(walk).stderr


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
    (walk.queries / "other.jxl").touch()
    result = run(walk, "--json")
    assert result.exit_code == 4
    (row,) = [row for row in json.loads(result.stdout)["results"] if row["name"] == "half.png"]
    assert "half.png" in row["why"]
    assert "overlaps none" not in row["why"]
    assert "1 file is left out, starting with other.jxl" in result.stderr
    out = walk.job.layout.root.parent / "out"
    drawn = CliRunner().invoke(app, ["show", "half.png", str(out), "-o", str(out / "half.png")])
    assert drawn.exit_code == 3
    assert drawn.stderr.rstrip().endswith("leave it out.")
    assert ".." not in drawn.stderr


def test_an_output_that_cannot_be_written_is_told_before_anything_is_encoded(walk: Walk) -> None:
    (walk.job.layout.root.parent / "out").write_text("precious")
    result = run(walk)
    assert result.exit_code == 6
    assert "out is a file" in result.stderr
    assert "describing" not in result.stderr


def test_queries_that_may_not_be_compared_with_the_map_are_no_copies(
    walk: Walk, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(walk.job.photographs / "1.png", walk.queries / "1.png")

    def denied(*_: object, **__: object) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("filecmp.cmp", denied)
    result = run(walk, "--json")
    assert "1.png" in {row["name"] for row in json.loads(result.stdout)["results"]}


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
        ("b.png SIMPLE_PINHOLE 320 240 350 160 120", "320x240 px there, but the photograph has 640x480"),
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
    assert "contains none of the 5 photographs" in elsewhere.stderr
    points.write_text("")
    images = walk.job.layout.sparse / "0" / "images.txt"
    images.write_text("".join(f"{line}\n\n" for line in images.read_text().splitlines()[::2]))
    assert "needs a model with points" in run(walk).stderr


def test_a_matcher_without_warps_is_refused(walk: Walk) -> None:
    result = run(walk, "--matcher", "mini-sparse")
    assert result.exit_code == 2
    assert "has none" in result.stderr


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
