"""Reconstruction benchmarks on disk: rendered scenes of a few small photographs, and a matcher that knows the warps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import h5py
import numpy as np
from support.benchmark_sets import write_picture
from support.depth_sets import photograph, pose, scene
from support.rendered import SceneMatcher

from romacli.store.ply import write_ply
from romacli.synthetic.scenes import Camera, TexturedPlane

SIZE = (320, 240)
METRES = 0.02  # per unit of the rendered scenes, so that exact warps of small images are accurate to a centimetre


def row_of_cameras(seed: int, count: int) -> tuple[list[TexturedPlane], list[Camera]]:
    """A scene, and identical cameras in a row from the first of its pair to the second and beyond."""
    planes, (first, last) = scene(seed)
    focal = first.K[0, 0] * SIZE[0] / first.size[0]
    K = np.array([[focal, 0, SIZE[0] / 2], [0, focal, SIZE[1] / 2], [0, 0, 1]])
    turn = cv2.Rodrigues(last.R @ first.R.T)[0]
    start, end = (-camera.R.T @ camera.t for camera in (first, last))
    cameras = []
    for share in np.linspace(0, 1.2, count):
        R = cv2.Rodrigues(share * turn)[0] @ first.R
        cameras.append(replace(first, K=K, R=R, t=-R @ (start + share * (end - start)), size=SIZE))
    return planes, cameras


def written(folder: Path, seed: int, names: list[str], matcher: SceneMatcher) -> list[Camera]:
    """The cameras of a scene, whose images are written and taught to the matcher."""
    planes, cameras = row_of_cameras(seed, len(names))
    for name, camera in zip(names, cameras, strict=True):
        matcher.learn(write_picture(folder / name, photograph(planes, camera, SIZE)[0]), planes, camera)
    return cameras


def texture_poor(root: Path, *, count: int = 4) -> SceneMatcher:
    matcher, names = SceneMatcher(), [f"{number}.png" for number in range(count)]
    for part in ("poses", "intrins"):
        (root / "cup/bag_0" / part).mkdir(parents=True)
    for name, camera in zip(names, written(root / "cup/bag_0/images", 1, names, matcher), strict=True):
        np.savetxt(root / f"cup/bag_0/poses/{Path(name).stem}.txt", pose(camera))
        np.savetxt(root / f"cup/bag_0/intrins/{Path(name).stem}.txt", camera.K)
    return matcher


def imc2021(root: Path, *, count: int = 5) -> SceneMatcher:
    matcher, names = SceneMatcher(), [f"{number}.jpg" for number in range(count)]
    folder = root / "phototourism/gate/set_100"
    for part in ("calibration", "sub_set"):
        (folder / part).mkdir(parents=True)
    for name, camera in zip(names, written(folder / "images", 1, names, matcher), strict=True):
        with h5py.File(folder / f"calibration/calibration_{Path(name).stem}.h5", "w") as file:
            file["K"], file["R"], file["T"] = camera.K, camera.R, camera.t
    (folder / "sub_set/5bag_000.txt").write_text("".join(f"images/{name}\n" for name in names))
    return matcher


def eth3d(root: Path, *, count: int = 4) -> SceneMatcher:
    matcher = SceneMatcher()
    names = [f"dslr_images_undistorted/{number}.JPG" for number in range(count)]
    folder = root / "relief"
    cameras = written(folder / "images", 1, names, matcher)
    model = folder / "dslr_calibration_undistorted"
    model.mkdir()
    K = cameras[0].K
    (model / "cameras.txt").write_text(f"1 PINHOLE {SIZE[0]} {SIZE[1]} {K[0, 0]} {K[1, 1]} {K[0, 2]} {K[1, 2]}\n")
    lines = []
    for number, (name, camera) in enumerate(zip(names, cameras, strict=True), 1):
        turn = cv2.Rodrigues(camera.R)[0].ravel()
        angle = float(np.linalg.norm(turn))
        numbers = (np.cos(angle / 2), *np.sinc(angle / 2 / np.pi) / 2 * turn, *METRES * camera.t)
        lines.append(f"{number} {' '.join(f'{value:.15g}' for value in numbers)} 1 {name}\n\n")
    (model / "images.txt").write_text("".join(lines))
    (model / "points3D.txt").write_text("")
    _write_scans(folder / "dslr_scan_eval", row_of_cameras(1, count)[0], cameras)
    return matcher


def _write_scans(folder: Path, planes: list[TexturedPlane], cameras: list[Camera]) -> None:
    """The points each camera sees, as a scan from its position, with the transform back."""
    folder.mkdir()
    meshes = []
    for number, camera in enumerate(cameras, 1):
        depth = photograph(planes, camera, SIZE)[1]
        y, x = np.nonzero(depth)
        rays = np.column_stack((x + 0.5, y + 0.5, np.ones(len(x)))) @ np.linalg.inv(camera.K).T
        scan = METRES * rays * depth[y, x][:, None]
        write_ply(folder / f"scan{number}.ply", scan, np.zeros_like(scan), np.zeros(scan.shape, np.uint8))
        place = np.eye(4)
        place[:3, :3], place[:3, 3] = camera.R.T, -METRES * camera.R.T @ camera.t
        rows = "\n".join(" ".join(map(str, row)) for row in place)
        meshes.append(f'<MLMesh label="x" filename="scan{number}.ply"><MLMatrix44>\n{rows}\n</MLMatrix44></MLMesh>')
    (folder / "scan_alignment.mlp").write_text(
        f"<!DOCTYPE MeshLabDocument><MeshLabProject><MeshGroup>{''.join(meshes)}</MeshGroup></MeshLabProject>"
    )


WRITERS = {"texture-poor": texture_poor, "imc2021": imc2021, "eth3d": eth3d, "eth3d-sfm": eth3d}
