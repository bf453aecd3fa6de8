from __future__ import annotations

import numpy as np
import pytest
from support.planar_views import views_along_plane

from romacli.eval.two_view import correspondences, is_verified, judge_unrelated, unrelated_pictures
from romacli.synthetic.textures import Textures
from romacli.types import Correspondences, Features, Rejected

NAMES = ("view0.jpg", "view1.jpg")


class Blind:
    """Returns the same result for every pair, whatever it shows."""

    def __init__(self, result) -> None:
        self.result = result

    def match(self, pairs, seeds):
        return [self.result for _ in pairs]


def test_points_of_a_warp_lie_where_it_leads():
    views = views_along_plane(2)
    found = correspondences(views.read(NAMES))
    assert len(found) > 500
    truth, _ = views.truth(*NAMES, found.keypoints0)
    assert np.abs(truth - found.keypoints1).max() < 0.5
    assert is_verified(found, ((800, 600), (800, 600)))


def test_a_rejected_pair_has_no_points_and_no_geometry():
    found = correspondences(Rejected(0.01))
    assert len(found) == 0
    assert not is_verified(found, ((800, 600), (800, 600)))


def test_random_points_are_not_verified():
    rng = np.random.default_rng(0)
    points = [rng.uniform(0, 600, (500, 2)).astype(np.float32) for _ in range(2)]
    assert not is_verified(Correspondences(*points, np.ones(500, np.float32)), ((800, 600), (800, 600)))


@pytest.mark.parametrize(("result", "refused"), [(Rejected(0.0), 1), (views_along_plane(2).read(NAMES), 0)])
def test_only_pairs_that_pass_for_one_scene_count_against_a_matcher(result, refused):
    judged = judge_unrelated(Blind(result), [(Features({}, (800, 600)),) * 2] * 2)
    assert (judged.pairs, judged.refused, judged.rejected) == (2, refused, 2 * refused)


def test_unrelated_pictures_are_painted_from_different_textures():
    flat = [np.full((64, 64, 3), grey, np.uint8) for grey in (40, 200) * 3]
    textures = Textures.of(flat, [])
    dark, light = textures.halves()
    assert {int(p[0].mean()) for p in dark.pyramids} == {40}
    assert {int(p[0].mean()) for p in light.pyramids} == {200}
    assert dark.weights.sum() == pytest.approx(1)
    ((first, second),) = unrelated_pictures(textures, 1, seed=0)
    assert first.shape == second.shape
    assert not np.array_equal(first, second)
