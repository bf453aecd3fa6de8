"""The matcher for photographs of a plane under the name `plane`, for processes that load it by name."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from support.homography import HomographyMatcher

from romacli.matchers.options import MatcherOptions
from romacli.types import CompactWarp, Features, MatcherSpec, Rejected

FOLDER = Path(__file__).resolve().parent
HOMOGRAPHIES = "PLANE_HOMOGRAPHIES"
NODES = "PLANE_NODES"
SECONDS_A_PAIR = "PLANE_SECONDS_A_PAIR"
# A process that matches a pair with this image kills itself: "kill" always, "once FILE" while FILE does not exist.
FATAL = "PLANE_FATAL"


class PlaneMatcher(HomographyMatcher):
    """Takes a configurable time per pair, and kills its process at one image."""

    name = "plane"

    def match(self, pairs: Sequence[tuple[Features, Features]], seeds: Sequence[int]) -> list[CompactWarp | Rejected]:
        time.sleep(float(os.environ.get(SECONDS_A_PAIR, "0")) * len(pairs))
        fatal = os.environ.get(FATAL)
        if fatal and any(
            float(side.tensors["plane_from_image"][0, 0, 2]) == float(fatal.split()[0]) for p in pairs for side in p
        ):
            _end(fatal.split()[1:])
        return super().match(pairs, seeds)


def _end(mark: list[str]) -> None:
    if mark:
        try:
            Path(mark[0]).touch(exist_ok=False)
        except FileExistsError:
            return
    os.kill(os.getpid(), 9)


def build(options: MatcherOptions, name: str) -> PlaneMatcher:
    with np.load(os.environ[HOMOGRAPHIES]) as stored:
        return PlaneMatcher(dict(stored.items()), nodes=int(os.environ.get(NODES, "24")))


PLANE = MatcherSpec("plane", build, "a plane with known homographies", "MIT")


def environment(folder: Path, plane_from_image: dict[str, np.ndarray], **more: Any) -> dict[str, str]:
    """The environment a process needs to find the matcher: its entry point, and the matrices by image digest."""
    metadata = folder / "plane_matcher-0.dist-info"
    metadata.mkdir(parents=True, exist_ok=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: plane-matcher\nVersion: 0\n")
    (metadata / "entry_points.txt").write_text("[romacli.matchers]\nplane = plane_matcher:PLANE\n")
    np.savez(folder / "homographies.npz", **plane_from_image)
    paths = [str(folder), str(FOLDER), str(FOLDER.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        HOMOGRAPHIES: str(folder / "homographies.npz"),
        **{key: str(value) for key, value in more.items()},
    }
