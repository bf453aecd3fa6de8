"""The highest-scoring partners of every image, computed in blocks of rows without the whole matrix."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from romacli.types import PairList

NOBODY = -1
_BLOCK_BYTES = 64 << 20

Score = Callable[[slice], np.ndarray]


def nearest(score: Score, shape: tuple[int, int], k: int) -> np.ndarray:
    """The `k` columns with the highest scores in every row.

    Args:
        score: returns the scores (rows, columns) of a slice of rows; -inf excludes a column.
        shape: (rows, columns) of the whole matrix.

    Returns:
        (rows, min(k, columns)) int64 columns, highest score first, ties by the lower column; `NOBODY` where a
        row has fewer.
    """
    rows, columns = shape
    k = min(k, columns)
    best = np.full((rows, k), NOBODY, np.int64)
    if not k:
        return best
    step = max(1, _BLOCK_BYTES // (8 * columns))
    for start in range(0, rows, step):
        block = slice(start, min(start + step, rows))
        best[block] = _best(score(block), k)
    return best


def _best(scores: np.ndarray, k: int) -> np.ndarray:
    chosen = np.argpartition(scores, -k, axis=1)[:, -k:]
    values = np.take_along_axis(scores, chosen, axis=1)
    order = np.lexsort((chosen, -values), axis=1)
    chosen, values = np.take_along_axis(chosen, order, axis=1), np.take_along_axis(values, order, axis=1)
    return np.where(np.isneginf(values), NOBODY, chosen)


def undirected(names: Sequence[str], rows: np.ndarray, columns: np.ndarray) -> PairList:
    """The unique pairs of images (rows[i], columns[i]), in the order of the names.

    Args:
        names: of the images that rows and columns index.
        rows, columns: of the same shape; entries where either is `NOBODY` are left out.
    """
    first, second = np.minimum(rows, columns).ravel(), np.maximum(rows, columns).ravel()
    kept = (first != NOBODY) & (first != second)
    codes = np.unique(first[kept].astype(np.int64) * len(names) + second[kept])
    return PairList(tuple((names[code // len(names)], names[code % len(names)]) for code in codes.tolist()))
