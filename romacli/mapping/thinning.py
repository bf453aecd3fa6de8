"""Fewer and better tracks for a mapper, the longest in every part of every photograph; in the end all there are.

Dense matches give a photograph ten thousand keypoints; a mapper needs some hundreds of them, spread well.
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

# Parts of a photograph, and the tracks that each may choose.
_PARTS, _TRACKS_PER_PART = 256, 2
# A pair keeps so many inliers, of whatever tracks, that a mapper can register an image by it.
_FEWEST_INLIERS = 100
# Matches that verification was not asked about have to agree with a model as well as others with their pair.
_MOST_PX, _FEWEST_MORE = 4.0, 0.02


def thin(database: Path) -> None:
    """Leave a database the inliers of its best tracks alone; keypoints keep their numbers."""
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
    """Make all matches of verified pairs that agree with a model's poses inliers; whether these are worth mapping.

    Of pairs whose places the photographs confirm, others wait among the matches.
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
    """(K, 2) keypoints of an image on its normalised plane."""
    return np.asarray(image.camera.cam_from_img(np.array([point.xy for point in image.points2D]).reshape(-1, 2)))


def _agree(images: list[Any], rays: list[np.ndarray]) -> np.ndarray:
    """(M,) which matches of two posed images lie at each other's epipolar lines; rays (M, 2) of both ends."""
    motion = images[1].cam_from_world() * images[0].cam_from_world().inverse()
    matrix = essential_from_pose(motion.rotation.matrix(), motion.translation)
    most = np.mean([image.camera.cam_from_img_threshold(_MOST_PX) for image in images])
    return np.asarray(sampson_error(matrix, *rays) < most)


def _kept(edges: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """(K,) whether each keypoint's track is among the longest in the part of one of its keypoints.

    Args:
        edges: (M, 2) matches between keypoints of all images. parts: (K,) the number of the part each lies in.
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
    """The number below 2 * _PARTS of the square that each keypoint lies in."""
    width, height = size
    side = (width * height / _PARTS) ** 0.5
    across = int(np.ceil(width / side))
    cells = (points // side).astype(int)
    return np.clip(cells[:, 0] + across * cells[:, 1], 0, 2 * _PARTS - 1)
