"""The same comparison on the scenes and warps of the study that set the numbers to reach.

The study's code is no part of this project: it is loaded from a folder `shared` beside the checkout, and the program
ends where there is none.

    python tests/benchmarks/study_scenes.py --layouts arc-16 --seeds 0 1 2

`study-vote-3` and `study-vote-6` are the study's own filtered votes, by its code and with its 8,192 keypoints.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from track_scenes import Layout, NoiseModel, View
from tracks import main
from votes import Result

from romacli.colmap.poses import Pose
from romacli.types import DenseMatch, Size

STUDY = Path(__file__).resolve().parents[2].parent / "shared" / "prototypes" / "tracks"


@dataclass(frozen=True)
class StudyCapture:
    """The study's rig of views and its simulated matcher, seen as a capture of ours."""

    views: Sequence[View]
    pairs: Sequence[tuple[int, int]]
    matcher: Any

    def follow(self, i: int, j: int, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.matcher.rig.exact_match(i, j, points)

    def dense(self, i: int, j: int) -> DenseMatch:
        warp_AB, certainty_AB, warp_BA, certainty_BA = self.matcher.pair(i, j)
        size_A, size_B = self.views[i].size, self.views[j].size
        return DenseMatch(
            _normalised(warp_AB, size_B),
            torch.from_numpy(certainty_AB),
            _normalised(warp_BA, size_A),
            torch.from_numpy(certainty_BA),
            size_A,
            size_B,
        )


def _normalised(warp: np.ndarray, size: Size) -> torch.Tensor:
    return torch.from_numpy((2 * warp / size - 1).astype(np.float32))


def load_study(name: str = "synthetic_scene") -> ModuleType:
    """A module of the study, apart from ours of the same name; ends the program where there is none."""
    file = STUDY / f"{name}.py"
    if not file.is_file():
        sys.exit(f"{STUDY} holds no {file.name}. Put the study's folder there, or run tracks.py instead.")
    spec = spec_from_file_location(f"study_{name}", file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = module_from_spec(spec)  # its dataclasses look for themselves there
    spec.loader.exec_module(module)
    return module


def study_vote(code: ModuleType, capture: StudyCapture, seed: int, max_cycle_px: float) -> Result:
    """The study's filtered vote: 20,000 samples a pair, cells of 8 px, bins of 2."""
    rng = np.random.default_rng(seed + 5)
    samples = {}
    for i, j in capture.pairs:
        sizes = capture.views[i].size, capture.views[j].size
        warps = capture.matcher.pair(i, j)
        samples[i, j] = code.sample_pair(*warps, *sizes, 20_000, rng, thr=0.2, check=max_cycle_px)
    keypoints, matches = code.quantise_vote(len(capture.views), samples, 8, 2)
    names = [view.name for view in capture.views]
    return Result(
        dict(zip(names, keypoints, strict=True)), {(names[i], names[j]): rows for (i, j), rows in matches.items()}
    )


def capture_scene(study: ModuleType, layout: Layout, seed: int, noise: NoiseModel, nodes: int) -> StudyCapture:
    """The study's scene, views and matcher of a seed."""
    scene = study.make_scene(seed)
    taken = study.orbit_views(scene, layout.num_views, arc_deg=layout.arc_deg, seed=seed)
    rig = study.Rig(scene, taken, grid=nodes)
    matcher = study.Matcher(rig, sigma=noise.sigma_px, outliers=noise.outliers, seed=seed)
    views = [View(view.name, Pose(view.R, view.t), view.f, view.size) for view in taken]
    return StudyCapture(views, layout.pairs, matcher)


if __name__ == "__main__":
    module, code = load_study(), load_study("tracks")
    main(
        lambda layout, seed, noise, nodes: capture_scene(module, layout, seed, noise, nodes),
        {f"study-vote-{px}": partial(study_vote, code, max_cycle_px=px) for px in (3, 6)},
    )
