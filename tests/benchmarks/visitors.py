"""Images of a place placed right, wrong and not at all, compared with SIFT and COLMAP's defaults.

    PYTHONPATH=. python tests/benchmarks/visitors.py --seeds 100 101 102
    PYTHONPATH=. python tests/benchmarks/visitors.py --scenes orbit street room --cameras known one own --seeds 100

Whole jobs at the default settings on rendered photographs: of a building, each by a camera of its own and without EXIF
data, or of other places by one camera, known or not, or each by its own. An image is wrong as in `lookalikes.py`.
COLMAP is told whether the photographs share a camera. Focal lengths are off by the median of the images in the models,
and before mapping by the mean and the largest of all images.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import place_scenes
import visitor_scenes
from lookalikes import judge_models

from romacli.colmap.access import open_readonly
from romacli.colmap.poses import load_model
from romacli.colmap.reading import read_focal_lengths

# pycolmap may end its process, so each job runs in one of its own.
SIFT = """
import os, sys
import pycolmap
images, output, mode = sys.argv[1:]
database, model = output + "/database.db", output + "/sparse"
os.makedirs(model)
extraction = pycolmap.FeatureExtractionOptions(num_threads=1, use_gpu=False)
pycolmap.extract_features(database, images, camera_mode=getattr(pycolmap.CameraMode, mode),
                          extraction_options=extraction, device=pycolmap.Device.cpu)
matching = pycolmap.FeatureMatchingOptions(num_threads=1, use_gpu=False)
pycolmap.match_exhaustive(database, matching_options=matching, device=pycolmap.Device.cpu)
pycolmap.incremental_mapping(database, images, model, pycolmap.IncrementalPipelineOptions(num_threads=1))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", nargs="+", choices=("building", *place_scenes.PLACES), default=["building"])
    parser.add_argument("--cameras", nargs="+", choices=place_scenes.CAMERAS, default=["own"], help="but of a building")
    parser.add_argument("--seeds", type=int, nargs="+", default=[100])
    parser.add_argument("--images", type=int, default=10, help="of a building")
    parser.add_argument("--swing", type=float, default=40, help="degrees to either side of a building's front")
    parser.add_argument("--camera-mode", default="auto", help="romacli's")
    parser.add_argument("--programs", nargs="+", choices=("SIFT", "romacli"), default=["SIFT", "romacli"])
    parser.add_argument("--keep", type=Path, help="folder for the photographs and jobs")
    args = parser.parse_args()
    names = "scene", "cameras", "seed", "program", "right", "wrong", "left out", "models", "focal length off by"
    print(f"| {' | '.join(names)} | before mapping |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for scene in args.scenes:
        for cameras in args.cameras if scene != "building" else ["own"]:
            for seed in args.seeds:
                with nullcontext(args.keep) if args.keep else TemporaryDirectory() as folder:
                    compare(args, Path(folder) / f"{scene}-{cameras}-{seed}", scene, cameras, seed)


def compare(args: argparse.Namespace, folder: Path, scene: str, cameras: str, seed: int) -> None:
    photographs = folder / "photographs"
    photographs.mkdir(parents=True, exist_ok=True)
    if scene == "building":
        truth, focals = visitor_scenes.write_photographs(photographs, seed, args.images, args.swing)
    else:
        truth, focals = place_scenes.write_photographs(photographs, scene, cameras, seed)
    for program in args.programs:
        output = folder / program
        output.mkdir()
        if program == "SIFT":
            mode = "PER_IMAGE" if cameras == "own" else "SINGLE"
            words = [sys.executable, "-c", SIFT, str(photographs), str(output), mode]
        else:
            words = [sys.executable, "-m", "romacli", "reconstruct", str(photographs), "-o", str(output)]
            words += ["--camera-mode", args.camera_mode]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(words, check=False, capture_output=True, env=environment, encoding="utf-8")
        (output / "said.txt").write_text(done.stdout + done.stderr, encoding="utf-8")
        if done.returncode:
            print(f"{program} ended with {done.returncode}: {done.stderr[-500:]}", file=sys.stderr)
        sparse = output / "sparse"
        right, wrong = judge_models(sparse, truth) if sparse.is_dir() else (0, 0)
        models = len(list(sparse.iterdir())) if sparse.is_dir() else 0
        row = scene, cameras, seed, program, right, wrong, len(truth) - right - wrong, models
        before = "{:.0%}, {:.0%}".format(*errors_before(output / "database.db", focals))
        print(f"| {' | '.join(map(str, row))} | {focal_error(sparse, focals):.1%} | {before} |", flush=True)


def focal_error(sparse: Path, focals: Mapping[str, float]) -> float:
    """The median error of the focal lengths in all models, as a share of the true ones."""
    found = []
    for model in map(load_model, sorted(sparse.iterdir()) if sparse.is_dir() else []):
        for image in model.images.values():
            if image.has_pose:
                found.append(abs(model.cameras[image.camera_id].params[0] / focals[image.name] - 1))
    return float(np.median(found)) if found else float("nan")


def errors_before(database: Path, focals: Mapping[str, float]) -> tuple[float, float]:
    """The mean and the largest error of the focal lengths in a database, as shares of the true ones."""
    if not database.is_file():
        return float("nan"), float("nan")
    with closing(open_readonly(database)) as connection:
        cameras = dict(connection.execute("SELECT name, camera_id FROM images"))
    found = read_focal_lengths(database)
    errors = [abs(found[cameras[name]][0] / focal - 1) for name, focal in focals.items() if name in cameras]
    return float(np.mean(errors)), max(errors)


if __name__ == "__main__":
    main()
