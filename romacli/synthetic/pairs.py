"""Random scenes seen twice: two pictures, the exact warps between them, and the regions visible in both."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .curriculum import Curriculum
from .photometric import photograph
from .scenery import random_scene
from .scenes import Camera, Image, TexturedPlane, render_view, warp_between
from .school import ORDINARY, School
from .textures import Textures

Rng = np.random.Generator

UNRELATED_SHARE = 0.1  # of pairs with two different scenes, where nothing is visible in both
MIN_VISIBLE = 0.12  # share of each image; smaller overlaps contribute little to training
ATTEMPTS = 10


@dataclass(frozen=True)
class SyntheticPair:
    """Two pictures of one scene (or of two, then nothing is visible) and the warps between them.

    Attributes:
        image_A, image_B: (S, S, 3) uint8 RGB.
        warp_AB, warp_BA: (S, S, 2) float32, for each pixel x and y in px of the other image, with (0.5, 0.5) the
            centre of the top-left pixel.
        visible_AB, visible_BA: (S, S) bool, whether the other image shows the point. Elsewhere the warp is
            meaningless.
    """

    image_A: Image
    image_B: Image
    warp_AB: NDArray[np.float32]
    warp_BA: NDArray[np.float32]
    visible_AB: NDArray[np.bool_]
    visible_BA: NDArray[np.bool_]


def sample_pair(
    textures: Textures,
    rng: Rng,
    size: int,
    *,
    light: bool = True,
    school: School = ORDINARY,
    curriculum: Curriculum | None = None,
) -> SyntheticPair:
    """Return a random pair of pictures, `size` px square.

    Args:
        textures: for the planes.
        rng: determines everything; equal states give equal pairs.
        size: in px.
        light: change the light between the two pictures; otherwise they agree to a few grey levels.
        school: how hard they are.
        curriculum: chooses among the school's scenes.
    """
    if rng.random() < UNRELATED_SHARE:
        first, second = (_related_pair(pool, rng, size, school) for pool in unrelated_textures(textures, rng, school))
        nothing = np.zeros((size, size), np.bool_)
        pair = SyntheticPair(first.image_A, second.image_B, first.warp_AB, second.warp_BA, nothing, nothing.copy())
    else:
        pair = _related_pair(textures, rng, size, school, curriculum)
    if not light:
        return pair
    image_A, image_B = in_other_light((pair.image_A, pair.image_B), rng, school)
    return SyntheticPair(image_A, image_B, pair.warp_AB, pair.warp_BA, pair.visible_AB, pair.visible_BA)


def in_other_light(images: tuple[Image, Image], rng: Rng, school: School) -> tuple[Image, Image]:
    """Return two pictures (S, S, 3) uint8 RGB as photographs taken in different light."""
    dark, graded = dark_side(rng, school), graded_sides(rng, school)
    first, second = (
        photograph(image, rng, at_night=side == dark, graded=graded[side]) for side, image in enumerate(images)
    )
    return first, second


def unrelated_textures(textures: Textures, rng: Rng, school: School) -> tuple[Textures, Textures]:
    """The textures of two scenes that have nothing in common, or only a motif."""
    is_alike = school.alike and textures.repeated and rng.random() < school.alike
    return textures.alike(rng) if is_alike else (textures, textures)


def dark_side(rng: Rng, school: School) -> int | None:
    """Which picture of a pair is taken at night, 0 or 1; most often none."""
    return int(rng.integers(2)) if school.night and rng.random() < school.night else None


def graded_sides(rng: Rng, school: School) -> tuple[bool, bool]:
    """Whether each picture of a pair has changed saturation and local contrast."""
    first, second = rng.random(2) < school.graded if school.graded else (False, False)
    return bool(first), bool(second)


def _related_pair(
    textures: Textures, rng: Rng, size: int, school: School, curriculum: Curriculum | None = None
) -> SyntheticPair:
    for _ in range(ATTEMPTS):
        pair = photograph_twice(*chosen_scene(textures, rng, size, school, curriculum))
        if min(pair.visible_AB.mean(), pair.visible_BA.mean()) > MIN_VISIBLE:
            break
    return pair


def chosen_scene(
    textures: Textures, rng: Rng, size: int, school: School, curriculum: Curriculum | None
) -> tuple[list[TexturedPlane], tuple[Camera, Camera]]:
    """Return a random scene that the curriculum keeps, or the last of `ATTEMPTS`."""
    for _ in range(ATTEMPTS):
        planes, cameras = random_scene(textures, rng, size, school)
        if curriculum is None or curriculum.keeps(rng, planes, cameras, MIN_VISIBLE):
            break
    return planes, cameras


def photograph_twice(planes: list[TexturedPlane], cameras: tuple[Camera, Camera]) -> SyntheticPair:
    """Return two cameras' pictures of the planes, with exact warps in both directions."""
    camera_A, camera_B = cameras
    view_A, view_B = render_view(planes, camera_A, 0), render_view(planes, camera_B, 1)
    warp_AB, visible_AB = warp_between(camera_A, view_A, camera_B, view_B)
    warp_BA, visible_BA = warp_between(camera_B, view_B, camera_A, view_A)
    in_both = np.array([plane.only_in is None for plane in planes] + [False])  # the last for pixels without a plane
    visible_AB, visible_BA = visible_AB & in_both[view_A.plane_index], visible_BA & in_both[view_B.plane_index]
    return SyntheticPair(view_A.rgb, view_B.rgb, warp_AB, warp_BA, visible_AB, visible_BA)
