"""Which images share a camera, and the messages when that is impossible."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from romacli.colmap.cameras import ImageInfo, assign_cameras, shared_untold, sharing_doubts, to_pycolmap
from romacli.colmap.options import CameraOptions, parse_camera_params
from romacli.colmap.rigs import read_rigs
from romacli.errors import UsageError

LANDSCAPE, PORTRAIT = (1600, 1200), (1200, 1600)


def cameras_of(images: list[ImageInfo], **options) -> dict[str, int]:
    return assign_cameras(images, CameraOptions(**options))[1]


def test_images_of_a_folder_and_size_share_a_camera_by_default():
    images = [ImageInfo(name, LANDSCAPE) for name in ("a/1.jpg", "a/2.jpg", "b/1.jpg")]
    images.append(ImageInfo("a/3.jpg", PORTRAIT))
    assert cameras_of(images) == {"a/1.jpg": 0, "a/2.jpg": 0, "a/3.jpg": 1, "b/1.jpg": 2}


def test_focal_lengths_split_a_folder_when_they_differ_by_a_pixel():
    focals = {"1.jpg": 1400.2, "2.jpg": 1399.9, "3.jpg": 1500.0, "4.jpg": None}
    images = [ImageInfo(name, LANDSCAPE, focal) for name, focal in focals.items()]
    cameras, index = assign_cameras(images)
    assert index == {"1.jpg": 0, "2.jpg": 0, "3.jpg": 1, "4.jpg": 2}
    assert [camera.origin for camera in cameras] == ["exif", "exif", "guess"]
    assert [camera.has_prior_focal_length for camera in cameras] == [True, True, False]
    assert cameras[0].params == pytest.approx((1400.05, 800, 600, 0))


@pytest.mark.parametrize("focal", [None, 700.0])
def test_devices_split_a_folder_whether_or_not_focal_lengths_are_known(focal: float | None):
    devices = {"1.jpg": "Samsung SM-A", "2.jpg": "Xiaomi M2007", "3.jpg": "Samsung SM-A", "4.jpg": ""}
    images = [ImageInfo(name, LANDSCAPE, focal, device=device) for name, device in devices.items()]
    index = cameras_of(images)
    assert index == {"1.jpg": 0, "2.jpg": 1, "3.jpg": 0, "4.jpg": 2}
    assert sharing_doubts(images, index) == []


def test_one_camera_for_several_devices_or_focal_lengths_is_doubted():
    phones = [
        ImageInfo("1.jpg", LANDSCAPE, device="Samsung SM-A"),
        ImageInfo("2.jpg", LANDSCAPE, device="Xiaomi M2007"),
    ]
    (doubt,) = sharing_doubts(phones, cameras_of(phones, mode="single"))
    assert "1.jpg (Samsung SM-A) and 2.jpg (Xiaomi M2007)" in doubt
    zoomed = [ImageInfo(f"{focal:.0f}.jpg", LANDSCAPE, focal) for focal in (1000.0, 1010.0, 2000.0)]
    (doubt,) = sharing_doubts(zoomed, cameras_of(zoomed, mode="per-folder"))
    assert "1000.jpg (1000 px) and 2000.jpg (2000 px)" in doubt
    assert sharing_doubts(zoomed[:2], cameras_of(zoomed[:2], mode="single")) == []


def test_cameras_that_are_shared_by_size_alone_are_known():
    images = [ImageInfo(name, LANDSCAPE) for name in ("a/1.jpg", "a/2.jpg", "b/1.jpg")]
    images.append(ImageInfo("a/3.jpg", LANDSCAPE, device="Samsung SM-A"))
    ((first, second),) = shared_untold(images, cameras_of(images), CameraOptions())
    assert (first.name, second.name) == ("a/1.jpg", "a/2.jpg")
    options = CameraOptions("single")
    assert shared_untold(images, assign_cameras(images, options)[1], options) == []


@pytest.mark.parametrize(
    ("model", "params", "words"),
    [
        (
            "SIMPLE_RADIAL",
            (720, 720, 320, 240),
            ["f = 720, cx = 720, cy = 320, k = 240", "outside", "640x480", "PINHOLE"],
        ),
        ("SIMPLE_RADIAL", (500, 300, 320, 240), ["k = 240", "distortion", "--camera-model PINHOLE"]),
        ("PINHOLE", (4608, 4608, 2016, 1512), ["cx = 2016", "(2016, 1512)", "outside"]),
        ("PINHOLE", (720, 320, 720, 240), ["(720, 240)", "outside"]),
        ("PINHOLE", (900, 900, 400, 300), ["800x600", "scale"]),
        ("PINHOLE", (360, 360, 160, 120), ["320x240", "scale"]),
        ("SIMPLE_PINHOLE", (28, 320, 240), ["f = 28", "focal length in px"]),
        ("OPENCV", (720, 720, 320, 240, 0.1, float("nan"), 0, 0), ["finite"]),
    ],
)
def test_params_that_cannot_be_true_are_refused_with_their_reading(model, params, words, tmp_path: Path):
    images = [ImageInfo(f"left/{n}.jpg", (640, 480)) for n in range(2)]
    with pytest.raises(UsageError) as refused:
        cameras_of(images, model=model, params=params)
    assert "--camera-params cannot be true" in str(refused.value)
    for word in words:
        assert word in str(refused.value)
    if "finite" in words:
        return
    rig = [{"cameras": [{"image_prefix": "left/", "ref_sensor": True, "camera_model_name": model}]}]
    rig[0]["cameras"][0]["camera_params"] = params
    (tmp_path / "rig.json").write_text(json.dumps(rig))
    with pytest.raises(UsageError, match=r"rig\.json: camera_params of left/ cannot be true"):
        cameras_of(images, rigs=read_rigs(tmp_path / "rig.json"))


@pytest.mark.parametrize("focal", [100.0, 2000.0])
def test_params_far_from_every_focal_length_of_exif_are_refused(focal: float):
    images = [ImageInfo("1.jpg", (640, 480), 600.0), ImageInfo("2.jpg", (640, 480), 640.0)]
    with pytest.raises(UsageError, match="EXIF data give a focal length of 6"):
        cameras_of(images, mode="single", params=(focal, 320.0, 240.0, 0.0))


@pytest.mark.parametrize(
    ("model", "params"),
    [
        ("OPENCV", (300, 300, 330, 236, -0.3, 0.1, 1e-3, -1e-3)),
        ("OPENCV_FISHEYE", (200, 200, 310, 250, 0.05, 0.01, 0, 0)),
        ("SIMPLE_RADIAL", (9000, 320, 240, 40)),
        ("PINHOLE", (700, 700, 320, 460)),
        ("FOV", (300, 300, 320, 240, 0.9)),
        ("EUCM", (300, 300, 320, 240, 0.6, 1.1)),
    ],
)
def test_unusual_params_are_taken(model: str, params: tuple[float, ...]):
    cameras_of([ImageInfo("1.jpg", (640, 480), params[0] * 0.7)], model=model, params=params)


def test_unknown_focal_length_is_colmaps_guess():
    (camera,), _ = assign_cameras([ImageInfo("1.jpg", PORTRAIT)])
    assert camera.params == pytest.approx((1.2 * 1600, 600, 800, 0))


@pytest.mark.parametrize(("mode", "count"), [("single", 1), ("per-folder", 2), ("per-image", 4), ("auto", 3)])
def test_mode_decides_how_many_cameras_there_are(mode: str, count: int):
    names = {"a/1.jpg": 1000.0, "a/2.jpg": None, "b/1.jpg": None, "b/2.jpg": None}
    images = [ImageInfo(name, LANDSCAPE, focal) for name, focal in names.items()]
    cameras, index = assign_cameras(images, CameraOptions(mode=mode))
    assert len(cameras) == count
    assert set(index) == set(names)
    assert set(index.values()) == set(range(count))


def test_cameras_do_not_depend_on_the_order_of_images():
    images = [ImageInfo(f"{folder}/{n}.jpg", LANDSCAPE, 900.0 + n % 3) for folder in "ab" for n in range(9)]
    expected = assign_cameras(images)
    random.Random(1).shuffle(images)
    assert assign_cameras(images) == expected


def test_one_camera_for_two_sizes_is_refused_with_both_images():
    images = [ImageInfo("flat.jpg", LANDSCAPE), ImageInfo("tall.jpg", PORTRAIT)]
    with pytest.raises(UsageError, match=r"flat\.jpg is 1600x1200 and tall\.jpg is 1200x1600 px.*single"):
        cameras_of(images, mode="single")


def test_params_for_two_sizes_are_refused_in_every_mode():
    images = [ImageInfo("flat.jpg", LANDSCAPE), ImageInfo("tall.jpg", PORTRAIT)]
    with pytest.raises(UsageError, match="--camera-params describe one size"):
        cameras_of(images, mode="auto", params=(1400.0, 800.0, 600.0, 0.0))


def test_given_params_hold_for_every_image_and_win_over_exif():
    images = [ImageInfo(f"{n}.jpg", LANDSCAPE, 1000.0 + n) for n in range(3)]
    cameras, _ = assign_cameras(images, CameraOptions("single", "PINHOLE", (1400.0, 1410.0, 790.0, 610.0)))
    assert [(camera.params, camera.origin) for camera in cameras] == [((1400.0, 1410.0, 790.0, 610.0), "given")]


def test_wrong_number_of_params_names_those_of_the_model():
    with pytest.raises(UsageError, match="SIMPLE_RADIAL takes f, cx, cy, k: 4 numbers; --camera-params has 2"):
        cameras_of([ImageInfo("1.jpg", LANDSCAPE)], params=(1400.0, 800.0))


@pytest.mark.parametrize("focal", [0.0, -5.0, float("nan"), float("inf")])
def test_impossible_focal_length_is_refused(focal: float):
    with pytest.raises(UsageError, match="focal length must be positive"):
        cameras_of([ImageInfo("1.jpg", LANDSCAPE)], params=(focal, 800.0, 600.0, 0.0))


def test_unknown_model_lists_the_known_ones():
    with pytest.raises(UsageError, match="FISHBOWL is unknown.*PINHOLE, SIMPLE_RADIAL"):
        cameras_of([ImageInfo("1.jpg", LANDSCAPE)], model="FISHBOWL")


def test_params_are_read_with_or_without_blanks():
    assert parse_camera_params("1400, 800,600 ,-0.1") == (1400.0, 800.0, 600.0, -0.1)


@pytest.mark.parametrize("text", ["", "1400;800", "1400,,600", "f,cx"])
def test_params_that_are_no_numbers_are_refused(text: str):
    with pytest.raises(UsageError, match="must be numbers separated by commas"):
        parse_camera_params(text)


@pytest.mark.parametrize("model", ["PINHOLE", "OPENCV", "SIMPLE_RADIAL_FISHEYE"])
def test_pycolmap_takes_the_camera_as_it_is(model: str):
    (camera,), _ = assign_cameras([ImageInfo("1.jpg", LANDSCAPE, 1300.0)], CameraOptions(model=model))
    made = to_pycolmap(camera)
    assert (made.model_name, made.width, made.height) == (model, *LANDSCAPE)
    assert made.has_prior_focal_length
    assert made.mean_focal_length() == 1300.0
    assert made.verify_params()
