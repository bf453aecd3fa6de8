"""Queries localized in maps with known cameras: their errors, and how many get a pose; as one JSON object.

    PYTHONPATH=.:tests python tests/benchmarks/localization.py WORK --walks 3

The scenes are the example and rendered walks around courts of their own, each used twice: every photograph in the model
of all without itself, and every fourth one held out of a model of the others. Models of walks keep the true cameras;
that of the example is made by `romacli reconstruct` and aligned to them. Held-out queries are also localized by hloc's
own loop, after extending the old job by them. Existing results in WORK are reused.

Distances are relative to the largest distance between two true cameras. The overlap of a query is its largest overlap
with a photograph of the map: the mean share of each that the other shows.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[2] / "examples"))
import render_scene
import retrieval_scenes
from support.commands import hloc_keypoints, hloc_matches, result_of, romacli_alone

from romacli.colmap.binding import load_pycolmap
from romacli.colmap.pose_files import read_written_poses
from romacli.colmap.poses import Pose, align_similarity, load_model, read_poses
from romacli.geometry.epipolar import rotation_angle_deg

SCENE = Path(__file__).resolve().parents[2] / "examples" / "scene"
OVERLAPPING = 0.3
HELD_OUT = 4  # every fourth photograph
HLOC_THRESHOLD_PX = 12.0


@dataclass(frozen=True)
class Scene:
    """Photographs with their true cameras. overlap: (N, N) in the order of names. is_given: whether maps keep the
    cameras."""

    images: Path
    truth: Path
    names: tuple[str, ...]
    overlap: np.ndarray
    is_given: bool


def example() -> Scene:
    cameras = render_scene.cameras_on_arc(np.random.default_rng([render_scene.SEED, 1]))
    planes = render_scene.court(np.random.default_rng([render_scene.SEED, 0]))
    names = tuple(f"court_{index:02}.jpg" for index in range(1, len(cameras) + 1))
    overlap = retrieval_scenes.overlaps(planes, cameras)
    return Scene(SCENE / "images", SCENE / "truth", names, overlap, is_given=False)


def walk(folder: Path, seed: int, views: int) -> Scene:
    """A walk there and back, at varying distance, photographed at the image size of the example."""
    planes = render_scene.court(np.random.default_rng(seed))
    walked = retrieval_scenes.cameras_of_walk(np.random.default_rng([seed, 7]), views)
    scale = render_scene.SIZE[0] / retrieval_scenes.SIZE[0]
    cameras = [retrieval_scenes.scaled(camera, scale) for camera in walked]
    by_name = {f"{index:03}.jpg": camera for index, camera in enumerate(cameras)}
    images, truth = folder / "images", folder / "truth"
    if not truth.exists():
        images.mkdir(parents=True)
        rng = np.random.default_rng([seed, 2])
        for name, camera in by_name.items():
            cv2.imwrite(str(images / name), render_scene.take_photograph(planes, camera, rng)[..., ::-1])
        render_scene.write_truth(truth, by_name)
    return Scene(images, truth, tuple(by_name), retrieval_scenes.overlaps(planes, cameras), is_given=True)


def model_of(scene: Scene, names: list[str], folder: Path) -> Path:
    """The job of some photographs, made only once."""
    photographs = folder / "images"
    photographs.mkdir(parents=True, exist_ok=True)
    for name in names:
        shutil.copy2(scene.images / name, photographs / name)
    job = folder / "job"
    if not (job / "sparse" / "0").exists():
        known = ["--known-poses", scene.truth, "--pairing", "poses", "--reference-model", scene.truth]
        words = [*known, "--num-matched", 8] if scene.is_given else ["--camera-mode", "single"]
        result_of(romacli_alone("reconstruct", photographs, "-o", job, *words, "-q", "--json"))
    return job


def localized(queries: Path, job: Path, output: Path) -> dict[str, Pose]:
    run = romacli_alone("localize", queries, "--model", job, "-o", output, "-q")
    assert run.returncode in (0, 4), run.stderr
    print(run.stderr, file=sys.stderr)
    return read_written_poses(output / "poses.txt")


def by_hloc(queries: list[str], map_job: Path, photographs: Path, folder: Path) -> dict[str, Pose]:
    """Poses by hloc's loop: matches of the extended job, points of the old model, image by image."""
    grown = folder / "grown"
    if not grown.exists():
        shutil.copytree(map_job, grown)
        known = sorted(
            {name for line in (map_job / "pairs.txt").read_text(encoding="utf-8").splitlines() for name in line.split()}
        )
        pairs = [*map(str.split, (map_job / "pairs.txt").read_text(encoding="utf-8").splitlines())]
        chosen = json.loads((folder / "localized" / "localized.json").read_text(encoding="utf-8"))
        pairs += [[row["name"], image] for row in chosen for image in row["map_images"] if image in known]
        (folder / "pairs.txt").write_text("".join(f"{' '.join(pair)}\n" for pair in pairs), encoding="utf-8")
        result_of(romacli_alone("match", photographs, "-o", grown, "--pairs", folder / "pairs.txt", "-q", "--json"))
    model = load_model(map_job / "sparse" / "0")
    camera = next(iter(model.cameras.values()))
    listed = [line.split() for line in (folder / "pairs.txt").read_text(encoding="utf-8").splitlines()]
    images = {image.name: image for image in model.images.values()}
    found = {}
    for query in queries:
        places, points = [], []
        keypoints = hloc_keypoints(grown / "features.h5", query).astype(float)
        for image in (images[other] for name, other in listed if name == query):
            for row, other in hloc_matches(grown / "matches.h5", query, image.name)[0]:
                if image.points2D[other].has_point3D():
                    places.append(keypoints[row] + 0.5)
                    points.append(model.points3D[image.points2D[other].point3D_id].xyz)
        options = {"ransac": {"max_error": HLOC_THRESHOLD_PX}}
        pose = load_pycolmap().estimate_and_refine_absolute_pose(
            np.array(places).reshape(-1, 2), np.array(points).reshape(-1, 3), camera, options
        )
        if pose is not None:
            found[query] = Pose(pose["cam_from_world"].rotation.matrix(), pose["cam_from_world"].translation)
    return found


def errors_of(
    found: dict[str, Pose], queries: list[str], job: Path, scene: Scene
) -> dict[str, tuple[float, float, float]]:
    """Overlap, rotation error in degrees and relative position error of each query."""
    held, truth = read_poses(job / "sparse" / "0"), read_poses(scene.truth)
    names = sorted(held)
    aligned = align_similarity(*(np.array([poses[name].centre for name in names]) for poses in (held, truth)))
    centres = np.array([pose.centre for pose in truth.values()])
    extent = np.linalg.norm(centres[:, None] - centres, axis=-1).max()
    shown = [row for row, name in enumerate(scene.names) if name in held]
    rows = []
    for query in queries:
        overlap = float(scene.overlap[scene.names.index(query), shown].max())
        if query not in found:
            rows.append((overlap, np.inf, np.inf))
            continue
        turned = found[query].rotation @ aligned.rotation.T @ truth[query].rotation.T
        moved = aligned.apply(found[query].centre[None])[0] - truth[query].centre
        rows.append((overlap, rotation_angle_deg(turned), 100 * float(np.linalg.norm(moved)) / extent))
    return dict(zip(queries, rows, strict=True))


def told(rows: list[tuple[float, float, float]]) -> dict[str, Any]:
    """Median and largest errors and shares for queries that overlap, and how many others got a pose."""
    near = np.array([row[1:] for row in rows if row[0] >= OVERLAPPING])
    others = [row for row in rows if row[0] < OVERLAPPING]
    return {
        "queries": len(near),
        "median_deg": round(float(np.median(near[:, 0])), 4),
        "median_percent": round(float(np.median(near[:, 1])), 4),
        "largest_deg": round(float(near[:, 0].max()), 4),
        "largest_percent": round(float(near[:, 1].max()), 4),
        "within_1_deg": round(float((near[:, 0] < 1).mean()), 4),
        "that overlap less": len(others),
        "of these within 1 deg": sum(row[1] < 1 for row in others),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("work", type=Path, help="working folder")
    parser.add_argument(
        "--walks", type=int, default=3, help="number of rendered walks, in addition to the example scene"
    )
    parser.add_argument("--views", type=int, default=24, help="photographs per walk")
    asked = parser.parse_args()
    scenes = {"example": example()}
    for number in range(asked.walks):
        scenes[f"walk {number}"] = walk(asked.work / f"walk-{number}", 100 + number, asked.views)
    gathered: dict[str, Any] = {"leave one out": {}, "held out": {}, "held out, hloc's loop": {}}
    for name, scene in scenes.items():
        folder = asked.work / name.replace(" ", "-")
        job = model_of(scene, list(scene.names), folder / "all")
        found = localized(scene.images, job, folder / "all" / "localized")
        gathered["leave one out"][name] = errors_of(found, list(scene.names), job, scene)
        queries = list(scene.names[HELD_OUT // 2 :: HELD_OUT])
        job = model_of(scene, [each for each in scene.names if each not in queries], folder / "part")
        (folder / "part" / "queries").mkdir(exist_ok=True)
        for query in queries:
            shutil.copy2(scene.images / query, folder / "part" / "queries" / query)
        found = localized(folder / "part" / "queries", job, folder / "part" / "localized")
        gathered["held out"][name] = errors_of(found, queries, job, scene)
        found = by_hloc(queries, job, scene.images, folder / "part")
        gathered["held out, hloc's loop"][name] = errors_of(found, queries, job, scene)
        print(json.dumps({way: told(list(rows[name].values())) for way, rows in gathered.items()}), file=sys.stderr)
    by_scene = {way: {name: told(list(rows.values())) for name, rows in each.items()} for way, each in gathered.items()}
    together = {way: told([row for rows in each.values() for row in rows.values()]) for way, each in gathered.items()}
    print(json.dumps({"all": together, "scenes": by_scene, "rows": gathered}, indent=1))


if __name__ == "__main__":
    main()
