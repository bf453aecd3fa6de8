from __future__ import annotations

import cv2
import numpy as np
import pytest

from romacli.refine.align import Alignment, align
from romacli.refine.options import RefineOptions
from romacli.refine.photograph import Photograph, levels_of
from romacli.synthetic.pairs import SyntheticPair, photograph_twice
from romacli.synthetic.scenery import deep_scene, flat_scene
from romacli.synthetic.textures import Textures
from romacli.types import Size

OPTIONS = RefineOptions()


@pytest.fixture(scope="module")
def pairs() -> list[SyntheticPair]:
    """Planes under strong perspective, with exact warps."""
    textures = Textures.load(None, procedural=10, seed=3)
    return [photograph_twice(*flat_scene(textures, np.random.default_rng(seed), 640)) for seed in range(4)]


def grey(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


def plaster(side: int = 640) -> np.ndarray:
    """Texture everywhere, in 8 bits."""
    rough = np.random.default_rng(4).normal(128, 300, (side, side)).astype(np.float32)
    return np.clip(cv2.GaussianBlur(rough, (0, 0), 2.5), 0, 255).astype(np.uint8)


def as_taken(image: np.ndarray) -> np.ndarray:
    return image


def two_stops_brighter(image: np.ndarray) -> np.ndarray:
    return np.clip(image.astype(int) * 4, 0, 255).astype(np.uint8)


def two_stops_darker(image: np.ndarray) -> np.ndarray:
    return (image // 4).astype(np.uint8)


def blurred(image: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(image, (0, 0), 2)


def compressed(image: np.ndarray) -> np.ndarray:
    decoded = cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 30])[1], cv2.IMREAD_COLOR)
    assert decoded is not None
    return decoded


def errors(pairs: list[SyntheticPair], light) -> tuple[np.ndarray, np.ndarray, Alignment]:
    """Errors of starting points that are off by 1 px per axis, and errors after alignment, in px of the target."""
    before, found, truths = [], [], []
    for seed, pair in enumerate(pairs):
        rng = np.random.default_rng(seed)
        y, x = rng.integers(20, 620, (2, 500))
        seen = pair.visible_AB[y, x]
        x, y, warp = x[seen], y[seen], pair.warp_AB
        across, down = (warp[y, x + 4] - warp[y, x - 4]) / 8, (warp[y + 4, x] - warp[y - 4, x]) / 8
        truth = warp[y, x]
        starts = truth + rng.normal(0, 1, truth.shape)
        photographs = [Photograph.prepare(grey(im), OPTIONS.levels) for im in (pair.image_A, light(pair.image_B))]
        places = np.stack((x, y), axis=1) + 0.5
        found.append(align(*photographs, places, starts, np.stack((across, down), axis=-1), OPTIONS))
        before.append(np.linalg.norm(starts - truth, axis=1))
        truths.append(truth)
    whole = Alignment(*(np.concatenate([getattr(part, name) for part in found]) for name in Alignment.__annotations__))
    return np.concatenate(before), np.linalg.norm(whole.xy - np.concatenate(truths), axis=1), whole


def test_places_on_rendered_planes_come_out_within_hundredths_of_a_pixel(pairs: list[SyntheticPair]) -> None:
    before, after, found = errors(pairs, as_taken)
    assert found.good.mean() > 0.5
    assert np.median(before) > 1
    assert np.median(after[found.good]) < 0.06
    assert np.mean(after[found.good] > 1) < 0.005


def test_covariances_are_as_wide_as_errors(pairs: list[SyntheticPair]) -> None:
    _, after, found = errors(
        pairs, lambda image: cv2.add(image, np.random.default_rng(0).normal(0, 5, image.shape), dtype=cv2.CV_8U)
    )
    deviations = np.sqrt(np.trace(found.covariance, axis1=1, axis2=2))
    ratio = np.median(after[found.good] / deviations[found.good])
    assert 0.4 < ratio < 1.2


@pytest.mark.parametrize("light", [two_stops_brighter, two_stops_darker, blurred, compressed])
def test_other_light_makes_nothing_worse(pairs: list[SyntheticPair], light) -> None:
    before, after, _ = errors(pairs, light)
    assert np.median(after) <= np.median(before)
    assert np.sqrt((after**2).mean()) < np.sqrt((before**2).mean())


def test_what_has_no_texture_or_reaches_outside_keeps_its_place() -> None:
    flat = Photograph.prepare(np.full((100, 100), 90, np.uint8), OPTIONS.levels)
    textured = Photograph.prepare(plaster(100), OPTIONS.levels)
    places = np.array([[50.0, 50.0], [3.0, 50.0]])
    for photograph in (flat, textured):
        found = align(photograph, photograph, places, places + 0.7, np.tile(np.eye(2), (2, 1, 1)), OPTIONS)
        kept = ~found.good
        assert kept[1]
        np.testing.assert_array_equal(found.xy[kept], places[kept] + 0.7)
    assert not align(flat, textured, places, places, np.tile(np.eye(2), (2, 1, 1)), OPTIONS).good.any()


def test_of_places_beside_an_edge_in_depth_most_are_left_as_they_were() -> None:
    wall, front = plaster(), plaster()[::-1]
    beside = np.arange(640) < 320
    moved = cv2.warpAffine(wall, np.float32([[1, 0, 3], [0, 1, 0]]), (640, 640))
    pictures = [np.where(beside, behind, front) for behind in (wall, moved)]
    rng = np.random.default_rng(0)
    places = np.stack((rng.uniform(311, 319, 400), rng.uniform(40, 600, 400)), axis=1)
    truth = places + [3, 0]
    starts = truth + rng.normal(0, 0.7, truth.shape)
    source, target = (Photograph.prepare(picture, 1) for picture in pictures)
    found = align(source, target, places, starts, np.tile(np.eye(2), (400, 1, 1)), OPTIONS)
    far_off = np.linalg.norm(found.xy - truth, axis=1)[found.good] > 1
    assert far_off.sum() < 0.35 * len(places)


def test_where_surfaces_hide_each_other_hardly_a_refined_place_is_off_by_a_pixel() -> None:
    textures = Textures.load(None, procedural=10, seed=3)
    scenes = (deep_scene(textures, np.random.default_rng(seed), 640) for seed in (2001, 2004, 2005))
    _, after, found = errors([photograph_twice(*scene) for scene in scenes], as_taken)
    assert found.good.mean() > 0.35
    assert (after[found.good] > 1).mean() < 0.01


def test_a_known_start_draws_a_place_to_it_and_one_that_is_not_known_does_not() -> None:
    noise = np.random.default_rng(0).normal(0, 25, (2, 640, 640))
    pictures = [np.clip(plaster() + grain, 0, 255).astype(np.uint8) for grain in noise]
    source, target = (Photograph.prepare(picture, OPTIONS.levels) for picture in pictures)
    places = np.stack(np.meshgrid(np.arange(100.0, 500, 20), np.arange(100.0, 500, 20)), axis=-1).reshape(-1, 2)
    starts = places + np.random.default_rng(1).normal(0, 0.1, places.shape)
    shear = np.tile(np.eye(2), (len(places), 1, 1))
    free, untold, told = (
        align(source, target, places, starts, shear, OPTIONS, precisions)
        for precisions in (None, np.zeros(len(places)), np.full(len(places), 0.1**-2))
    )
    np.testing.assert_array_equal(untold.xy, free.xy)
    assert told.good.sum() >= free.good.sum() > 100
    off, drawn = (np.linalg.norm(found.xy - places, axis=1)[free.good & told.good] for found in (free, told))
    assert np.median(drawn) < 0.9 * np.median(off)
    deviations = [np.sqrt(np.linalg.eigvalsh(found.covariance)[free.good, 1]) for found in (free, told)]
    assert (deviations[1] < deviations[0]).all()
    assert deviations[1].max() < 0.1


def test_no_patch_reaches_into_a_mask() -> None:
    image = plaster()
    kept = np.ones(image.shape, bool)
    kept[:, 320] = False
    open_, masked = Photograph.prepare(image, OPTIONS.levels), Photograph.prepare(image, OPTIONS.levels, kept)
    x = np.arange(260.0, 380, 2)
    places = np.stack((x, np.full_like(x, 300)), axis=1)
    shear = np.tile(np.eye(2), (len(x), 1, 1))
    for source, target in ((open_, masked), (masked, open_)):
        found = align(source, target, places, places + 0.3, shear, OPTIONS)
        assert not found.good[np.abs(x - 320) < 13].any()
        assert found.good[np.abs(x - 320) > 35].any()


def test_sixteen_bits_and_nothing_to_do() -> None:
    image = plaster()
    places = np.stack(np.meshgrid(np.arange(100.0, 500, 40), np.arange(100.0, 500, 40)), axis=-1).reshape(-1, 2)
    shear = np.tile(np.eye(2), (len(places), 1, 1))
    narrow, wide = (Photograph.prepare(im, OPTIONS.levels) for im in (image, image.astype(np.uint16) * 257))
    found = align(narrow, wide, places, places + 0.6, shear, OPTIONS)
    assert found.good.mean() > 0.9
    assert np.abs(found.xy - places)[found.good].max() < 0.05
    assert len(align(narrow, wide, places[:0], places[:0], shear[:0], OPTIONS).xy) == 0


@pytest.mark.parametrize(("size", "levels"), [((320, 240), 1), ((4096, 3072), 1), ((8700, 11600), 3)])
def test_photographs_of_many_megapixels_are_refined_from_coarse_to_fine(size: Size, levels: int) -> None:
    assert levels_of(size) == levels


def test_coarser_levels_find_what_is_farther_off() -> None:
    image = cv2.resize(plaster(200), (800, 800), interpolation=cv2.INTER_CUBIC)
    places = np.stack(np.meshgrid(np.arange(200.0, 600, 40), np.arange(200.0, 600, 40)), axis=-1).reshape(-1, 2)
    shear = np.tile(np.eye(2), (len(places), 1, 1))
    fine, deep = (Photograph.prepare(image, levels) for levels in (1, 3))
    starts = places + [4, -4]
    assert not align(fine, fine, places, starts, shear, OPTIONS).good.any()
    found = align(deep, deep, places, starts, shear, OPTIONS)
    assert found.good.mean() > 0.5
    assert np.abs(found.xy - places)[found.good].max() < 0.1
