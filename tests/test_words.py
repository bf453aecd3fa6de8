"""Numbers agree with their nouns in every message."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from support.report_summary import summary_of, verified_pair
from typer.testing import CliRunner

from romacli.cli.app import app
from romacli.report.advice import verdict
from romacli.report.summary import ModelSummary
from romacli.words import counted, counted_of


@pytest.mark.parametrize(
    ("count", "words", "sentence"),
    [
        (1, ("pair",), "1 pair"),
        (0, ("pair",), "0 pairs"),
        (12345, ("match", "matches"), "12,345 matches"),
        (1, ("image is", "images are"), "1 image is"),
    ],
)
def test_a_number_agrees_with_its_noun(count: int, words: tuple[str, ...], sentence: str) -> None:
    assert counted(count, *words) == sentence


def test_a_verb_agrees_with_the_part_that_is_counted() -> None:
    assert counted_of(1, 3, "image", "is", "are") == "1 of 3 images is"
    assert counted_of(2000, 3000, "image", "is", "are") == "2,000 of 3,000 images are"
    assert counted_of(0, 2, "query", "has", "have", "queries") == "0 of 2 queries have"


def test_commands_count_one_pair(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / "photos").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "photos" / name), np.zeros((8, 8, 3), np.uint8))
    lists = [tmp_path / "one.txt", tmp_path / "both.txt"]
    made = CliRunner().invoke(app, ["pairs", "sequential", str(tmp_path / "photos"), "-o", str(lists[0])])
    assert made.stderr.startswith("1 pair of 2 images in ")
    merged = CliRunner().invoke(app, ["pairs", "merge", str(lists[0]), "-o", str(lists[1])])
    assert "\n1 pair in " in merged.stderr
    assert ": 1 new pair" in merged.stderr


def test_the_report_counts_one_model_and_one_image() -> None:
    pairs = [verified_pair(0, 1), verified_pair(1, 2)]
    summary = summary_of(3, pairs, model=ModelSummary(1, 1, 2.0, 0.5, 2, {}, ()))
    assert "1 of 3 images is registered, with 1 point " in verdict(summary).sentence
    assert "There is also 1 smaller model." in verdict(summary).sentence
