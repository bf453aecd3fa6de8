"""Pairs with depth maps, to measure the errors of whole warps: MegaDepth's test scenes and ScanNet's pairs."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from romacli.errors import InputError
from romacli.eval.benchmarks.benchmark import Task, require, tasks_of
from romacli.eval.benchmarks.data import scannet as posed_scannet
from romacli.eval.throughput import spread
from romacli.images.decode import read_image
from romacli.train.data import megadepth as prepared
from romacli.train.data import scannet as scans
from romacli.train.data.posed import PosedView

SCENES = ("0015", "0022")
# As many as the authors sample; evenly spaced here instead of random.
_MOST_PAIRS = 2000


def read_megadepth(root: Path) -> list[Task]:
    """2,000 evenly spaced pairs of the two test scenes; their truths read both views.

    Raises:
        InputError: a list, a photograph or a depth map is missing, or a list is damaged.
    """
    lists = [f"{prepared.LISTS}/{scene}.npy" for scene in SCENES]
    require(root, lists)
    scenes = [prepared.read_scene(root, root / name) for name in lists]
    listed = [(scene, int(i), int(j)) for scene in scenes for i, j in scene.pairs]
    if not listed:
        raise InputError(f"{root / prepared.LISTS} lists no pairs of {', '.join(SCENES)}. Prepare them again.")
    chosen = spread(listed, min(_MOST_PAIRS, len(listed)))
    files = {(scene.name, number): scene.files(number) for scene, *pair in chosen for number in pair}
    require(root, sorted({depth.relative_to(root).as_posix() for _, depth in files.values()}))
    names = {key: image.relative_to(root).as_posix() for key, (image, _) in files.items()}
    return tasks_of(
        root,
        [((names[scene.name, i], names[scene.name, j]), partial(_prepared, scene, i, j)) for scene, i, j in chosen],
    )


def _prepared(scene: prepared.MegaDepthScene, i: int, j: int) -> tuple[PosedView, PosedView]:
    return scene.view(i), scene.view(j)


def read_scannet(root: Path) -> list[Task]:
    """The pairs of `test.npz`, whose frames have depth maps.

    Raises:
        InputError: the list, a frame, a depth map or a camera is missing or damaged.
    """
    tasks = posed_scannet.read(root)
    depths = {name: _depth_of(name) for task in tasks for name in task.names}
    require(root, sorted(set(depths.values())))
    return [Task(task.names, task.sizes, partial(_views, root, task, depths)) for task in tasks]


def _views(root: Path, task: Task, depths: dict[str, str]) -> tuple[PosedView, PosedView]:
    second = np.eye(4)
    second[:3, :3], second[:3, 3] = task.truth.rotation, task.truth.translation
    one, other = (
        PosedView(read_image(root / name), scans.read_depth(root / depths[name]), K, pose)
        for name, K, pose in zip(task.names, task.truth.intrinsics, (np.eye(4), second), strict=True)
    )
    return one, other


def _depth_of(frame: str) -> str:
    path = Path(frame)
    return (path.parent.parent / "depth" / f"{path.stem}.png").as_posix()
