"""Which matches of a pair agree with a rigid scene: two-view geometries in the form COLMAP's mappers need.

Takes points and matches as arrays; only COLMAP's own verification works on a database and gets a file.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from romacli.errors import EstimationError
from romacli.geometry.estimation import estimate_essential, estimate_fundamental
from romacli.types import Pair

from .binding import load_pycolmap
from .cameras import CameraSpec, to_pycolmap
from .options import PANORAMA, VerifyOptions

# COLMAP's TwoViewGeometryConfiguration. The mappers of pycolmap 4.2.1 silently skip 0 and 1.
CALIBRATED, UNCALIBRATED = 2, 3
MAPPED_CONFIGS = (2, 3, 4, 5, 6, 9)

# Enough pairs in flight to keep every thread busy while the writer takes them in order.
PAIRS_PER_THREAD = 4


@dataclass(frozen=True)
class VerifiedPair:
    """The verified matches (M, 2) of a pair; `matrix` (3, 3) is E if config is CALIBRATED, else F."""

    pair: Pair
    inliers: np.ndarray
    config: int
    matrix: np.ndarray


def verify_pair(
    pair: Pair,
    matches: np.ndarray,
    *,
    keypoints: Mapping[str, np.ndarray],
    cameras: Mapping[str, CameraSpec],
    options: VerifyOptions,
) -> VerifiedPair | None:
    """Keep the matches (M, 2) of a pair that fit one rigid motion, or return None if these are too few.

    The motion is an essential matrix if both cameras' parameters were given or one takes spherical panoramas, otherwise
    a fundamental matrix: a focal length from EXIF data or a guess would lose true matches.
    """
    if len(matches) < options.min_inliers:
        return None
    points = [keypoints[name][matches[:, side]] for side, name in enumerate(pair)]
    pair_cameras = [cameras[name] for name in pair]
    if any(camera.model == PANORAMA for camera in pair_cameras):
        config, (matrix, inliers) = CALIBRATED, _essential_of_spheres(points, pair_cameras, options)
    elif all(camera.origin == "given" for camera in pair_cameras):
        config, (matrix, inliers) = CALIBRATED, _essential(points, pair_cameras, options)
    else:
        config = UNCALIBRATED
        matrix, inliers = estimate_fundamental(*points, max_error_px=options.max_error_px, seed=options.seed)
    enough = max(options.min_inliers, options.min_inlier_ratio * len(matches))
    if matrix is None or inliers.sum() < enough:
        return None
    return VerifiedPair(pair, matches[inliers], config, matrix)


def verify_pairs(
    matches: Iterable[tuple[Pair, np.ndarray]],
    *,
    keypoints: Mapping[str, np.ndarray],
    cameras: Mapping[str, CameraSpec],
    options: VerifyOptions,
    failed: Callable[[Pair, Exception], None] = lambda pair, error: None,
) -> Iterator[tuple[Pair, np.ndarray, VerifiedPair | None]]:
    """Yield every pair, its matches and the verified ones, in the order of `matches`; runs in threads.

    Args:
        matches: pairs of names with (M, 2) rows into the two images' keypoints; read as fast as verified.
        keypoints: by name, (K, 2) COLMAP px.
        cameras: by image name.
        failed: called with each pair on which a library fails; it is not verified.
    """
    verify = partial(verify_pair, keypoints=keypoints, cameras=cameras, options=options)
    waiting: deque[tuple[Pair, np.ndarray, Future[VerifiedPair | None]]] = deque()
    with ThreadPoolExecutor(options.threads) as pool:
        for pair, rows in matches:
            waiting.append((pair, rows, pool.submit(verify, pair, rows)))
            if len(waiting) >= PAIRS_PER_THREAD * options.threads:
                yield _finished(*waiting.popleft(), failed)
        while waiting:
            yield _finished(*waiting.popleft(), failed)


def verify_database(path: Path, options: VerifyOptions) -> None:
    """Verify the matches in a database with COLMAP: slower than `verify_pairs`, but classifies planes."""
    pycolmap = load_pycolmap()
    pycolmap.geometric_verification(
        path,
        verifier_options=pycolmap.GeometricVerifierOptions(num_threads=options.threads),
        two_view_geometry_options=_two_view_options(options),
    )


def _two_view_options(options: VerifyOptions) -> Any:
    chosen = load_pycolmap().TwoViewGeometryOptions()
    chosen.min_num_inliers = options.min_inliers
    chosen.min_inlier_ratio = options.min_inlier_ratio
    chosen.ransac.max_error = options.max_error_px
    chosen.ransac.random_seed = options.seed
    return chosen


def _essential(
    points: list[np.ndarray], cameras: list[CameraSpec], options: VerifyOptions
) -> tuple[np.ndarray | None, np.ndarray]:
    """The essential matrix of known cameras and its inliers; points without a ray in their model are ignored."""
    known = [to_pycolmap(camera) for camera in cameras]
    rays = [camera.cam_from_img(xy.astype(np.float64)) for camera, xy in zip(known, points, strict=True)]
    valid = np.isfinite(np.hstack(rays)).all(1)
    max_error = float(np.mean([camera.cam_from_img_threshold(options.max_error_px) for camera in known]))
    matrix, agree = estimate_essential(rays[0][valid], rays[1][valid], max_error=max_error, seed=options.seed)
    inliers = np.zeros(len(valid), bool)
    inliers[valid] = agree
    return matrix, inliers


def _essential_of_spheres(
    points: list[np.ndarray], cameras: list[CameraSpec], options: VerifyOptions
) -> tuple[np.ndarray | None, np.ndarray]:
    """The essential matrix of rays in all directions and its inliers, by COLMAP: points behind a camera count too."""
    rows = np.repeat(np.arange(len(points[0]), dtype=np.uint32)[:, None], 2, axis=1)
    one, other = ((to_pycolmap(camera), xy.astype(np.float64)) for camera, xy in zip(cameras, points, strict=True))
    found = load_pycolmap().estimate_calibrated_two_view_geometry(*one, *other, rows, _two_view_options(options))
    inliers = np.zeros(len(rows), bool)
    inliers[np.asarray(found.inlier_matches, np.intp).reshape(-1, 2)[:, 0]] = True
    return found.E, inliers


def _finished(
    pair: Pair,
    matches: np.ndarray,
    verified: Future[VerifiedPair | None],
    failed: Callable[[Pair, Exception], None],
) -> tuple[Pair, np.ndarray, VerifiedPair | None]:
    try:
        return pair, matches, verified.result()
    except (EstimationError, RuntimeError, ValueError) as error:  # the last two are raised by pycolmap
        failed(pair, error)
        return pair, matches, None
