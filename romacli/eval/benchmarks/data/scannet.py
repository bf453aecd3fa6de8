"""ScanNet's pairs for relative pose: test.npz, and frames as ScanNet's own reader extracts them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from romacli.errors import InputError
from romacli.eval.benchmarks.benchmark import Task, read_numbers, require, tasks_of
from romacli.eval.benchmarks.solvers import PosedTruth, check_intrinsics
from romacli.store.pickled import read_arrays

LIST, SCANS = "test.npz", "scans_test"


def read(root: Path) -> list[Task]:
    """The pairs of `test.npz`.

    Raises:
        InputError: the list, a frame or a camera is missing or damaged, or K belongs to another resolution.
    """
    require(root, (LIST, SCANS))
    names, poses = (np.asarray(array) for array in read_arrays(root / LIST, ("name", "rel_pose")))
    if names.ndim != 2 or names.shape[1] != 4 or poses.shape != (len(names), 12) or not len(names):
        raise InputError(
            f"{root / LIST} holds name {names.shape} and rel_pose {poses.shape}, expected (n, 4) and (n, 12). "
            "Fetch it again."
        )
    scans = [f"{SCANS}/scene{int(scan):04d}_{int(part):02d}" for scan, part, *_ in names]
    frames = [
        (f"{scan}/color/{int(a)}.jpg", f"{scan}/color/{int(b)}.jpg")
        for scan, (*_, a, b) in zip(scans, names, strict=True)
    ]
    cameras = {scan: _intrinsics(root / scan / "intrinsic/intrinsic_color.txt") for scan in dict.fromkeys(scans)}
    truths = [
        PosedTruth((cameras[scan], cameras[scan]), pose[:, :3], pose[:, 3])
        for scan, pose in zip(scans, poses.reshape(-1, 3, 4).astype(np.float64), strict=True)
    ]
    tasks = tasks_of(root, list(zip(frames, truths, strict=True)))
    check_intrinsics(root, tasks)
    return tasks


def _intrinsics(path: Path) -> np.ndarray:
    matrix = read_numbers(path, (3, 3), (4, 4))
    if not matrix[0, 0] * matrix[1, 1]:
        raise InputError(f"{path} contains no camera matrix: a focal length is 0. Extract the scan again.")
    return matrix[:3, :3]
