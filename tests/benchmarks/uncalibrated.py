"""Models of simulated views with unknown focal length: images registered, focal length, mappers that ran.

    PYTHONPATH=.:tests python tests/benchmarks/uncalibrated.py --seeds 5
    PYTHONPATH=.:tests python tests/benchmarks/uncalibrated.py --motions forward strip --factors 0.5 3 --rendered

With --rendered whole jobs run on rendered photographs, a minute of CPU each. Otherwise correspondences are exact except
for 0.5 px of noise; no photograph is rendered and no network runs. A camera moves forward, sideways along a strip or
around an object, looking around by a tenth of its view; or at a plane with relief of a tenth of its distance; or it
only rotates.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from support.uncalibrated import SIZE, Poses, orbit, wandering, write_views
from uncalibrated_scenes import write_photographs

from romacli.colmap.binding import load_pycolmap
from romacli.errors import NothingFoundError
from romacli.mapping.options import MapperOptions
from romacli.mapping.reconstruct import reconstruct

MOTIONS = ("forward", "strip", "orbit", "relief", "turn")
FACTORS = (0.5, 0.7, 1.0, 1.5, 2.0, 3.0)
VIEWS = 12


@dataclass(frozen=True)
class Outcome:
    """registered: 0 without a model; error: relative error of the focal length; said: the mappers that ran, or the
    reason."""

    calibrated: bool
    registered: int
    error: float
    cpu_s: float
    said: str


def poses_of(motion: str, seed: int, focal: float) -> Poses:
    if motion == "orbit":
        return orbit(VIEWS, seed, focal)
    steps = {"forward": [0, 0, 0.4], "strip": [0.5, 0, 0], "relief": [0.5, 0.1, 0.15], "turn": [0, 0, 0]}
    return wandering(np.array(steps[motion]), VIEWS, seed, look_deg=5 * min(1, max(SIZE) / focal))


def outcome(motion: str, factor: float, seed: int) -> Outcome:
    focal, start = factor * max(SIZE), _cpu_s()
    with tempfile.TemporaryDirectory() as folder:
        path, sparse = Path(folder) / "a.db", Path(folder) / "sparse"
        relief = 0.1 if motion == "relief" else None
        written = write_views(path, poses_of(motion, seed, focal), focal, relief=relief, seed=seed)
        calibrated = bool(written.calibrated)
        try:
            summary = reconstruct(path, Path(folder), sparse, MapperOptions(num_threads=1))
        except NothingFoundError as error:
            return Outcome(calibrated, 0, np.inf, _cpu_s() - start, str(error))
        (camera,) = load_pycolmap().Reconstruction(sparse / "0").cameras.values()
        error = abs(camera.mean_focal_length() / focal - 1)
        return Outcome(calibrated, summary.registered, error, _cpu_s() - start, ", ".join(summary.attempts))


def rendered_outcome(motion: str, factor: float, seed: int) -> Outcome:
    start = _cpu_s()
    with tempfile.TemporaryDirectory() as folder:
        photographs, job = Path(folder) / "photographs", Path(folder) / "job"
        photographs.mkdir()
        write_photographs(photographs, motion, factor, seed, VIEWS)
        words = ["reconstruct", photographs, "-o", job, "--camera-mode", "single", "--pairing", "sequential", "--json"]
        command = [sys.executable, "-m", "romacli", *map(str, words), "--overlap", "4"]
        run = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
        if run.returncode:
            return Outcome("px from" in run.stderr, 0, np.inf, _cpu_s() - start, run.stderr.strip().splitlines()[-1])
        values = json.loads(run.stdout)
        (camera,) = values["focal_lengths"]
        error = abs(camera["px"] / (factor * max(SIZE)) - 1)
        said = ", ".join(values["attempts"])
        return Outcome(camera["source"].startswith("from"), values["registered"], error, _cpu_s() - start, said)


def rows(motions: list[str], factors: list[float], seeds: int, *, rendered: bool, verbose: bool) -> Iterator[str]:
    judged = rendered_outcome if rendered else outcome
    for motion in motions:
        for factor in factors:
            found = [judged(motion, factor, seed) for seed in range(seeds)]
            if verbose:
                yield from (f"<!-- {one.said}; {one.error:.3f} -->" for one in found)
            told, whole = sum(one.calibrated for one in found), sum(one.registered == VIEWS for one in found)
            near = sum(one.registered == VIEWS and one.error < 0.05 for one in found)
            turned = sum("only turns" in one.said for one in found)
            worst = max((one.error for one in found if one.registered), default=np.nan)
            seconds = np.median([one.cpu_s for one in found])
            cells = (motion, factor, told, whole, near, f"{100 * worst:.1f} %", turned, f"{seconds:.1f}")
            yield f"| {' | '.join(map(str, cells))} |"


def _cpu_s() -> float:
    return sum(os.times()[:4])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--motions", nargs="+", choices=MOTIONS, default=list(MOTIONS))
    parser.add_argument("--factors", nargs="+", type=float, default=list(FACTORS), help="focal length / longer side")
    parser.add_argument("--rendered", action="store_true", help="whole jobs, on rendered photographs")
    parser.add_argument("--verbose", action="store_true", help="also print the mappers' messages for each scene")
    options = parser.parse_args()
    print("| motion | f / side | calibrated | all registered | and f within 5 % | worst f | only rotates | CPU s |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows(
        options.motions, options.factors, options.seeds, rendered=options.rendered, verbose=options.verbose
    ):
        print(row, flush=True)


if __name__ == "__main__":
    main()
