"""Match a single pair with the default steps of a job: point pairs, and their verification."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from romacli.colmap.cameras import CameraSpec, ImageInfo, assign_cameras
from romacli.colmap.options import CameraOptions, VerifyOptions
from romacli.colmap.verify import verify_pair
from romacli.keypoints.aggregate import aggregate
from romacli.keypoints.options import AggregateOptions
from romacli.matchers.matcher import Matcher, pair_seed
from romacli.synthetic.photometric import photograph
from romacli.synthetic.scenery import deep_scene
from romacli.synthetic.scenes import render_view
from romacli.synthetic.textures import Textures
from romacli.types import CompactWarp, Correspondences, Features, Pair, PairResult, Rejected

UNRELATED_PX = 640  # side of rendered unrelated pictures, as large as matched ones, since verification is in px
NAMES: Pair = ("A", "B")


@dataclass(frozen=True)
class UnrelatedResult:
    """How many unrelated pairs were recognised.

    Attributes:
        pairs: number of pairs.
        rejected: by the matcher, for too little overlap.
        verified: mistaken for views of one scene.
    """

    pairs: int
    rejected: int
    verified: int

    @property
    def refused(self) -> float:
        """The share without a verified geometry."""
        return 1 - self.verified / self.pairs


def encode(matcher: Matcher, image: np.ndarray) -> Features:
    """The features of RGB uint8 (H, W, 3)."""
    return matcher.encode([matcher.prepare(image)])[0]


def match(matcher: Matcher, features: tuple[Features, Features], *, seed: int, names: Pair = NAMES) -> PairResult:
    """Match one pair, seeded as a job does."""
    return matcher.match([features], [pair_seed(*names, seed=seed)])[0]


def correspondences(result: PairResult, options: AggregateOptions | None = None) -> Correspondences:
    """The point pairs of a job with only this pair; none if it was rejected."""
    if isinstance(result, Correspondences):
        return result
    if isinstance(result, Rejected):
        nothing = np.zeros((0, 2), np.float32)
        return Correspondences(nothing, nothing, np.zeros(0, np.float32))
    record: CompactWarp = result
    found = aggregate([NAMES], lambda _: record, options)
    matches = found.matches_of(NAMES)
    points0, points1 = (
        found.keypoints[name].xy[matches.indices[:, side]].astype(np.float32) for side, name in enumerate(NAMES)
    )
    return Correspondences(points0, points1, matches.scores)


def is_verified(points: Correspondences, sizes: tuple[tuple[int, int], tuple[int, int]]) -> bool:
    """Whether point pairs pass the default geometric verification."""
    rows = np.repeat(np.arange(len(points), dtype=np.int32)[:, None], 2, axis=1)
    infos = [ImageInfo(name, size) for name, size in zip(NAMES, sizes, strict=True)]
    specs, camera_of = assign_cameras(infos, CameraOptions())
    cameras: dict[str, CameraSpec] = {name: specs[camera_of[name]] for name in NAMES}
    keypoints = dict(zip(NAMES, (points.keypoints0, points.keypoints1), strict=True))
    return verify_pair(NAMES, rows, keypoints=keypoints, cameras=cameras, options=VerifyOptions()) is not None


def judge_unrelated(
    matcher: Matcher,
    pairs: Iterable[tuple[Features, Features]],
    *,
    advance: Callable[[int], None] = lambda _: None,
) -> UnrelatedResult:
    """Match pictures that have nothing in common, and count those rejected and verified."""
    count = rejected = verified = 0
    for first, second in pairs:
        result = match(matcher, (first, second), seed=0)
        count += 1
        rejected += isinstance(result, Rejected)
        verified += is_verified(correspondences(result), (first.size, second.size))
        advance(1)
    return UnrelatedResult(count, rejected, verified)


def unrelated_pictures(textures: Textures, count: int, *, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pictures of two scenes with textures from two disjoint halves."""
    halves = textures.halves()
    for index in range(count):
        rng = np.random.default_rng([seed, index, 1])
        pictures = []
        for half in halves:
            planes, cameras = deep_scene(half, rng, UNRELATED_PX)
            pictures.append(photograph(render_view(planes, cameras[0]).rgb, rng))
        yield pictures[0], pictures[1]
