"""Random pairs whose scenes are generated on a CPU and rendered in one batch on the network's device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .light import photograph_all
from .pairs import MIN_VISIBLE, UNRELATED_SHARE, Rng, random_scene
from .rasterise import Atlas, AtlasIndex, ViewTable, render, view_table, warps
from .textures import Textures

SPARE_SHARE = 0.1  # extra scenes, as some are discarded for too little overlap


@dataclass(frozen=True)
class PairTable:
    """Slightly more random pairs than requested, not yet rendered.

    Attributes:
        count: of pairs requested.
        views: of all pairs, A in the first half.
        seed: for the light.
    """

    count: int
    views: ViewTable
    seed: int


def sample_pairs(textures: Textures, index: AtlasIndex, rng: Rng, size: int, count: int) -> PairTable:
    """Return random pairs of pictures `size` px square; the generator determines everything.

    Args:
        textures: for the scenes.
        index: of an atlas of the same pictures.
    """
    pairs = []
    for _ in range(count + 1 + int(count * SPARE_SHARE)):
        scene = random_scene(textures, rng, size)
        other = random_scene(textures, rng, size) if rng.random() < UNRELATED_SHARE else scene
        pairs.append((scene, other))
    return PairTable(count, view_table(pairs, index), int(rng.integers(2**62)))


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
        images = photograph_all(rgb, torch.Generator(device).manual_seed(table.seed))
    else:
        images = rgb.round().to(torch.uint8)
    return images, warp[rows], visible[rows]
