"""Measure the input of a mapper, stage by stage, and explain why no model was found."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from romacli.colmap.access import images_of, open_readonly
from romacli.colmap.verify import MAPPED_CONFIGS
from romacli.forest import Forest
from romacli.words import counted

# Fewer matches hardly differ from chance: COLMAP's minimum for a verified pair (15 inliers) at an inlier ratio of 0.3.
_FEWEST_MATCHES = 50
# COLMAP's incremental mapper starts from a pair with 100 inliers and adds images that see 30 points.
_FEWEST_INLIERS = 100
_FEWEST_SHARED = 0.1


@dataclass(frozen=True)
class Supply:
    """Counts at every stage.

    matches, inliers: median over the pairs that have any. verified: pairs whose matches one motion explains.
    groups: sizes of the groups of images connected by verified pairs, largest first, without single images. shared:
    share of the verified keypoints that are matched in two pairs or more, so at least three images see them.
    """

    images: int
    pairs: int
    matches: float
    verified: int
    inliers: float
    groups: tuple[int, ...]
    shared: float

    @property
    def connected(self) -> int:
        """The images of the largest group."""
        return max(self.groups, default=0)


def measure_supply(database: Path) -> Supply:
    """Count the contents of a database at every stage; it is not changed."""
    with closing(open_readonly(database)) as connection:
        images = [int(row[0]) for row in connection.execute("SELECT image_id FROM images")]
        matches = [int(row[0]) for row in connection.execute("SELECT rows FROM matches WHERE rows > 0")]
        query = f"SELECT pair_id, rows, data FROM two_view_geometries WHERE rows > 0 AND config IN {MAPPED_CONFIGS}"
        inliers: list[int] = []
        pairs: list[tuple[int, int]] = []
        degrees: dict[int, list[np.ndarray]] = {image: [] for image in images}
        for pair_id, rows, data in connection.execute(query):
            pair = images_of(pair_id)
            inliers.append(rows)
            pairs.append(pair)
            for image, points in zip(pair, np.frombuffer(data, np.uint32).reshape(rows, 2).T, strict=True):
                degrees[image].append(points)
    return Supply(
        images=len(images),
        pairs=len(matches),
        matches=_median(matches),
        verified=len(inliers),
        inliers=_median(inliers),
        groups=tuple(map(len, groups_of(images, np.array(pairs).reshape(-1, 2)))),
        shared=_shared(degrees.values()),
    )


def what_lacks(supply: Supply) -> str:
    """What the mapper lacked, what to try, and the counts of all stages."""
    stages = [
        f"{counted(supply.pairs, 'pair has', 'pairs have')} matches",
        f"the median of them {supply.matches:.0f}",
        f"{counted(supply.verified, 'is', 'are')} verified, with {supply.inliers:.0f} inliers at the median",
        f"the largest connected group has {supply.connected} of {supply.images} images",
        f"{supply.shared:.0%} of the verified keypoints are seen by three images",
    ]
    return f"{_lacking(supply)} ({'; '.join(stages)}.)"


def _lacking(supply: Supply) -> str:
    if supply.pairs < max(1, supply.images - 1):
        return (
            "Too few pairs of photographs match to join the images. Match more pairs, such as every pair of a small "
            "set, or take photographs that overlap more."
        )
    if supply.matches < _FEWEST_MATCHES:
        return (
            "The pairs that match have few matches. Lower --min-certainty, raise --upsample-resolution, or try "
            "--model roma-outdoor."
        )
    if supply.verified < max(1, supply.images // 2) or supply.connected < min(3, supply.images):
        return (
            "No rigid motion explains the matches of most pairs. Give the right --camera-params, raise --max-error, "
            "lower --min-inliers, mask what moves with --mask-dir, or leave out pairs that show different places."
        )
    if supply.images > 2 and supply.shared < _FEWEST_SHARED:
        return (
            "Hardly a point is seen by three images. Match more pairs of neighbouring photographs, and keep "
            "--method tracks."
        )
    weak = " --mapper-option init_min_num_inliers=50" if supply.inliers < _FEWEST_INLIERS else ""
    return (
        f"The photographs may all be taken from one place. Try another --mapper,{weak} "
        "--mapper-option init_min_tri_angle=4 with the incremental one, or photographs from further apart."
    )


def _median(counts: list[int]) -> float:
    return float(np.median(counts)) if counts else 0.0


def _shared(degrees: Iterable[list[np.ndarray]]) -> float:
    counts = [np.unique(np.concatenate(points), return_counts=True)[1] for points in degrees if points]
    seen = np.concatenate(counts) if counts else np.zeros(0)
    return float(np.mean(seen > 1)) if len(seen) else 0.0


def verified_groups(database: Path) -> tuple[int, ...]:
    """Sizes of the groups of images connected by verified pairs, as in `Supply`, without reading any matches."""
    with closing(open_readonly(database)) as connection:
        images = [int(row[0]) for row in connection.execute("SELECT image_id FROM images")]
        query = f"SELECT pair_id FROM two_view_geometries WHERE rows > 0 AND config IN {MAPPED_CONFIGS}"
        pairs = [images_of(row[0]) for row in connection.execute(query)]
    return tuple(map(len, groups_of(images, np.array(pairs).reshape(-1, 2))))


def groups_of(images: Collection[int], pairs: np.ndarray) -> list[list[int]]:
    """The groups of images connected by pairs, largest first, without single images."""
    numbers = np.array(sorted(images))
    forest = Forest(len(numbers))
    forest.join(*np.searchsorted(numbers, pairs[np.isin(pairs, numbers).all(axis=1)]).T)
    return [numbers[list(part)].tolist() for part in forest.parts() if len(part) > 1]
