from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from romacli.geometry.coordinates import to_colmap_pixels
from romacli.synthetic.pairs import photograph_twice
from romacli.synthetic.rasterise import Atlas, render, view_table, warps
from romacli.synthetic.scenery import deep_scene, flat_scene
from romacli.synthetic.scenes import render_view
from romacli.synthetic.school import CHANGED, ORDINARY
from romacli.synthetic.textures import Textures

SIZE = 112
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def textures() -> Textures:
    """Smooth images, so small that crops keep their resolution: then only interpolation differs."""
    coarse = np.random.default_rng(2).integers(0, 255, (6, 20, 20, 3), dtype=np.uint8)
    return Textures.of([cv2.resize(image, (300, 300), interpolation=cv2.INTER_CUBIC) for image in coarse], [])


@pytest.fixture(scope="module")
def atlas(textures) -> Atlas:
    return Atlas.of(textures, CPU)


@pytest.fixture(scope="module")
def scenes(textures):
    return [
        (flat_scene if seed % 4 == 0 else deep_scene)(textures, np.random.default_rng([7, seed]), SIZE, school)
        for seed, school in enumerate([ORDINARY] * 12 + [CHANGED] * 6)
    ]


@pytest.fixture(scope="module")
def rendered(scenes, atlas):
    """For every scene: the table's views and warps, and the output of the other renderer."""
    with pytest.MonkeyPatch.context() as patch:
        for module in ("scenes", "rasterise"):  # they downscale images differently
            patch.setattr(f"romacli.synthetic.{module}.texels_per_pixel", lambda *_: 1.0)
        table = view_table([(scene, scene) for scene in scenes], atlas.index)
        views = render(table, atlas)
        truth = [render_view(planes, camera, side) for side in range(2) for planes, camera in each_view(scenes, side)]
    return table, views, truth


def each_view(scenes, which):
    return [(planes, cameras[which]) for planes, cameras in scenes]


def inner(index):
    """Pixels whose neighbours show the same plane."""
    index = index.astype(np.float32)
    return cv2.erode(index, np.ones((3, 3))) == cv2.dilate(index, np.ones((3, 3)))


def test_planes_and_depths_are_those_of_the_other_renderer(rendered):
    _, views, truth = rendered
    for view, (_, index, inverse_depth) in enumerate(truth):
        same = views.plane_index[view].numpy() == index
        assert same.mean() > 0.995
        assert same[inner(index)].mean() > 0.9995
        np.testing.assert_allclose(views.inverse_depth[view].numpy()[same], inverse_depth[same], rtol=1e-5)


def test_pictures_differ_by_interpolation_alone(rendered):
    _, views, truth = rendered
    for view, (rgb, index, _) in enumerate(truth):
        clear = inner(index) & (views.plane_index[view].numpy() == index)
        difference = np.abs(views.rgb[view].permute(1, 2, 0).numpy() - rgb)[clear]
        assert difference.mean() < 0.6  # rounding
        assert np.quantile(difference, 0.99) < 2


def test_far_planes_are_shown_at_the_resolution_of_the_picture():
    textures = Textures.load(None, procedural=5, seed=2)
    scenes = [flat_scene(textures, np.random.default_rng([8, seed]), SIZE) for seed in range(8)]
    atlas = Atlas.of(textures, CPU)
    views = render(view_table([(scene, scene) for scene in scenes], atlas.index), atlas)
    for view, (planes, camera) in enumerate(each_view(scenes, 0)):
        pictures = render_view(planes, camera).rgb, views.rgb[view].permute(1, 2, 0).numpy()
        mine, other = (cv2.GaussianBlur(np.float32(picture), (0, 0), 4) for picture in pictures)
        assert np.abs(mine - other).mean() < 6


def test_warps_and_visibility_are_those_of_the_other_renderer(scenes, rendered):
    table, views, truth = rendered
    assert any(plane.only_in is not None for planes, _ in scenes for plane in planes)
    warp, visible = warps(table, views)
    warp = to_colmap_pixels(warp, (SIZE, SIZE)).numpy()
    for number, (planes, cameras) in enumerate(scenes):
        pair = photograph_twice(planes, cameras)
        for view, true_warp, true_visible in (
            (number, pair.warp_AB, pair.visible_AB),
            (number + len(scenes), pair.warp_BA, pair.visible_BA),
        ):
            index = truth[view].plane_index
            both = visible[view].numpy() & true_visible & (views.plane_index[view].numpy() == index)
            assert np.abs(warp[view] - true_warp)[both].max(initial=0) < 1e-3
            assert (visible[view].numpy() == true_visible)[inner(index)].mean() > 0.99
        assert visible[number].numpy().mean() == pytest.approx(pair.visible_AB.mean(), abs=0.01)


def test_pictures_of_two_scenes_have_nothing_in_common(scenes, atlas):
    table = view_table([(scenes[1], scenes[2]), (scenes[3], scenes[3])], atlas.index)
    views = render(table, atlas)
    _, visible = warps(table, views)
    assert visible.flatten(1).any(dim=1).tolist() == [False, True, False, True]
    rgb = render_view(scenes[2][0], scenes[2][1][1]).rgb
    assert np.abs(views.rgb[2].permute(1, 2, 0).numpy() - rgb).mean() < 12


def test_nothing_is_left_on_the_cpu(rendered, atlas):
    """The meta device only computes shapes, and like a GPU refuses tensors of another device."""
    meta = torch.device("meta")
    table = rendered[0].to(meta)
    views = render(table, atlas.to(meta))
    warp, visible = warps(table, views)
    assert {views.rgb.device, views.plane_index.device, warp.device, visible.device} == {meta}
    assert warp.shape == (len(rendered[2]), SIZE, SIZE, 2)


def test_pixels_that_see_nothing_are_grey(atlas, textures):
    planes, cameras = deep_scene(textures, np.random.default_rng([7, 1]), SIZE)
    bounded = [plane for plane in planes if not plane.endless]
    views = render(view_table([((bounded, cameras), (bounded, cameras))], atlas.index), atlas)
    nothing = views.plane_index < 0
    assert nothing.any()
    assert (views.rgb.permute(0, 2, 3, 1)[nothing] == 127).all()
    assert (views.inverse_depth[nothing] == 0).all()
