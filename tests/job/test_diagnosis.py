"""Evidence against a model: positions, jumps, contradictions and weak links, each on constructed numbers."""

from __future__ import annotations

import numpy as np

from romacli.colmap.poses import Pose
from romacli.colmap.reading import Model
from romacli.job.diagnosis import Placed, advice, doubts, jumps_along, placed_of, weak_groups

NAMES = [f"{index:02}.jpg" for index in range(20)]
WALK = {(a, b): 500 for a, b in zip(NAMES, NAMES[1:], strict=False)}


def test_a_good_model_raises_no_doubt() -> None:
    placed = Placed(20, (), 0.6, gps_median_m=4.0, gps_extent_m=170.0, agreement=0.95)
    assert doubts(placed) == advice(placed) == []


def test_a_model_far_from_gps_is_doubted_however_many_images_it_has() -> None:
    placed = Placed(29, (), 0.95, gps_median_m=33.0, gps_extent_m=170.0)
    (doubt,) = doubts(placed)
    assert "33 m" in doubt
    assert "may be wrong" in advice(placed)[0]
    assert not doubts(Placed(29, (), 0.95, gps_median_m=33.0, gps_extent_m=1000.0))


def test_few_images_in_the_model_are_told_with_the_cure() -> None:
    (sentence,) = advice(Placed(20, tuple(NAMES[2:]), 0.5))
    assert "18 of 20" in sentence
    assert "--mapper global" in sentence
    assert "failed on most" in sentence
    (sentence,) = advice(Placed(20, tuple(NAMES[18:]), 0.5))
    assert "failed on most" not in sentence
    assert "unless places look alike" in sentence


def test_images_left_out_on_purpose_are_not_told_to_be_placed_by_another_mapper() -> None:
    assert advice(Placed(20, tuple(NAMES[17:]), 0.5, left_out=NAMES[17:])) == []
    (sentence,) = advice(Placed(20, tuple(NAMES[16:]), 0.5, left_out=NAMES[17:]))
    assert "1 of 20 images is not in the model, besides those left out: 16.jpg." in sentence
    (sentence,) = advice(Placed(20, tuple(NAMES[2:]), 0.5, left_out=NAMES[3:]))
    assert "failed on most" not in sentence


def test_images_of_smaller_models_and_images_that_match_none_have_their_own_cure() -> None:
    poses = {name: Pose(np.eye(3), np.zeros(3)) for name in NAMES[:6]}
    model = Model(*[np.zeros(0)] * 4, poses, {}, {})
    elsewhere, inliers = NAMES[6:12], {pair: count for pair, count in WALK.items() if pair[1] not in NAMES[6::6]}
    in_smaller, alone = advice(placed_of(model, NAMES, inliers, elsewhere=elsewhere))
    assert in_smaller.startswith("6 of 20 images are in smaller models: 06.jpg")
    assert alone.startswith("8 of 20 images are in no model: 12.jpg")
    assert "No verified pairs connect them" in alone
    assert "match more pairs" in alone
    assert "--mapper global" not in alone
    (joined,) = advice(placed_of(model, NAMES, WALK))
    assert joined.startswith("14 of 20 images are not in the model: 06.jpg")
    assert "failed on most" in joined


def test_guessed_focal_lengths_are_told_with_their_images() -> None:
    (sentence,) = advice(Placed(20, (), 0.5, guessed=NAMES[3:]))
    assert "17 of 20 placed images have a guessed focal length" in sentence
    assert "03.jpg" in sentence
    assert "--camera-params" in sentence
    assert "--camera-mode single" in sentence


def test_images_that_share_a_camera_are_not_told_to_share_one() -> None:
    sentences = advice(Placed(20, tuple(NAMES[2:]), 0.5, guessed=NAMES[:2], shares_camera=True))
    assert ["true --camera-params." in sentence for sentence in sentences] == [True, True]


def test_a_jump_in_a_walk_is_named() -> None:
    centres = {name: np.array([0.1 * index, 0, 0]) for index, name in enumerate(NAMES)}
    assert jumps_along(centres, NAMES, WALK) == ()
    broken = {name: centre + (0 if name < "10" else 5.0) for name, centre in centres.items()}
    assert jumps_along(broken, NAMES, WALK) == ("10.jpg",)


def test_order_tells_nothing_where_neighbours_do_not_match() -> None:
    rng = np.random.default_rng(0)
    centres = {name: rng.normal(0, 10, 3) for name in NAMES}
    far = {(a, b): 500 for a, b in zip(NAMES, NAMES[5:], strict=False)}
    assert jumps_along(centres, NAMES, far) == ()


def test_groups_that_few_inliers_hold_together_are_told() -> None:
    assert weak_groups(WALK) == ()
    weak = {**WALK, ("09.jpg", "10.jpg"): 20}
    assert weak_groups(weak) == (10, 10)
    assert "10 and 10" in doubts(Placed(20, (), 0.5, weakly_joined=weak_groups(weak)))[0]
    apart = {pair: count for pair, count in WALK.items() if pair != ("09.jpg", "10.jpg")}
    assert weak_groups(apart) == ()
