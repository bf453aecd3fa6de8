"""Accuracy and completeness of a point cloud against a reference.

Source: Schoeps et al., A Multi-View Stereo Benchmark (ETH3D), CVPR 2017, section 5: accuracy, completeness and their
harmonic mean at tolerances. Points count once per voxel, so dense regions weigh no more than others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from romacli.colmap.pose_files import read_written_poses
from romacli.colmap.poses import Pose, Similarity, align_similarity, common_rotation
from romacli.errors import InputError
from romacli.eval.model_poses import read_estimate
from romacli.store.ply import read_ply

# FLANN_INDEX_KDTREE_SINGLE with all leaves visited: exact in three dimensions.
_EXACT_TREE, _ALL = {"algorithm": 4}, {"checks": -1}
_MESH_POINTS = 1_000_000
_FEWEST_CAMERAS = 3
_ON_A_LINE = 0.05


@dataclass(frozen=True)
class CloudScore:
    """Shares in [0, 1] at a tolerance: of the cloud near the reference, of the reference near the cloud."""

    tolerance: float
    accuracy: float
    completeness: float

    @property
    def f1(self) -> float:
        """The harmonic mean of both."""
        total = self.accuracy + self.completeness
        return 2 * self.accuracy * self.completeness / total if total else 0.0


def score_cloud(
    cloud: np.ndarray, reference: np.ndarray, tolerances: Sequence[float], *, voxel: float
) -> list[CloudScore]:
    """Compare points (n, 3) with a reference (m, 3) in the same frame; tolerances and voxel in its unit."""
    cloud, reference = one_per_voxel(cloud, voxel), one_per_voxel(reference, voxel)
    accuracy, completeness = nearest(cloud, reference), nearest(reference, cloud)
    return [
        CloudScore(tolerance, float((accuracy <= tolerance).mean()), float((completeness <= tolerance).mean()))
        for tolerance in tolerances
    ]


def read_cloud(path: Path, model: Path | None = None, truth: Path | None = None) -> np.ndarray:
    """The points (n, 3) of a PLY file, moved by the similarity that aligns a model's cameras to known ones.

    Raises:
        InputError: it is not a PLY file or is empty, or fewer than three cameras are in both.
    """
    xyz = _points(path)[0]
    if model is None or truth is None:
        return xyz
    poses, known = read_estimate(model), read_written_poses(truth)
    names = sorted(poses.keys() & known.keys())
    if len(names) < _FEWEST_CAMERAS:
        raise InputError(
            f"{model} and {truth} share {len(names)} image names; three or more are needed to align them. Give the "
            "same photographs' poses."
        )
    return _alignment([poses[name] for name in names], [known[name] for name in names]).apply(xyz)


def read_reference(path: Path) -> np.ndarray:
    """The points (n, 3) of a PLY file; of a mesh, a million points distributed evenly over its triangles.

    Raises:
        InputError: it is not a PLY file, or is empty.
    """
    xyz, triangles = _points(path)
    return xyz if triangles is None or not len(triangles) else _on_triangles(xyz[triangles], _MESH_POINTS)


def extent_of(points: np.ndarray) -> float:
    """The diagonal of the bounding box of points (n, 3), without the outermost percent on each side."""
    low, high = np.percentile(points, [1, 99], axis=0)
    return float(np.linalg.norm(high - low))


def _alignment(poses: Sequence[Pose], known: Sequence[Pose]) -> Similarity:
    """The similarity from cameras to known ones; if the centres are collinear, rotation is from the orientations."""
    centres, targets = (np.array([pose.centre for pose in those]) for those in (poses, known))
    spread = np.linalg.svd(targets - targets.mean(0), compute_uv=False)
    if spread[1] > _ON_A_LINE * spread[0]:
        return align_similarity(centres, targets)
    rotation = common_rotation(known, poses)
    turned = (centres - centres.mean(0)) @ rotation.T
    scale = float((turned * (targets - targets.mean(0))).sum() / (turned**2).sum())
    return Similarity(scale, rotation, targets.mean(0) - scale * rotation @ centres.mean(0))


def _points(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    xyz, triangles = read_ply(path)
    sound = np.isfinite(xyz).all(1)
    if not sound.any():
        raise InputError(f"{path} contains no points. Export it again.")
    return (xyz[sound], None) if triangles is None else (xyz, triangles)


def nearest(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The distance (n,) from each point (n, 3) to the nearest of others (m, 3)."""
    middle = others.mean(0)  # float32 is precise enough only near the origin
    tree = cv2.flann_Index(  # type: ignore[attr-defined]
        (others - middle).astype(np.float32), _EXACT_TREE
    )
    _, squared = tree.knnSearch((points - middle).astype(np.float32), 1, params=_ALL)
    return np.sqrt(squared[:, 0])


def one_per_voxel(points: np.ndarray, side: float) -> np.ndarray:
    """The first of the points (n, 3) in each cube of this side; all if the side is 0."""
    if side <= 0:
        return points
    _, first = np.unique(np.floor(points / side).astype(np.int64), axis=0, return_index=True)
    return points[np.sort(first)]


def _on_triangles(corners: np.ndarray, count: int) -> np.ndarray:
    """About `count` points distributed evenly over triangles (m, 3, 3)."""
    edges = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    areas = np.linalg.norm(np.cross(*edges), axis=1)
    of = np.repeat(np.arange(len(corners)), np.ceil(count * areas / areas.sum()).astype(int))
    a, b = np.random.default_rng(0).random((2, len(of), 1))
    outside = a + b > 1
    a, b = np.where(outside, 1 - a, a), np.where(outside, 1 - b, b)
    return np.asarray(corners[of, 0] + a * edges[0][of] + b * edges[1][of])
