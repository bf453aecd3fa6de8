"""Which files are photographs, in which order, and the messages when there are none."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from romacli.errors import InputError
from romacli.images.extras import remedy
from romacli.images.listing import list_images


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """An empty folder `photos` in the working folder, named as users name it in messages."""
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    return Path("photos")


@pytest.fixture
def without_extras(monkeypatch):
    monkeypatch.setattr("romacli.images.extras.find_spec", lambda _: None)


def fill(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def refusal(*args, **kwargs) -> str:
    with pytest.raises(InputError) as caught:
        list_images(*args, **kwargs)
    return str(caught.value)


def test_names_are_posix_relative_to_the_root_at_any_depth(photos):
    fill(photos, "b.jpg", "left/a.jpg", "left/deep/er/c.jpg")
    images = list_images(photos)
    assert images.root == photos
    assert images.names == ("b.jpg", "left/a.jpg", "left/deep/er/c.jpg")


def test_extensions_count_in_either_case_and_hidden_files_never(photos):
    wanted = ("1.jpg", "2.JPEG", "3.Png", "4.tif", "5.TIFF", "6.bmp", "7.webp", "8 ü.jpg")
    fill(
        photos,
        *wanted,
        "notes.txt",
        "jpg",
        "a.jpg.txt",
        "._mac.jpg",
        ".x.jpg",
        ".thumbs/a.jpg",
        "@eaDir/.a.jpg",
    )
    assert list_images(photos).names == wanted


@pytest.mark.parametrize(
    "ordered",
    [
        ("img1.jpg", "img2.jpg", "img10.jpg", "img100.jpg"),
        ("001.jpg", "01.jpg", "1.jpg", "2.jpg"),
        ("IMG_1.jpg", "img_2.jpg", "IMG_3.jpg"),
        ("1341847980.722988.jpg", "1341847981.726650.jpg"),
        ("01/b.jpg", "1/a.jpg", "1/c.jpg", "2/a.jpg", "10/a.jpg"),
        ("A/1.jpg", "A/3.jpg", "a/2.jpg"),
    ],
)
def test_natural_order_keeps_folders_together(photos, ordered):
    fill(photos, *ordered)
    assert list_images(photos).names == ordered


@given(seed=st.integers(0, 10**6))
def test_order_does_not_depend_on_the_order_of_the_directory(seed, tmp_path_factory):
    root = tmp_path_factory.getbasetemp() / "shuffled"
    names = ["1.jpg", "01.jpg", "a1.jpg", "A1.jpg", "a/1.jpg", "a 1.jpg"]
    fill(root, *names)
    random.Random(seed).shuffle(names)
    names_file = root / "names.txt"
    names_file.write_text("\n".join(names))
    assert list_images(root, names_file=names_file).names == list_images(root).names


def test_a_link_to_a_folder_is_followed_but_never_back_into_its_own(photos, tmp_path):
    fill(tmp_path / "elsewhere", "a.jpg")
    fill(photos, "sub/b.jpg")
    (photos / "link").symlink_to(tmp_path / "elsewhere")
    (photos / "sub" / "loop").symlink_to(photos.resolve())
    assert list_images(photos).names == ("link/a.jpg", "sub/b.jpg")


def test_links_that_lead_nowhere_are_listed_for_reading_to_name_them(photos):
    (photos / "gone.jpg").symlink_to("nowhere.jpg")
    (photos / "self.jpg").symlink_to("self.jpg")
    assert list_images(photos).names == ("gone.jpg", "self.jpg")


def test_missing_folder_and_file_instead_of_folder(photos):
    fill(photos, "a.jpg")
    remedy = "Give the folder that contains the photographs."
    assert refusal(Path("fotos")) == f"fotos cannot be opened: No such file or directory. {remedy}"
    assert refusal(photos / "a.jpg") == f"photos/a.jpg is a file, not a folder. {remedy}"


@pytest.mark.usefixtures("without_extras")
def test_an_empty_folder_says_which_extensions_count(photos):
    said = refusal(photos)
    assert "photos is empty" in said
    assert ".jpg .jpeg .png .tif .tiff .bmp .webp .jfif" in said


@pytest.mark.usefixtures("without_extras")
def test_a_folder_of_other_files_says_how_many_were_seen(photos):
    fill(photos, "IMG_2.heic", "IMG_1.heic", "clips/a.mov", ".hidden.jpg")
    said = refusal(photos)
    assert "none of its files (3, such as 'IMG_1.heic') ends in .jpg .jpeg .png" in said
    assert "Run pip install 'romacli[heic]', or convert them to JPEG or PNG, or give another folder." in said


@pytest.mark.usefixtures("without_extras")
def test_photographs_of_other_formats_are_named_for_the_caller_to_report(photos):
    fill(photos, "10.HEIC", "9.heic", "raw/1.CR2", "a.jpg", "notes.txt", ".b.heic")
    pictures = list_images(photos).left_out.pictures
    assert pictures == ("9.heic", "10.HEIC", "raw/1.CR2")
    assert remedy(pictures) == "Run pip install 'romacli[heic,raw]', or convert them to JPEG or PNG"
    assert remedy(["1.jxl"]) == "Convert them to JPEG or PNG"


def test_what_an_extra_reads_counts_as_a_photograph(photos, monkeypatch):
    fill(photos, "1.HEIC", "2.dng", "3.jxl", "4.jpg")
    monkeypatch.setattr("romacli.images.extras.find_spec", lambda package: package == "rawpy" or None)
    assert list_images(photos).names == ("2.dng", "4.jpg")
    assert list_images(photos).left_out.pictures == ("1.HEIC", "3.jxl")


def test_every_file_is_taken_or_named(photos):
    taken = ("1.jfif", "2.jpe", "3.MPO", "4.jp2", "5.gif", "6.ppm", "7.pgm", "8.pnm", "9.jpg")
    fill(photos, *taken, "b.jxl", "c.exr", "d.avif", "notes.txt", "clip.mov", "sub/jpg", ".hidden")
    assert list_images(photos).names == taken
    assert list_images(photos).left_out.pictures == ("b.jxl", "c.exr", "d.avif")
    assert list_images(photos).left_out.others == ("clip.mov", "notes.txt", "sub/jpg")


def test_copies_and_masks_of_a_data_set_are_left_out(photos):
    taken = ("hall/images/a 1.JPG", "hall/images/b.png", "hall/images/left/a.jpg", "hall/images_4/only here.jpg")
    copies = (
        *("hall/images_2/a 1.png", "hall/images_4/left/a.jpg"),
        *("hall/masks/a 1.JPG.png", "hall/masks/b.png", "hall/masks/left/a.png"),
    )
    fill(photos, *taken, *copies)
    assert list_images(photos).names == taken
    assert list_images(photos).left_out.twins == copies
    assert list_images(photos / "hall" / "images_4").names == ("left/a.jpg", "only here.jpg")


def test_views_of_a_rig_and_visits_of_a_place_are_no_copies(photos):
    names = ("cam0/1.jpg", "cam1/1.jpg", "images/1.jpg", "images_1/2.jpg", "images_night/1.jpg", "masks/3.jpg")
    fill(photos, *names)
    assert list_images(photos).names == names
    assert list_images(photos).left_out.twins == ()


def test_a_folder_that_cannot_be_listed_is_an_error_not_a_gap(photos, monkeypatch):
    fill(photos, "a.jpg", "closed/b.jpg")
    scandir = os.scandir

    def guarded(path):
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    assert refusal(photos) == (
        "photos/closed cannot be listed: Permission denied. Change its permissions, or move it elsewhere."
    )


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names themselves")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a\tb.jpg", "photos contains 'a\\tb.jpg', a name with a tab, line break or other control character, "),
        ("a\nb.jpg", "photos contains 'a\\nb.jpg', a name with a tab, line break or other control character, "),
        (
            os.fsdecode(b"caf\xe9.jpg"),
            "photos contains 'caf\\udce9.jpg', a name that is not valid UTF-8. Rename it.",
        ),
        ("#1.jpg", "photos contains #1.jpg; in a pair list a leading # starts a comment. Rename it."),
    ],
)
def test_names_that_the_formats_cannot_hold_are_refused(photos, name, message):
    fill(photos, "ok.jpg", name)
    assert refusal(photos).startswith(message)


def test_a_names_file_chooses_among_the_photographs(photos):
    fill(photos, "1.jpg", "2.jpg", "10.jpg", "sub/my 3.jpg", "scan.dat")
    names_file = Path("names.txt")
    names_file.write_bytes("\ufeff# chosen\r\n10.jpg\r\n\r\n./2.jpg\r\nsub//my 3.jpg\r\nscan.dat\r\n2.jpg\r\n".encode())
    assert list_images(photos, names_file=names_file).names == ("2.jpg", "10.jpg", "scan.dat", "sub/my 3.jpg")


def test_a_names_file_that_names_what_is_not_there(photos):
    fill(photos, "1.jpg", "sub/1.jpg", "folder/2.png")
    Path("outside.jpg").touch()
    names_file = Path("names.txt")
    remedy = "Names are relative to photos; correct them, or leave them out."
    names_file.write_text("1.jpg\nz.jpg\n")
    assert refusal(photos, names_file=names_file) == (f"names.txt names a file that is not in photos: z.jpg. {remedy}")
    names_file.write_text(f"z.jpg\nfolder\n../outside.jpg\n{photos.resolve()}/1.jpg\na\nb\nc\n")
    assert refusal(photos, names_file=names_file) == (
        "names.txt names 7 files that are not in photos: "
        f"z.jpg, folder (did you mean folder/2.png?), ../outside.jpg, {photos.resolve()}/1.jpg (did you mean 1.jpg?), "
        f"a and 2 more. {remedy}"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "names.txt cannot be read: No such file or directory. Give a text file of names."),
        (b"# none\n\n", "names.txt contains no names. Write one name relative to photos on each line."),
        (b"caf\xe9.jpg\n", "names.txt is not UTF-8 text. Give a text file of names, saved as UTF-8."),
    ],
)
def test_a_names_file_that_cannot_serve(photos, content, message):
    if content is not None:
        Path("names.txt").write_bytes(content)
    assert refusal(photos, names_file=Path("names.txt")) == message


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names themselves")
def test_a_locale_that_is_not_utf8_is_told(tmp_path, monkeypatch):
    (tmp_path / os.fsdecode(b"caf\xe9.jpg")).touch()
    monkeypatch.setattr("sys.getfilesystemencoding", lambda: "ascii")
    with pytest.raises(InputError, match="Set PYTHONUTF8=1"):
        list_images(tmp_path)
