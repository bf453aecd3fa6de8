"""Images that look alike by a descriptor of the whole image, found by exact search in blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Annotated

import numpy as np

from romacli.errors import UsageError
from romacli.options import Option
from romacli.types import PairList

from .nearest import NOBODY, nearest, undirected

DEFAULT_MATCHED = 20
# From here on the exact search takes hours; below, its matrix products take minutes.
APPROXIMATE_ABOVE = 1_000_000
# Directions with less than this share of the mean variance are noise, which full whitening would blow up.
_WHITENING_FLOOR = 0.1


@dataclass(frozen=True)
class PartnerOptions:
    """How many images each is paired with; None takes 20, or all others where there are fewer."""

    num_matched: Annotated[
        int | None,
        Option(
            "Images each is paired with, the best first, by looks, poses or shared points. More find more and take "
            "more time. Default: 20.",
            min=1,
            has_default=False,
        ),
    ] = None

    def partners(self, count: int) -> int:
        """The number for `count` images.

        Raises:
            UsageError: as from `check`.
        """
        self.check(count)
        return self.num_matched or min(DEFAULT_MATCHED, count - 1)

    def check(self, count: int) -> None:
        """Pass silently when `count` images can give what is asked.

        Raises:
            UsageError: there are fewer.
        """
        if self.num_matched is not None and self.num_matched > count - 1:
            raise UsageError(
                f"--num-matched is {self.num_matched}, but an image has only {count - 1} others to be paired with. "
                "Give a smaller number, or pair all with all."
            )


@dataclass(frozen=True)
class RetrievalOptions(PartnerOptions):
    """Which of the images that look alike are paired."""

    min_score: Annotated[
        float | None, Option("Cosine of two descriptors below which images do not look alike.", min=-1, max=1)
    ] = None
    mutual: Annotated[bool, Option("Keep a pair only where each image is among the best of the other.")] = False
    whiten: Annotated[
        bool, Option("Give all directions of the descriptors the same weight; for hundreds of images.")
    ] = False


def retrieve(
    names: Sequence[str],
    descriptors: np.ndarray,
    options: RetrievalOptions,
    *,
    queries: Sequence[str] | None = None,
    database: Sequence[str] | None = None,
    min_gap: int = 0,
) -> PairList:
    """Pair every query with the database images that look most like it.

    Args:
        names: of all images. descriptors: (N, D) float32 of unit length, row by row theirs.
        queries, database: those of the names to search for and among; None is all.
        min_gap: leave out images that are this near or nearer to each other in the order of the names.
    """
    if options.whiten:
        descriptors = whiten(descriptors)
    row_of = {name: row for row, name in enumerate(names)}
    rows, columns = (
        np.arange(len(names)) if chosen is None else np.array(sorted({row_of[name] for name in chosen}), np.int64)
        for chosen in (queries, database)
    )
    k = options.num_matched or DEFAULT_MATCHED
    best = _search(descriptors, rows, columns, k, options.min_score, min_gap)
    sources = np.broadcast_to(rows[:, None], best.shape)
    if options.mutual:
        reverse = _search(descriptors, columns, rows, k, options.min_score, min_gap)
        codes = np.broadcast_to(columns[:, None], reverse.shape) + len(names) * reverse
        best = np.where(np.isin(sources * len(names) + best, codes[reverse != NOBODY]), best, NOBODY)
    return undirected(names, sources, best)


def whiten(descriptors: np.ndarray) -> np.ndarray:
    """Descriptors (N, D) of unit length, equally spread in all directions but the weakest.

    Source: Jegou and Chum, Negative evidences and co-occurrences in image retrieval, ECCV 2012. The covariance is
    that of the images at hand, so that its weak directions get a floor.
    """
    centred = descriptors - descriptors.mean(axis=0)
    variances, directions = np.linalg.eigh(centred.T.astype(np.float64) @ centred / max(1, len(centred)))
    scale = 1 / np.sqrt(np.maximum(variances, 0) + _WHITENING_FLOOR * variances.mean() + 1e-12)
    white = centred @ (directions * scale).astype(np.float32)
    return white / np.maximum(np.linalg.norm(white, axis=1, keepdims=True), 1e-12)


def _search(
    descriptors: np.ndarray, rows: np.ndarray, columns: np.ndarray, k: int, min_score: float | None, min_gap: int
) -> np.ndarray:
    """The best images (len(rows), k) of every row's image among those of the columns."""
    if len(columns) > APPROXIMATE_ABOVE and find_spec("faiss"):
        found = _approximate(descriptors, rows, columns, k, min_score, min_gap)
    else:
        targets = descriptors if len(columns) == len(descriptors) else descriptors[columns]
        least = -np.inf if min_score is None else min_score

        def score(block: slice) -> np.ndarray:
            cosines = descriptors[rows[block]] @ targets.T
            cosines[cosines < least] = -np.inf
            _forbid_near(cosines, rows[block], columns, min_gap)
            return cosines

        found = nearest(score, (len(rows), len(columns)), k)
    return np.where(found == NOBODY, NOBODY, columns[found])


def _forbid_near(cosines: np.ndarray, rows: np.ndarray, columns: np.ndarray, min_gap: int) -> None:
    """Rule out each row's own image, and those within the gap; columns are in ascending order."""
    starts, ends = np.searchsorted(columns, rows - min_gap), np.searchsorted(columns, rows + min_gap, side="right")
    for row, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        cosines[row, start:end] = -np.inf


def _approximate(
    descriptors: np.ndarray, rows: np.ndarray, columns: np.ndarray, k: int, min_score: float | None, min_gap: int
) -> np.ndarray:
    """The same by FAISS's inverted lists, which look into a fiftieth of the database for each query."""
    import faiss

    dim = descriptors.shape[1]
    lists = max(1, int(4 * np.sqrt(len(columns))))
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, lists, faiss.METRIC_INNER_PRODUCT)
    index.cp.seed = 0
    targets = np.ascontiguousarray(descriptors[columns], np.float32)
    index.train(targets[:: max(1, len(targets) // (64 * lists))])
    index.add(targets)
    index.nprobe = max(1, lists // 50)
    scores, found = index.search(np.ascontiguousarray(descriptors[rows], np.float32), k + 1 + 2 * min_gap)
    near = np.abs(columns[found] - rows[:, None]) <= min_gap
    dropped = near | (found == NOBODY) | (scores < (-np.inf if min_score is None else min_score))
    first = np.argsort(dropped, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(np.where(dropped, NOBODY, found), first, axis=1)
