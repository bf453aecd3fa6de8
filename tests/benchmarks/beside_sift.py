"""Whole jobs with known intrinsics beside SIFT with COLMAP's defaults: errors of the cameras and CPU seconds of both.

    python tests/benchmarks/beside_sift.py IMAGES WORK --camera-params FX,FY,CX,CY --truth CAMERAS

Every job starts from photographs alone, in processes of its own that run on one core with one thread. CPU seconds are
user and system time of all of them. Without --truth, cameras are compared with those of the first model of SIFT.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

COMMAND = [sys.executable, "-m", "romacli"]
# pycolmap may end its process, so each job runs in one of its own.
SIFT = """
import sys
import pycolmap
images, output, camera_params, seed = sys.argv[1:]
database = output + "/database.db"
reader = pycolmap.ImageReaderOptions(camera_model="PINHOLE", camera_params=camera_params)
extraction = pycolmap.FeatureExtractionOptions(num_threads=1, use_gpu=False)
pycolmap.extract_features(database, images, camera_mode=pycolmap.CameraMode.SINGLE, reader_options=reader,
                          extraction_options=extraction, device=pycolmap.Device.cpu)
matching = pycolmap.FeatureMatchingOptions(num_threads=1, use_gpu=False)
pycolmap.match_exhaustive(database, matching_options=matching, device=pycolmap.Device.cpu)
options = pycolmap.IncrementalPipelineOptions(
    ba_refine_focal_length=False, ba_refine_principal_point=False, ba_refine_extra_params=False,
    random_seed=int(seed), num_threads=1)
pycolmap.incremental_mapping(database, images, output + "/sparse", options)
"""
MEASURE = """
import json, sys
import pycolmap
model = pycolmap.Reconstruction(sys.argv[1])
print(json.dumps({"registered": model.num_reg_images(), "points": len(model.points3D),
    "observations": model.compute_num_observations(), "track": model.compute_mean_track_length(),
    "reprojection px": model.compute_mean_reprojection_error()}))
"""
DECIMALS = {"track": 2, "reprojection px": 3, "position": 5, "rotation deg": 4, "AUC@0.1": 3, "CPU s": 1}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("work", type=Path, help="folder for the jobs, made anew")
    parser.add_argument("--camera-params", required=True, help="of a PINHOLE camera: FX,FY,CX,CY")
    parser.add_argument("--truth", type=Path, help="known poses, as `romacli eval poses` reads them")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    shutil.rmtree(args.work, ignore_errors=True)
    rows: dict[str, list[dict[str, float]]] = {"SIFT": [], "romacli": []}
    truth = args.truth
    for seed in args.seeds:
        for name, found in rows.items():
            output = args.work / f"{name}-{seed}"
            output.mkdir(parents=True)
            seconds = cpu_seconds(command(name, args.images, output, args.camera_params, seed))
            truth = truth or output / "sparse" / "0"
            found.append({**measured(output / "sparse" / "0", truth), "CPU s": seconds})
            if len(found) == 1 and name == "SIFT":
                print("| job | seed | " + " | ".join(found[0]) + " |")
                print("|---" * (len(found[0]) + 2) + "|")
            print(f"| {name} | {seed} | {words_of(found[-1])} |", flush=True)
    for name, found in rows.items():
        medians = {key: float(np.median([row[key] for row in found])) for key in found[0]}
        print(f"| {name} | median | {words_of(medians)} |")


def command(name: str, images: Path, output: Path, camera_params: str, seed: int) -> list[str]:
    """What runs a whole job."""
    if name == "SIFT":
        return [sys.executable, "-c", SIFT, str(images), str(output), camera_params, str(seed)]
    camera = ["--camera-mode", "single", "--camera-model", "PINHOLE", "--camera-params", camera_params]
    return [*COMMAND, "reconstruct", str(images), "-o", str(output), *camera, "--seed", str(seed)]


def cpu_seconds(words: Sequence[str]) -> float:
    """User and system time of a command and its processes, on one core."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    core = min(os.sched_getaffinity(0))
    pinned = ["taskset", "-c", str(core), *words]
    subprocess.run(pinned, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measured(model: Path, truth: Path) -> dict[str, float]:
    """Size of a model and errors of its cameras."""
    size = answer([sys.executable, "-c", MEASURE, str(model)])
    errors = answer([*COMMAND, "eval", "poses", str(model), str(truth), "--json"])
    return {
        **size,
        "position": errors["position"]["mean"],
        "rotation deg": errors["rotation_deg"]["mean"],
        "AUC@0.1": errors["auc"]["0.1"],
    }


def answer(words: Sequence[str]) -> dict[str, Any]:
    done = subprocess.run(words, check=True, capture_output=True, encoding="utf-8")
    values: dict[str, Any] = json.loads(done.stdout)
    return values


def words_of(row: dict[str, float]) -> str:
    return " | ".join(f"{value:.{DECIMALS.get(key, 0)}f}" for key, value in row.items())


if __name__ == "__main__":
    main()
