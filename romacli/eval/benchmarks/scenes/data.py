"""Readers of the scenes of these benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from romacli.colmap.poses import Pose, load_model, read_poses
from romacli.disk import read_text
from romacli.errors import InputError
from romacli.eval.benchmarks.benchmark import Task, read_numbers, require, sizes_of
from romacli.eval.benchmarks.scenes.scans import scans_of
from romacli.eval.benchmarks.scenes.scene import Scene, Subset
from romacli.types import Size

ETH3D_MODEL, ETH3D_SCANS = "dslr_calibration_undistorted", "dslr_scan_eval/scan_alignment.mlp"
IMC_SETS = "phototourism/*/set_100"
_MOST_DEFECT = 1e-3
_NO_SIZE: Size = (0, 0)
_WHOLE = "all"


def read_eth3d(root: Path, *, scanned: bool) -> list[Task]:
    """A task for each scene; scanned: only those with laser scans.

    Raises:
        InputError: there is none, or a model, a photograph or a scan is missing or damaged.
    """
    models = sorted(root.glob(f"*/{ETH3D_MODEL}"))
    folders = [path.parent for path in models if not scanned or (path.parent / ETH3D_SCANS).is_file()]
    if not folders:
        what = f"{ETH3D_MODEL} and {ETH3D_SCANS}" if scanned else ETH3D_MODEL
        raise InputError(f"{root} contains no scenes SCENE/{what}. Unpack ETH3D's archives there.")
    tasks = []
    for folder in folders:
        poses = read_poses(folder / ETH3D_MODEL)
        sizes = sizes_of(folder / "images", poses)
        model = load_model(folder / ETH3D_MODEL)
        intrinsics = {one.name: model.cameras[one.camera_id].calibration_matrix() for one in model.images.values()}
        for one in model.images.values():
            camera = model.cameras[one.camera_id]
            if (camera.width, camera.height) != sizes[one.name]:
                raise InputError(
                    f"{folder / 'images' / one.name} is {sizes[one.name]} px, its camera {camera.width} x "
                    f"{camera.height}. Unpack the undistorted photographs at their original size."
                )
        scans = folder / ETH3D_SCANS if scanned else None
        if scans:
            scans_of(scans)
        scene = Scene(folder / "images", sizes, poses, intrinsics, folder / ETH3D_MODEL, scans)
        tasks.append(_task(folder.name, _WHOLE, scene, tuple(poses)))
    return tasks


def read_imc2021(root: Path) -> list[Task]:
    """A task for each bag of each scene's hundred photographs.

    Raises:
        InputError: there is none, or a bag, a photograph or a calibration is missing or damaged.
    """
    folders = sorted(root.glob(IMC_SETS))
    if not folders:
        raise InputError(f"{root} contains no folders {IMC_SETS}. Unpack the challenge's archive there.")
    tasks = []
    for folder in folders:
        files = sorted(path for path in (folder / "sub_set").glob("*bag_*.txt") if not path.name.startswith("."))
        bags = {
            file.stem: tuple(Path(line).name for line in read_text(file, "the set's own").split()) for file in files
        }
        if not bags:
            raise InputError(f"{folder / 'sub_set'} contains no bags. Unpack the challenge's archive again.")
        names = sorted({name for bag in bags.values() for name in bag})
        sizes = sizes_of(folder / "images", names)
        poses = {name: _calibration(folder / f"calibration/calibration_{Path(name).stem}.h5") for name in names}
        scene = Scene(folder / "images", sizes, poses, {})
        tasks += [_task(folder.parent.name, bag, scene, chosen) for bag, chosen in bags.items()]
    return tasks


def read_posed(root: Path) -> list[Task]:
    """A task for each folder below with images/, poses/NAME.txt (4 x 4, world to camera) and intrins/NAME.txt (3 x 3).

    Raises:
        InputError: there is none, or a photograph, pose or camera is missing or damaged.
    """
    folders = sorted(path.parent for path in root.rglob("poses") if path.is_dir())
    if not folders:
        raise InputError(f"{root} contains no folders with poses/. Unpack the data set there.")
    tasks = []
    for folder in folders:
        require(folder, ("images", "intrins"))
        names = sorted(path.name for path in (folder / "images").iterdir() if path.is_file() and path.name[0] != ".")
        require(folder, [f"{part}/{Path(name).stem}.txt" for name in names for part in ("poses", "intrins")])
        poses = {name: _pose(folder / f"poses/{Path(name).stem}.txt") for name in names}
        intrinsics = {name: read_numbers(folder / f"intrins/{Path(name).stem}.txt", (3, 3)) for name in names}
        scene = Scene(folder / "images", sizes_of(folder / "images", names), poses, intrinsics)
        tasks.append(_task(folder.relative_to(root).as_posix(), _WHOLE, scene, tuple(names)))
    return tasks


def _task(name: str, bag: str, scene: Scene, names: Sequence[str]) -> Task:
    return Task((name, bag), (_NO_SIZE, _NO_SIZE), Subset(scene, tuple(names)))


def _calibration(path: Path) -> Pose:
    try:
        with h5py.File(path, "r") as file:
            rotation, translation = np.array(file["R"], np.float64), np.array(file["T"], np.float64)
        return _checked(rotation.reshape(3, 3), translation.reshape(3), path)
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise InputError(f"{path} cannot be read as a calibration. Unpack the archive again.") from error


def _pose(path: Path) -> Pose:
    matrix = read_numbers(path, (4, 4))
    return _checked(matrix[:3, :3], matrix[:3, 3], path)


def _checked(rotation: np.ndarray, translation: np.ndarray, path: Path) -> Pose:
    if np.abs(rotation @ rotation.T - np.eye(3)).max() > _MOST_DEFECT or np.linalg.det(rotation) < 0:
        raise InputError(f"{path} contains no rotation. Unpack the data again.")
    return Pose(rotation, translation)
