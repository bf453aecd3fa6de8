from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from romacli.errors import InputError, PairsError
from romacli.eval.pose_list import read_pose_list

K = "500 0 320 0 510 240 0 0 1"
T = "0 -1 0 1 1 0 0 2 0 0 1 3 0 0 0 1"
LINE = f"a.jpg b.jpg 0 3 {K} {K} {T}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    images = tmp_path / "Ansichten für später"
    (images / "Straße 1").mkdir(parents=True)
    for name in ("a.jpg", "b.jpg", "Straße 1/c d.jpg"):
        (images / name).touch()
    return images


def written(folder: Path, text: str) -> Path:
    path = folder.parent / "pairs.txt"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_line_becomes_names_turns_matrices_and_a_pose(folder):
    (pair,) = read_pose_list(written(folder, f"# of a test\n\n{LINE}\r\n"), folder)
    assert (pair.names, pair.quarter_turns, pair.line) == (("a.jpg", "b.jpg"), (0, 3), 3)
    np.testing.assert_array_equal(pair.intrinsics[1], [[500, 0, 320], [0, 510, 240], [0, 0, 1]])
    np.testing.assert_allclose(pair.rotation, [[0, -1, 0], [1, 0, 0], [0, 0, 1]], atol=1e-12)
    np.testing.assert_array_equal(pair.translation, [1, 2, 3])


def test_names_with_spaces_stand_on_both_sides_of_a_tab(folder):
    (pair,) = read_pose_list(written(folder, LINE.replace("a.jpg b.jpg", "a.jpg\tStraße 1/c d.jpg")), folder)
    assert pair.names == ("a.jpg", "Straße 1/c d.jpg")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a.jpg b.jpg", r"pairs\.txt:2: 2 columns, expected 38; it has no ground truth"),
        (f"a.jpg b.jpg 0 0 {K} {K}", "22 columns, expected 38"),
        (LINE + " 7", "39 columns, expected 38"),
        (LINE.replace("510", "wide", 1), r"column 9, 'wide', is not a number"),
        (LINE.replace(" 3 ", " 4 ", 1), "rot0 and rot1 are 0 and 4, expected quarter turns"),
        (LINE.replace(K, "0 0 320 0 0 240 0 0 1", 1), "K0 is no camera matrix"),
        (f"a.jpg b.jpg 0 0 {K} {'0 ' * 9}{T}", "K1 is no camera matrix"),
        (LINE.replace("0 -1 0 1 1", "0 -2 0 1 1"), "no rigid motion"),
        (LINE.replace("0 -1 0 1 1", "0 1 0 1 1"), "no rigid motion"),
        (f"a.jpg b.jpg 0 0 {K} {K} 1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1", "does not move"),
        (LINE.replace("0 0 1 3", "0 0 nan 3"), "column 33 is nan"),
        (LINE.replace("b.jpg", "gone.jpg"), r"pairs\.txt:2: .*gone\.jpg does not exist"),
    ],
)
def test_a_bad_line_is_named_with_file_and_number(folder, line, message):
    with pytest.raises(PairsError, match=message):
        read_pose_list(written(folder, f"{LINE}\n{line}\n"), folder)


def test_an_empty_list_a_missing_list_and_a_missing_folder_are_refused(folder, tmp_path):
    with pytest.raises(PairsError, match="contains no pairs"):
        read_pose_list(written(folder, "# nothing\n"), folder)
    with pytest.raises(InputError, match="cannot be read"):
        read_pose_list(tmp_path / "gone.txt", folder)
    with pytest.raises(InputError, match="is not a folder"):
        read_pose_list(written(folder, LINE), tmp_path / "gone")


def test_text_in_another_encoding_is_refused(folder):
    path = folder.parent / "latin.txt"
    path.write_bytes(LINE.replace("a.jpg", "ä.jpg").encode("latin-1"))
    with pytest.raises(InputError, match="not UTF-8"):
        read_pose_list(path, folder)
