"""Select a mapper's tracks: first the longest in every part of every photograph, finally all that fit the model.

Dense matches yield ten thousand keypoints per photograph; a mapper needs some hundreds, well distributed.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from romacli.colmap.access import images_of
from romacli.colmap.reading import image_sizes
from romacli.forest import Forest
from romacli.geometry.epipolar import essential_from_pose, sampson_error

# Parts per photograph, and tracks chosen per part.
_PARTS, _TRACKS_PER_PART = 256, 2
# Inliers kept per pair, from any tracks, so that a mapper can register an image by it.
_FEWEST_INLIERS = 100
# Maximum epipolar error of added matches, as in verification, and the minimum relative gain in inliers.
_MOST_PX, _FEWEST_MORE = 4.0, 0.02


def thin(database: Path) -> None:
    """Keep only the inliers of a database's best tracks; keypoints keep their indices."""
    with closing(sqlite3.connect(database)) as connection:
        sizes = image_sizes(connection)
        query = "SELECT image_id, rows, cols, data FROM keypoints WHERE rows > 0 ORDER BY image_id"
        points = {
            image: np.frombuffer(data, np.float32).reshape(rows, cols)[:, :2]
            for image, rows, cols, data in connection.execute(query)
        }
        query = "SELECT pair_id, rows, data FROM two_view_geometries WHERE rows > 0 ORDER BY pair_id"
        pairs = {
            pair_id: np.frombuffer(data, np.uint32).reshape(rows, 2)
            for pair_id, rows, data in connection.execute(query)
        }
        if not pairs:
            return
        ends = np.cumsum([0, *map(len, points.values())])
        start = dict(zip(points, ends[:-1].tolist(), strict=True))
        edges = {
            pair_id: rows + np.array([start[image] for image in images_of(pair_id)]) for pair_id, rows in pairs.items()
        }
        parts = np.concatenate(
            [place * 2 * _PARTS + _parts(points[image], sizes[image]) for place, image in enumerate(points)]
        )
        is_kept = _kept(np.concatenate(list(edges.values())), parts)
        for pair_id, rows in pairs.items():
            chosen = is_kept[edges[pair_id][:, 0]]
            chosen[np.flatnonzero(~chosen)[: max(0, _FEWEST_INLIERS - int(chosen.sum()))]] = True
            connection.execute(
                "UPDATE two_view_geometries SET rows = ?, data = ? WHERE pair_id = ?",
                (int(chosen.sum()), rows[chosen].tobytes(), pair_id),
            )
        connection.commit()


def widen(database: Path, model: Any) -> bool:
    """Make all matches of verified pairs that agree with a model inliers; returns whether there are enough more.

    After refinement, a pair's inliers include only observations that the photographs confirm; the others are matches.
    """
    with closing(sqlite3.connect(database)) as connection:
        query = (
            "SELECT pair_id, g.rows, m.rows, m.data FROM two_view_geometries g JOIN matches m USING (pair_id) "
            "WHERE g.rows > 0 AND m.rows > g.rows ORDER BY pair_id"
        )
        before = after = 0
        rays: dict[int, np.ndarray] = {}
        for pair_id, inliers, count, data in connection.execute(query).fetchall():
            pair = images_of(pair_id)
            if not all(image in model.images and model.images[image].has_pose for image in pair):
                continue
            for image in pair:
                if image not in rays:
                    rays[image] = _rays(model.images[image])
            rows = np.frombuffer(data, np.uint32).reshape(count, 2)
            ends = [rays[image][rows[:, side]] for side, image in enumerate(pair)]
            agreeing = rows[_agree([model.images[image] for image in pair], ends)]
            before, after = before + inliers, after + len(agreeing)
            connection.execute(
                "UPDATE two_view_geometries SET rows = ?, data = ? WHERE pair_id = ?",
                (len(agreeing), agreeing.tobytes(), pair_id),
            )
        connection.commit()
    return after > before * (1 + _FEWEST_MORE)


def _rays(image: Any) -> np.ndarray:
    """(K, 2) keypoints of an image in normalised coordinates."""
    return np.asarray(image.camera.cam_from_img(np.array([point.xy for point in image.points2D]).reshape(-1, 2)))


def _agree(images: list[Any], rays: list[np.ndarray]) -> np.ndarray:
    """(M,) bool, which matches of two posed images satisfy the epipolar constraint; rays (M, 2) of both ends."""
    motion = images[1].cam_from_world() * images[0].cam_from_world().inverse()
    matrix = essential_from_pose(motion.rotation.matrix(), motion.translation)
    most = np.mean([image.camera.cam_from_img_threshold(_MOST_PX) for image in images])
    return np.asarray(sampson_error(matrix, *rays) < most)


def _kept(edges: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """(K,) bool, whether each keypoint's track is among the longest in the part of one of its keypoints.

    Args:
        edges: (M, 2) matches between keypoints of all images. parts: (K,) index of the part of each.
    """
    forest = Forest(len(parts))
    forest.join(edges[:, 0], edges[:, 1])
    track = forest.roots()
    length = np.bincount(track, minlength=len(parts))[track]
    matches = np.bincount(edges.ravel(), minlength=len(parts))
    order = np.lexsort((-matches, -length, parts))
    starts = np.flatnonzero(np.diff(parts[order], prepend=-1))
    rank = np.arange(len(parts)) - np.repeat(starts, np.diff([*starts, len(parts)]))
    best = order[rank < _TRACKS_PER_PART]
    is_kept = np.zeros(len(parts), bool)
    is_kept[track[best[matches[best] > 0]]] = True
    return is_kept[track]


def _parts(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The index, below 2 * _PARTS, of the square cell that contains each keypoint."""
    width, height = size
    side = (width * height / _PARTS) ** 0.5
    across = int(np.ceil(width / side))
    cells = (points // side).astype(int)
    return np.clip(cells[:, 0] + across * cells[:, 1], 0, 2 * _PARTS - 1)
