"""Whether a model folds parts of a scene onto each other, and which of its images then belong together.

Pairs that are believed, but lead elsewhere than the model places their images, are seams: along them a folded scene is
torn. A tree of the pairs that show most that is unique says which images belong together; where it needs a seam to
join two blocks, these stand wrong to each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from romacli.forest import Forest

from .lattice import Edge
from .placed import Told

# Pairs weigh by the places that show what is unique, and those that the model agrees with by such as are matched.
_PER_MATCHED = 0.01
# A seam has so many places, and a folded model so many seams.
_FEWEST_PLACES, _FEWEST_SEAMS = 54, 2


@dataclass(frozen=True)
class Fold:
    """seams: pairs that are believed and that the model contradicts. blocks: images that belong together, the largest
    block first; a model that is whole has none."""

    seams: tuple[Edge, ...] = ()
    blocks: tuple[tuple[int, ...], ...] = ()


def find_fold(unique: Mapping[Edge, float], told: Mapping[Edge, Told]) -> Fold:
    """What one model says of the pairs whose images it has: `told` of each.

    Args:
        unique: of each pair that is believed, the places that show what is unique.
    """
    kept = [edge for edge, one in told.items() if edge in unique and one.agreeing + one.elsewhere]
    seams = {edge for edge in kept if told[edge].elsewhere > max(told[edge].agreeing, _FEWEST_PLACES)}
    if len(seams) < _FEWEST_SEAMS:
        return Fold()

    def weight(edge: Edge) -> float:
        return unique[edge] + _PER_MATCHED * told[edge].agreeing

    images = sorted({image for edge in kept for image in edge})
    tree, block = Forest(images[-1] + 1), Forest(images[-1] + 1)
    for edge in sorted(kept, key=lambda edge: (-weight(edge), edge)):
        one, other = np.array(edge)[:, None]
        roots = tree.roots()
        if roots[one] != roots[other] and edge not in seams:
            block.join(one, other)
        tree.join(one, other)
    parts: dict[int, list[int]] = {}
    for image, root in zip(images, block.roots()[images].tolist(), strict=True):
        parts.setdefault(root, []).append(image)
    blocks = sorted(map(tuple, parts.values()), key=lambda part: (-len(part), part))
    return Fold(tuple(sorted(seams)), tuple(blocks))
