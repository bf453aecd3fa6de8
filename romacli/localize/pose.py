"""The pose of a query from map points, by COLMAP's LO-RANSAC and refinement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from romacli.colmap.binding import load_pycolmap
from romacli.colmap.cameras import DEFAULT_FOCAL_FACTOR
from romacli.colmap.intrinsics import camera_of_model, check_known_model, check_params
from romacli.disk import read_lines
from romacli.errors import InputError, UsageError
from romacli.types import Size
from romacli.words import is_number


@dataclass(frozen=True)
class QueryCamera:
    """A query's camera (pycolmap.Camera); its focal length is known, or to be refined, or to be estimated."""

    camera: Any
    refine: bool = False
    estimate: bool = False


@dataclass(frozen=True)
class QueryPose:
    """cam_from_world as a quaternion (w, x, y, z) and a translation, with its support.

    inliers: (n,) bool, among the points used. camera: (pycolmap.Camera), possibly refined. covariance: (6, 6) of
    rotation and translation, or of the rig's pose if the query is from a rig; None if COLMAP returns none.
    projected: (n, 2) projections of the points, COLMAP pixels.
    """

    qvec: tuple[float, ...]
    tvec: tuple[float, ...]
    inliers: np.ndarray
    camera: Any
    covariance: np.ndarray | None
    projected: np.ndarray


@dataclass(frozen=True)
class Attached:
    """A query and its observations: places (n, 2), COLMAP pixels, of map points (n, 3). cam_from_rig: as in
    `RigCamera`."""

    camera: QueryCamera
    places: np.ndarray
    points: np.ndarray
    cam_from_rig: tuple[tuple[float, ...], tuple[float, ...]] | None = None


def solve_pose(query: Attached, *, max_error_px: float, seed: int) -> QueryPose | None:
    """The pose that most of a query's points agree on, or None if there is none."""
    pycolmap = load_pycolmap()
    estimation, refinement = pycolmap.AbsolutePoseEstimationOptions(), pycolmap.AbsolutePoseRefinementOptions()
    estimation.estimate_focal_length = query.camera.estimate
    estimation.ransac.max_error = max_error_px
    estimation.ransac.random_seed = seed
    refinement.refine_focal_length = query.camera.refine or query.camera.estimate
    camera = pycolmap.Camera(query.camera.camera.todict())
    found = pycolmap.estimate_and_refine_absolute_pose(query.places, query.points, camera, estimation, refinement, True)
    if found is None:
        return None
    return pose_of(found["cam_from_world"], camera, query.points, found["inlier_mask"], found.get("covariance"))


def solve_rig(queries: Sequence[Attached], *, max_error_px: float, seed: int) -> list[QueryPose] | None:
    """The rig pose that most points of all its queries agree on, as poses of the queries; None if there is none."""
    pycolmap = load_pycolmap()
    options = pycolmap.RANSACOptions()
    options.max_error, options.random_seed = max_error_px, seed
    refinement = pycolmap.AbsolutePoseRefinementOptions()
    refinement.refine_focal_length = all(query.camera.refine for query in queries)
    cameras = [pycolmap.Camera(query.camera.camera.todict()) for query in queries]
    in_rig = [_rigid(*query.cam_from_rig) for query in queries if query.cam_from_rig]
    places, points = (np.concatenate([getattr(query, part) for query in queries]) for part in ("places", "points"))
    sizes = [len(query.places) for query in queries]
    index = np.repeat(np.arange(len(queries)), sizes).tolist()
    found = pycolmap.estimate_generalized_absolute_pose(places, points, index, in_rig, cameras, options)
    if found is None:
        return None
    inliers = np.asarray(found["inlier_mask"], bool)
    refined = pycolmap.refine_generalized_absolute_pose(
        *(found["rig_from_world"], places, points, inliers, index, in_rig, cameras, refinement), return_covariance=True
    )
    if refined is None:
        return None
    ends = np.cumsum(sizes)[:-1]
    return [
        pose_of(cam_from_rig * refined["rig_from_world"], camera, query.points, own, refined.get("covariance"))
        for cam_from_rig, camera, query, own in zip(in_rig, cameras, queries, np.split(inliers, ends), strict=True)
    ]


def pose_of(cam_from_world: Any, camera: Any, points: np.ndarray, inliers: Any, covariance: Any) -> QueryPose:
    """The pose cam_from_world (pycolmap.Rigid3d) of a camera (pycolmap.Camera) that sees `points` (n, 3)."""
    x, y, z, w = map(float, cam_from_world.rotation.quat)
    rotation, translation = cam_from_world.rotation.matrix(), cam_from_world.translation
    seen = points @ rotation.T + translation
    projected = np.full((len(points), 2), np.nan)
    front = seen[:, 2] > 0
    projected[front] = camera.img_from_cam(seen[front])
    inliers = np.asarray(inliers, bool)
    return QueryPose((w, x, y, z), tuple(map(float, translation)), inliers, camera, covariance, projected)


def _rigid(qvec: Sequence[float], tvec: Sequence[float]) -> Any:
    pycolmap = load_pycolmap()
    quaternion = np.roll(np.array(qvec, float) / np.linalg.norm(qvec), -1)
    return pycolmap.Rigid3d(pycolmap.Rotation3d(quaternion), np.array(tvec, float))


def guessed_camera(size: Size, focal_px: float | None) -> QueryCamera:
    """A camera with the focal length from EXIF data, to be refined, or with one to be estimated with the pose."""
    camera = camera_of_model("SIMPLE_RADIAL", focal_px or DEFAULT_FOCAL_FACTOR * max(size), size)
    return QueryCamera(camera, refine=focal_px is not None, estimate=focal_px is None)


def read_query_list(path: Path) -> Mapping[str, QueryCamera]:
    """Read hloc's list of queries with intrinsics, `NAME MODEL WIDTH HEIGHT PARAMS...` per line.

    Raises:
        InputError: the file is missing or empty, or a line is malformed.
    """
    found = {}
    for number, line in read_lines(path, "a text file of queries"):
        name, *words = _split(line)
        found[name] = _camera(f"{path}:{number}", words)
    if not found:
        raise InputError(f"{path} lists no query. Write `NAME MODEL WIDTH HEIGHT PARAMS...`, one per line.")
    return found


def _split(line: str) -> Sequence[str]:
    """Split into name, model and numbers; names may contain blanks, the model is the last word that is not a number."""
    words = line.split()
    numbers = next((index for index, word in enumerate(reversed(words)) if not is_number(word)), len(words))
    model = len(words) - 1 - numbers
    return [" ".join(words[:model]), *words[max(model, 0) :]]


def _camera(place: str, words: Sequence[str]) -> QueryCamera:
    try:
        model, width, height, *params = words
        size, values = (int(width), int(height)), [float(value) for value in params]
        check_known_model(model, place)
        check_params(model, values, place, size)
    except (ValueError, UsageError) as error:
        reason = f" ({error})" if isinstance(error, UsageError) else ""
        raise InputError(
            f"{place} is not `NAME MODEL WIDTH HEIGHT PARAMS...`{reason}. Write one query per line."
        ) from error
    pycolmap = load_pycolmap()
    return QueryCamera(pycolmap.Camera(model=model, width=size[0], height=size[1], params=values))
