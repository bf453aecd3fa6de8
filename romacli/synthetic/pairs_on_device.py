"""Random pairs whose scenes are generated on a CPU and rendered in one batch on the network's device."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .curriculum import Curriculum
from .light import photograph_all
from .pairs import MIN_VISIBLE, UNRELATED_SHARE, Rng, chosen_scene, dark_side, graded_sides, unrelated_textures
from .rasterise import Atlas, AtlasIndex, ViewTable, render, view_table, warps
from .scenery import random_scene
from .school import school_of
from .textures import Textures

SPARE_SHARE = 0.1  # extra scenes, as some are discarded for too little overlap


@dataclass(frozen=True)
class PairTable:
    """Slightly more random pairs than requested, not yet rendered.

    Attributes:
        count: of pairs requested.
        views: of all pairs, A in the first half.
        seed: for the light.
        at_night, graded: (2 P,) bool, the views without daylight, and with changed saturation and local contrast.
    """

    count: int
    views: ViewTable
    seed: int
    at_night: Tensor
    graded: Tensor


def sample_pairs(
    textures: Textures,
    index: AtlasIndex,
    rng: Rng,
    size: int,
    count: int,
    *,
    hard: float = 0.0,
    changed: float = 0.0,
    curriculum: Curriculum | None = None,
) -> PairTable:
    """Return random pairs of pictures `size` px square; the generator determines everything.

    Args:
        textures: for the scenes.
        index: of an atlas of the same pictures.
        hard, changed: fractions of pairs of the hard and the changed school.
        curriculum: chooses among their scenes.
    """
    pairs, dark, graded = [], [], []
    for _ in range(count + 1 + int(count * SPARE_SHARE)):
        school = school_of(rng, hard, changed)
        if rng.random() < UNRELATED_SHARE:
            first, second = unrelated_textures(textures, rng, school)
            pairs.append((random_scene(first, rng, size, school), random_scene(second, rng, size, school)))
        else:
            scene = chosen_scene(textures, rng, size, school, curriculum)
            pairs.append((scene, scene))
        dark.append(dark_side(rng, school))
        graded.append(graded_sides(rng, school))
    at_night = np.stack([np.array(dark) == side for side in (0, 1)]).ravel()
    table = view_table(pairs, index)
    seed = int(rng.integers(2**62))
    return PairTable(count, table, seed, torch.from_numpy(at_night), torch.from_numpy(np.array(graded).T.ravel()))


@torch.no_grad()
def render_pairs(table: PairTable, atlas: Atlas, *, lit: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    """Return a batch in the form of `stacked`, on the atlas's device.

    Args:
        table: from `sample_pairs`.
        lit: change the light between the two pictures; otherwise they agree to a few grey levels.
    """
    device = atlas.texels.device
    views_table = table.views.to(device)
    views = render(views_table, atlas)
    warp, visible = warps(views_table, views)
    seen = visible.float().mean(dim=(1, 2)).view(2, -1).amin(dim=0)
    kept = (seen > MIN_VISIBLE) | ~views_table.related.view(2, -1)[0]
    first = torch.argsort((~kept).int(), stable=True)[: table.count]
    rows = torch.cat((first, first + len(kept)))
    rgb = views.rgb[rows]
    if lit:
        generator = torch.Generator(device).manual_seed(table.seed)
        at_night, graded = (each.to(device)[rows] for each in (table.at_night, table.graded))
        images = photograph_all(rgb, generator, at_night, graded)
    else:
        images = rgb.round().to(torch.uint8)
    return images, warp[rows], visible[rows]
