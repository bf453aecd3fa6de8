"""Which mask belongs to which photograph, what it keeps of a grid, and the messages for masks that do not fit."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from romacli.errors import InputError
from romacli.images.listing import list_images
from romacli.images.masks import find_masks, kept_cells, without_masks
from romacli.images.options import MaskOptions

SIZE = (44, 30)
NAMES = ["a/größe 1.jpg", "b.png"]
LEFT = np.arange(SIZE[0]) < 20


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        write(Path("photos") / name, np.full(SIZE[::-1], 90, np.uint8))
    return Path("photos")


def write(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, pixels)[1].tobytes())
    return path


def black_left(size=SIZE) -> np.ndarray:
    mask = np.full(size[::-1], 255, np.uint8)
    mask[:, :20] = 0
    return mask


def refusal(*args) -> str:
    with pytest.raises(InputError) as caught:
        find_masks(*args)
    return str(caught.value)


@pytest.mark.parametrize("mask", ["a/größe 1.jpg.png", "a/größe 1.png", "a/größe 1.jpg.PNG"])
def test_a_mask_is_found_by_colmaps_name_or_the_photographs_own(photos, mask):
    write(Path("masks") / mask, black_left())
    masks = find_masks(photos, NAMES, MaskOptions(Path("masks")))
    assert list(masks.files) == ["a/größe 1.jpg"]
    np.testing.assert_array_equal(masks.read("a/größe 1.jpg"), np.tile(~LEFT, (SIZE[1], 1)))
    assert masks.read("b.png") is None


def test_colmaps_name_goes_before_the_photographs_own(photos):
    for name in ("b.jpg.png", "b.png"):
        write(Path("masks") / name, black_left())
    masks = find_masks(None, ["b.jpg"], MaskOptions(Path("masks")))
    assert masks.files == {"b.jpg": (Path("masks/b.jpg.png"),)}


@pytest.mark.parametrize("colour", [(0, 0, 1), (255, 255, 255), (3, 0, 0)])
def test_only_black_is_ignored(photos, colour):
    mask = np.zeros((*SIZE[::-1], 3), np.uint8)
    mask[5, 7] = colour
    write(Path("masks/b.png.png"), mask)
    kept = find_masks(photos, NAMES, MaskOptions(Path("masks"))).read("b.png")
    assert np.argwhere(kept).tolist() == [[5, 7]]


LABELS = np.tile((~LEFT).astype(np.uint8), (SIZE[1], 1))  # 1 keeps, and occurs only on the right
WHITE = np.full((*SIZE[::-1], 3), 255, np.uint8)
PALETTE = Image.fromarray(LABELS)
PALETTE.putpalette([0, 0, 0, 1, 0, 0])
CUT_OUT = Image.fromarray(LABELS)
CUT_OUT.putpalette([255, 255, 255, 255, 255, 255])
DATA = {
    "labels": (LABELS, {}),
    "labels of 16 bits": (LABELS.astype(np.uint16), {}),
    "low bits of 16": (LABELS.astype(np.uint16) * 200, {}),
    "one bit": (LABELS.astype(bool), {}),
    "palette": (PALETTE, {}),
    "palette of one bit": (PALETTE, {"bits": 1}),
    "transparent palette": (CUT_OUT, {"transparency": 0}),
    "alpha": (np.dstack([WHITE, LABELS * 255]), {}),
    "faint alpha": (np.dstack([WHITE, LABELS]), {}),
    "grey and alpha": (np.dstack([WHITE[..., 0], LABELS * 255]), {}),
}


@pytest.mark.parametrize("kind", DATA)
def test_masks_are_data(photos, kind):
    pixels, options = DATA[kind]
    Path("masks").mkdir()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save("masks/b.png", **options)
    kept = find_masks(photos, NAMES, MaskOptions(Path("masks"))).read("b.png")
    np.testing.assert_array_equal(kept, LABELS.astype(bool))


def test_one_mask_for_all_joins_those_of_each(photos):
    write(Path("masks/b.png.png"), black_left())
    camera = write(Path("hood.png"), np.flipud(np.tril(np.full(SIZE[::-1], 255, np.uint8))))
    masks = find_masks(photos, NAMES, MaskOptions(Path("masks"), camera))
    alone = masks.read("a/größe 1.jpg")
    np.testing.assert_array_equal(masks.read("b.png"), alone & ~LEFT)
    assert (alone & LEFT).sum() > 0


def test_a_mask_of_another_size_is_named_with_its_photograph(photos):
    write(Path("masks/b.png.png"), black_left((40, 30)))
    masks = find_masks(photos, NAMES, MaskOptions(Path("masks")))
    with pytest.raises(InputError) as caught:
        masks.require_sizes(dict.fromkeys(NAMES, SIZE))
    assert str(caught.value) == (
        "the mask masks/b.png.png is 40x30 px and b.png is 44x30 px. "
        "Give a mask of the photograph's size, in its stored orientation."
    )


def test_a_mask_that_is_no_image_is_named_before_any_work(photos):
    write(Path("masks/b.png.png"), black_left()).write_bytes(b"no image")
    with pytest.raises(InputError, match=r"the mask masks/b\.png\.png cannot be read\. Save it as PNG again"):
        find_masks(photos, NAMES, MaskOptions(Path("masks"))).require_sizes({"b.png": SIZE})


def test_a_mask_that_is_cut_off_is_named_before_any_work(photos):
    path = write(Path("masks/b.png.png"), black_left())
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(InputError, match=r"masks/b\.png\.png is cut off before its end"):
        find_masks(photos, NAMES, MaskOptions(Path("masks"))).require_sizes(dict.fromkeys(NAMES, SIZE))


def test_a_mask_of_no_photograph_is_named(photos):
    write(Path("masks/b.png"), black_left())
    write(Path("masks/c.jpg.png"), black_left())
    assert refusal(photos, NAMES, MaskOptions(Path("masks"))) == (
        "masks/c.jpg.png is the mask of no photograph: photos contains no c.jpg, with any extension. "
        "Rename or remove the mask."
    )


def test_masks_of_a_data_set_whose_root_was_given_say_which_folder_to_give(photos):
    write(photos / "images" / "c.jpg", black_left())
    write(photos / "masks" / "c.jpg.png", black_left())
    said = refusal(photos, ["images/c.jpg"], MaskOptions(photos / "masks"))
    assert "masks/c.jpg.png is the mask of no photograph" in said
    assert "Give photos/images for the photographs." in said


def test_masks_of_photographs_that_are_not_listed_may_stay(photos):
    for name in ("b.png.png", "a/größe 1.png"):
        write(Path("masks") / name, black_left())
    assert list(find_masks(photos, ["b.png"], MaskOptions(Path("masks"))).files) == ["b.png"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (MaskOptions(Path("nowhere")), "nowhere is not a folder. Give --mask-dir the folder of the masks."),
        (MaskOptions(Path("photos")), "photos contains the photographs themselves. Give --mask-dir a separate folder"),
        (MaskOptions(camera_mask=Path("hood.png")), "hood.png is not a file. Give --camera-mask one image"),
        (MaskOptions(Path("empty")), "empty contains no mask of the 2 photographs. That of a/größe 1.jpg is a/größe 1"),
        (MaskOptions(Path("jpegs")), "jpegs/b.jpg is not PNG, and lossy formats do not preserve black. Save"),
    ],
)
def test_what_holds_no_masks_is_refused(photos, options, message):
    Path("empty").mkdir()
    write(Path("jpegs/b.jpg"), black_left())
    assert refusal(photos, NAMES, options).startswith(message)


def test_masks_among_the_photographs_are_no_photographs(photos):
    write(photos / "masks" / "b.png.png", black_left())
    write(photos / "hood.png", black_left())
    options = MaskOptions(photos / "masks", photos / "hood.png")
    assert list(without_masks(list_images(photos), options).names) == NAMES


@pytest.mark.parametrize("shape", [(30, 44), (7, 5), (10, 11), (64, 64)])
def test_a_cell_is_kept_when_no_black_pixel_reaches_into_it(shape):
    kept = np.random.default_rng(0).random(SIZE[::-1]) > 0.02
    fine = np.kron(kept, np.ones(shape, bool))  # every pixel is split so that cells have a whole number of parts
    expected = fine.reshape(shape[0], SIZE[1], shape[1], SIZE[0]).all(axis=(1, 3))
    np.testing.assert_array_equal(kept_cells(kept, shape), expected)
