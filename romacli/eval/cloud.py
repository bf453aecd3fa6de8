"""How near a cloud of points is to a reference, and how much of the reference it holds.

Source: Schoeps et al., A Multi-View Stereo Benchmark (ETH3D), CVPR 2017, section 5: accuracy, completeness and their
harmonic mean at tolerances. Points are counted once a voxel, so that dense places weigh no more than others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from romacli.errors import InputError
from romacli.store.ply import read_ply

# FLANN_INDEX_KDTREE_SINGLE with all leaves looked at: exact in three dimensions.
_EXACT_TREE, _ALL = {"algorithm": 4}, {"checks": -1}
_SAMPLES_PER_VOXEL = 4


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


def score_cloud(cloud: np.ndarray, reference: np.ndarray, tolerances: Sequence[float], *, voxel: float) -> list[CloudScore]:
    """Compare points (n, 3) with a reference (m, 3) in the same frame; tolerances and voxel in its unit."""
    cloud, reference = one_per_voxel(cloud, voxel), one_per_voxel(reference, voxel)
    accuracy, completeness = nearest(cloud, reference), nearest(reference, cloud)
    return [
        CloudScore(tolerance, float((accuracy <= tolerance).mean()), float((completeness <= tolerance).mean()))
        for tolerance in tolerances
    ]


def read_reference(path: Path, *, voxel: float) -> np.ndarray:
    """The points of a PLY file; of a mesh, points spread over its triangles, several a voxel's face.

    Raises:
        InputError: it is no such file, or holds nothing.
    """
    xyz, triangles = read_ply(path)
    if triangles is not None and len(triangles):
        xyz = _on_triangles(xyz[triangles], voxel)
    if not len(xyz):
        raise InputError(f"{path} holds no points. Export it again.")
    return xyz


def nearest(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The distance (n,) from each point (n, 3) to the nearest of others (m, 3)."""
    middle = others.mean(0)  # float32 is exact enough round the middle only
    tree = cv2.flann_Index((others - middle).astype(np.float32), _EXACT_TREE)
    _, squared = tree.knnSearch((points - middle).astype(np.float32), 1, params=_ALL)
    return np.sqrt(squared[:, 0])


def one_per_voxel(points: np.ndarray, side: float) -> np.ndarray:
    """The first of the points (n, 3) in each cube of that side; all where the side is 0."""
    if side <= 0:
        return points
    _, first = np.unique(np.floor(points / side).astype(np.int64), axis=0, return_index=True)
    return points[np.sort(first)]


def _on_triangles(corners: np.ndarray, side: float) -> np.ndarray:
    """Points spread evenly over triangles (m, 3, 3), their corners included."""
    edges = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    areas = np.linalg.norm(np.cross(*edges), axis=1) / 2
    if side <= 0:
        side = float(np.sqrt(areas.sum() / 1_000_000))
    counts = np.ceil(_SAMPLES_PER_VOXEL * areas / side**2).astype(int)
    of = np.repeat(np.arange(len(corners)), counts)
    a, b = np.random.default_rng(0).random((2, len(of), 1))
    outside = a + b > 1
    a, b = np.where(outside, 1 - a, a), np.where(outside, 1 - b, b)
    return np.concatenate((corners[of, 0] + a * edges[0][of] + b * edges[1][of], corners.reshape(-1, 3)))
