"""Keypoint matchers on real photographs compared with mini and SIFT: the resulting models and their CPU time.

    python tests/benchmarks/describers.py DATA FOLDER ... --models MODEL ... --cache CACHE

A FOLDER of DATA contains photographs, or has them in `images`; if it has measured cameras in `cameras`, the model is
compared with them. All pairs are matched and nothing is tuned. CPU seconds are user and system time of the whole
`romacli reconstruct`, and for SIFT of COLMAP's extraction, matching and mapping; results in CACHE count as no time.

Without the weights of DINOv2: `--models dinov2 --keypoints sift --seeded` shows that jobs run, with useless models.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from photographs import run_cli, sift_model

from romacli.colmap.binding import load_pycolmap
from romacli.colmap.pose_files import read_written_poses
from romacli.eval.model_poses import evaluate_poses, read_estimate
from romacli.networks.backbones.dinov2 import DINOv2, DINOv2Config

SIFT = "sift"


def seeded_dinov2(path: Path) -> Path:
    """Write random weights in the layout of the published ones, 1.2 GB."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    torch.save(DINOv2(DINOv2Config()).state_dict(), path)
    return path


def model_of(images: Path, name: str, cache: Path, scratch: Path, more: Sequence[object]) -> tuple[Path | None, str]:
    """The largest model from a matcher, or None and the reason. more: other arguments of the command."""
    if name == SIFT:
        return sift_model(images, cache), "no model"
    words = ("reconstruct", images, "-o", scratch, "--model", name, "--pairing", "exhaustive", "-q")
    done = run_cli(*words, *more, check=False)
    return scratch / "sparse" / "0" if done.returncode == 0 else None, done.stderr.strip().split("\n")[-1]


def measured(images: Path, name: str, cache: Path, more: Sequence[object] = ()) -> dict[str, Any]:
    began = sum(os.times()[:4])
    with TemporaryDirectory() as scratch:
        sparse, why = model_of(images, name, cache, Path(scratch) / "job", more)
        result: dict[str, Any] = {"cpu_s": round(sum(os.times()[:4]) - began)}
        if sparse is None:
            return result | {"message": why}
        model = load_pycolmap().Reconstruction(sparse)
        result |= {
            "registered": model.num_reg_images(),
            "points": model.num_points3D(),
            "track": round(model.compute_mean_track_length(), 2),
            "error_px": round(model.compute_mean_reprojection_error(), 2),
        }
        cameras = images.parent / "cameras"
        if cameras.is_dir():
            errors = evaluate_poses(read_estimate(sparse), read_written_poses(cameras)).figures
            result |= {"rotation_deg": errors["rotation_deg"]["median"], "position": errors["position"]["median"]}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--models", nargs="+", default=[SIFT, "mini", "mini-sparse"])
    parser.add_argument("--cache", type=Path, required=True, help="folder where SIFT's models are stored")
    parser.add_argument("--keypoints", help="sift or a file, instead of the matchers' own")
    parser.add_argument("--seeded", action="store_true", help="random weights for dinov2, written to CACHE")
    options = parser.parse_args()
    more: list[object] = ["--keypoints", options.keypoints] if options.keypoints else []
    if options.seeded:
        more += ["--weights", seeded_dinov2(options.cache / "dinov2.pth")]
    for folder in options.folders:
        images = options.data / folder
        images = images / "images" if (images / "images").is_dir() else images
        for name in options.models:
            print(folder, name, json.dumps(measured(images, name, options.cache / folder, more)), flush=True)


if __name__ == "__main__":
    main()
