"""Similar images by global descriptors, found by exact search in blocks."""

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
# Above this the exact search takes hours; below, its matrix products take minutes.
APPROXIMATE_ABOVE = 1_000_000
# Directions below this fraction of the mean variance are noise, which full whitening would amplify.
_WHITENING_FLOOR = 0.1


@dataclass(frozen=True)
class PartnerOptions:
    """How many images each is paired with; None takes `DEFAULT_MATCHED`, or all others if there are fewer."""

    num_matched: Annotated[
        int | None,
        Option(
            "Number of images each image is paired with, the best by similarity, poses or shared points. More take "
            f"longer. Default: {DEFAULT_MATCHED}.",
            min=1,
            has_default=False,
        ),
    ] = None

    def partners(self, count: int) -> int:
        """The number of partners among `count` images.

        Raises:
            UsageError: as from `check`.
        """
        self.check(count)
        return self.num_matched or min(DEFAULT_MATCHED, count - 1)

    def check(self, count: int) -> None:
        """Check the number against `count` images.

        Raises:
            UsageError: there are too few images.
        """
        if self.num_matched is not None and self.num_matched > count - 1:
            raise UsageError(
                f"--num-matched is {self.num_matched}, but each image has only {count - 1} possible partners. Give a "
                "smaller number, or use exhaustive pairing."
            )


@dataclass(frozen=True)
class RetrievalOptions(PartnerOptions):
    """Which similar images are paired."""

    min_score: Annotated[
        float | None, Option("Minimum cosine similarity of the descriptors of a pair.", min=-1, max=1)
    ] = None
    mutual: Annotated[bool, Option("Keep a pair only if each image is among the best partners of the other.")] = False
    whiten: Annotated[bool, Option("Whiten the descriptors; for hundreds of images or more.")] = False


def retrieve(
    names: Sequence[str],
    descriptors: np.ndarray,
    options: RetrievalOptions,
    *,
    queries: Sequence[str] | None = None,
    database: Sequence[str] | None = None,
    min_gap: int = 0,
) -> PairList:
    """Pair every query with the most similar database images.

    Args:
        names: of all images.
        descriptors: (N, D) float32 of unit length, one row per name.
        queries, database: the names to find partners for and among; None for all.
        min_gap: leave out images at most this far apart in the order of the names.
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
    """Whiten descriptors (N, D) to unit length, with a floor for the weakest directions.

    Source: Jegou and Chum, Negative evidences and co-occurrences in image retrieval, ECCV 2012. The covariance is
        estimated from the given images, hence the floor.
    """
    centred = descriptors - descriptors.mean(axis=0)
    variances, directions = np.linalg.eigh(centred.T.astype(np.float64) @ centred / max(1, len(centred)))
    scale = 1 / np.sqrt(np.maximum(variances, 0) + _WHITENING_FLOOR * variances.mean() + 1e-12)
    white = centred @ (directions * scale).astype(np.float32)
    return white / np.maximum(np.linalg.norm(white, axis=1, keepdims=True), 1e-12)


def _search(
    descriptors: np.ndarray, rows: np.ndarray, columns: np.ndarray, k: int, min_score: float | None, min_gap: int
) -> np.ndarray:
    """The indices (len(rows), k) of each row's best images among the columns."""
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
    """Exclude each row's own image and those within the gap; columns are in ascending order."""
    starts, ends = np.searchsorted(columns, rows - min_gap), np.searchsorted(columns, rows + min_gap, side="right")
    for row, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        cosines[row, start:end] = -np.inf


def _approximate(
    descriptors: np.ndarray, rows: np.ndarray, columns: np.ndarray, k: int, min_score: float | None, min_gap: int
) -> np.ndarray:
    """The same by FAISS's inverted lists, which search a fiftieth of the database per query."""
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
