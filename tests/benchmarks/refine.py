"""Refinement of a job against its photographs: copies of it mapped without and with it, known intrinsics."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

COMMAND = [sys.executable, "-m", "romacli"]
# pycolmap may end its process, so it maps in a separate one.
MAP = """
import sys
import pycolmap
database, images, output, seed = sys.argv[1:]
options = pycolmap.IncrementalPipelineOptions(
    ba_refine_focal_length=False, ba_refine_principal_point=False, ba_refine_extra_params=False,
    random_seed=int(seed), num_threads=1, min_model_size=3)
models = pycolmap.incremental_mapping(database, images, output, options)
model = max(models.values(), key=lambda found: found.num_reg_images())
print(f"{model.num_reg_images()} images | {model.num_points3D()} | {model.compute_num_observations()} | "
      f"{model.compute_mean_track_length():.2f} | {model.compute_mean_reprojection_error():.3f}")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("job", type=Path, help="output folder of `romacli match`")
    parser.add_argument("images", type=Path)
    parser.add_argument("work", type=Path, help="folder for the copies, recreated")
    parser.add_argument("--camera-params", required=True, help="parameters of a PINHOLE camera: FX,FY,CX,CY")
    parser.add_argument("--truth", type=Path, help="known poses, in a form that `romacli eval poses` reads")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    shutil.rmtree(args.work, ignore_errors=True)
    print("| tracks | seed | registered | points | observations | track | reprojection px | position | rotation deg |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, words in (("plain", ["aggregate", "--no-refine"]), ("refined", ["refine"])):
        copy = args.work / name
        shutil.copytree(args.job, copy, ignore=shutil.ignore_patterns("sparse", "*.db", "runs.jsonl"))
        start = time.monotonic()
        made = romacli(words[0], copy, *words[1:], "--images", args.images)
        print(f"{name}: {made['refined']} refined, {time.monotonic() - start:.0f} s", file=sys.stderr)
        camera = ["--camera-mode", "single", "--camera-model", "PINHOLE", "--camera-params", args.camera_params]
        romacli("colmap-import", args.images, "-o", copy, *camera)
        for seed in args.seeds:
            output = copy / f"sparse-{seed}"
            output.mkdir()
            words = [sys.executable, "-c", MAP, *map(str, (copy / "database.db", args.images, output, seed))]
            mapped = subprocess.run(words, check=True, capture_output=True, encoding="utf-8").stdout.splitlines()[-1]
            print(f"| {name} | {seed} | {mapped} | {errors(output, args.truth)} |", flush=True)


def errors(output: Path, truth: Path | None) -> str:
    """Mean position and rotation errors of a model's cameras."""
    if truth is None:
        return " | "
    found = romacli("eval", "poses", output, truth)
    return f"{found['position']['mean']:.5f} | {found['rotation_deg']['mean']:.4f}"


def romacli(*words: object) -> dict[str, Any]:
    """The JSON result of a command."""
    done = subprocess.run([*COMMAND, *map(str, words), "--json"], check=True, capture_output=True, encoding="utf-8")
    values: dict[str, Any] = json.loads(done.stdout)
    return values


if __name__ == "__main__":
    main()
