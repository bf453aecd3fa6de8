from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from romacli.synthetic.pairs import photograph_twice, sample_pair, unrelated_textures
from romacli.synthetic.photometric import photograph
from romacli.synthetic.scenery import deep_scene, flat_scene
from romacli.synthetic.scenes import Camera, TexturedPlane
from romacli.synthetic.school import CHANGED, HARD, ORDINARY, school_of
from romacli.synthetic.textures import Textures

SIZE = 96


@pytest.fixture(scope="module")
def textures() -> Textures:
    return Textures.load(None, procedural=5, seed=0, repeated=4)


@pytest.fixture(scope="module")
def specks() -> Textures:
    """A small picture, where only the geometry of scenes counts."""
    return Textures.of([], [np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)])


@pytest.fixture(scope="module", params=[ORDINARY, HARD, CHANGED], ids=["ordinary", "hard", "changed"])
def plain_pairs(request, textures):
    rngs = (np.random.default_rng([3, i]) for i in range(30))
    return [sample_pair(textures, rng, SIZE, light=False, school=request.param) for rng in rngs]


def test_same_seed_gives_the_same_pair(textures):
    first, second = (sample_pair(textures, np.random.default_rng(5), SIZE) for _ in range(2))
    for name in ("image_A", "image_B", "warp_AB", "warp_BA", "visible_AB", "visible_BA"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def test_arrays_have_the_promised_shapes_and_types(textures):
    pair = sample_pair(textures, np.random.default_rng(1), SIZE)
    assert pair.image_A.shape == pair.image_B.shape == (SIZE, SIZE, 3)
    assert pair.image_A.dtype == np.uint8
    assert pair.warp_AB.shape == (SIZE, SIZE, 2)
    assert pair.warp_AB.dtype == np.float32
    assert np.isfinite(pair.warp_AB).all()
    assert pair.visible_AB.dtype == np.bool_


def test_visible_pixels_look_alike_before_the_light_changes(plain_pairs):
    medians = []
    for pair in plain_pairs:
        if pair.visible_AB.any():
            x, y = pair.warp_AB[..., 0] - 0.5, pair.warp_AB[..., 1] - 0.5
            warped = cv2.remap(pair.image_B, x, y, cv2.INTER_LINEAR).astype(int)
            medians.append(np.median(np.abs(warped - pair.image_A)[pair.visible_AB]))
    assert len(medians) > 20
    assert np.median(medians) <= 3
    assert np.percentile(medians, 90) <= 12


def test_warps_lead_back_to_where_they_began(plain_pairs):
    errors = []
    y, x = np.mgrid[:SIZE, :SIZE] + 0.5
    for pair in plain_pairs:
        target = np.clip(pair.warp_AB - 0.5, 0, SIZE - 1).round().astype(int)
        row, column = target[..., 1], target[..., 0]
        returned = pair.warp_BA[row, column]
        both = pair.visible_AB & pair.visible_BA[row, column]
        errors.append(np.linalg.norm(returned - np.stack((x, y), axis=-1), axis=-1)[both])
    assert np.median(np.concatenate(errors)) < 1  # the target is read at the nearest pixel


def test_about_a_tenth_of_the_pairs_are_unrelated(plain_pairs):
    unrelated = [pair for pair in plain_pairs if not pair.visible_AB.any()]
    assert 1 <= len(unrelated) <= 9
    assert all(not pair.visible_BA.any() for pair in unrelated)


def test_light_changes_grey_levels_but_not_size():
    image = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    changed = photograph(image, np.random.default_rng(2))
    assert changed.shape == image.shape
    assert changed.dtype == np.uint8
    assert not np.array_equal(changed, image)


def test_hard_pairs_turn_and_zoom_further(specks):
    widest, largest = [], []
    for school in (ORDINARY, HARD):
        turns, scales = [], []
        for seed in range(200):
            _, (camera_A, camera_B) = deep_scene(specks, np.random.default_rng(seed), SIZE, school)
            turns.append(np.degrees(np.arccos(np.clip(camera_A.R[2] @ camera_B.R[2], -1, 1))))
            _, cameras = flat_scene(specks, np.random.default_rng(seed), SIZE, school)
            scales.append(abs(np.diff([np.log(np.linalg.norm(camera.t) / camera.K[0, 0]) for camera in cameras])[0]))
        widest.append(np.percentile(turns, 99))
        largest.append(np.exp(np.percentile(scales, 95)))
    assert widest[0] < 60 < 75 < widest[1]
    assert largest[0] < 3.6 < largest[1] < 6


def test_what_only_one_picture_shows_is_visible_in_neither():
    def panel(level, depth, side, **kwargs):
        corner, (right, down, _) = np.array([-side / 2, -side / 2, depth]), np.eye(3) * side
        return TexturedPlane(np.full((64, 64, 3), level, np.uint8), corner, right, down, **kwargs)

    focal = np.array([[SIZE, 0, SIZE / 2], [0, SIZE, SIZE / 2], [0, 0, 1.0]])
    camera = Camera(focal, np.eye(3), np.zeros(3), (SIZE, SIZE))
    wall, passer, sky = (
        panel(50, 4.0, 3.0),
        panel(200, 2.0, 0.5, only_in=0),
        panel(100, 9.0, 1.0, endless=True, only_in=1),
    )
    pair = photograph_twice([wall, passer, sky], (camera, camera))
    assert [set(np.unique(image)) for image in (pair.image_A, pair.image_B)] == [{50, 127, 200}, {50, 100}]
    assert (pair.image_A == 200).any()
    for visible in (pair.visible_AB, pair.visible_BA):
        np.testing.assert_array_equal(visible, (pair.image_A == 50).all(axis=-1) & (pair.image_B == 50).all(axis=-1))


def test_changed_scenes_have_two_skies_and_passers_by(specks):
    scenes = [deep_scene(specks, np.random.default_rng(seed), SIZE, CHANGED)[0] for seed in range(60)]
    skies = [[plane.only_in for plane in planes if plane.endless and plane.only_in is not None] for planes in scenes]
    assert 0.4 < np.mean([sides == [0, 1] for sides in skies]) < 0.8
    passing = [any(plane.only_in is not None and not plane.endless for plane in planes) for planes in scenes]
    assert 0.4 < np.mean(passing) < 0.8


def test_graded_pictures_have_other_colours_and_more_contrast():
    rng = np.random.default_rng(0)
    image = cv2.resize(rng.integers(60, 190, (24, 24, 3), dtype=np.uint8), (96, 96), interpolation=cv2.INTER_CUBIC)

    def colourfulness(graded):
        taken = [photograph(image, np.random.default_rng(seed), graded=graded) for seed in range(80)]
        return [np.ptp(picture.reshape(-1, 3).astype(float) / picture.mean((0, 1)), axis=1).mean() for picture in taken]

    plain, graded = colourfulness(False), colourfulness(True)
    assert min(graded) < 0.5 * min(plain)
    assert max(graded) > 1.2 * max(plain)


def test_the_schools_of_pairs_have_their_shares():
    rng = np.random.default_rng(0)
    drawn = [school_of(rng, 0.3, 0.2) for _ in range(2000)]
    shares = [np.mean([school is each for school in drawn]) for each in (HARD, CHANGED, ORDINARY)]
    np.testing.assert_allclose(shares, [0.3, 0.2, 0.5], atol=0.04)


def test_night_is_dark_with_warm_lamps():
    grey = np.full((64, 64, 3), 150, np.uint8)
    nights = [photograph(grey, np.random.default_rng(seed), at_night=True).astype(float) for seed in range(40)]
    days = [photograph(grey, np.random.default_rng(seed)).astype(float) for seed in range(40)]
    assert np.median([night.mean() for night in nights]) < 0.8 * np.median([day.mean() for day in days])
    assert np.median([night.std() for night in nights]) > np.median([day.std() for day in days])


def test_look_alike_scenes_share_a_motif_and_no_picture(textures):
    school = replace(HARD, alike=1.0)
    first, second = unrelated_textures(textures, np.random.default_rng(0), school)
    drawn = [pool.crop(np.random.default_rng(1)).excerpt.picture for pool in (first, second)]
    assert drawn[1] == drawn[0] + 1
    one, other = (textures.pyramids[picture][0].astype(int) for picture in drawn)
    assert not np.array_equal(one, other)
    assert np.median(np.abs(one - other)) < 25
    assert unrelated_textures(textures, np.random.default_rng(0), ORDINARY) == (textures, textures)
