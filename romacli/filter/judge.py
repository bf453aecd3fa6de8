"""Which pairs are believed: by what each misses, and by what those miss that it stands or falls with.

Of three pairs round three images whose warps agree, one alone cannot be wrong. So what one pair misses speaks against
all that hang together with it by such triangles; a detail that few photographs show is heard of in many.

Source of the idea: Zach, Irschara and Bischof, What Can Missing Correspondences Tell Us About 3D Structure and Motion,
CVPR 2008; Cui and Tan, Global Structure-from-Motion by Similarity Averaging, ICCV 2015. Triangles take the place of
their inference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from romacli.forest import Forest

from .lattice import Edge, Views
from .missing import Missing, count_witnesses, find_missing
from .triangles import Triangle, choose_triangles, measure_agreement
from .unique import count_unique

# A pair speaks against itself from this share of missing places on: so many times what the best tenth of the pairs of
# about the same overlap miss, as the further apart photographs are, the more a matcher finds nothing of; within bounds.
_TIMES_USUAL, _BEST, _BOUNDS = 6.0, 0.1, (0.05, 0.5)
# Missing nothing speaks for a pair by so much, as details may lie outside of both pictures; in full where it matches
# details on this share of both images, and the less without the more of such pairs there are.
_FOR_NONE_MISSING, _ENOUGH_UNIQUE, _MANY_UNIQUE = (0.2, 0.5), 0.02, 0.25
_FEWEST_ALIKE, _SHARE_ALIKE = 17, 0.2
# Triangles whose pairs stand or fall together, and those one of whose pairs is wrong.
_AGREES, _CONTRADICTS = 0.6, 0.3
# The weight of a pair's own evidence beside each triangle's, and the rounds in which triangles are heard.
_OWN, _ROUNDS = 0.25, 30
# Pairs that alone join parts of a job are dropped for stronger evidence only.
_LEAST_OF_LINKS = -0.3


@dataclass(frozen=True)
class Judged:
    """What is thought of a pair.

    share: of the places that it should match, those missing. belief: in [-1, 1], with what others say. unique: places
    that it matches and many others miss. triangles: of those that it is in, how many agree and how many contradict.
    """

    share: float
    belief: float
    unique: int
    triangles: tuple[int, int]
    is_kept: bool

    @property
    def reason(self) -> str:
        """Why the pair is dropped, as a clause."""
        agree, contradict = self.triangles
        if self.share > _BOUNDS[0]:
            return f"{self.share:.0%} of what should match does not, though both images match it with others"
        if contradict > agree:
            return f"{contradict} of {agree + contradict} ways over a third image end elsewhere"
        return "it stands and falls with pairs that miss what they should match"


def disputed(views: Views, judged: Mapping[Edge, Judged]) -> float:
    """The share of the triangles of pairs that are kept which contradict."""
    kept = [
        share
        for (i, j, k), share in ((one, measure_agreement(views, one)) for one in choose_triangles(views))
        if share is not None and all(judged[side].is_kept for side in ((i, j), (j, k), (i, k)))
    ]
    return sum(map(_contradicts, kept)) / max(1, len(kept))


def judge_pairs(views: Views, advance: Callable[[], None] = lambda: None) -> dict[Edge, Judged]:
    """All pairs of a job; calls `advance` for each."""
    witnesses = count_witnesses(views)
    found: dict[Edge, Missing] = {}
    for edge in views.edges:
        found[edge] = find_missing(views, edge, witnesses)
        advance()
    agreements = {one: measure_agreement(views, one) for one in choose_triangles(views)}
    shares = np.array([one.share for one in found.values()])
    matched = np.array([one.matched for one in found.values()], float)
    counts = np.array([sum(views.lattices[image].count for image in edge) for edge in views.edges])
    weights = np.sqrt(matched + [one.missing for one in found.values()])
    together, broken = (_sides(views.edges, agreements, test) for test in (_agrees, _contradicts))
    own = doubt(shares, matched / counts)
    unique = count_unique(views, found, [edge for edge, one in zip(views.edges, own, strict=True) if one < 0])
    beliefs = weigh(_with_unique(own, unique / counts), weights, together, broken)
    is_kept = _kept(views, beliefs)
    agree, contradict = (np.bincount(sides.ravel(), minlength=len(shares)) for sides in (together, broken))
    return {
        edge: Judged(
            float(shares[k]),
            float(beliefs[k]),
            int(unique[k]),
            (int(agree[k]), int(contradict[k])),
            bool(is_kept[k]),
        )
        for k, edge in enumerate(views.edges)
    }


def doubt(shares: np.ndarray, overlaps: np.ndarray) -> np.ndarray:
    """What speaks for each pair alone, in [-1, 1], by the share of its places that is missing.

    Args:
        shares, overlaps: (E,) of each pair, the latter being the share of both images that is matched.
    """
    order = np.argsort(-overlaps, kind="stable")
    alike = min(len(shares), max(_FEWEST_ALIKE, round(_SHARE_ALIKE * len(shares))))
    limits = np.empty(len(shares))
    for rank, pair in enumerate(order):
        first = min(max(0, rank - alike // 2), len(shares) - alike)
        limits[pair] = _TIMES_USUAL * np.quantile(shares[order[first : first + alike]], _BEST)
    left = 1 - shares / np.clip(limits, *_BOUNDS)
    return np.clip(np.where(left > 0, 2 * left, left), -1, 1)


def _with_unique(own: np.ndarray, unique: np.ndarray) -> np.ndarray:
    """What each pair says, less what speaks for those that show nothing unique; unique: (E,) shares of both images."""
    full = np.minimum(unique / _ENOUGH_UNIQUE, 1)
    least, most = _FOR_NONE_MISSING
    none = most - (most - least) * min(1.0, float(np.mean(full == 1)) / _MANY_UNIQUE)
    return np.where(own > 0, own * (none + (1 - none) * full), own)


def weigh(own: np.ndarray, weights: np.ndarray, together: np.ndarray, broken: np.ndarray) -> np.ndarray:
    """What is believed of each of E pairs once it has heard of its triangles.

    Args:
        own, weights: (E,) what each pair says, and how much that is worth.
        together, broken: (T, 3) the pairs of triangles that agree, and of those that contradict.
    """
    beliefs = own
    for _ in range(_ROUNDS):
        told, weight, trust = _OWN * weights * own, _OWN * weights, np.maximum(beliefs, 0)
        for turn in range(3):
            a, b, c = np.roll(together, turn, axis=1).T
            for trusted, other in ((b, c), (c, b)):
                share = trust[trusted] * weights[other]
                np.add.at(told, a, share * beliefs[other])
                np.add.at(weight, a, share)
            a, b, c = np.roll(broken, turn, axis=1).T
            share = np.minimum(trust[b], trust[c]) * np.minimum(weights[b], weights[c])
            np.add.at(told, a, -share)
            np.add.at(weight, a, share)
        beliefs = told / np.maximum(weight, 1e-9)
    return np.asarray(beliefs)


def _agrees(share: float) -> bool:
    return share > _AGREES


def _contradicts(share: float) -> bool:
    return share < _CONTRADICTS


def _sides(edges: list[Edge], agreements: Mapping[Triangle, float | None], test: Callable[[float], bool]) -> np.ndarray:
    """The numbers (T, 3) of the pairs of the triangles that pass a test."""
    place = {edge: k for k, edge in enumerate(edges)}
    sides = [
        [place[i, j], place[j, k], place[i, k]]
        for (i, j, k), share in agreements.items()
        if share is not None and test(share)
    ]
    return np.array(sides, np.intp).reshape(-1, 3)


def _kept(views: Views, beliefs: np.ndarray) -> np.ndarray:
    """(E,) whether each pair is kept: those that are believed, and of the others the best that join two parts."""
    is_kept = beliefs >= 0
    ends = np.array(views.edges, np.intp).reshape(-1, 2)
    forest = Forest(len(views.names))
    forest.join(*ends[is_kept].T)
    for k in np.argsort(-beliefs, kind="stable"):
        one, other = ends[k]
        roots = forest.roots()
        if not is_kept[k] and beliefs[k] > _LEAST_OF_LINKS and roots[one] != roots[other]:
            is_kept[k] = True
            forest.join(ends[k, :1], ends[k, 1:])
    return is_kept
