"""Writers of small data sets in the layout of the papers' benchmarks; each returns a matcher that knows the truth."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from support.depth_sets import PHOTOGRAPH, at_size, photograph, pose, scene, write_megadepth
from support.homography import HomographyMatcher, image_digest
from support.rendered import SceneMatcher

from romacli.geometry.turns import turn_image, turn_points
from romacli.images.decode import read_image
from romacli.synthetic.scenes import render_view, warp_between

LISTS = ("0015_0.1_0.3", "0015_0.3_0.5", "0022_0.1_0.3", "0022_0.3_0.5", "0022_0.5_0.7")
SEEDS = (1, 3)


def write_picture(path: Path, rgb: np.ndarray) -> np.ndarray:
    """The image as decoded from the written file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, rgb[..., ::-1])[1].tobytes())
    return read_image(path)


def megadepth(root: Path) -> SceneMatcher:
    """Two scenes with one pair each; the lists share them, and one list names a pair in reverse order."""
    matcher = SceneMatcher()
    for number, name in enumerate(LISTS):
        planes, cameras = scene(SEEDS[number % 2])
        cameras = [at_size(camera, PHOTOGRAPH) for camera in cameras]
        paths = [f"Undistorted_SfM/{name[:4]}/images/{SEEDS[number % 2]}{side}.jpg" for side in "ab"]
        for path, camera in zip(paths, cameras, strict=True):
            matcher.learn(write_picture(root / path, photograph(planes, camera)[0]), planes, camera)
        infos = np.empty(1, object)
        infos[0] = ((1, 0) if number == 2 else (0, 1), 0.2, None)
        columns = {"pair_infos": infos}
        rows = {"image_paths": paths, "intrinsics": [c.K for c in cameras], "poses": [pose(c) for c in cameras]}
        for key, values in rows.items():
            columns[key] = np.array([*values, None], object) if key == "image_paths" else objects([*values, None])
        np.savez(root / f"{name}.npz", **columns)
    return matcher


def objects(values: list[Any]) -> np.ndarray:
    array = np.empty(len(values), object)
    array[:] = values
    return array


def scannet(root: Path) -> SceneMatcher:
    matcher, names, poses = SceneMatcher(), [], []
    for seed in SEEDS:
        planes, cameras = scene(seed)
        cameras = [at_size(replace(camera, K=cameras[0].K), PHOTOGRAPH) for camera in cameras]
        folder = root / f"scans_test/scene07{seed:02d}_00"
        for frame, camera in zip((0, 15), cameras, strict=True):
            matcher.learn(write_picture(folder / f"color/{frame}.jpg", photograph(planes, camera)[0]), planes, camera)
        K = np.eye(4)
        K[:3, :3] = cameras[0].K - [[0, 0, 0.25], [0, 0, 0.25], [0, 0, 0]]  # half a pixel at twice the size
        (folder / "intrinsic").mkdir()
        np.savetxt(folder / "intrinsic/intrinsic_color.txt", K)
        names.append([700 + seed, 0, 0, 15])
        poses.append((pose(cameras[1]) @ np.linalg.inv(pose(cameras[0])))[:3].ravel())
    np.savez(root / "test.npz", name=np.array(names), rel_pose=np.array(poses))
    return matcher


def hpatches(root: Path) -> HomographyMatcher:
    rng = np.random.default_rng(0)
    texture = cv2.GaussianBlur(rng.integers(0, 255, (400, 500, 3), np.uint8), (0, 0), 1.5)
    by_digest = {}
    shift = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    for name in ("i_wall", "v_wall", "v_talent"):  # the benchmark leaves out the last one
        homographies = [np.eye(3)]
        for _ in range(5):
            matrix = np.eye(3) + rng.normal(size=(3, 3)) * [[0.02, 0.02, 8], [0.02, 0.02, 8], [1e-5, 1e-5, 0]]
            homographies.append(matrix if name[0] == "v" else np.eye(3))
        for k, first_to_k in enumerate(homographies, 1):
            picture = cv2.warpPerspective(texture, first_to_k, (320 + k, 240))
            picture = write_picture(root / f"hpatches-sequences-release/{name}/{k}.ppm", picture + np.uint8(k))
            by_digest[image_digest(picture)] = shift @ np.linalg.inv(first_to_k) @ np.linalg.inv(shift)
            if k > 1:
                np.savetxt(root / f"hpatches-sequences-release/{name}/H_1_{k}", first_to_k)
    return HomographyMatcher(by_digest)


def strecha(root: Path) -> SceneMatcher:
    matcher = SceneMatcher()
    planes, cameras = scene(3)
    for side, camera in zip("ab", (at_size(camera, PHOTOGRAPH) for camera in cameras), strict=True):
        picture = write_picture(root / f"images/{side}.jpg", photograph(planes, camera)[0])
        matcher.learn(picture, planes, camera)
        numbers = [camera.K.ravel(), np.zeros(3), camera.R.T.ravel(), -camera.R.T @ camera.t, PHOTOGRAPH]
        (root / "cameras").mkdir(exist_ok=True)
        (root / f"cameras/{side}.jpg.camera").write_text(" ".join(map(str, np.concatenate(numbers))))
    return matcher


def rendered(root: Path, seed: int, names: tuple[str, str], matcher: SceneMatcher) -> tuple[Any, Any]:
    """Write two views of a scene under their names and teach them to the matcher. Returns its planes and cameras."""
    planes, cameras = scene(seed)
    cameras = tuple(at_size(camera, PHOTOGRAPH) for camera in cameras)
    for name, camera in zip(names, cameras, strict=True):
        matcher.learn(write_picture(root / name, photograph(planes, camera)[0]), planes, camera)
    return planes, cameras


def marks(planes: Any, cameras: Any, count: int = 12) -> np.ndarray:
    """Points that both views see, spread over the first: rows x0 y0 x1 y1."""
    views = [render_view(planes, camera) for camera in cameras]
    warp, visible = warp_between(cameras[0], views[0], cameras[1], views[1])
    rows, columns = np.nonzero(visible)
    some = np.linspace(0, len(rows) - 1, count).astype(int)
    return np.column_stack((columns[some] + 0.5, rows[some] + 0.5, warp[rows, columns][some]))


def wxbs(root: Path) -> SceneMatcher:
    matcher = SceneMatcher()
    for seed, folder in zip((*SEEDS, 3), ("WGABS/kyiv", "WLABS/dh", "WLABS/petrzin"), strict=True):
        points = marks(*rendered(root, seed, (f"{folder}/01.png", f"{folder}/02.png"), matcher))
        np.savetxt(root / folder / "corrs.txt", points)
    return matcher


def satast(root: Path) -> HomographyMatcher:
    rng = np.random.default_rng(0)
    texture = cv2.GaussianBlur(rng.integers(0, 255, (300, 400, 3), np.uint8), (0, 0), 1.5)
    shift = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    (root / "annotations-v1").mkdir()
    by_digest = {}
    for number in range(2):
        turned = np.array([[0.9, 0.1, 5 + number], [-0.1, 0.9, 20], [0, 0, 1]])
        names = [f"data/{number}/{side}.png" for side in ("query", "pred")]
        for name, matrix in zip(names, (np.eye(3), turned), strict=True):
            picture = write_picture(root / name, cv2.warpPerspective(texture, matrix, (320 + number, 240)))
            plane = shift @ np.linalg.inv(matrix) @ np.linalg.inv(shift)
            corners = np.array([(0, 0), (320 + number, 0), (0, 240)], np.float32)
            for turns in range(4):
                back = cv2.getAffineTransform(turn_points(corners, (320 + number, 240), turns), corners)
                by_digest[image_digest(turn_image(picture, turns))] = plane @ np.vstack((back, (0, 0, 1)))
        source = rng.uniform(30, 200, (6, 2))
        target = (np.column_stack((source, np.ones(6))) @ turned.T)[:, :2]
        rounds = [{"pts_src": [[1, 1]], "pts_dst": [[9, 9]]}, {"pts_src": source.tolist(), "pts_dst": target.tolist()}]
        paths = dict(zip(("query_path", "pred_path"), (name.replace("/", "\\") for name in names), strict=True))
        text = json.dumps({**paths, "correspondences": rounds})
        (root / f"annotations-v1/annotation_{number}.json").write_text(text)
    return HomographyMatcher(by_digest)


def imc2022(root: Path) -> SceneMatcher:
    matcher = SceneMatcher()
    scales = ["scene,scaling_factor"]
    for seed, name in zip(SEEDS, ("gate", "square"), strict=True):
        folder = root / "train" / name
        cameras = rendered(folder / "images", seed, ("one.jpg", "two.jpg"), matcher)[1]
        lines = ["image_id,camera_intrinsics,rotation_matrix,translation_vector"]
        for image, camera in zip(("one", "two"), cameras, strict=True):
            lines.append(
                ",".join((image, *(" ".join(map(str, np.ravel(part))) for part in (camera.K, camera.R, camera.t))))
            )
        (folder / "calibration.csv").write_text("\n".join(lines))
        (folder / "pair_covisibility.csv").write_text(
            "pair,covisibility,fundamental_matrix\none-two,0.5,1 2\ntwo-one,0.05,1 2\n"
        )
        scales.append(f"{name},1.5")
    (root / "train/scaling_factors.csv").write_text("\n".join(scales))
    return matcher


def megadepth_dense(root: Path) -> SceneMatcher:
    matcher = SceneMatcher()
    for seed, name in zip(SEEDS, ("0015", "0022"), strict=True):
        planes, cameras = scene(seed)
        write_megadepth(root, planes, cameras, name)
        for number, camera in enumerate(cameras):
            picture = read_image(root / f"photos/{name}/{number}.png")
            matcher.learn(picture, planes, at_size(camera, PHOTOGRAPH))
    return matcher


def scannet_dense(root: Path) -> SceneMatcher:
    matcher = scannet(root)
    for seed in SEEDS:
        planes, cameras = scene(seed)
        for frame, camera in zip((0, 15), cameras, strict=True):
            path = root / f"scans_test/scene07{seed:02d}_00/depth/{frame}.png"
            path.parent.mkdir(exist_ok=True)
            depth = photograph(planes, replace(camera, K=cameras[0].K))[1]
            cv2.imwrite(str(path), np.rint(depth * 1000).astype(np.uint16))
    return matcher


WRITERS = {
    "megadepth1500": megadepth,
    "scannet1500": scannet,
    "hpatches": hpatches,
    "strecha": strecha,
    "wxbs": wxbs,
    "hardmatch": wxbs,
    "satast": satast,
    "imc2022": imc2022,
    "megadepth-dense": megadepth_dense,
    "scannet-dense": scannet_dense,
}
