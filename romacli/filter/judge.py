"""Decide which pairs to trust: by what each misses, by what it matches and others miss, and by triangles of pairs.

Missing places that both images match with others is evidence against a pair; matching a detail that many pairs miss is
evidence for it. The evidence of pairs between two groups of images that are right or wrong together is summed, and
groups are merged in order of evidence until it is insufficient. This applies only to images that show details, or that
miss them; all other pairs are kept.

Source of the idea: Zach, Irschara and Bischof, What Can Missing Correspondences Tell Us About 3D Structure and Motion,
CVPR 2008; Cui and Tan, Global Structure-from-Motion by Similarity Averaging, ICCV 2015.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import compress

import numpy as np

from .groups import join_images
from .lattice import Edge, Views
from .missing import Missing, count_witnesses, find_missing, without_bridged
from .triangles import Triangle, measure_agreement
from .unique import measure_unique
from .verified import ReadInliers, find_contradicted, find_contradicted_matches

# The share of its places that a pair may miss: this multiple of what the best tenth of the pairs with similar overlap
# miss, since a matcher misses more the further apart the photographs are; within bounds, as in a room with one paper on
# all walls nearly all pairs with little overlap are wrong, the best tenth too. First by warps alone, then where the
# photographs confirm what is missing, which is more reliable.
_TIMES_USUAL, _BEST = np.array([6.0, 3.0]), 0.1
_LEAST_MISSING, _MOST_MISSING = np.array([0.05, 0.03]), np.array([0.5, 0.3])
_FEWEST_ALIKE, _SHARE_ALIKE = 17, 0.2
# Percent of an image, missing or unique, that count as none, and the percentage missing from which a pair is wrong
# regardless of the evidence for others.
_NOTHING, _TOO_MUCH = 0.2, 1.0
# By warps alone, and with photographs: the unique percentage from which an image shows a detail; the evidence that
# pairs between images of look-alike places need; and what matching all of both images adds to the evidence, so that of
# pairs with equal evidence the one with the larger overlap joins.
_DETAIL, _LEAST, _PER_OVERLAP = np.array([0.3, 0.7]), np.array([0.5, 0.3]), np.array([0.7, 0.4])
# Minimum pairs with details of a job that shows any: with photographs and real matchers some occur by chance, more on
# photographs of different days. There, if hardly any triangle contradicts, this share of their images' pairs must show
# details, where places that two warps via a third image match do not count as missing.
_FEWEST_DETAILED, _SHARE_DETAILED, _HARDLY = np.array([5, 10]), 0.15, 0.003
# Agreement from which the pairs of a triangle are right or wrong together, and below which one of them is wrong. An
# image counts as a look-alike from this share of the latter, and from this share of pairs with look-alikes.
_AGREES, _CONTRADICTS, _DISPUTED, _AMONG_ALIKE = 0.6, 0.3, 0.05, 0.8


@dataclass(frozen=True)
class Judged:
    """The judgement of a pair.

    missing: number of places, and share: of all that it should match; is_seen: whether the photographs differ there.
    unique: places that it matches and many others miss. triangles: how many of its triangles agree and how many
    contradict. contradicted: the share of its verified matches that third images contradict, if it is dropped for them;
    withheld: the number of those if it is kept.
    """

    missing: int
    share: float
    unique: float
    triangles: tuple[int, int]
    is_kept: bool
    is_seen: bool = False
    contradicted: float = 0.0
    withheld: int = 0

    @property
    def reason(self) -> str:
        """Why the pair is dropped, as a clause."""
        agree, contradict = self.triangles
        if self.contradicted:
            return f"third images contradict {self.contradicted:.0%} of those of its verified matches that they see"
        if self.share > _LEAST_MISSING[int(self.is_seen)]:
            also = ", and the photographs differ there" if self.is_seen else ""
            return f"{self.share:.0%} of what should match does not, though both images match it with others{also}"
        if contradict > agree:
            return f"{contradict} of {agree + contradict} ways over a third image end elsewhere"
        return "its images show places that look like others, and it matches nothing that tells them apart"


@dataclass(frozen=True)
class Verdict:
    """The judgement of each pair of a job. disputed: share of contradicting triangles among those of kept pairs."""

    pairs: dict[Edge, Judged]
    disputed: float


@dataclass(frozen=True)
class _Known:
    """What speaks for and against the pairs of a job.

    edges: (E, 2) image indices. evidence: (E,) for each pair, in percent of an image; negative if against it.
    is_seen: (E,) 1 where photographs show what is missing, else 0. together, broken: (T, 3) the numbers of the pairs of
    the triangles that agree, and of those that contradict.
    """

    edges: np.ndarray
    evidence: np.ndarray
    is_seen: np.ndarray
    together: np.ndarray
    broken: np.ndarray

    @property
    def detailed(self) -> np.ndarray:
        """(n, 2) the pairs that show a detail."""
        return np.asarray(self.edges[self.evidence > _DETAIL[self.is_seen]])


def judge_pairs(
    views: Views, advance: Callable[[], None] = lambda: None, read_inliers: ReadInliers = lambda pair: None
) -> Verdict:
    """Judge all pairs of a job; calls `advance` for each. read_inliers: those of a verified pair."""
    witnesses = count_witnesses(views)
    found: dict[Edge, Missing] = {}
    for edge in views.edges:
        found[edge] = find_missing(views, edge, witnesses)
        advance()
    agreement = measure_agreement(views)
    together, broken = _sides(views, agreement)
    shares, unique, evidence = _weigh(views, found)
    is_seen = np.array([one.is_seen for one in found.values()], np.intp)
    known = _Known(np.array(views.edges, np.intp), evidence, is_seen, together, broken)

    def certain_evidence() -> np.ndarray:
        return _weigh(views, {edge: without_bridged(views, edge, one) for edge, one in found.items()})[2]

    is_alike = _alike(known) if _shows_details(known, certain_evidence) else np.zeros(len(evidence), bool)
    is_joined, of_bundles = join_images(
        views.edges,
        np.where(is_alike, evidence, 0),
        _PER_OVERLAP[is_seen] * _overlaps(views, found),
        np.where(is_alike, _LEAST[is_seen], 0),
        together,
    )
    is_kept = np.where(is_alike, is_joined & (evidence > -_TOO_MUCH), is_joined | (of_bundles >= 0))
    kept, doubtful = (list(compress(views.edges, chosen)) for chosen in (is_kept, is_kept & is_alike))
    contradicted = find_contradicted(views, kept, doubtful, read_inliers)
    kept, doubtful = ([edge for edge in edges if edge not in contradicted] for edges in (kept, doubtful))
    withheld = find_contradicted_matches(views, kept, doubtful, read_inliers)
    agree, contradict = (np.bincount(sides.ravel(), minlength=len(shares)) for sides in (together, broken))
    judged = {
        edge: Judged(
            found[edge].missing,
            float(shares[k]),
            float(unique[k]),
            (int(agree[k]), int(contradict[k])),
            bool(is_kept[k]) and edge not in contradicted,
            found[edge].is_seen,
            contradicted.get(edge, 0.0),
            int(withheld[edge].sum()) if edge in withheld else 0,
        )
        for k, edge in enumerate(views.edges)
    }
    return Verdict(judged, _disputed(agreement, judged))


def _weigh(views: Views, found: Mapping[Edge, Missing]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(E,) the share of its places that each pair misses, its unique places, and the evidence for it."""
    shares = np.array([one.share for one in found.values()])
    is_seen = np.array([one.is_seen for one in found.values()], np.intp)
    matched, missing = np.array([(one.matched, one.missing) for one in found.values()], float).T
    percent = 100 / _places(views)
    against = (shares - may_miss(shares, _overlaps(views, found), is_seen)) * (matched + missing) * percent
    is_doubted = against > _NOTHING
    unique = measure_unique(views, found, [edge for edge, one in zip(views.edges, is_doubted, strict=True) if one])
    return shares, unique, np.where(is_doubted, -against, np.maximum(unique * percent - _NOTHING, 0))


def _places(views: Views) -> np.ndarray:
    """(E,) the number of places of both images of each pair."""
    return np.array([sum(views.lattices[image].count for image in edge) for edge in views.edges])


def _overlaps(views: Views, found: Mapping[Edge, Missing]) -> np.ndarray:
    """(E,) the share of both images that each pair matches."""
    return np.array([one.matched for one in found.values()]) / _places(views)


def may_miss(shares: np.ndarray, overlaps: np.ndarray, is_seen: np.ndarray) -> np.ndarray:
    """The share (E,) of its places that each pair may miss.

    Args:
        shares, overlaps: (E,) what each misses, and the share of both images that it matches. is_seen: (E,) 1 where
        photographs show it, else 0.
    """
    order = np.argsort(-overlaps, kind="stable")
    alike = min(len(shares), max(_FEWEST_ALIKE, round(_SHARE_ALIKE * len(shares))))
    limits = np.empty(len(shares))
    for rank, pair in enumerate(order):
        first = min(max(0, rank - alike // 2), len(shares) - alike)
        limits[pair] = np.quantile(shares[order[first : first + alike]], _BEST)
    return np.clip(_TIMES_USUAL[is_seen] * limits, _LEAST_MISSING[is_seen], _MOST_MISSING[is_seen])


def _shows_details(known: _Known, certain_evidence: Callable[[], np.ndarray]) -> bool:
    """Whether a job shows details that distinguish places, and not only what pairs miss by chance.

    certain_evidence: computes the evidence from what pairs certainly miss.
    """
    seen = known.is_seen.max(initial=0)
    detailed = known.detailed
    if len(detailed) < _FEWEST_DETAILED[seen] or not seen:
        return len(detailed) >= _FEWEST_DETAILED[seen]
    is_near = np.asarray(np.isin(known.edges, detailed).any(axis=1))
    agree, contradict = (int(is_near[sides].any(axis=1).sum()) for sides in (known.together, known.broken))
    if contradict > _HARDLY * (agree + contradict):
        return True
    detailed = replace(known, evidence=certain_evidence()).detailed
    return len(detailed) > _SHARE_DETAILED * np.isin(known.edges, detailed).any(axis=1).sum()


def _alike(known: _Known) -> np.ndarray:
    """(E,) the pairs whose images both show look-alike places.

    These are images with a detail, images that miss what those match with others, and, if there are any, images whose
    triangles contradict and images paired almost only with look-alikes.
    """
    edges = known.edges
    is_alike = np.zeros(edges.max() + 1, bool)
    is_alike[known.detailed] = True
    missing = edges[known.evidence < 0]
    is_alike[missing[is_alike[missing].any(1)]] = True
    agree, contradict = (
        sum(np.bincount(edges[sides].reshape(-1, 6)[:, k], minlength=len(is_alike)) for k in range(6))
        for sides in (known.together, known.broken)
    )
    is_alike |= contradict > _DISPUTED * (agree + contradict)
    partners = np.bincount(edges.ravel(), minlength=len(is_alike))
    is_alike |= np.bincount(edges.ravel(), is_alike[edges[:, ::-1]].ravel(), len(is_alike)) > _AMONG_ALIKE * partners
    return np.asarray(is_alike[edges].all(1))


def _disputed(agreement: Mapping[Triangle, float], judged: Mapping[Edge, Judged]) -> float:
    kept = [
        share
        for (i, j, k), share in agreement.items()
        if all(judged[side].is_kept for side in ((i, j), (j, k), (i, k)))
    ]
    return sum(share < _CONTRADICTS for share in kept) / max(1, len(kept))


def _sides(views: Views, agreement: Mapping[Triangle, float]) -> tuple[np.ndarray, np.ndarray]:
    """The numbers (T, 3) of the pairs of the triangles that agree, and of those that contradict."""
    place = {edge: k for k, edge in enumerate(views.edges)}
    found: tuple[list[Triangle], list[Triangle]] = [], []
    for (i, j, k), share in agreement.items():
        if not _CONTRADICTS <= share <= _AGREES:
            found[share < _CONTRADICTS].append((place[i, j], place[j, k], place[i, k]))
    agree, contradict = (np.array(sides, np.intp).reshape(-1, 3) for sides in found)
    return agree, contradict
