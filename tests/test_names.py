"""Spellings of names that mean the same file, and suggestions for names that match none."""

from __future__ import annotations

from unicodedata import normalize

import pytest

from romacli.names import nearest_name, respelled, spelled

NFC, NFD = (normalize(form, "Café/é 1.jpg") for form in ("NFC", "NFD"))


def test_names_that_differ_in_unicode_alone_are_the_same():
    assert spelled([NFC, "b.jpg", "c.jpg"], [NFD, "b.jpg"]) == {NFC: NFD, "b.jpg": "b.jpg"}
    assert spelled([NFD], [NFC]) == {NFD: NFC}


def test_where_both_spellings_are_held_each_is_itself():
    assert spelled([NFC, NFD], [NFC, NFD]) == {NFC: NFC, NFD: NFD}
    half = normalize("NFD", "Café") + normalize("NFC", "/é 1.jpg")
    assert spelled([half], [NFC, NFD]) == {}


def test_values_take_the_held_spelling_and_the_exact_one_wins():
    assert respelled({NFC: 1, "other": 2}, [NFD, "b"]) == {NFD: 1, "other": 2}
    assert respelled({NFC: 1, NFD: 2}, [NFD]) == {NFC: 1, NFD: 2}


HELD = ["a/1.jpg", "a/2.jpg", "b/1.jpg", "b/sub/1.jpg", "Hof.JPG", "my photo.jpg", "single/only.jpg"]


@pytest.mark.parametrize(
    ("name", "guess"),
    [
        ("photos/a/1.jpg", "a/1.jpg"),  # relative to a folder above
        ("sub/1.jpg", "b/sub/1.jpg"),  # relative to a folder below
        ("only.jpg", "single/only.jpg"),
        ("A/1.JPG", "a/1.jpg"),
        ("hof.jpg", "Hof.JPG"),
        ("photos/hof.jpg", "Hof.JPG"),
        ("c/1.jpg", None),  # never another folder's file of the same name
        ("1.jpg", None),  # ambiguous
        ("a/only.jpg", None),
        ("my foto.jpg", "my photo.jpg"),
        ("my photo.png", "my photo.jpg"),
        ("2.jpg", "a/2.jpg"),
        ("z.jpg", None),
        ("z.png", None),
    ],
)
def test_guesses_take_the_longest_common_end_of_the_path(name, guess):
    assert nearest_name(name, HELD) == guess
