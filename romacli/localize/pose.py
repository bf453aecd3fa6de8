"""The pose of a query from points of the map, by COLMAP's LO-RANSAC and refinement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from romacli.colmap.binding import load_pycolmap
from romacli.colmap.intrinsics import camera_of_model, check_known_model, check_params
from romacli.errors import InputError, UsageError
from romacli.types import Size

_GUESSED_FOCAL = 1.2


@dataclass(frozen=True)
class QueryCamera:
    """A query's camera (pycolmap.Camera), and whether its focal length is known, to be refined, or to be found."""

    camera: Any
    refine: bool = False
    estimate: bool = False


@dataclass(frozen=True)
class QueryPose:
    """cam_from_world as a quaternion (w, x, y, z) and a translation, with what speaks for it.

    covariance: (6, 6) of rotation and translation, where COLMAP gives one. camera: (pycolmap.Camera), refined or not.
    """

    qvec: tuple[float, ...]
    tvec: tuple[float, ...]
    inliers: int
    camera: Any
    covariance: np.ndarray | None


def solve_pose(
    places: np.ndarray, points: np.ndarray, query: QueryCamera, *, max_error_px: float, seed: int
) -> QueryPose | None:
    """The pose that most of the places (n, 2), COLMAP pixels, of points (n, 3) agree on; None where there is none."""
    pycolmap = load_pycolmap()
    estimation, refinement = pycolmap.AbsolutePoseEstimationOptions(), pycolmap.AbsolutePoseRefinementOptions()
    estimation.estimate_focal_length = query.estimate
    estimation.ransac.max_error = max_error_px
    estimation.ransac.random_seed = seed
    refinement.refine_focal_length = query.refine or query.estimate
    camera = pycolmap.Camera(query.camera.todict())
    found = pycolmap.estimate_and_refine_absolute_pose(places, points, camera, estimation, refinement, True)
    if found is None:
        return None
    x, y, z, w = found["cam_from_world"].rotation.quat
    translation = tuple(map(float, found["cam_from_world"].translation))
    covariance = found.get("covariance")
    return QueryPose(
        (float(w), float(x), float(y), float(z)), translation, int(found["num_inliers"]), camera, covariance
    )


def guessed_camera(size: Size, focal_px: float | None) -> QueryCamera:
    """A camera whose focal length EXIF data tell, to be refined, or that is to be found with the pose."""
    camera = camera_of_model("SIMPLE_RADIAL", focal_px or _GUESSED_FOCAL * max(size), size)
    return QueryCamera(camera, refine=focal_px is not None, estimate=focal_px is None)


def read_query_list(path: Path) -> Mapping[str, QueryCamera]:
    """Read hloc's list of queries with intrinsics, `NAME MODEL WIDTH HEIGHT PARAMS...` a line.

    Raises:
        InputError: it is missing or empty, or a line is not of that form.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError) as error:
        raise InputError(f"{path} cannot be read: {error}. Give a text file of queries.") from error
    found = {}
    for number, line in enumerate(lines, start=1):
        if line.strip() and not line.startswith("#"):
            name, *words = _split(line)
            found[name] = _camera(f"{path}:{number}", words)
    if not found:
        raise InputError(f"{path} lists no query. Write `NAME MODEL WIDTH HEIGHT PARAMS...`, one a line.")
    return found


def _split(line: str) -> Sequence[str]:
    """Name, model and numbers; a name may hold blanks, a model is the last word that is none."""
    words = line.split()
    numbers = next((index for index, word in enumerate(reversed(words)) if not _is_number(word)), len(words))
    model = len(words) - 1 - numbers
    return [" ".join(words[:model]), *words[max(model, 0) :]]


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _camera(place: str, words: Sequence[str]) -> QueryCamera:
    try:
        model, width, height, *params = words
        size, values = (int(width), int(height)), [float(value) for value in params]
        check_known_model(model, place)
        check_params(model, values, place, size)
    except (ValueError, UsageError) as error:
        reason = f" ({error})" if isinstance(error, UsageError) else ""
        raise InputError(
            f"{place} is not `NAME MODEL WIDTH HEIGHT PARAMS...`{reason}. Write one query a line."
        ) from error
    pycolmap = load_pycolmap()
    return QueryCamera(pycolmap.Camera(model=model, width=size[0], height=size[1], params=values))
