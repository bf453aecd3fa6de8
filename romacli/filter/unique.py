"""Unique places: details that few pairs match, which distinguish a place from its look-alikes.

Where many pairs of an image miss a place, those that match it show the same detail, which is evidence for them.

Source of the idea: Yan, Yang, Zhang and Xiao, Distinguishing the Indistinguishable: Exploring Structural Ambiguities
via Geodesic Context, CVPR 2017, who tell unique tracks from common ones by the images that see them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from .lattice import Edge, Views
from .missing import Missing

# A place is a detail if at least this many of an image's pairs miss it, by warps alone and with photographs, and at
# least this share of those that match or miss it.
_FEWEST, _SHARE = (3, 2), 0.3


def measure_unique(views: Views, found: Mapping[Edge, Missing], doubted: Collection[Edge]) -> np.ndarray:
    """(E,) for each pair the number of places of both images that it matches and doubted pairs miss.

    A place is weighted by the logarithm of the number of pairs that match or miss it per pair that matches it.
    """
    matched = [np.zeros(lattice.count) for lattice in views.lattices]
    missed = [np.zeros(lattice.count) for lattice in views.lattices]
    for edge in views.edges:
        for i, j in (edge, edge[::-1]):
            matched[i] += views.flow(i, j).matched
    for edge in doubted:
        for image, holes in zip(edge, found[edge].holes, strict=True):
            missed[image] += holes
    fewest = _FEWEST[any(one.is_seen for one in found.values())]
    weights = [
        np.where((no >= fewest) & (no > _SHARE * (no + yes)), np.log((no + yes + 1e-9) / np.maximum(yes, 1)), 0)
        for yes, no in zip(matched, missed, strict=True)
    ]
    return np.array(
        [sum(float(weights[i][views.flow(i, j).matched].sum()) for i, j in (edge, edge[::-1])) for edge in views.edges]
    )
