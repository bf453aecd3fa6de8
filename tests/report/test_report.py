"""Reports of jobs that worked, that stopped half-way and that never matched."""

from __future__ import annotations

import json
import re
import resource
import shutil
import sys
from base64 import b64decode
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.plane import PlanePhotographs
from support.report_summary import model_of, summary_of, verified_pair
from support.small_job import NAMES, plane_job
from support.small_scene import make_scene
from typer.testing import CliRunner, Result

from romacli.cli.app import app
from romacli.colmap.options import CameraOptions
from romacli.colmap.poses import load_model
from romacli.colmap.reading import read_inliers
from romacli.colmap.rigs import read_rigs
from romacli.errors import InputError, StoreError
from romacli.job.diagnosis import Placed
from romacli.job.options import ImportOptions
from romacli.job.outputs.database import import_matches
from romacli.job.outputs.model import advice_on
from romacli.mapping.incremental import write_model
from romacli.mapping.options import MapperOptions
from romacli.mapping.reconstruct import reconstruct
from romacli.progress import Silent
from romacli.report.advice import verdict, warnings
from romacli.report.charts import figures
from romacli.report.collect import collect
from romacli.report.page import page
from romacli.report.summary import CameraSummary, ModelSummary, PairRow, Tracks
from romacli.report.thumbnails import Thumbnails, blank_share, chosen_pairs
from romacli.show.folder import open_folder
from romacli.stop import StopRequest
from romacli.store.history import Run, append_run, noted, read_runs
from romacli.store.images import KnownImage, write_images
from romacli.store.journal import JournalWriter
from romacli.store.layout import Layout
from romacli.store.localized import write_localized
from romacli.store.manifest import fingerprint

pytest.importorskip("plotly")
pytest.importorskip("matplotlib")
MOST_BYTES = 8e6


def report(*words: object) -> Result:
    return CliRunner().invoke(app, ["report", *map(str, words)])


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> tuple[Layout, PlanePhotographs]:
    return plane_job(tmp_path_factory.mktemp("report"), refine=True)


@pytest.fixture
def copied(job: tuple[Layout, PlanePhotographs], tmp_path: Path) -> Layout:
    shutil.copytree(job[0].root, tmp_path / "job")
    return Layout(tmp_path / "job")


def test_focal_lengths_are_told_with_their_source_and_mappers_with_their_reason() -> None:
    told = "camera 1 (6 images): focal length 689 px, refined from 640 px from 99 pairs (600 to 660 px)"
    mappers = ("incremental: 2 of 6 images (4 of 6 connected images not registered)", "global: 6 of 6 images, kept")
    model = ModelSummary(6, 1000, 4.0, 0.9, 1, {4: 1000}, (), focal_lengths=(told,), mappers=mappers)
    summary = summary_of(6, [verified_pair(0, 1)], model=model)
    html = page(summary, verdict(summary), (), (), {}, Thumbnails(), twin="report.json")
    assert "99 pairs (600 to 660 px)" in html
    assert "4 of 6 connected images not registered" in html


def test_a_finished_job_is_told_in_html_and_json(copied: Layout, job: tuple[Layout, PlanePhotographs]) -> None:
    result = report(copied.root, "--json")
    assert result.exit_code == 0, result.stderr
    values = json.loads(result.stdout)
    assert values == json.loads(copied.report.with_suffix(".json").read_text())
    assert values["stages"]["pairs"] == {"planned": 6, "finished": 6, "rejected": 0, "matched": 6}
    assert values["timings"]["matching"]["encodes"] == len(NAMES)
    assert values["settings"]["model"] == "homography"
    assert {image["name"] for image in values["images"]} == set(NAMES)
    assert all(image["refined"] > 0.5 and 0 < image["shift_px"] < 10 for image in values["images"])
    assert values["tracks"]["longest"] == len(NAMES)
    assert any("database.db is missing" in text for text in values["missing"])
    html = copied.report.read_text(encoding="utf-8")
    assert len(html) < MOST_BYTES
    assert html.count("src='data:image/jpeg;base64,") == len(values["shown_pairs"]) == 6
    for name in NAMES:
        assert json.dumps(name) in html
    own = re.sub(r"<script>\n.*?</script>", "", html, flags=re.DOTALL)
    assert re.findall(r"""(?:src|href)\s*=\s*["'](?!data:)[^"']*["']""", own) == []
    assert "@import" not in own
    assert "url(" not in own


def test_half_a_job_is_reported_as_half(copied: Layout, job: tuple[Layout, PlanePhotographs]) -> None:
    with copied.pairs.open("a") as file:
        file.write(f"new.png\t{NAMES[0]}\n")
    result = report(copied.root, "--json")
    values = json.loads(result.stdout)
    assert values["verdict"]["state"] == "open"
    assert "1 of 7 pairs is not matched yet" in values["missing"][0]
    assert "1 of 5 photographs cannot be read" in " ".join(values["missing"])
    assert len(values["shown_pairs"]) == 6


def test_pairs_of_photographs_that_changed_since_are_not_matched(copied: Layout) -> None:
    with open_folder(copied).journal() as journal:
        results = [(pair, journal.read(pair)) for pair in journal.pairs]
    shutil.rmtree(copied.journal)
    now = dict.fromkeys(NAMES, (1, 1))
    with JournalWriter(copied.journal, fingerprint(open_folder(copied).manifest), stamps=now) as writer:
        writer.append(results)
    write_images(copied.images, {name: KnownImage((stamp,)) for name, stamp in {**now, NAMES[0]: (2, 2)}.items()})
    values = json.loads(report(copied.root, "--json").stdout)
    assert "3 of 6 pairs are not matched yet" in values["missing"][0]


def test_photographs_that_are_gone_are_said(copied: Layout, tmp_path: Path) -> None:
    for words, phrase in (
        (("--images", tmp_path / "nowhere"), "nowhere is not a folder"),
        ((), "does not record where its photographs are"),
    ):
        if not words:
            copied.runs.unlink()
        values = json.loads(report(copied.root, "--json", *words).stdout)
        assert phrase in " ".join(values["missing"])
        assert values["shown_pairs"] == []
        assert values["tracks"]["count"] > 0


@pytest.mark.parametrize("file", ["features", "matches", "journal", "images"])
def test_a_job_without_some_of_its_files_still_has_a_report(copied: Layout, file: str) -> None:
    path = getattr(copied, file)
    shutil.rmtree(path) if path.is_dir() else path.write_bytes(b"not what it was")
    require_report(copied)


def test_a_job_whose_file_cannot_be_read_still_has_a_report(copied: Layout) -> None:
    copied.matches.unlink()
    copied.matches.mkdir()
    assert f"{copied.matches} cannot be read: Is a directory" in " ".join(require_report(copied))


def require_report(job: Layout) -> list[str]:
    """Check that there is one; what it misses."""
    result = report(job.root, "--json", "--images", "gone")
    assert result.exit_code == 0, result.stderr
    assert job.report.exists()
    missing: list[str] = json.loads(result.stdout)["missing"]
    assert len(missing) > 1
    return missing


def test_no_job_and_bad_names_are_refused(copied: Layout, tmp_path: Path) -> None:
    assert report(tmp_path).exit_code == 3
    assert "contains no job" in report(tmp_path).stderr
    assert report(copied.root, "-o", tmp_path / "report.json").exit_code == 2
    assert report(copied.root, "--images", "gone", "-o", tmp_path / "neue mappe" / "ü.html").exit_code == 0
    assert (tmp_path / "neue mappe" / "ü.json").exists()


def test_a_folder_is_a_place_for_the_report(copied: Layout, tmp_path: Path) -> None:
    assert report(copied.root, "--images", "gone", "-o", tmp_path).exit_code == 0
    assert (tmp_path / "report.html").exists()
    assert (tmp_path / "report.json").exists()


def test_numbers_are_written_without_the_libraries_that_draw(copied: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("matplotlib", "networkx", "plotly"):
        monkeypatch.setitem(sys.modules, name, None)
    result = report(copied.root, "--json")
    assert result.exit_code == 4
    assert "pip install 'romacli[report]'" in result.stderr
    values = json.loads(copied.report.with_suffix(".json").read_text())
    assert json.loads(result.stdout) == values
    assert len(values["shown_pairs"]) == 6
    assert not copied.report.exists()


def test_numbers_are_written_before_anything_is_drawn(copied: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    def draw(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("romacli.report.thumbnails.draw_matches", draw)
    assert report(copied.root).exit_code != 0
    assert json.loads(copied.report.with_suffix(".json").read_text())["verdict"]


def test_a_run_that_is_stopped_notes_what_it_did(tmp_path: Path) -> None:
    class Ending(Silent):
        def advance(self, count: int = 1) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        plane_job(tmp_path, listener=Ending())
    (run,) = read_runs(tmp_path / "job" / "runs.jsonl")
    assert not run.finished
    assert run.counts["pairs"] >= 1
    assert run.counts["encodes"] >= 2


def test_counts_are_those_of_all_runs_that_went_on_and_else_of_the_last() -> None:
    def run(stage: str, finished: bool, **counts: float) -> Run:
        return Run(stage, "2000-01-01T00:00:00+00:00", 1.5, finished, None, counts)

    runs = (
        run("matching", False, pairs=4, encodes=3),
        run("matching", True, pairs=6, encodes=5),
        run("mapping", True, images=3),
        run("mapping", True, images=5),
    )
    summary = summary_of(5, [verified_pair(0, 1)], runs=runs)
    assert summary.timings["matching"] == {"runs": 2, "seconds": 3.0, "pairs": 10, "encodes": 8}
    assert summary.timings["mapping"] == {"runs": 2, "seconds": 3.0, "images": 5}
    html = page(summary, verdict(summary), (), (), figures(summary, {}), Thumbnails(), twin="x.json")
    assert "3.0 s in 2 runs: 10 pairs, 8 encodes" in html
    assert "1 run<" in html


def test_cameras_are_counted_as_cameras() -> None:
    model = ModelSummary(3, 9, 3.0, 0.5, 1, {}, (CameraSummary("OPENCV", 1, 3),))
    summary = summary_of(3, [verified_pair(0, 1)], model=model)
    html = page(summary, verdict(summary), (), (), figures(summary, {}), Thumbnails(), twin="x.json")
    assert "<th>OPENCV</th><td>1 camera of 3 images</td>" in html


def test_labels_do_not_collide() -> None:
    count = 29
    names = [f"1341847980.{k:03}.jpg" for k in range(count)]
    summary = summary_of(count, [verified_pair(i, i + 1) for i in range(count - 1)])
    summary = replace(
        summary, images=tuple(replace(i, name=name) for i, name in zip(summary.images, names, strict=True))
    )
    graph = json.loads(figures(summary, {})["graph"])
    dots = next(trace for trace in graph["data"] if "text" in trace["mode"])
    xy = np.stack([np.frombuffer(b64decode(dots[axis]["bdata"])) for axis in "xy"], axis=1)
    px = xy * (300 / np.ptp(xy, axis=0).max())
    shown = [(x, y, len(text)) for (x, y), text in zip(px.tolist(), dots["text"], strict=True) if text]
    assert len(shown) > 5
    for k, (x, y, letters) in enumerate(shown):
        assert all(abs(x - a) > 3 * (letters + n) or abs(y - b) > 11 for a, b, n in shown[:k])


def test_the_cloud_is_framed_by_its_bulk() -> None:
    summary = summary_of(6, [verified_pair(i, i + 1) for i in range(5)])
    model = model_of(summary, points=1000)
    far = replace(model, xyz=np.concatenate((model.xyz[:970], model.xyz[970:] + 30)).astype(np.float32))
    near, framed = (
        json.loads(figures(summary, {0: each})["cloud"])["layout"]["scene"]["aspectratio"] for each in (model, far)
    )
    assert all(abs(near[axis] - framed[axis]) < 0.4 for axis in "xyz")


def contrast(one: str, other: str) -> float:
    """WCAG's contrast ratio of two colours."""

    def luminance(colour: str) -> float:
        parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_lines_of_the_graph_show_on_both_papers_and_strength_has_the_colours_of_certainty() -> None:
    pairs = [verified_pair(i, j, 10 + 7 * (i + j)) for i in range(8) for j in range(i + 1, 8)]
    summary = summary_of(8, pairs)
    graph, matrix = (json.loads(figures(summary, {})[name]) for name in ("graph", "matrix"))
    lines = [trace["line"]["color"] for trace in graph["data"] if trace["mode"] == "lines"]
    assert len(lines) == 4
    assert min(contrast(colour, "#1c222b") for colour in lines) > 3
    assert min(contrast(colour, "#f6f7f9") for colour in lines) > 1.8
    assert [colour for _, colour in matrix["data"][0]["colorscale"]][::4] == ["#440154", "#fde725"]  # viridis


def test_names_cannot_break_the_page() -> None:
    bad = "</script><b>\"'&.jpg"
    summary = summary_of(3, [verified_pair(0, 1), verified_pair(1, 2)])
    summary = replace(summary, images=(replace(summary.images[0], name=bad), *summary.images[1:]))
    thumbnails = Thumbnails(by_name={bad: "data:,"})
    html = page(summary, verdict(summary), [bad], [bad], figures(summary, {}), thumbnails, twin="x.json")
    assert bad not in html
    assert "</script><b>" not in html
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', html, flags=re.DOTALL)
    assert json.loads(data)["names"][0] == bad


def test_two_hundred_images_paired_exhaustively_stay_below_8_mb() -> None:
    rng = np.random.default_rng(0)
    count, points = 200, 60_000
    pairs = [verified_pair(i, j, int(rng.integers(20, 5000))) for i in range(count) for j in range(i + 1, count)]
    lengths = {length: 1000 for length in range(2, 60)}
    model_summary = ModelSummary(count, points, 5.0, 0.7, 1, lengths, (CameraSummary("SIMPLE_RADIAL", 1, count),))
    summary = summary_of(count, pairs, model=model_summary)
    model = model_of(summary, points=points)
    drawn = figures(summary, {0: model})
    # 200 thumbnails and 6 pairs as data URLs: more than real photographs took.
    budget = MOST_BYTES - 200 * 3_300 - 6 * 170_000
    assert set(drawn) == {"stages", "graph", "matrix", "keypoints", "tracks", "above", "cloud"}
    html = page(summary, verdict(summary), warnings(summary), (), drawn, Thumbnails(), twin="x.json")
    assert len(html.encode()) < budget


def test_the_verdict_follows_the_last_stage() -> None:
    chain = [verified_pair(i, i + 1) for i in range(5)]
    model = ModelSummary(6, 100, 3.0, 0.5, 1, {}, ())
    assert verdict(summary_of(6, chain, model=model)).state == "good"
    assert verdict(summary_of(6, chain, model=replace(model, registered=4))).state == "fair"
    assert verdict(summary_of(6, chain, model=replace(model, registered=2))).state == "poor"
    assert verdict(summary_of(6, chain)).state == "good"
    assert verdict(summary_of(6, chain, groups=(3, 3))).state == "fair"
    assert verdict(summary_of(6, [*chain, PairRow(0, 5, "not done", None, 0, None)])).state == "open"
    none = [PairRow(0, 1, "rejected", 0.0, 0, None)]
    assert verdict(summary_of(2, none, verified=False, groups=())).state == "poor"


def test_warnings_name_what_is_wrong_and_only_that() -> None:
    dense = [verified_pair(i, j) for i in range(6) for j in range(i + 1, 6)]
    assert warnings(summary_of(6, dense)) == ()
    few = [pair for pair in dense if pair.other < 5]
    unverified = [replace(pair, state="matched", inliers=0) for pair in dense[:6]]
    star = [verified_pair(0, i, 1000) for i in range(1, 6)] + [verified_pair(i, i + 1, 50) for i in range(1, 5)]
    found = {
        "1 of 6 images has no matched pair": summary_of(6, [*few, PairRow(4, 5, "rejected", 0.0, 0, 0)]),
        "on a single pair": summary_of(6, [*few, verified_pair(4, 5), PairRow(3, 5, "rejected", 0.0, 0, 0)]),
        "One image dominates": summary_of(6, star),
        "disconnected groups": summary_of(6, dense, groups=(3, 3)),
        "longer than the number of images": summary_of(6, dense, tracks=Tracks(100, 9.0, 12, {2: 50, 12: 50})),
        "failed geometric verification": summary_of(6, [*unverified, *dense[6:]]),
        "Low overlap": summary_of(6, [replace(pair, state="rejected") for pair in dense[4:]] + dense[:4]),
        "not in the model": summary_of(6, dense, placed=Placed(6, ("005.jpg",), 0.5)),
        "reprojection error is": summary_of(6, dense, placed=Placed(6, (), 4.5)),
    }  # fmt: skip
    for phrase, summary in found.items():
        assert any(phrase in text for text in warnings(summary)), phrase
    blank = warnings(summary_of(6, dense), {"001.jpg": 0.9, "002.jpg": 0.1})
    assert len(blank) == 1
    assert "without texture" in blank[0]
    assert "001.jpg" in blank[0]


def test_texture_is_seen_where_there_is_some() -> None:
    rng = np.random.default_rng(0)
    noisy = rng.integers(0, 256, (320, 320, 3), np.uint8)
    wall = np.full_like(noisy, 180)
    assert blank_share(noisy) == 0
    assert blank_share(wall) == 1
    assert 0.4 < blank_share(np.hstack((noisy[:, :160], wall[:, :160]))) < 0.6


def test_best_median_and_worst_are_different_pairs() -> None:
    pairs = [verified_pair(0, i + 1, 10 * (i + 1)) for i in range(9)] + [PairRow(1, 2, "rejected", 0.0, 0, 0)]
    chosen = [(rank, pair.inliers) for rank, pair in chosen_pairs(pairs)]
    assert chosen == [("best", 90), ("best", 80), ("median", 60), ("median", 50), ("worst", 20), ("worst", 10)]
    assert len(chosen_pairs(pairs[:3])) == 3
    assert chosen_pairs([]) == []
    assert [rank for rank, _ in chosen_pairs(pairs[-1:])] == ["rejected"]


def test_inliers_are_those_of_the_database(tmp_path: Path) -> None:
    scene = make_scene(["b/2.png", "a 1.png", "c.png"])
    summary = scene.write(tmp_path / "database.db")
    inliers = read_inliers(tmp_path / "database.db")
    assert set(inliers) == {(min(pair), max(pair)) for pair in scene.matches}
    assert sum(inliers.values()) == summary.inliers


def test_collecting_counts_what_the_journal_and_the_files_hold(job: tuple[Layout, PlanePhotographs]) -> None:
    summary, models = collect(open_folder(job[0]), Silent())
    assert models == {}
    assert summary.tracks is not None
    assert sum(summary.tracks.lengths.values()) == summary.tracks.count
    assert sum(image.matched for image in summary.images) == 2 * len(summary.pairs)
    assert all(pair.matches > 0 and 0 < (pair.overlap or 0) <= 1 for pair in summary.pairs)


def test_the_model_is_compared_with_the_gps_of_its_photographs(copied: Layout) -> None:
    scene = make_scene(list(NAMES))
    places = {name: tuple([48, 9, 400] + pose.centre * [1e-4, 1.5e-4, 10]) for name, pose in scene.poses.items()}
    scene.write(copied.database, gps=places)
    reconstruct(copied.database, copied.root, copied.sparse, MapperOptions(refine_intrinsics=False, num_threads=1))
    summary, _ = collect(open_folder(copied), Silent())
    assert summary.model is not None
    assert summary.model.gps is not None
    assert set(summary.model.gps.residuals_m) == set(NAMES)
    assert summary.model.gps.median_m <= summary.model.gps.largest_m < 0.2 * summary.model.gps.extent_m
    assert "from GPS" in page(summary, verdict(summary), (), (), {}, Thumbnails(), twin="report.json")
    assert advice_on(copied, copied.database, [*NAMES, "unreadable.png"], None) == []
    copied.database.write_bytes(b"damaged" * 1000)
    summary, _ = collect(open_folder(copied), Silent())
    assert summary.model is not None
    assert summary.model.gps is None


def test_smaller_models_are_listed_and_drawn(copied: Layout) -> None:
    make_scene(list(NAMES)).write(copied.database)
    reconstruct(copied.database, copied.root, copied.sparse, MapperOptions(refine_intrinsics=False, num_threads=1))
    shutil.copytree(copied.sparse / "0", copied.sparse / "1")
    take = load_model(copied.sparse / "0")
    frames = [image.frame_id for image in take.images.values() if image.name in NAMES[:2]]
    for frame in frames:
        take.deregister_frame(frame)
    write_model(take, copied.sparse / "0")
    summary, models = collect(open_folder(copied), Silent())
    assert [(one.number, one.registered) for one in summary.smaller] == [(1, 4)]
    assert [image.model for image in summary.images] == [1, 1, 0, 0]
    assert all(image.points3D for image in summary.images)
    judged = verdict(summary)
    assert "There is also 1 smaller model, of 4 images." in judged.sentence
    assert judged.state == "fair"
    drawn = figures(summary, models)
    assert {"above", "above1", "cloud", "cloud1"} <= drawn.keys()
    html = page(summary, judged, (), (), drawn, Thumbnails(), twin="report.json")
    assert "<td>sparse/1</td><td>4</td>" in html
    assert "data-figure='cloud1'" in html
    for path in (copied.sparse / "1").iterdir():
        path.write_bytes(b"damaged")
    summary, models = collect(open_folder(copied), Silent())
    assert models.keys() == {0}
    assert any("sparse/1 is damaged" in text for text in summary.missing)


def test_a_file_of_rigs_that_is_gone_is_missing(copied: Layout, job: tuple[Layout, PlanePhotographs]) -> None:
    rigs = copied.root / "rigs.json"
    rigs.write_text('[{"cameras": [{"image_prefix": "c", "ref_sensor": true}]}]')
    options = ImportOptions(cameras=CameraOptions(rigs=read_rigs(rigs)))
    import_matches(job[1].root, copied, options, Silent(), StopRequest())
    make_scene(list(NAMES)).write(copied.root / "other.db")
    reconstruct(copied.root / "other.db", copied.root, copied.sparse, MapperOptions(num_threads=1))
    rigs.unlink()
    summary, _ = collect(open_folder(copied), Silent())
    assert summary.model is not None
    assert any("rigs.json cannot be read" in text for text in summary.missing)


def test_runs_survive_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    run = Run("matching", "2000-01-01T00:00:00+00:00", 1.5, True, "/photos", {"pairs": 3})
    append_run(path, run)
    with path.open("ab") as file:
        file.write(b'{"stage": "mapp\n[1]\n')
    append_run(path, run)
    assert read_runs(path) == [run, run]
    assert read_runs(tmp_path / "none") == []


def test_a_run_without_room_leaves_no_part_of_its_line(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    run = Run("matching", "2000-01-01T00:00:00+00:00", 1.5, True, "/photos", {"pairs": 3})
    append_run(path, run)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, hard))
    try:
        with pytest.raises(StoreError, match="full"):
            append_run(path, run)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    append_run(path, run)
    assert read_runs(path) == [run, run]


def test_a_verdict_is_lowered_by_what_speaks_against_the_model() -> None:
    chain = [verified_pair(index, index + 1) for index in range(5)]
    model = ModelSummary(6, 1000, 4.0, 0.9, 1, {4: 1000}, ())
    wrong = Placed(6, (), 0.9, gps_median_m=33.0, gps_extent_m=170.0)
    judged = verdict(summary_of(6, chain, model=model, placed=wrong))
    assert judged.state == "poor"
    assert "GPS" in judged.sentence
    jumping = Placed(6, (), 0.9, jumps=("003.jpg",))
    assert verdict(summary_of(6, chain, model=model, placed=jumping)).state == "fair"
    assert any("003.jpg" in sentence for sentence in warnings(summary_of(6, chain, model=model, placed=jumping)))


def test_a_stale_model_has_no_verdict_of_the_present_job() -> None:
    chain = [verified_pair(index, index + 1) for index in range(5)]
    model = ModelSummary(6, 1000, 4.0, 0.9, 1, {4: 1000}, ())
    judged = verdict(summary_of(6, chain, model=model, outdated=("sparse/0 was made from an earlier database.db.",)))
    assert judged.state == "open"
    assert "earlier database.db" in judged.sentence


def test_queries_that_were_localized_are_told(copied: Layout, tmp_path: Path) -> None:
    folder = tmp_path / "localized"
    posed = {"name": "a.jpg", "qvec": [1, 0, 0, 0], "tvec": [0, 0, 0], "points": 900, "inliers": 812}
    rows = [
        {**posed, "map_images": ["x<.jpg"]},
        {"name": "b.jpg", "points": 3, "map_images": [], "why": "sees nothing"},
    ]
    write_localized(folder, rows)
    for output in (folder, tmp_path / "gone"):
        with noted(copied, "localizing", output=output):
            pass
    with pytest.raises(InputError), noted(copied, "localizing", output=tmp_path / "stopped"):
        raise InputError("no query")
    result = report(copied.root, "--json")
    assert result.exit_code == 0, result.stderr
    values = json.loads(result.stdout)
    assert [(row["name"], row["posed"], row["inliers"]) for row in values["queries"]] == [
        ("a.jpg", True, 812),
        ("b.jpg", False, 0),
    ]
    assert any("gone contains no localized.json" in sentence for sentence in values["missing"])
    assert not any("stopped" in sentence for sentence in values["missing"])
    html = copied.report.read_text(encoding="utf-8")
    section = html.split("<h2>Localization</h2>")[1].split("</section>")[0]
    assert "1 of 2 queries has a pose" in section
    assert section.index("sees nothing") < section.index("812")
    assert "x&lt;.jpg" in section
