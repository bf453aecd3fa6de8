"""What only few pairs match: a detail that tells a place from those that look like it.

Where many pairs of an image miss a place, those that match it show the same detail: what they match speaks for them.

Source of the idea: Yan, Yang, Zhang and Xiao, Distinguishing the Indistinguishable: Exploring Structural Ambiguities
via Geodesic Context, CVPR 2017, who tell unique tracks from common ones by the images that see them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from .lattice import Edge, Views
from .missing import Missing

# A place is a detail where this share of an image's pairs, and so many, miss it.
_SHARE, _FEWEST = 0.22, 3


def count_unique(views: Views, found: Mapping[Edge, Missing], doubted: Collection[Edge]) -> np.ndarray:
    """(E,) for each pair the places in both images that it matches and that others, of those that are doubted, miss."""
    missed = [np.zeros(lattice.count, np.int32) for lattice in views.lattices]
    for edge in doubted:
        for image, holes in zip(edge, found[edge].holes, strict=True):
            missed[image] += holes
    is_detail = [
        count >= max(_FEWEST, _SHARE * len(others)) for count, others in zip(missed, views.neighbours, strict=True)
    ]
    return np.array(
        [
            sum(int((views.flow(i, j).matched & is_detail[i]).sum()) for i, j in (edge, edge[::-1]))
            for edge in views.edges
        ]
    )
