from __future__ import annotations

import numpy as np
import pytest
import torch

from romacli.geometry.coordinates import from_colmap_pixels
from romacli.synthetic.curriculum import KINDS, SCOUT_PX, Curriculum, kind_of, scouting, share_found
from romacli.synthetic.pairs import MIN_VISIBLE, photograph_twice
from romacli.synthetic.scenery import random_scene
from romacli.synthetic.scenes import outline, render_view, warp_between
from romacli.synthetic.school import HARD
from romacli.synthetic.textures import Textures

SIDE = 48
EVERYWHERE = np.ones((SIDE, SIDE), np.bool_)


@pytest.fixture(scope="module")
def textures() -> Textures:
    return Textures.load(None, procedural=4, seed=3, repeated=2)


def affine(matrix: tuple[tuple[float, float], tuple[float, float]]) -> np.ndarray:
    """A warp of the whole picture by a matrix about its centre."""
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    middle = SIDE / 2
    return ((np.stack([x, y], axis=-1) - middle) @ np.array(matrix).T + middle).astype(np.float32)


@pytest.mark.parametrize(
    ("matrix", "kind"),
    [
        (((1, 0), (0, 1)), 0),
        (((0.97, -0.24), (0.24, 0.97)), 0),  # a turn by 14 degrees
        (((0.8, 0.6), (-0.6, 0.8)), 9),  # by 37, in either direction
        (((0.8, -0.6), (0.6, 0.8)), 9),
        (((1.36, -1.02), (1.02, 1.36)), 12),
        (((1.7, 0), (0, 1.7)), 3),
        (((1 / 1.7, 0), (0, 1 / 1.7)), 3),  # and so does the order of the pictures
        (((3, 0), (0, 3)), 6),
        (((2**0.5, 0), (0, 0.5**0.5)), 1),
        (((3**0.5, 0), (0, 3**-0.5)), 2),
        (((6, 0), (0, 2)), 8),
    ],
)
def test_kinds_tell_changes_of_scale_foreshortening_and_turns_apart(matrix, kind) -> None:
    assert kind_of(affine(matrix), EVERYWHERE) == kind


def test_only_what_both_pictures_show_decides_the_kind() -> None:
    warp, seen = affine(((1, 0), (0, 1))), EVERYWHERE.copy()
    warp[:30], seen[:30] = affine(((3, 0), (0, 3)))[:30], False
    assert kind_of(warp, seen) == 0


def test_the_share_found_counts_visible_points_near_the_truth_and_is_unknown_without_any() -> None:
    truth = from_colmap_pixels(torch.from_numpy(affine(((1, 0), (0, 1)))), (SIDE, SIDE)).expand(3, -1, -1, -1)
    visible = torch.ones(3, SIDE, SIDE, dtype=torch.bool)
    visible[1, :, SIDE // 2 :], visible[2] = False, False
    predicted = truth[:, 4::8, 4::8] - truth.new_tensor(1 / SIDE)
    predicted[:, :, 0] += 0.2  # 45 px at 448
    assert share_found(predicted, truth, visible).tolist() == pytest.approx([5 / 6, 2 / 3, float("nan")], nan_ok=True)


def test_pairs_are_kept_most_often_of_the_kind_that_is_half_found(textures) -> None:
    scenes = [random_scene(textures, np.random.default_rng(seed), SIDE, HARD) for seed in range(60)]
    kinds = np.array([kind_in_full(*scene) for scene in scenes])
    curriculum = Curriculum()
    identity = from_colmap_pixels(torch.from_numpy(affine(((1, 0), (0, 1)))), (SIDE, SIDE))[None]
    for _ in range(300):
        curriculum.learn(identity, torch.from_numpy(EVERYWHERE)[None], torch.tensor([0.99]))
    assert curriculum.rates[0] > 0.98
    assert curriculum.rates[1:] == (0.5,) * (KINDS - 1)
    rng = np.random.default_rng(0)
    kept = np.array([curriculum.keeps(rng, *scene, MIN_VISIBLE) for scene in scenes])
    assert kept[kinds == 0].mean() < 0.4
    assert kept[kinds > 0].mean() > 0.8


def test_pairs_without_visible_points_teach_nothing() -> None:
    curriculum = Curriculum()
    nothing = torch.zeros(1, SIDE, SIDE, dtype=torch.bool)
    curriculum.learn(torch.zeros(1, SIDE, SIDE, 2), nothing, torch.tensor([float("nan")]))
    assert curriculum.rates == (0.5,) * KINDS


def test_scenes_that_share_too_little_of_the_view_are_refused(textures) -> None:
    curriculum, rng = Curriculum(), np.random.default_rng(0)
    scenes = [random_scene(textures, np.random.default_rng(seed), SIDE, HARD) for seed in range(40)]
    shares = [photograph_twice(*scene).visible_AB.mean() for scene in scenes]
    kept = [curriculum.keeps(rng, *scene, 0.5) for scene in scenes]
    assert not any(keep for keep, share in zip(kept, shares, strict=True) if share < 0.4)
    assert all(keep for keep, share in zip(kept, shares, strict=True) if share > 0.6)


def test_an_outline_has_the_depth_of_the_rendered_view(textures) -> None:
    for seed in range(8):
        planes, (camera, _) = random_scene(textures, np.random.default_rng(seed), SIDE)
        planes = [plane for plane in planes if plane.mask is None]
        drawn, quick = render_view(planes, camera), outline(planes, camera)
        assert (drawn.plane_index == quick.plane_index).mean() > 0.95
        same = drawn.plane_index == quick.plane_index
        np.testing.assert_allclose(drawn.inverse_depth[same], quick.inverse_depth[same])


def kind_in_full(planes, cameras) -> int:
    small = [scouting(camera) for camera in cameras]
    views = [render_view(planes, camera, picture) for picture, camera in enumerate(small)]
    assert views[0].rgb.shape == (SCOUT_PX, SCOUT_PX, 3)
    return kind_of(*warp_between(small[0], views[0], small[1], views[1]))
