"""The training scenes of the Image Matching Challenge 2022: photographs, cameras, covisible pairs."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from romacli.colmap.poses import Pose
from romacli.errors import InputError
from romacli.eval.benchmarks.benchmark import Task, require, tasks_of
from romacli.eval.benchmarks.marked import ScaledTruth
from romacli.eval.benchmarks.solvers import PosedTruth, check_intrinsics

SCALES, CAMERAS, PAIRS = "train/scaling_factors.csv", "calibration.csv", "pair_covisibility.csv"
LEAST_COVISIBILITY = 0.1
_CAMERA = ("image_id", "camera_intrinsics", "rotation_matrix", "translation_vector")


def read(root: Path) -> list[Task]:
    """The pairs of all scenes with a covisibility of at least 0.1.

    Raises:
        InputError: a table or a photograph is missing or damaged, or K belongs to another resolution.
    """
    require(root, (SCALES,))
    metres = {scene: _number(root / SCALES, text) for scene, text in _rows(root / SCALES, ("scene", "scaling_factor"))}
    scenes = [f"train/{scene}" for scene in metres]
    require(root, [f"{scene}/{part}" for scene in scenes for part in (CAMERAS, PAIRS, "images")])
    found = []
    for scene, scale in zip(scenes, metres.values(), strict=True):
        path = root / scene / CAMERAS
        cameras = {name: _camera(path, numbers) for name, *numbers in _rows(path, _CAMERA)}
        for pair, covisibility in _rows(root / scene / PAIRS, ("pair", "covisibility")):
            one, _, other = pair.partition("-")
            if _number(root / scene / PAIRS, covisibility) < LEAST_COVISIBILITY:
                continue
            if not {one, other} <= cameras.keys():
                raise InputError(f"{root / scene / PAIRS}: {pair} has no camera in {CAMERAS}. Fetch both again.")
            truth = PosedTruth.between(cameras[one], cameras[other])
            found.append(((f"{scene}/images/{one}.jpg", f"{scene}/images/{other}.jpg"), ScaledTruth(truth, scale)))
    if not found:
        raise InputError(f"{root / 'train'} lists no pair that sees a tenth of each other. Fetch its tables again.")
    tasks = tasks_of(root, found)
    check_intrinsics(root, [Task(task.names, task.sizes, task.truth.posed) for task in tasks])
    return tasks


def _camera(path: Path, texts: Sequence[str]) -> tuple[np.ndarray, Pose]:
    """K (3, 3), and the pose."""
    try:
        K, rotation, translation = (np.array(text.split(), np.float64) for text in texts)
        return K.reshape(3, 3), Pose(rotation.reshape(3, 3), translation.reshape(3))
    except ValueError as error:
        raise InputError(f"{path} holds a camera of other than 9, 9 and 3 numbers. Fetch it again.") from error


def _number(path: Path, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise InputError(f"{path} contains {text!r} in place of a number. Fetch it again.") from error


def _rows(path: Path, columns: Sequence[str]) -> list[list[str]]:
    """The values of some columns, row by row."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [[row[column] for column in columns] for row in csv.DictReader(file)]
    except (OSError, UnicodeDecodeError, KeyError, csv.Error) as error:
        raise InputError(f"{path} is no table with the columns {', '.join(columns)}. Fetch it again.") from error
    if not rows or any(value is None for row in rows for value in row):
        raise InputError(f"{path} is empty or cut off. Fetch it again.")
    return rows
