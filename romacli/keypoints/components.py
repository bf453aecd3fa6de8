"""Connected components of keypoints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from romacli.forest import Forest
from romacli.types import Pair


def join_tracks(counts: Mapping[str, int], matches: Iterable[tuple[Pair, np.ndarray]]) -> dict[str, np.ndarray]:
    """For each image (K,) int64 the track of each of its keypoints, -1 for those without a match.

    Keypoints connected by a chain of matches are one track, even if it returns to the same image.

    Args:
        counts: the number of keypoints of each image.
        matches: (M, 2) rows of the two images' keypoints for each pair.
    """
    ends = np.cumsum([0, *counts.values()])
    start = dict(zip(counts, ends[:-1].tolist(), strict=True))
    forest, matched = Forest(int(ends[-1])), np.zeros(ends[-1], bool)
    for (name0, name1), indices in matches:
        one, other = start[name0] + indices[:, 0], start[name1] + indices[:, 1]
        forest.join(one, other)
        matched[one] = matched[other] = True
    tracks = np.where(matched, forest.roots(), -1)
    return {name: tracks[start[name] : start[name] + count] for name, count in counts.items()}
