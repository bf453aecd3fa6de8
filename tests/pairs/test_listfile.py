"""The grammar of a pairs file, read and written."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from romacli.errors import InputError, PairsError, StoreError
from romacli.pairs.listfile import ReadPairs, format_pairs, read_own_pairs, read_pairs, write_pairs
from romacli.types import PairList

NAMES = ("a.jpg", "b.jpg", "sub/c.jpg", "my photo.jpg", "über 1.jpg")


@pytest.fixture
def pairs_file(tmp_path, monkeypatch):
    """Return a function that writes `pairs.txt` to the working folder, so that messages show its short name."""
    monkeypatch.chdir(tmp_path)

    def write(content: str | bytes) -> Path:
        path = Path("pairs.txt")
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.jpg b.jpg\n", [("a.jpg", "b.jpg")]),
        ("a.jpg b.jpg", [("a.jpg", "b.jpg")]),
        ("  a.jpg \t  b.jpg  \n", [("a.jpg", "b.jpg")]),
        ("a.jpg\tb.jpg\n", [("a.jpg", "b.jpg")]),
        ("a.jpg\tb.jpg\t0.5\n", [("a.jpg", "b.jpg")]),
        ("a.jpg b.jpg\t0.5\n", [("a.jpg", "b.jpg")]),
        ("a.jpg sub/c.jpg -1.5e-3\n", [("a.jpg", "sub/c.jpg")]),
        ("my photo.jpg\tüber 1.jpg\n", [("my photo.jpg", "über 1.jpg")]),
        ("my photo.jpg\tüber 1.jpg\t12\n", [("my photo.jpg", "über 1.jpg")]),
        ("my photo.jpg \t b.jpg\n", [("my photo.jpg", "b.jpg")]),
        ("# made by hand\n\n   \n  # too\nb.jpg a.jpg\n", [("b.jpg", "a.jpg")]),
        ("\ufeffa.jpg b.jpg\r\nb.jpg sub/c.jpg\r\n", [("a.jpg", "b.jpg"), ("b.jpg", "sub/c.jpg")]),
    ],
)
def test_accepted_lines(pairs_file, text, expected):
    read = read_pairs(pairs_file(text), NAMES)
    assert list(read.pairs.pairs) == expected
    assert read.duplicates == 0


def test_known_names_decide_how_a_line_with_a_tab_is_split(pairs_file):
    path = pairs_file("a b\t7\n")
    assert read_pairs(path, ["a", "b"]).pairs.pairs == (("a", "b"),)
    assert read_pairs(path, ["a", "b", "a b", "7"]).pairs.pairs == (("a b", "7"),)


def test_repeated_and_reversed_pairs_keep_the_first_and_are_counted(pairs_file):
    read = read_pairs(pairs_file("a.jpg b.jpg\nb.jpg a.jpg\nsub/c.jpg a.jpg\na.jpg b.jpg 0.5\n"), NAMES)
    assert read.pairs.pairs == (("a.jpg", "b.jpg"), ("sub/c.jpg", "a.jpg"))
    assert read.duplicates == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.jpg b.jpg\na.jpg\n", "pairs.txt:2: one name, expected two names. "),
        ("a.jpg b.jpg 0.5 7\n", "pairs.txt:1: 4 columns, expected two names. "),
        ("my photo.jpg über 1.jpg\n", "pairs.txt:1: 4 columns, expected two names. A line is two names, separated"),
        ("a.jpg\t\t0.5\n", "pairs.txt:1: 3 columns, expected two names. "),
        ("a.jpg b.jpg sub/c.jpg\n", "pairs.txt:1: the third column, 'sub/c.jpg', is not a number. "),
        ("my photo.jpg\tb.jpg\tx\n", "pairs.txt:1: the third column, 'x', is not a number. "),
        ("\n#\na.jpg a.jpg\n", "pairs.txt:3: a.jpg is paired with itself. Remove the line."),
        ("", "pairs.txt contains no pairs. A line is two names"),
        ("# nothing\n\n", "pairs.txt contains no pairs. "),
        (b"a.jpg b.jpg\n\xfcber.jpg a.jpg\n", "pairs.txt:2: not UTF-8 text. Save the file as UTF-8."),
        ("a.jpg b.jpg".encode("utf-16"), "pairs.txt:1: not UTF-8 text. "),
        (
            "a.jpg z.png\n",
            "pairs.txt:1: z.png is not among the 5 images. "
            "Names are relative to the image folder; correct them, or leave their lines out.",
        ),
        (
            "a.jpg photos/sub/c.jpg\n",
            "pairs.txt:1: photos/sub/c.jpg (did you mean sub/c.jpg?) is not among the 5 images. ",
        ),
        ("my foto.jpg\tb.jpg\t1\n", "pairs.txt:1: my foto.jpg (did you mean my photo.jpg?) is not among the 5 "),
    ],
)
def test_refused_lines_name_file_line_and_remedy(pairs_file, text, message):
    with pytest.raises(PairsError) as caught:
        read_pairs(pairs_file(text), NAMES)
    assert str(caught.value).startswith(message)


def test_unknown_names_are_listed_once_each_with_their_first_line(pairs_file):
    lines = [f"a.jpg {digit * 6}\n" for digit in "1234567"] + ["b.jpg 111111\n"]
    with pytest.raises(PairsError) as caught:
        read_pairs(pairs_file("".join(lines)), NAMES)
    assert str(caught.value) == (
        "pairs.txt names 7 files that are not among the 5 images: 111111 in line 1, 222222 in line 2, "
        "333333 in line 3, 444444 in line 4, 555555 in line 5 and 2 more. "
        "Names are relative to the image folder; correct them, or leave their lines out."
    )


def test_missing_file_and_folder_are_missing_input(pairs_file, tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.txt cannot be read: No such file or directory\. Give a text"):
        read_pairs(Path("nowhere.txt"), NAMES)
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        read_pairs(tmp_path, NAMES)


@pytest.mark.parametrize(
    ("content", "fault"),
    [(None, "missing"), (b"", "damaged"), (b"\0\xff", "damaged"), (b"a.jpg b.jpg\na.jpg c.j", "damaged")],
)
def test_a_list_that_a_job_has_lost_is_written_anew_by_the_command_that_made_it(tmp_path, content, fault):
    path = tmp_path / "pairs.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StoreError, match=rf"pairs\.txt is {fault}\. Run the same `romacli match`"):
        read_own_pairs(path)


def test_dash_reads_standard_input(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("a.jpg\tüber 1.jpg\n".encode())))
    assert read_pairs("-", NAMES).pairs.pairs == (("a.jpg", "über 1.jpg"),)


def test_errors_in_standard_input_say_so(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a.jpg\n")))
    with pytest.raises(PairsError, match="standard input:1: one name"):
        read_pairs("-", NAMES)


def test_names_without_spaces_are_written_as_hloc_reads_them(tmp_path):
    path = tmp_path / "pairs.txt"
    write_pairs(path, PairList((("b.jpg", "a.jpg"), ("my photo.jpg", "a.jpg"), ("a.jpg", "sub/c.jpg"))))
    assert path.read_bytes() == b"b.jpg a.jpg\nmy photo.jpg\ta.jpg\na.jpg sub/c.jpg\n"


@pytest.mark.parametrize("name", ["a\tb.jpg", "a\nb.jpg", "a\rb.jpg", "#1.jpg", "  # x", "\ufeffa", " ", "", "a\udcff"])
def test_names_that_no_line_can_hold_are_refused(name):
    with pytest.raises(PairsError, match=r"a list of pairs cannot represent the name '.*'\. Rename the image\."):
        format_pairs(PairList((("a.jpg", name),)))


def test_a_file_that_cannot_be_written_is_a_store_error(tmp_path):
    (tmp_path / "nowhere").write_text("")
    with pytest.raises(StoreError, match=r"pairs\.txt cannot be written: .*nowhere is a file\. Choose"):
        write_pairs(tmp_path / "nowhere" / "pairs.txt", PairList((("a", "b"),)))


# Spaces of every kind, digits and # within names; names that no line can contain are tested above.
NAME = st.text(st.sampled_from("ab#1. /\u00a0\u2028\u3000\x0bü"), min_size=1, max_size=5).filter(
    lambda name: name.strip() and not name.lstrip().startswith("#")
)
PAIRS = st.lists(st.tuples(NAME, NAME).filter(lambda pair: pair[0] != pair[1]), min_size=1, max_size=8).map(
    lambda pairs: PairList(tuple({frozenset(pair): pair for pair in pairs}.values()))
)


@given(pairs=PAIRS)
def test_every_list_reads_back_as_it_was_written(pairs, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "round_trip.txt"
    write_pairs(path, pairs)
    names = sorted({name for pair in pairs.pairs for name in pair})
    assert read_pairs(path, names) == ReadPairs(pairs, duplicates=0)
    assert read_pairs(path, None) == ReadPairs(pairs, duplicates=0)
