"""Unknown focal lengths from the verified pairs of simulated views: how often they are estimated, and how accurately.

    PYTHONPATH=.:tests python tests/benchmarks/calibration.py --seeds 5
    PYTHONPATH=.:tests python tests/benchmarks/calibration.py --distortion -0.05

Correspondences are exact except for 0.5 px of noise; no photograph is rendered and no network runs. A camera moves
forward, sideways along a strip or around an object and looks around by some degrees, or looks at a plane. --distortion
moves the corners of the photographs by this share of their distance from the centre.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from support.uncalibrated import SIZE, Poses, orbit, wandering, write_views

MOTIONS = ("forward", "strip", "orbit", "plane")
FACTORS = (0.5, 0.7, 1.0, 1.5, 2.0, 3.0)


def poses_of(motion: str, seed: int, focal: float) -> Poses:
    if motion == "orbit":
        return orbit(seed=seed, focal=focal)
    step = [0, 0, 0.4] if motion == "forward" else [0.5, 0, 0]
    return wandering(np.array(step), seed=seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--distortion", type=float, default=0.0, help="at the corners")
    options = parser.parse_args()
    print("| motion | focal length / side | estimated | within 5 % | within the spread | largest error |")
    print("|---|---|---|---|---|---|")
    for motion in MOTIONS:
        for factor in FACTORS:
            focal, found = factor * max(SIZE), []
            distortion = options.distortion / (np.hypot(*SIZE) / 2 / focal) ** 2
            for seed in range(options.seeds):
                relief = 0.0 if motion == "plane" else None
                with tempfile.TemporaryDirectory() as folder:
                    poses = poses_of(motion, seed, focal)
                    path = Path(folder) / "a.db"
                    found += write_views(path, poses, focal, relief=relief, distortion=distortion).calibrated
            errors = [abs(one.focal_length_px / focal - 1) for one in found]
            good, held = sum(error < 0.05 for error in errors), sum(one.low_px <= focal <= one.high_px for one in found)
            largest = f"{100 * max(errors):.1f} %" if errors else ""
            cells = (motion, factor, f"{len(errors)} of {options.seeds}", good, held, largest)
            print(f"| {' | '.join(map(str, cells))} |", flush=True)


if __name__ == "__main__":
    main()
