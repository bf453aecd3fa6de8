"""Images of a building by its visitors placed right, wrong and not at all, compared with SIFT and COLMAP's defaults.

    PYTHONPATH=. python tests/benchmarks/visitors.py --seeds 100 101 102

Whole jobs at the default settings on rendered photographs without EXIF data, each by a camera of its own. An image is
wrong as in `lookalikes.py`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from lookalikes import judge_models
from visitor_scenes import write_photographs

# pycolmap may end its process, so each job runs in one of its own.
SIFT = """
import os, sys
import pycolmap
images, output = sys.argv[1:]
database, model = output + "/database.db", output + "/sparse"
os.makedirs(model)
extraction = pycolmap.FeatureExtractionOptions(num_threads=1, use_gpu=False)
pycolmap.extract_features(database, images, camera_mode=pycolmap.CameraMode.PER_IMAGE, extraction_options=extraction,
                          device=pycolmap.Device.cpu)
matching = pycolmap.FeatureMatchingOptions(num_threads=1, use_gpu=False)
pycolmap.match_exhaustive(database, matching_options=matching, device=pycolmap.Device.cpu)
pycolmap.incremental_mapping(database, images, model, pycolmap.IncrementalPipelineOptions(num_threads=1))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[100])
    parser.add_argument("--images", type=int, default=10)
    parser.add_argument("--swing", type=float, default=40, help="degrees to either side of the front")
    parser.add_argument("--camera-mode", default="auto", help="romacli's")
    args = parser.parse_args()
    print("| seed | SIFT: right | wrong | left out | romacli: right | wrong | left out |")
    print("|---|---|---|---|---|---|---|")
    for seed in args.seeds:
        with TemporaryDirectory() as temporary:
            folder = Path(temporary)
            photographs = folder / "photographs"
            photographs.mkdir()
            truth = write_photographs(photographs, seed, args.images, args.swing)
            cells = []
            for name in ("SIFT", "romacli"):
                output = folder / name
                output.mkdir()
                run(name, photographs, output, args.camera_mode)
                sparse = output / "sparse"
                right, wrong = judge_models(sparse, truth) if sparse.is_dir() else (0, 0)
                cells += [right, wrong, args.images - right - wrong]
        print(f"| {seed} | {' | '.join(map(str, cells))} |", flush=True)


def run(name: str, photographs: Path, output: Path, camera_mode: str) -> None:
    words = [sys.executable, "-c", SIFT, str(photographs), str(output)]
    if name == "romacli":
        words = [sys.executable, "-m", "romacli", "reconstruct", str(photographs), "-o", str(output)]
        words += ["--camera-mode", camera_mode]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, check=False, capture_output=True, env=environment, text=True)
    if done.returncode:
        print(f"{name} ended with {done.returncode}: {done.stderr[-500:]}", file=sys.stderr)


if __name__ == "__main__":
    main()
