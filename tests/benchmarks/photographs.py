"""A matcher on real photographs, compared with SIFT: matches, models, unrelated pairs; as one JSON object.

    python tests/benchmarks/photographs.py DATA --cache CACHE --json photographs.json

DATA contains the folders sceaux/images, freiburg, berlin/images and toronto, and the intrinsic matrix sceaux/K.txt.
SIFT's databases and models are made once by COLMAP in CACHE and reused.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from functools import cache
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from romacli.colmap.binding import load_pycolmap
from romacli.colmap.poses import compare_poses, read_poses
from romacli.errors import NothingFoundError
from romacli.eval.pose_list import PosedPair
from romacli.eval.relative_pose import PairScore, PoseOptions, evaluate_pairs, score_pair
from romacli.eval.two_view import correspondences, encode, judge_unrelated
from romacli.geometry.coordinates import from_colmap_pixels
from romacli.geometry.epipolar import rotation_angle_deg
from romacli.geometry.warp import cell_centres, decode_targets
from romacli.images.decode import read_image
from romacli.images.listing import list_images
from romacli.keypoints.options import AggregateOptions
from romacli.mapping.options import MapperOptions
from romacli.mapping.reconstruct import reconstruct
from romacli.matchers.matcher import CoarseMatcher, DenseMatcher, PointStartMatcher, pair_seed
from romacli.matchers.options import MatcherOptions
from romacli.matchers.registry import load_matcher
from romacli.run.options import WEAK_OVERLAP
from romacli.run.retries.rescue import Rescue
from romacli.run.retries.scales import Scales
from romacli.run.retries.sparse import SiftMatches
from romacli.types import CompactWarp, Features

SCENE = Path(__file__).resolve().parents[2] / "examples" / "scene"
FOLDERS = {"sceaux": "sceaux/images", "freiburg": "freiburg", "berlin": "berlin/images", "toronto": "toronto"}
# In photographs, in the order of names.
NEAR = 3
# The one folder that comes with a calibrated camera, and its COLMAP model.
CALIBRATED, CALIBRATED_MODEL = "sceaux, known camera", "PINHOLE"
# Name, folder, overlap of sequential pairs (None for all pairs).
RUNS = (
    ("sceaux", "sceaux", None),
    (CALIBRATED, CALIBRATED, None),
    ("freiburg, overlap 5", "freiburg", 5),
    ("freiburg, overlap 2", "freiburg", 2),
    ("berlin", "berlin", None),
    ("toronto", "toronto", None),
)
# Zoom and rotation of copies with exact ground truth.
WARPED = ((1.5, 0), (2, 0), (3, 0), (4, 0), (1, 20), (1, 45), (1, 90))
RESCALED = (3, 4)
GAPS = (2, 4, 6, 8, 10)  # in photographs of the example scene, about 8 degrees each
MIN_SIFT_MATCHES = 100  # for a pair to be a fair test
MAX_PAIR_ID = 2**31 - 1  # COLMAP: pair_id = id1 * MAX_PAIR_ID + id2


def given_intrinsics(images: Path) -> str:
    """fx, fy, cx, cy from K.txt next to a folder of photographs, in COLMAP's order."""
    k = np.loadtxt(images.parent / "K.txt")
    return ",".join(map(str, (k[0, 0], k[1, 1], k[0, 2], k[1, 2])))


def sift_database(images: Path, cache: Path, camera_params: str | None = None) -> Path:
    """COLMAP's database of SIFT features and verified matches of all pairs, created if missing."""
    database = cache / "database.db"
    if not (cache / "done").exists():
        cache.mkdir(parents=True, exist_ok=True)
        database.unlink(missing_ok=True)
        pycolmap = load_pycolmap()
        reader = pycolmap.ImageReaderOptions()
        mode = pycolmap.CameraMode.AUTO
        if camera_params:
            reader.camera_model, reader.camera_params = CALIBRATED_MODEL, camera_params
            mode = pycolmap.CameraMode.SINGLE
        names = list(list_images(images).names)
        pycolmap.extract_features(database, images, names, camera_mode=mode, reader_options=reader)
        pycolmap.match_exhaustive(database)
        (cache / "done").touch()
    return database


def sift_model(images: Path, cache: Path, camera_params: str | None = None) -> Path | None:
    """COLMAP's model from SIFT features, with the given or its own intrinsics, or None if there is none."""
    database = sift_database(images, cache, camera_params)
    if not (cache / "sparse").exists():
        try:
            options = MapperOptions(refine_intrinsics=camera_params is None)
            reconstruct(database, images, cache / "sparse", options)
        except NothingFoundError:
            (cache / "sparse").mkdir(exist_ok=True)
    return cache / "sparse" / "0" if (cache / "sparse" / "0").exists() else None


def sift_matches(database: Path) -> dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]:
    """Verified SIFT matches by pair, (N, 2) COLMAP px in each photograph."""
    with closing(sqlite3.connect(database)) as connection:
        names = dict(connection.execute("SELECT image_id, name FROM images"))
        rows = connection.execute("SELECT image_id, rows, cols, data FROM keypoints")
        points = {image: np.frombuffer(data, np.float32).reshape(n, columns)[:, :2] for image, n, columns, data in rows}
        found = {}
        for pair_id, count, data in connection.execute("SELECT pair_id, rows, data FROM two_view_geometries"):
            if count >= MIN_SIFT_MATCHES:
                id1, id2 = divmod(pair_id, MAX_PAIR_ID)
                indices = np.frombuffer(data, np.uint32).reshape(count, 2)
                found[names[id1], names[id2]] = points[id1][indices[:, 0]], points[id2][indices[:, 1]]
    return found


def agreement_with_sift(matcher: DenseMatcher, images: Path, database: Path) -> dict[str, Any]:
    """Shares of verified SIFT matches that the warp finds within 1, 3, 32 px at 448 px, mean over the pairs.

    `all` are the pairs that SIFT matches, `near` those of them at most NEAR apart in the order of names.
    """
    order = {name: index for index, name in enumerate(list_images(images).names)}
    features: dict[str, Features] = {}
    shares, medians, near = [], [], []
    for pair, (points0, points1) in sift_matches(database).items():
        for name in pair:
            if name not in features:
                features[name] = encode(matcher, read_image(images / name))
        match = matcher.warp([(features[pair[0]], features[pair[1]])])[0]
        places = torch.from_numpy(from_colmap_pixels(points0.astype(np.float32), match.size_A))
        truth = torch.from_numpy(from_colmap_pixels(points1.astype(np.float32), match.size_B))
        warp = match.warp_AB.float().cpu().permute(2, 0, 1)[None]
        answer = F.grid_sample(warp, places[None, None], padding_mode="border", align_corners=False)[0, :, 0].T
        error = (answer - truth).norm(dim=1).numpy() * 224
        shares.append([(error < limit).mean() for limit in (1, 3, 32)])
        medians.append(np.median(error))
        near.append(abs(order[pair[0]] - order[pair[1]]) <= NEAR)
    return {
        name: {
            "pairs": int(np.sum(chosen)),
            **dict(zip(("within_1", "within_3", "within_32"), np.mean(np.array(shares)[chosen], axis=0), strict=True)),
            "mean_of_medians_px": float(np.mean(np.array(medians)[chosen])),
        }
        for name, chosen in (("all", np.full(len(near), True)), ("near", np.array(near)))
    }


def warped_copies(matcher: DenseMatcher, images: Path) -> dict[str, float]:
    """Shares of the points of an enlarged or rotated copy found within 3 px at 448 px in the photograph itself."""
    shares: dict[str, list[float]] = {}
    for name in list_images(images).names[::5]:
        photograph = read_image(images / name)
        side = min(photograph.shape[:2])
        plain, _ = _window(photograph, side, zoom=1, turn_deg=0)
        encoded = encode(matcher, plain)
        for zoom, turn_deg in WARPED:
            copy, truth = _window(photograph, side, zoom=zoom, turn_deg=turn_deg)
            match = matcher.warp([(encode(matcher, copy), encoded)])[0]
            warp = match.warp_AB.float().cpu().numpy()
            cells = from_colmap_pixels(cell_centres(warp.shape[:2], (side, side)), (side, side))
            expected = cells @ truth.T.astype(np.float32)
            error = np.linalg.norm(warp - expected, axis=-1)[(np.abs(expected) < 1).all(axis=-1)] * 224
            key = f"enlarged {zoom:g} times" if zoom != 1 else f"turned by {turn_deg} deg"
            shares.setdefault(key, []).append(float((error < 3).mean()))
    return {key: float(np.mean(values)) for key, values in shares.items()}


def rescaled_copies(matcher: CoarseMatcher, images: Path) -> dict[str, float]:
    """The same for enlarged copies matched with --try-scales, over all points; those without weight count as lost."""
    shares: dict[str, list[float]] = {}
    for name in list_images(images).names[::5]:
        photograph = read_image(images / name)
        side = min(photograph.shape[:2])
        plain, _ = _window(photograph, side, zoom=1, turn_deg=0)
        for zoom in RESCALED:
            copy, truth = _window(photograph, side, zoom=zoom, turn_deg=0)
            views = {"copy": copy, "plain": plain}
            pair, features = ("copy", "plain"), (encode(matcher, copy), encode(matcher, plain))
            scales = Scales(matcher, views.__getitem__, capacity_bytes=1 << 30)
            result = scales.improve(matcher.match([features], [0])[0], pair, features, 0)
            found = 0.0
            if isinstance(result, CompactWarp):
                cells = from_colmap_pixels(cell_centres(result.weight_AB.shape, (side, side)), (side, side))
                targets = from_colmap_pixels(decode_targets(result.target_AB, (side, side)), (side, side))
                error = np.linalg.norm(targets - cells @ truth.T.astype(np.float32), axis=-1) * 224
                found = float(((error < 3) & (result.weight_AB > 0)).mean())
            shares.setdefault(f"enlarged {zoom:g} times", []).append(found)
    return {key: float(np.mean(values)) for key, values in shares.items()}


def _window(image: np.ndarray, side: int, *, zoom: float, turn_deg: float) -> tuple[np.ndarray, np.ndarray]:
    """A square window around the centre of a photograph, and the matrix from its normalised coordinates to those at
    zoom 1."""
    height, width = image.shape[:2]
    turn = cv2.getRotationMatrix2D((0, 0), turn_deg, 1.0)[:, :2]
    matrix = turn / zoom
    shift = np.array([width, height]) / 2 - matrix @ np.array([side, side]) / 2
    whole = np.column_stack((matrix, shift + matrix @ [0.5, 0.5] - 0.5))  # OpenCV's pixel centres are integers
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, whole, (side, side), flags=flags, borderMode=cv2.BORDER_REFLECT), matrix


def pairs_apart(scene: Path, gap: int) -> list[PosedPair]:
    """Every other pair of photographs of the example scene that are `gap` apart, with its true pose."""
    poses = read_poses(scene / "truth")
    camera = (scene / "truth" / "cameras.txt").read_text("utf-8").split()
    fx, fy, cx, cy = map(float, camera[4:8])
    intrinsics = np.array([[fx, 0, cx - 0.5], [0, fy, cy - 0.5], [0, 0, 1]])
    names = sorted(poses)
    pairs = []
    for line, (one, other) in list(enumerate(zip(names, names[gap:], strict=False)))[::2]:
        rotation = poses[other].rotation @ poses[one].rotation.T
        translation = poses[other].translation - rotation @ poses[one].translation
        pairs.append(PosedPair((one, other), (0, 0), (intrinsics, intrinsics), rotation, translation, line))
    return pairs


def placed(scores: Sequence[PairScore]) -> dict[str, float]:
    errors = np.array([np.median(score.errors_deg) for score in scores])
    return {
        "pairs": len(scores),
        "within_5_deg": int((errors < 5).sum()),
        "worst_deg": float(errors.max()),
        "matches": float(np.mean([score.matches for score in scores])),
    }


def angle_of(pairs: Sequence[PosedPair]) -> str:
    return f"{np.mean([rotation_angle_deg(pair.rotation) for pair in pairs]):.0f} deg"


def baselines(matcher: DenseMatcher, scene: Path) -> dict[str, dict[str, float]]:
    """Relative poses of the example scene by the gap between photographs, compared with its true cameras."""
    return {
        angle_of(pairs): placed(evaluate_pairs(matcher, pairs, scene / "images", PoseOptions(), AggregateOptions()))
        for pairs in (pairs_apart(scene, gap) for gap in GAPS)
    }


def rescued(matcher: PointStartMatcher, scene: Path) -> dict[str, dict[str, float]]:
    """The same with --rescue."""

    @cache
    def read(name: str) -> np.ndarray:
        return read_image(scene / "images" / name)

    features = cache(lambda name: encode(matcher, read(name)))
    rescue = Rescue(matcher, SiftMatches(read, capacity_bytes=1 << 30), WEAK_OVERLAP["rescue"])
    result = {}
    for gap in GAPS:
        scores = []
        for pair in pairs_apart(scene, gap):
            ends = (features(pair.names[0]), features(pair.names[1]))
            seed = pair_seed(*pair.names, seed=0)
            found = rescue.improve(matcher.match([ends], [seed])[0], pair.names, ends, seed)
            scores.append(score_pair(pair, correspondences(found), (ends[0].size, ends[1].size), PoseOptions()))
        result[angle_of([score.pair for score in scores])] = placed(scores)
    return result


def reconstructed(images: Path, reference: Path | None, *, overlap: int | None, words: list[str]) -> dict[str, Any]:
    """The model from `romacli reconstruct` on a folder, and the difference of its poses from the reference."""
    with TemporaryDirectory() as scratch:
        job = Path(scratch) / "job"
        if overlap is not None:
            listed = Path(scratch) / "pairs.txt"
            run_cli("pairs", "sequential", images, "--overlap", overlap, "-o", listed)
            words = [*words, "--pairs", str(listed)]
        done = run_cli("reconstruct", images, "-o", job, "--json", *words, check=False)
        if done.returncode != 0:
            return {"registered": 0, "images": len(list_images(images)), "message": done.stderr.strip().split("\n")[-1]}
        values = json.loads(done.stdout)
        kept = ("images", "registered", "points3D", "mean_track_length", "mean_reprojection_error", "seconds")
        result = {name: values[name] for name in kept}
        if reference is not None:
            errors = compare_poses(read_poses(job / "sparse" / "0"), read_poses(reference))
            result |= {
                "compared": len(errors.names),
                "rotation_deg": float(np.median(errors.rotation_deg)),
                "worst_rotation_deg": float(errors.rotation_deg.max()),
                "position": float(np.median(errors.position)),
            }
    return result


def run_cli(*words: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "romacli", *map(str, words)]
    return subprocess.run(command, capture_output=True, encoding="utf-8", check=check)


def unrelated(matcher: DenseMatcher, data: Path, count: int) -> dict[str, Any]:
    """Photographs of different places, evenly chosen from all such pairs."""
    names = {key: list_images(data / folder) for key, folder in FOLDERS.items()}
    pairs = [
        (one.root / a, other.root / b)
        for one, other in combinations(names.values(), 2)
        for a in one.names
        for b in other.names
    ]
    chosen = [pairs[i] for i in np.unique(np.linspace(0, len(pairs) - 1, min(count, len(pairs))).astype(int))]
    features = {path: encode(matcher, read_image(path)) for path in dict.fromkeys(p for pair in chosen for p in pair)}
    judged = judge_unrelated(matcher, ((features[a], features[b]) for a, b in chosen))
    return {**vars(judged), "refused": judged.refused}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--cache", type=Path, required=True, help="folder where SIFT's models are stored")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--unrelated", type=int, default=333, help="pairs of different places; all of them are 333")
    parser.add_argument("--scene-only", action="store_true", help="only distant views of the example scene")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(2)
    matcher = load_matcher(options.model, MatcherOptions(weights=options.weights))
    assert isinstance(matcher, DenseMatcher)
    words = ["--model", options.model, *(["--weights", str(options.weights)] if options.weights else [])]
    result: dict[str, Any] = {"weights_sha256": matcher.settings["weights_sha256"]}

    def keep(name: str, value: Any) -> None:
        """Print a figure and write all so far: an interrupted run keeps those it had."""
        result[name] = value
        print(name, json.dumps(value), flush=True)
        if options.json:
            options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")

    keep("baselines", baselines(matcher, SCENE))
    if getattr(matcher, "starts_from_points", False):
        keep("rescued", rescued(cast(PointStartMatcher, matcher), SCENE))
    if options.scene_only:
        return
    folders = {key: options.data / folder for key, folder in FOLDERS.items()}
    known = given_intrinsics(folders["sceaux"])
    references = {key: sift_model(folder, options.cache / key) for key, folder in folders.items()}
    folders[CALIBRATED] = folders["sceaux"]
    references[CALIBRATED] = sift_model(folders["sceaux"], options.cache / CALIBRATED, known)
    keep("sift_registered", {key: len(read_poses(path)) if path else 0 for key, path in references.items()})
    keep("warped_copies", warped_copies(matcher, folders["sceaux"]))
    if isinstance(matcher, CoarseMatcher):
        keep("rescaled_copies", rescaled_copies(matcher, folders["sceaux"]))
    runs: dict[str, Any] = {}
    for name, key, overlap in RUNS:
        camera = ["--camera-model", CALIBRATED_MODEL, "--camera-params", known] if key == CALIBRATED else []
        runs[name] = reconstructed(folders[key], references[key], overlap=overlap, words=[*words, *camera])
        keep("reconstruct", runs)
    keep("sceaux_sift", agreement_with_sift(matcher, folders["sceaux"], options.cache / "sceaux" / "database.db"))
    keep("unrelated", unrelated(matcher, options.data, options.unrelated))


if __name__ == "__main__":
    main()
