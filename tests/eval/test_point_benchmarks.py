"""The papers' point benchmarks on tiny data in their layouts: the truth scores 100, shuffled truth at chance level."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from support.homography import HomographyMatcher, image_digest
from support.rendered import Shuffled
from typer.testing import CliRunner, Result

from romacli.cli.app import app
from romacli.eval.benchmarks.benchmark import Task
from romacli.eval.benchmarks.run import summarise
from romacli.eval.benchmarks.table import BENCHMARKS
from romacli.images.decode import read_image
from romacli.matchers.options import MatcherOptions
from romacli.matchers.registry import MATCHERS, load_seeded
from romacli.types import MatcherSpec

SIZES = ((320, 240), (200, 300))
POINTS = np.random.default_rng(1).uniform(0.1, 0.9, (10, 2))


class Pictures(HomographyMatcher):
    """Noise images; corresponding points have the same position relative to the image sides."""

    def __init__(self) -> None:
        self.known: dict[str, np.ndarray] = {}
        super().__init__(self.known)

    def noise(self, size: tuple[int, int]) -> np.ndarray:
        picture = np.random.default_rng(len(self.known)).integers(0, 255, (size[1], size[0], 3), np.uint8)
        self.learn(picture)
        return picture

    def write(self, path: Path, size: tuple[int, int]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(path.suffix, self.noise(size))[1].tobytes())
        self.learn(read_image(path))

    def learn(self, picture: np.ndarray) -> None:
        self.known[image_digest(picture)] = np.diag([1 / picture.shape[1], 1 / picture.shape[0], 1])


def pixels(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Annotators' coordinates: pixel centres at integers."""
    return points * size - 0.5


def spair(root: Path) -> Pictures:
    matcher, lines = Pictures(), []
    for number, kind in enumerate(("cat", "dog", "dog"), 1):
        names = [f"{number}{side}" for side in "ab"]
        for name, size in zip(names, SIZES, strict=True):
            matcher.write(root / f"JPEGImages/{kind}/{name}.jpg", size)
        source, target = (pixels(POINTS[: 2 + number], size) for size in SIZES)
        pair = {
            "category": kind, "src_imname": f"{names[0]}.jpg", "trg_imname": f"{names[1]}.jpg",
            "src_kps": source.tolist(), "trg_kps": target.tolist(), "trg_bndbox": [10, 20, 110, 220],
        }  # fmt: skip
        lines.append(f"{number:06d}-{names[0]}-{names[1]}:{kind}")
        file = root / f"PairAnnotation/test/{lines[-1]}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(pair))
    (root / "Layout/large").mkdir(parents=True)
    (root / "Layout/large/test.txt").write_text("\n".join(lines) + "\n")
    return matcher


def pf_pascal(root: Path) -> Pictures:
    matcher, rows = Pictures(), ["source_image,target_image,class,XA,YA,XB,YB"]
    names = [f"PF-dataset-PASCAL/JPEGImages/{side}.jpg" for side in "ab"]
    for name, size in zip(names, SIZES, strict=True):
        matcher.write(root / name, size)
    columns = [pixels(POINTS[:6], size)[:, axis] for size in SIZES for axis in (0, 1)]
    rows.append(",".join([*names, "3", *(";".join(map(str, column)) for column in columns)]))
    (root / "PF-dataset-PASCAL/test_pairs_pf_pascal.csv").write_text("\n".join(rows) + "\n")
    return matcher


def pf_willow(root: Path) -> Pictures:
    matcher, names = Pictures(), [f"PF-dataset/car(S)/{side}.png" for side in "ab"]
    for name, size in zip(names, SIZES, strict=True):
        matcher.write(root / name, size)
    numbers = np.concatenate([pixels(POINTS, size).T.ravel() for size in SIZES])
    heads = ["imageA", "imageB", *(f"{axis}{side}{i}" for side in "AB" for axis in "XY" for i in range(10))]
    rows = [",".join(heads), ",".join([*names, *map(str, numbers)])]
    (root / "PF-dataset/test_pairs_pf.csv").write_text("\n".join(rows) + "\n")
    return matcher


def films(matcher: Pictures) -> dict[str, Any]:
    video = np.stack([matcher.noise((96, 80)) for _ in range(4)])
    hidden = np.zeros((10, 4), bool)
    hidden[:3, 2] = hidden[9, 0] = True
    return {"bear": {"video": video, "points": np.repeat(POINTS[:, None], 4, axis=1), "occluded": hidden}}


def tapvid(root: Path) -> Pictures:
    matcher = Pictures()
    (root / "tapvid_davis.pkl").write_bytes(pickle.dumps(films(matcher)))
    return matcher


WRITERS = {"spair71k": spair, "pf-pascal": pf_pascal, "pf-willow": pf_willow, "tapvid-davis": tapvid}


def told(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    values: dict[str, Any] = json.loads(result.stdout)
    return values


@pytest.mark.parametrize("protocol", ["points", "pairs"])
@pytest.mark.parametrize("name", WRITERS)
def test_the_truth_scores_100_and_shuffled_truth_scores_chance(name, protocol, tmp_path, run):
    matcher = WRITERS[name](tmp_path)
    words = (name, tmp_path, "--json", "--protocol", protocol)
    assert set(told(run(matcher, *words))["figures"].values()) == {100.0}
    figures = list(told(run(Shuffled(matcher), *words))["figures"].values())
    # A few per cent of random positions in an image are within a tenth of a side of any point.
    assert figures[0] == 0
    assert figures[2] < 25


def test_pictures_are_encoded_once_and_points_seen_in_both_count(tmp_path, run):
    matcher = tapvid(tmp_path)
    values = told(run(matcher, "tapvid-davis", tmp_path, "--json"))
    assert (values["pairs"], values["errors"]) == (3, 9 + 6 + 9)
    assert matcher.images_encoded == 4


@pytest.mark.parametrize(("name", "unit"), [("spair71k", 200), ("pf-pascal", 300), ("pf-willow", None)])
def test_errors_count_in_sides_of_the_second_thing(name, unit, tmp_path):
    WRITERS[name](tmp_path)
    task = BENCHMARKS[name].read(tmp_path)[0]
    expected = unit or np.ptp(task.truth.points[1], axis=0).max()
    np.testing.assert_allclose(task.truth.unit, expected)
    np.testing.assert_allclose(task.truth.points[0] / SIZES[0], POINTS[: len(task.truth.points[0])])


def test_points_are_pooled_or_pairs_are():
    row, tasks = BENCHMARKS["spair71k"], [Task((name, "x"), ((1, 1), (1, 1)), None) for name in "ab"]
    errors = {("a", "x"): [0.0], ("b", "x"): [0.05, 0.2, 0.3]}
    shares = {
        name: list(summarise(row, evaluation, tasks, errors).figures.values())
        for name, evaluation in row.evaluations.items()
    }
    assert shares == {"points": [25, 50, 50, 50], "pairs": pytest.approx([50, 200 / 3, 200 / 3, 200 / 3])}


def test_an_interrupted_run_goes_on_where_it_was(tmp_path, run):
    matcher, file = spair(tmp_path), tmp_path / "errors.jsonl"
    whole = told(run(matcher, "spair71k", tmp_path, "-o", file, "--json"))
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:3]))
    matcher.images_encoded = 0
    assert told(run(matcher, "spair71k", tmp_path, "-o", file, "--json")) == whole
    assert matcher.images_encoded == 2


def test_describers_of_their_own_keypoints_are_refused(tmp_path, run):
    spair(tmp_path)
    refused = run(load_seeded("xfeat", MatcherOptions(device="cpu")), "spair71k", tmp_path)
    assert refused.exit_code == 2
    assert "only describes its own keypoints" in refused.stderr


def test_matcha_runs_at_the_size_of_its_authors(tmp_path, monkeypatch):
    asked = []

    def build(options: MatcherOptions, name: str) -> Any:
        asked.append((options.coarse_resolution, options.upsample))
        return pf_matcher

    pf_matcher = pf_pascal(tmp_path)
    for name in ("dinov2", "mini"):
        monkeypatch.setitem(MATCHERS, name, MatcherSpec(name, build, "", "", defaults=MATCHERS[name].defaults))
        assert CliRunner().invoke(app, ["eval", "pf-pascal", str(tmp_path), "--model", name, "-q"]).exit_code == 0
    assert asked == [((512, 512), True), (None, True)]


class Code:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("code ran",)


def changed(path: str, change: Any) -> Any:
    return lambda root: (root / path).write_text(change((root / path).read_text()))


ANNOTATION = "PairAnnotation/test/000001-1a-1b:cat.json"
PASCAL, WILLOW = "PF-dataset-PASCAL/test_pairs_pf_pascal.csv", "PF-dataset/test_pairs_pf.csv"


@pytest.mark.parametrize(
    ("name", "damage", "words"),
    [
        ("spair71k", lambda root: shutil.rmtree(root / "Layout"), "lacks Layout/large/test.txt. Unpack"),
        ("spair71k", lambda root: (root / ANNOTATION).unlink(), "1a-1b:cat.json cannot be read"),
        ("spair71k", changed(ANNOTATION, lambda text: text[:-40]), "1a-1b:cat.json cannot be read"),
        ("spair71k", lambda root: (root / "JPEGImages/dog/2b.jpg").unlink(), "lacks 1 of 6 pictures"),
        ("spair71k", changed(ANNOTATION, lambda text: text.replace('"src_kps": [[', '"src_kps": [[9')), "outside it"),
        ("spair71k", changed(ANNOTATION, lambda text: text.replace("[10, 20, 110, 220]", "[9, 9, 9, 9]")), "no box"),
        ("pf-pascal", changed(PASCAL, lambda text: text.replace(";", ";x")), "csv line 2 contains no pair"),
        ("pf-pascal", changed(PASCAL, lambda text: text.replace("PF-dataset-PASCAL/J", "../J")), "line 2 names no two"),
        ("pf-pascal", changed(PASCAL, lambda text: text.splitlines()[0]), "lists no pairs"),
        ("pf-willow", changed(WILLOW, lambda text: text.rpartition(",")[0]), "csv line 2 contains no pair"),
        ("tapvid-davis", lambda root: (root / "tapvid_davis.pkl").unlink(), "lacks tapvid_davis.pkl. Unpack"),
        ("tapvid-davis", lambda root: (root / "tapvid_davis.pkl").write_bytes(b"\x80\x04"), "cannot be read as data"),
        ("tapvid-davis", lambda root: (root / "tapvid_davis.pkl").write_bytes(pickle.dumps({"a": Code()})), "builtins"),
        ("tapvid-davis", lambda root: (root / "tapvid_davis.pkl").write_bytes(pickle.dumps({"a": {}})), "film a lacks"),
        ("tapvid-davis", lambda root: (root / "tapvid_davis.pkl").write_bytes(pickle.dumps([1])), "no films by name"),
    ],
)  # fmt: skip
def test_data_that_are_not_whole_are_a_sentence(name, damage, words, tmp_path, run):
    matcher = WRITERS[name](tmp_path)
    damage(tmp_path)
    result = run(matcher, name, tmp_path)
    assert result.exit_code == 3
    assert words in result.stderr
    assert "code ran" not in result.output


def test_a_picture_that_breaks_off_is_named_before_anything_runs(tmp_path, run):
    matcher, broken = spair(tmp_path), tmp_path / "JPEGImages/dog/2b.jpg"
    broken.write_bytes(broken.read_bytes()[:-4000])
    result = run(matcher, "spair71k", tmp_path)
    assert result.exit_code == 3
    assert "2b.jpg" in result.stderr
    assert matcher.images_encoded == 0
