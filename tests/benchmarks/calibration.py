"""Unknown focal lengths from the verified pairs of simulated views: how often they are estimated, and how accurately.

    PYTHONPATH=.:tests python tests/benchmarks/calibration.py --seeds 5

Correspondences are exact except for 0.5 px of noise; no photograph is rendered and no network runs. A camera moves
forward, sideways along a strip or around an object and looks around by some degrees, or looks at a plane.
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
    options = parser.parse_args()
    print("| motion | focal length / side | estimated | within 5 % | largest error |")
    print("|---|---|---|---|---|")
    for motion in MOTIONS:
        for factor in FACTORS:
            focal, errors = factor * max(SIZE), []
            for seed in range(options.seeds):
                relief = 0.0 if motion == "plane" else None
                with tempfile.TemporaryDirectory() as folder:
                    summary = write_views(Path(folder) / "a.db", poses_of(motion, seed, focal), focal, relief=relief)
                errors += [abs(one.focal_length_px / focal - 1) for one in summary.calibrated]
            good = sum(error < 0.05 for error in errors)
            largest = f"{100 * max(errors):.1f} %" if errors else ""
            print(f"| {motion} | {factor} | {len(errors)} of {options.seeds} | {good} | {largest} |", flush=True)


if __name__ == "__main__":
    main()
