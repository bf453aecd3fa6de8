"""Pairs of photographs of finished jobs: exact where neighbours agree, silent elsewhere, mixed with rendered ones."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pycolmap
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from support.posed_job import FOCAL, RED, SIZE, PosedJob, posed_job, through_the_plane
from support.tiny_mini import TINY
from typer.testing import CliRunner

from romacli.cli.app import app
from romacli.errors import InputError, UsageError
from romacli.geometry.turns import turn_image, turn_points, turn_size
from romacli.geometry.warp import cell_centres
from romacli.mapping.cameras import read_cameras
from romacli.matchers.adapters.mini import EMBEDDED
from romacli.networks.mini import load_mini
from romacli.networks.weights import sha256_of
from romacli.store.images import KnownImage, write_images
from romacli.store.layout import Layout
from romacli.synthetic.textures import Textures
from romacli.train.data import jobs, photographs
from romacli.train.data.jobs import JobPairs, JobScene, undistorted
from romacli.train.data.posed import Window, at_size, warp_from_depth
from romacli.train.data.source import MixedPairs, RenderedPairs, pair_source, together
from romacli.train.loop import train
from romacli.train.losses import certainty_loss, is_known
from romacli.train.options import TrainOptions, check

CPU = torch.device("cpu")
SIDE = 64
ORIENTATION = 274  # the EXIF tag


@pytest.fixture(scope="module")
def densified(tmp_path_factory: pytest.TempPathFactory) -> PosedJob:
    job = posed_job(tmp_path_factory.mktemp("posed"))
    words = ["densify", str(job.layout.root), "--images", str(job.photographs), "--depth-maps", "--json"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.stderr
    return job


@pytest.fixture
def job(densified: PosedJob, tmp_path: Path) -> PosedJob:
    """A copy that a test may damage."""
    shutil.copytree(densified.layout.root.parent, tmp_path / "copy")
    layout = Layout(tmp_path / "copy" / densified.layout.root.name)
    runs = [json.loads(line) for line in layout.runs.read_text(encoding="utf-8").splitlines()]
    runs = [{**run, "images": str(tmp_path / "copy" / densified.photographs.name)} for run in runs]
    layout.runs.write_text("".join(json.dumps(run) + "\n" for run in runs), encoding="utf-8")
    return PosedJob(layout, tmp_path / "copy" / densified.photographs.name, densified.poses)


def test_warps_are_those_of_the_true_surface(densified: PosedJob) -> None:
    scene = JobScene.open(densified.layout.root)
    assert len(scene.pairs) == 10
    names = [camera.name for camera in scene.cameras]
    first, last = (names.index(name) for name in ("1.png", "3.png"))
    views = [at_size(scene.view(number), Window(0, 0, *SIZE), (160, 120)) for number in (first, last)]
    warp, visible = warp_from_depth(views[0], views[1], is_partial=True)
    centres = cell_centres((120, 160), SIZE).reshape(-1, 2)
    truth = through_the_plane(densified.poses["1.png"], densified.poses["3.png"], centres).reshape(120, 160, 2)
    assert 0.5 < visible.mean() < 1
    errors = np.linalg.norm(4 * warp - truth, axis=-1)[visible]
    # Exact but for half a cell, 5 px, round unknown depths and at the border, which have those of their neighbours.
    assert np.median(errors) < 0.05
    assert errors.max() < 2
    # Nothing is claimed where the depth of either is unknown, and what is claimed unseen lies outside.
    silent = np.isnan(warp).any(-1)
    assert silent.any()
    assert not (visible & silent).any()
    inside = ((truth > 4) & (truth < np.array(SIZE) - 4)).all(-1)
    assert not (inside & ~silent & ~visible).any()


def test_overlaps_are_shares_of_what_is_seen(densified: PosedJob) -> None:
    scene = JobScene.open(densified.layout.root)
    names = [camera.name for camera in scene.cameras]
    found = {
        frozenset(names[number] for number in pair): overlap
        for pair, overlap in zip(scene.pairs, scene.overlaps, strict=True)
    }
    assert found[frozenset(("1.png", "2.png"))] > found[frozenset(("0.png", "4.png"))] > 0
    assert max(found.values()) <= 1


def test_a_distorted_photograph_is_read_as_a_pinhole_camera_sees_it(densified: PosedJob, monkeypatch) -> None:
    monkeypatch.setattr(jobs, "LONGEST_SIDE", 320)
    camera = read_cameras(densified.layout.sparse / "0")[0]
    lens = replace(camera, camera=_radial(camera.camera, 0.1))
    x, y = np.meshgrid(np.arange(SIZE[0]), np.arange(SIZE[1]))
    image = np.stack((x / 3, y / 3, np.zeros_like(x)), axis=-1).astype(np.uint8)
    depth = np.full((48, 64), 2.0, np.float32)
    depth[:, :8] = 0
    view = undistorted(lens, image, depth)
    assert view.image.shape == (240, 320, 3)
    assert view.K[0, 0] == pytest.approx(FOCAL / 2)
    row, column = 60, 250
    ray = np.array([(column + 0.5 - 160) / (FOCAL / 2), (row + 0.5 - 120) / (FOCAL / 2)])
    place = ray * (1 + 0.1 * (ray @ ray)) * FOCAL + np.array(SIZE) / 2
    assert view.image[row, column, :2] == pytest.approx((place - 0.5) / 3, abs=1.1)
    assert view.depth[12, 50] == pytest.approx(2.0)
    assert (view.depth[:, :6] == 0).all()


def test_a_wide_lens_gives_no_depth_to_rays_that_it_does_not_show(densified: PosedJob) -> None:
    camera = read_cameras(densified.layout.sparse / "0")[0]
    wide = pycolmap.Camera(model="SIMPLE_RADIAL", width=SIZE[0], height=SIZE[1], params=[320, 320, 240, -0.3])
    lens = replace(camera, camera=wide, focal_px=320.0)
    view = undistorted(lens, np.zeros((SIZE[1], SIZE[0], 3), np.uint8), np.full((48, 64), 2.0, np.float32))
    x, y = np.moveaxis((cell_centres((48, 64), SIZE) - np.array(SIZE) / 2) / 320, -1, 0)
    beyond = np.hypot(x, y) - np.sqrt(1 / 0.9)  # the largest angle shown, where r - 0.3 r^3 is largest
    clear = np.abs(beyond) > 0.02
    np.testing.assert_array_equal((view.depth > 0)[clear], (beyond < 0)[clear])
    assert (beyond > 0.02).any()


def test_a_smaller_photograph_has_the_intrinsics_of_its_rounded_size(densified: PosedJob) -> None:
    camera = replace(read_cameras(densified.layout.sparse / "0")[0], size=(2000, 52))
    view = undistorted(camera, np.zeros((52, 2000, 3), np.uint8), np.ones((2, 64), np.float32))
    assert view.image.shape == (17, 640, 3)
    assert (view.K[0, 0], view.K[1, 1]) == pytest.approx((FOCAL * 640 / 2000, FOCAL * 17 / 52))


def _radial(pinhole, k: float):
    f, cx, cy = pinhole.params
    return pycolmap.Camera(model="SIMPLE_RADIAL", width=SIZE[0], height=SIZE[1], params=[f, cx, cy, k])


def test_pairs_are_windows_in_other_light(densified: PosedJob) -> None:
    pairs = JobPairs.of(densified.layout.root.parent)
    images, warp, visible = pairs.begun(np.random.default_rng(0), SIDE, 3)
    assert images.shape == (6, 3, SIDE, SIDE)
    assert images.dtype == torch.uint8
    assert warp.shape == (6, SIDE, SIDE, 2)
    assert visible.any()
    assert torch.isfinite(warp[visible]).all()
    means = images.float().mean(dim=(2, 3))
    assert (means[:3] - means[3:]).abs().max() > 10
    again = pairs.begun(np.random.default_rng(0), SIDE, 3)
    assert all(
        torch.equal(one.nan_to_num(), other.nan_to_num()) for one, other in zip((images, warp), again[:2], strict=True)
    )


def test_the_light_leaves_each_photograph_in_its_place(densified: PosedJob, monkeypatch) -> None:
    pairs = JobPairs.of(densified.layout.root)
    plain, _, _ = pairs.pairs.begun(np.random.default_rng(3), SIDE, 4)
    monkeypatch.setattr(jobs, "in_other_light", lambda images, rng, school: images)
    images, _, _ = pairs.begun(np.random.default_rng(3), SIDE, 4)
    assert torch.equal(images, plain)


def test_photographs_take_the_place_of_a_fraction_of_the_rendered_pairs(densified: PosedJob, monkeypatch) -> None:
    monkeypatch.setattr(jobs, "in_other_light", lambda images, rng, school: images)
    rendered = RenderedPairs(Textures.load(None, procedural=2, seed=0))
    found = []
    for share in (0.0, 0.5, 1.0):
        mixed = MixedPairs(rendered, JobPairs.of(densified.layout.root), share)
        images, warp, visible = mixed.finished(mixed.begun(np.random.default_rng(1), SIDE, 8), CPU)
        assert len(images) == len(warp) == len(visible) == 16
        are_red = (images.float() - torch.tensor(RED).view(3, 1, 1)).abs().flatten(1).median(dim=1).values < 2
        assert torch.equal(are_red[:8], are_red[8:])
        found.append(int(are_red[:8].sum()))
    assert found[0] == 0
    assert 0 < found[1] < 8
    assert found[2] == 8


def test_batches_join_with_all_first_pictures_in_front() -> None:
    def batch(*values: int):
        tensor = torch.tensor(values)
        return tensor, tensor + 100, tensor > 2

    images, warp, visible = together([batch(1, 2, 11, 12), batch(3, 13)])
    assert images.tolist() == [1, 2, 3, 11, 12, 13]
    assert warp.tolist() == [101, 102, 103, 111, 112, 113]
    assert visible.tolist() == [False, False, True, True, True, True]


def test_training_on_photographs_of_a_job_has_finite_losses(densified: PosedJob, tmp_path: Path) -> None:
    options = TrainOptions(
        tmp_path / "tiny.safetensors", procedural=2, steps=3, sizes=(64, 64), batch_size=2, workers=0, config=TINY,
        jobs=densified.layout.root, photographs=1.0,
    )  # fmt: skip
    state = train(options)
    assert (state.pairs, state.skipped) == (6, 0)
    load_mini(options.output)


def test_certainty_is_taught_only_where_it_is_known() -> None:
    logits = torch.tensor([[[1.0, -2.0, 5.0]]])
    right = torch.tensor([[[True, False, False]]])
    truth = torch.zeros(1, 1, 3, 2)
    truth[0, 0, 2, 1] = torch.nan
    known = is_known(truth)
    assert known.tolist() == [[[True, True, False]]]
    assert certainty_loss(logits, right, known) == certainty_loss(logits[..., :2], right[..., :2])
    assert certainty_loss(logits, right, torch.zeros_like(known)) == 0


def without_depth(job: PosedJob) -> None:
    shutil.rmtree(job.layout.depth_maps)


def with_one_depth_map(job: PosedJob) -> None:
    for number in (0, 1, 2, 4):
        job.layout.depth_map(f"{number}.png").unlink()


def with_photographs_elsewhere(job: PosedJob) -> None:
    job.photographs.rename(job.photographs.with_name("elsewhere"))


def cut_depth(job: PosedJob) -> None:
    path = job.layout.depth_map("2.png")
    path.write_bytes(path.read_bytes()[:100])


def without_model(job: PosedJob) -> None:
    shutil.rmtree(job.layout.sparse)


def without_photograph(job: PosedJob) -> None:
    (job.photographs / "3.png").unlink()


def changed_photograph(job: PosedJob) -> None:
    write_images(job.layout.images, {"1.png": KnownImage(((10, 10),))})


def without_runs(job: PosedJob) -> None:
    job.layout.runs.unlink()


def no_job(job: PosedJob) -> None:
    job.layout.manifest.unlink()


def of_another_scale(job: PosedJob) -> None:
    folder = job.layout.sparse / "0"
    model = pycolmap.Reconstruction(folder)
    model.transform(pycolmap.Sim3d(2.0, pycolmap.Rotation3d(), np.zeros(3)))
    model.write(folder)


def empty_depth(job: PosedJob) -> None:
    for path in job.layout.depth_maps.glob("*.bin"):
        head = path.read_bytes().split(b"&", 3)
        path.write_bytes(b"&".join((*head[:3], bytes(len(head[3])))))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without_depth, r"has depth maps of 0 images, .* Run `romacli densify .*job --depth-maps` first"),
        (with_one_depth_map, r"has depth maps of 1 image, and a pair needs two"),
        (cut_depth, r"2\.png\.geometric\.bin cannot be read as a depth map"),
        (without_model, r"contains no model"),
        (of_another_scale, r"depth_maps was made from an earlier .*0\. Run `romacli densify .*job --depth-maps` again"),
        (without_photograph, r"1 of 5 photographs is not in .* as .* was made from them: 3\.png is gone"),
        (changed_photograph, r"1\.png is changed\. Put them back; if they show the same"),
        (without_runs, r"does not say where its photographs are\. Run `romacli match PHOTOGRAPHS -o .*job` with"),
        (with_photographs_elsewhere, r"had its photographs in .*photos, which is gone\. Run"),
        (no_job, r"is no job, and no folder of jobs"),
        (empty_depth, r"None of 10 pairs in 1 scene overlaps more than 0\.1"),
    ],
)
def test_a_job_that_cannot_be_trained_on_is_named(job: PosedJob, damage, message: str) -> None:
    damage(job)
    with pytest.raises(InputError, match=message):
        JobPairs.of(job.layout.root)


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (6, 1), (3, 2), (8, 3)])
def test_photographs_are_turned_upright_with_their_geometry(job: PosedJob, orientation: int, turns: int) -> None:
    path = job.photographs / "1.png"
    with Image.open(path) as image:
        stored = np.asarray(image)
        exif = image.getexif()
        exif[ORIENTATION] = orientation
        image.save(path, exif=exif)
    scene = JobScene.open(job.layout.root)
    one, other = ([camera.name for camera in scene.cameras].index(name) for name in ("1.png", "2.png"))
    turned, upright = scene.view(one), scene.view(other)
    np.testing.assert_array_equal(turned.image, turn_image(stored, turns))
    size = turn_size(SIZE, turns)
    A, B = (at_size(view, Window(0, 0, *of), of) for view, of in ((turned, size), (upright, SIZE)))
    warp, visible = warp_from_depth(B, A, is_partial=True)
    centres = cell_centres((SIZE[1], SIZE[0]), SIZE).reshape(-1, 2)
    truth = through_the_plane(job.poses["2.png"], job.poses["1.png"], centres).reshape(*visible.shape, 2)
    errors = np.linalg.norm(warp - turn_points(truth, SIZE, turns), axis=-1)[visible]
    assert visible.mean() > 0.5
    assert np.median(errors) < 0.05


def test_panoramas_and_images_without_a_depth_map_are_left_out(job: PosedJob, monkeypatch) -> None:
    def cameras(folder: Path):
        found = read_cameras(folder)
        width, height = found[0].size
        sphere = pycolmap.Camera(model="EQUIRECTANGULAR", width=width, height=height, params=[width, height])
        return [replace(each, camera=sphere) if each.name == "1.png" else each for each in found]

    monkeypatch.setattr(jobs, "read_cameras", cameras)
    job.layout.depth_map("3.png").unlink()
    scene = JobScene.open(job.layout.root)
    assert [camera.name for camera in scene.cameras] == ["0.png", "2.png", "4.png"]
    assert len(scene.pairs) == 3


def test_a_photograph_of_another_size_is_named(job: PosedJob) -> None:
    path = job.photographs / "0.png"
    cv2.imwrite(str(path), np.zeros((48, 64, 3), np.uint8))
    scene = JobScene.open(job.layout.root)
    number = next(index for index, camera in enumerate(scene.cameras) if camera.name == "0.png")
    with pytest.raises(InputError, match=r"0\.png is 64x48 px, but 640x480 in the model"):
        scene.view(number)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"photographs": 0.0}, "--jobs and --photographs go together"),
        ({"jobs": None}, "--jobs and --photographs go together"),
        ({"model": "roma"}, "--jobs adds photographs to the rendered pairs for mini"),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path: Path, change, message: str) -> None:
    options = TrainOptions(tmp_path / "x.safetensors", jobs=tmp_path, photographs=0.1)
    check(options)
    with pytest.raises(UsageError, match=message):
        check(replace(options, **change))


def test_the_source_is_mixed_only_with_jobs(densified: PosedJob, tmp_path: Path) -> None:
    options = TrainOptions(tmp_path / "x.safetensors", procedural=2)
    assert isinstance(pair_source(options, CPU), RenderedPairs)
    mixed = pair_source(replace(options, jobs=densified.layout.root, photographs=0.25), CPU)
    assert isinstance(mixed, MixedPairs)
    assert mixed.share == 0.25
    assert mixed.photographs.pairs.smallest_window == jobs.SMALLEST_WINDOW
    assert isinstance(mixed.photographs.pairs, photographs.PhotographedPairs)


def test_the_included_weights_are_trained_further_by_name(densified: PosedJob, tmp_path: Path) -> None:
    weights = tmp_path / "own.safetensors"
    words = ["train", "-o", str(weights), "--from", "mini", "--jobs", str(densified.layout.root)]
    words += ["--photographs", "0.5", "--procedural", "2", "--steps", "1", "--sizes", "64,64", "--batch-size", "2"]
    result = CliRunner().invoke(app, [*words, "--workers", "0", "-q"])
    assert result.exit_code == 0, result.output
    with safe_open(weights, "np") as file:
        recipe = json.loads(file.metadata()["recipe"])
    assert recipe["start"] == sha256_of(EMBEDDED)
    assert recipe["photographs"] == 0.5
