"""Small rendered scenes on disk in the layout of MegaDepth and ScanNet."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import cv2
import h5py
import numpy as np

from romacli.synthetic.scenery import deep_scene
from romacli.synthetic.scenes import Camera, TexturedPlane, render_view
from romacli.synthetic.textures import Textures

PHOTOGRAPH = (320, 240)


@cache
def scene(seed: int) -> tuple[list[TexturedPlane], tuple[Camera, Camera]]:
    """Walls and boxes, and two cameras of 100 x 100 px."""
    textures = Textures.load(None, procedural=3, seed=seed)
    return deep_scene(textures, np.random.default_rng(seed), 100)


def at_size(camera: Camera, size: tuple[int, int]) -> Camera:
    """The same field of view at another image size."""
    scale = np.diag((size[0] / camera.size[0], size[1] / camera.size[1], 1))
    return replace(camera, K=scale @ camera.K, size=size)


def write_megadepth(root: Path, planes: list[TexturedPlane], cameras: tuple[Camera, ...], name: str = "0001") -> Path:
    """Write a scene of one pair and, as in the real lists, an image without depth. Returns its list."""
    for folder in ("prep_scene_info", f"photos/{name}", f"depths/{name}"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for number, camera in enumerate(cameras):
        rgb, depth = photograph(planes, camera)
        cv2.imwrite(str(root / f"photos/{name}/{number}.png"), rgb[..., ::-1])
        with h5py.File(root / f"depths/{name}/{number}.h5", "w") as file:
            file["depth"] = depth
    count = len(cameras)
    info = {
        "image_paths": np.array([f"photos/{name}/{i}.png" for i in range(count)] + [None], object),
        "depth_paths": np.array([f"depths/{name}/{i}.h5" for i in range(count)] + [None], object),
        "intrinsics": np.array([at_size(camera, PHOTOGRAPH).K for camera in cameras] + [np.eye(3)]),
        "poses": np.array([pose(camera) for camera in cameras] + [np.eye(4)]),
        "pairs": np.array([[0, 1]]),
        "overlaps": np.array([0.5]),
    }
    path = root / "prep_scene_info" / f"{name}.npy"
    np.save(path, info, allow_pickle=True)
    return path


def write_scannet(root: Path, planes: list[TexturedPlane], cameras: tuple[Camera, ...]) -> Path:
    """Write a scan of one pair, frames 0 and 10, with depth maps at half the image size. Returns its folder."""
    folder = root / "scans/scans_train/scene0003_01"
    for part in ("color", "depth", "pose", "intrinsic"):
        (folder / part).mkdir(parents=True)
    for number, camera in zip((0, 10), cameras, strict=True):
        rgb, _ = photograph(planes, camera)
        _, depth = photograph(planes, camera, size=(PHOTOGRAPH[0] // 2, PHOTOGRAPH[1] // 2))
        cv2.imwrite(str(folder / f"color/{number}.jpg"), rgb[..., ::-1])
        cv2.imwrite(str(folder / f"depth/{number}.png"), np.rint(depth * 1000).astype(np.uint16))
        np.savetxt(folder / f"pose/{number}.txt", np.linalg.inv(pose(camera)))
    intrinsics = np.eye(4)
    intrinsics[:3, :3] = at_size(cameras[0], PHOTOGRAPH).K
    np.savetxt(folder / "intrinsic/intrinsic_color.txt", intrinsics)
    (root / "scannet_indices").mkdir()
    names = np.array([[3, 1, 0, 10], [3, 1, 0, 17]], np.uint16)  # frame 17 is not extracted
    np.savez(root / "scannet_indices/scene0003_01.npz", name=names, score=np.array([0.4, 0.9], np.float32))
    return folder


def photograph(planes, camera: Camera, size: tuple[int, int] = PHOTOGRAPH) -> tuple[np.ndarray, np.ndarray]:
    """The image and the depth map, 0 where nothing is visible."""
    rgb, _, inverse_depth = render_view(planes, at_size(camera, size))
    return rgb, np.divide(1, inverse_depth, out=np.zeros_like(inverse_depth), where=inverse_depth > 0)


def pose(camera: Camera) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = camera.R, camera.t
    return matrix
