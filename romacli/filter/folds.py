"""Detect models that fold parts of a scene onto each other, and group the images that belong together.

Seams are trusted pairs whose warps contradict the poses of the model: along them a folded scene is torn. A spanning
tree of the pairs with the most unique places groups the images; blocks that only a seam connects are misplaced
relative to each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from romacli.forest import Forest

from .lattice import Edge
from .placed import Comparison

# Weight of a pair: its unique places, plus this share of the places where the model agrees with its warps.
_PER_MATCHED = 0.01
# Minimum places of a seam, and minimum seams of a folded model.
_FEWEST_PLACES, _FEWEST_SEAMS = 54, 2


@dataclass(frozen=True)
class Fold:
    """seams: trusted pairs that the model contradicts. blocks: images that belong together, largest block first; empty
    if the model is not folded."""

    seams: tuple[Edge, ...] = ()
    blocks: tuple[tuple[int, ...], ...] = ()


def find_fold(unique: Mapping[Edge, float], compared: Mapping[Edge, Comparison]) -> Fold:
    """Find the seams and blocks of one model.

    Args:
        unique: number of unique places of each trusted pair. compared: how the model compares with each of its pairs.
    """
    kept = [edge for edge, one in compared.items() if edge in unique and one.agreeing + one.elsewhere]
    seams = {edge for edge in kept if compared[edge].elsewhere > max(compared[edge].agreeing, _FEWEST_PLACES)}
    if len(seams) < _FEWEST_SEAMS:
        return Fold()

    def weight(edge: Edge) -> float:
        return unique[edge] + _PER_MATCHED * compared[edge].agreeing

    images = {image for edge in kept for image in edge}
    tree, block = Forest(max(images) + 1), Forest(max(images) + 1)
    for edge in sorted(kept, key=lambda edge: (-weight(edge), edge)):
        one, other = np.array(edge)[:, None]
        roots = tree.roots()
        if roots[one] != roots[other] and edge not in seams:
            block.join(one, other)
        tree.join(one, other)
    return Fold(tuple(sorted(seams)), tuple(part for part in block.parts() if part[0] in images))
