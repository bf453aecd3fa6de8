"""From hloc files to a database and a model: which images are imported, and what is rebuilt."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
from PIL import Image
from PIL.ExifTags import GPS, IFD, Base
from support.small_scene import SIZE, make_scene

from romacli.colmap.binding import load_pycolmap
from romacli.colmap.calibration.findings import Calibration, Findings, Separation
from romacli.colmap.cameras import ImageInfo
from romacli.colmap.options import CameraOptions, VerifyOptions
from romacli.colmap.reading import read_model
from romacli.colmap.rigs import read_rigs
from romacli.errors import InputError
from romacli.images.listing import list_images
from romacli.job.options import ImportOptions
from romacli.job.outputs.cameras import check_early, choose_cameras
from romacli.job.outputs.database import import_matches
from romacli.job.outputs.model import (
    MODEL,
    advice_on,
    georeference_models,
    gps_values,
    guessed_images,
    make_model,
    model_warnings,
)
from romacli.job.outputs.origins import origin_of, remember, sources_of
from romacli.job.outputs.outdated import outdated
from romacli.job.outputs.recipe import database_output, noted_databases, noted_import
from romacli.mapping.georeference import compare_with_gps
from romacli.mapping.options import MapperOptions
from romacli.progress import Silent
from romacli.report.focal import focal_lengths
from romacli.run.options import Changed
from romacli.run.photographs import look_at
from romacli.stop import StopRequest
from romacli.store.hloc import write_features, write_matches
from romacli.store.images import write_images
from romacli.store.layout import Layout
from romacli.store.manifest import read_manifest, write_manifest
from romacli.types import Keypoints, Manifest, Matches

OPTIONS = ImportOptions(verify=VerifyOptions(num_threads=1))
MAPPING = MapperOptions(num_threads=1)


class Listener(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []
        self.done = 0

    def begin(self, title: str, total: int) -> None:
        self.said.append(f"{title} {total}")
        self.done = 0

    def advance(self, count: int = 1) -> None:
        self.done += count

    def say(self, sentence: str) -> None:
        self.said.append(sentence)

    warn = say


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return tmp_path / "photos"


@pytest.fixture
def layout(images: Path, tmp_path: Path) -> Layout:
    """A finished match of photographs whose names have no extension."""
    scene, layout = make_scene(["a", "b", "c", "d"]), Layout(tmp_path / "job")
    images.mkdir()
    black = cv2.imencode(".png", np.zeros((SIZE[1], SIZE[0]), np.uint8))[1].tobytes()
    for name in scene.names:
        (images / name).write_bytes(black)
    points = {name: Keypoints(xy, np.ones(len(xy), np.float32)) for name, xy in scene.keypoints.items()}
    write_manifest(layout.manifest, Manifest({}, "0"))
    write_features(layout.features, ((name, points[name], SIZE) for name in scene.names), provenance={"of": "test"})
    matches = (
        (pair, Matches(rows, np.ones(len(rows), np.float32)), len(points[pair[0]]))
        for pair, rows in scene.matches.items()
    )
    write_matches(layout.matches, matches, provenance={"of": "test"})
    return layout


def named_in(layout: Layout, names: str) -> Path:
    """A list of photographs whose names are single letters."""
    file = layout.root / "names.txt"
    file.write_text("\n".join(names))
    return file


def image_names(database: Path) -> list[str]:
    with closing(sqlite3.connect(database)) as connection:
        return [name for (name,) in connection.execute("SELECT name FROM images ORDER BY name")]


def test_every_matched_image_is_imported_whatever_its_name(images: Path, layout: Layout) -> None:
    summary = import_matches(images, layout, OPTIONS, Silent(), StopRequest())
    assert (summary.images, summary.pairs, summary.verified) == (4, 6, 6)


def test_only_listed_images_are_imported(images: Path, layout: Layout) -> None:
    import_matches(images, layout, OPTIONS, Silent(), StopRequest())
    some = replace(OPTIONS, only=frozenset("abd"))
    assert import_matches(images, layout, some, Silent(), StopRequest()).pairs == 3
    assert image_names(layout.database) == ["a", "b", "d"]
    listener = Listener()
    import_matches(images, layout, OPTIONS, listener, StopRequest())
    assert any("1 image is new and numbered after the others" in sentence for sentence in listener.said)


def test_database_and_model_are_made_once(images: Path, layout: Layout) -> None:
    import_matches(images, layout, OPTIONS, Silent(), StopRequest())
    made = make_model(images, layout, layout.database, MAPPING, Silent(), StopRequest())
    (layout.sparse / "notes.txt").write_text("no model")
    again = Listener()
    import_matches(images, layout, OPTIONS, again, StopRequest())
    talkative = replace(MAPPING, verbose=True)
    assert make_model(images, layout, layout.database, talkative, again, StopRequest()) == made
    assert again.said == [f"{layout.database} is up to date", f"{layout.sparse / '0'} is up to date"]
    (layout.sparse / "notes.txt").unlink()
    other = replace(MAPPING, seed=1)
    make_model(images, layout, layout.database, other, again, StopRequest())
    assert again.said[2:] == ["mapping 4"]
    assert again.done == 4


def test_images_that_the_model_leaves_out_stay_noted(images: Path, layout: Layout) -> None:
    assert model_warnings(layout) == []
    import_matches(images, layout, OPTIONS, Silent(), StopRequest())
    made = make_model(images, layout, layout.database, MAPPING, Silent(), StopRequest())
    told = replace(made, left_out=("d",))
    remember(layout, MODEL, origin_of(layout, MODEL), asdict(told), sources=sources_of(layout, MODEL))
    assert make_model(images, layout, layout.database, MAPPING, Silent(), StopRequest()) == told
    assert model_warnings(layout) == told.warnings
    assert told.warnings[0].endswith("left out of the model: d")


def test_a_damaged_model_is_made_again(images: Path, layout: Layout) -> None:
    import_matches(images, layout, OPTIONS, Silent(), StopRequest())
    made = make_model(images, layout, layout.database, MAPPING, Silent(), StopRequest())
    points = layout.sparse / "0" / "points3D.bin"
    points.write_bytes(points.read_bytes()[:-9])
    again = Listener()
    assert make_model(images, layout, layout.database, MAPPING, again, StopRequest()) == made
    assert again.said == [f"{layout.sparse / '0'} is damaged and rebuilt", "mapping 4"]
    assert len(read_model(layout.sparse / "0").xyz) == made.points3D


@pytest.mark.parametrize(
    ("model", "params", "source", "told"),
    [
        ("SIMPLE_RADIAL", None, "(a guess, 1.2 times the longer side", ", refined from 768 px (a guess"),
        ("SIMPLE_RADIAL", (700.0, 320.0, 240.0, 0.0), "as given", "focal length 700 px as given"),
        ("PINHOLE", (690.0, 710.0, 320.0, 240.0), "as given", "focal length 700 px as given"),
    ],
)
def test_focal_lengths_are_told_with_their_source(
    images: Path, layout: Layout, model: str, params: tuple[float, ...] | None, source: str, told: str
) -> None:
    cameras = CameraOptions(mode="single", model=model, params=params)
    import_matches(images, layout, replace(OPTIONS, cameras=cameras), Silent(), StopRequest())
    mapping = replace(MAPPING, refine_intrinsics=params is None)
    make_model(images, layout, layout.database, mapping, Silent(), StopRequest())
    (found,) = focal_lengths(layout, layout.database, read_model(layout.sparse / "0"))
    assert source in found.source
    assert found.images == 4
    assert found.start_px == pytest.approx(700 if params else 1.2 * 640)
    assert told in str(found)


def test_focal_lengths_of_a_file_of_rigs_are_told_as_given(images: Path, layout: Layout, tmp_path: Path) -> None:
    rigs = tmp_path / "rigs.json"
    known = {"image_prefix": "a", "ref_sensor": True, "camera_model_name": "SIMPLE_PINHOLE"}
    rigs.write_text(json.dumps([{"cameras": [{**known, "camera_params": [700, 320, 240]}]}]))
    options, said = replace(OPTIONS, cameras=CameraOptions(rigs=read_rigs(rigs))), Listener()
    import_matches(images, layout, options, said, StopRequest())
    assert "1 frame of 1 rig" in said.said
    mapping = replace(MAPPING, refine_intrinsics=False)
    make_model(images, layout, layout.database, mapping, Silent(), StopRequest())
    model = read_model(layout.sparse / "0")
    of_rig, others = focal_lengths(layout, layout.database, model)
    assert (of_rig.images, of_rig.source) == (1, "as given")
    assert "as given" not in others.source


def test_focal_lengths_from_pairs_are_kept_as_values(
    images: Path, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Calibration(1, 701.25, 650.0, 750.0, 6, 768.0, False)
    monkeypatch.setattr("romacli.colmap.database.calibrate_database", lambda *_: Findings((found,)))
    written = import_matches(images, layout, OPTIONS, Silent(), StopRequest())
    make_model(images, layout, layout.database, MAPPING, Silent(), StopRequest())
    assert import_matches(images, layout, OPTIONS, Silent(), StopRequest()) == written
    assert written.calibrated == (found,)
    model = read_model(layout.sparse / "0")
    assert focal_lengths(layout, layout.database, model)[0].source == found.source
    manifest = read_manifest(layout.manifest)
    assert manifest is not None
    noted = manifest.outputs[database_output(layout, layout.database)]["holds"]
    noted["calibrated"] = [str(found)]  # as older jobs stored them
    write_manifest(layout.manifest, manifest)
    assert "a guess, 1.2 times" in focal_lengths(layout, layout.database, model)[0].source
    with closing(sqlite3.connect(layout.database)) as database, database:
        database.execute("UPDATE cameras SET params = ?", (np.array([700.0, 320.0, 240.0, 0.0]).tobytes(),))
    assert "a guess from all pairs together" in focal_lengths(layout, layout.database, model)[0].source
    assert import_matches(images, layout, OPTIONS, Silent(), StopRequest()).calibrated == ()


@pytest.mark.parametrize(("is_refined", "is_prior", "count"), [(False, False, 4), (True, False, 0), (False, True, 0)])
def test_images_are_named_whose_guessed_focal_length_was_not_refined(
    images: Path, layout: Layout, is_refined: bool, is_prior: bool, count: int
) -> None:
    import_matches(images, layout, OPTIONS, Silent(), StopRequest())
    with closing(sqlite3.connect(layout.database)) as database, database:
        database.execute("UPDATE cameras SET prior_focal_length = ?", (is_prior,))
    mapping = replace(MAPPING, refine_intrinsics=is_refined)
    make_model(images, layout, layout.database, mapping, Silent(), StopRequest())
    names = sorted(path.name for path in images.iterdir())
    said = [one for one in advice_on(layout, layout.database, names, None) if "guessed focal length" in one]
    assert len(said) == bool(count)
    assert len(guessed_images(layout, layout.database, read_model(layout.sparse / "0"))) == count


def test_photographs_without_exif_that_get_their_own_cameras_are_told(
    images: Path, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def calibrate(_: Path, loose: object, *__: object) -> Findings:
        asked.append(loose)
        return Findings(separations=(Separation(1, ("a", "c"), 400, 900, 0),))

    monkeypatch.setattr("romacli.colmap.database.calibrate_database", calibrate)
    for mode, loose in (("single", set()), ("auto", {"a", "b", "c", "d"})):
        options, listener = replace(OPTIONS, cameras=CameraOptions(mode=mode)), Listener()
        for _ in range(2):  # also where the database is up to date
            import_matches(images, layout, options, listener, StopRequest())
        assert sum("a first, have focal lengths from 400 to 900 px" in said for said in listener.said) == 2
        assert asked == [loose]
        asked.clear()


def photograph_at(path: Path, latitude: float, longitude: float, altitude: float | None = None) -> None:
    """A black photograph taken in the southern hemisphere."""
    exif = Image.Exif()
    exif[Base.Software] = "1"
    tags = {GPS.GPSLatitudeRef: "S", GPS.GPSLatitude: (latitude, 0.0, 0.0), GPS.GPSLongitudeRef: "E"}
    exif.get_ifd(IFD.GPSInfo).update(tags | {GPS.GPSLongitude: (longitude, 0.0, 0.0)})
    if altitude is not None:
        exif.get_ifd(IFD.GPSInfo)[GPS.GPSAltitude] = altitude
    Image.fromarray(np.zeros((SIZE[1], SIZE[0]), np.uint8)).save(path, "PNG", exif=exif)


def priors(database: Path) -> dict[str, list[float]]:
    query = "SELECT name, position FROM pose_priors JOIN images ON corr_data_id = image_id WHERE coordinate_system = 0"
    with closing(sqlite3.connect(database)) as connection:
        return {name: np.frombuffer(position).tolist() for name, position in connection.execute(query)}


def looked_at(database: Path) -> None:
    """The changes COLMAP makes to a database that it merely opens."""
    pycolmap = load_pycolmap()
    pycolmap.Database.open(database).close()


def test_a_job_that_was_copied_or_looked_at_is_up_to_date(images: Path, layout: Layout, tmp_path: Path) -> None:
    rigs = tmp_path / "job" / "rigs.json"
    rigs.write_text('[{"cameras": [{"image_prefix": "a", "ref_sensor": true}]}]')
    options = replace(OPTIONS, cameras=CameraOptions(rigs=read_rigs(rigs)))
    import_matches(images, layout, options, Silent(), StopRequest())
    made = make_model(images, layout, layout.database, MAPPING, Silent(), StopRequest())
    before = layout.database.read_bytes()
    looked_at(layout.database)
    assert layout.database.read_bytes() != before
    copy = Layout(tmp_path / "elsewhere" / "copy")
    shutil.copytree(layout.root, copy.root, copy_function=shutil.copyfile)
    moved = replace(options, cameras=CameraOptions(rigs=read_rigs(copy.root / "rigs.json")))
    again = Listener()
    import_matches(images, copy, moved, again, StopRequest())
    assert make_model(images, copy, copy.database, MAPPING, again, StopRequest()) == made
    assert again.said == [f"{copy.database} is up to date", f"{copy.sparse / '0'} is up to date"]
    assert outdated(layout) == outdated(copy) == []
    assert noted_databases(copy) == [copy.database]
    noted = noted_import(copy, copy.database)
    assert noted is not None
    assert noted.options.cameras == moved.cameras


def test_files_made_from_others_that_changed_are_outdated(images: Path, layout: Layout, tmp_path: Path) -> None:
    import_matches(images, layout, OPTIONS, Silent(), StopRequest())
    make_model(images, layout, layout.database, MAPPING, Silent(), StopRequest())
    other = tmp_path / "other.db"
    import_matches(images, layout, replace(OPTIONS, database=other), Silent(), StopRequest())
    with closing(sqlite3.connect(layout.database)) as connection, connection:
        connection.execute("DELETE FROM two_view_geometries WHERE pair_id = (SELECT min(pair_id) FROM matches)")
    assert [(one.file, one.source) for one in outdated(layout)] == [("sparse/0", "database.db")]
    with h5py.File(layout.matches, "a") as file:
        file["a/b/matches0"][0] = -1
    assert [one.file for one in outdated(layout)] == ["database.db", str(other), "sparse/0"]
    assert "Run `romacli colmap-import` again" in str(outdated(layout)[0])
    assert f"Run `romacli colmap-import --database {other}` again" in str(outdated(layout)[1])


def test_photographs_replaced_since_matching_are_named(images: Path, layout: Layout) -> None:
    matched = look_at(list_images(images, names_file=named_in(layout, "abcd")), {})
    write_images(layout.images, matched.accepted(Changed.refuse))
    for name in ("b", "d"):
        Image.new("L", SIZE, 9).save(images / name, "PNG")
        os.utime(images / name, (1, 1))
    for _ in ("new", "up to date"):
        listener = Listener()
        assert import_matches(images, layout, OPTIONS, listener, StopRequest()).pairs == 6
        (told,) = [sentence for sentence in listener.said if "since matching" in sentence]
        assert told.startswith("2 photographs have changed")
        assert "b, d" in told
        assert "--changed rematch" in told
    listener = Listener()
    import_matches(images, layout, replace(OPTIONS, only=frozenset("ac")), listener, StopRequest())
    assert not any("since matching" in sentence for sentence in listener.said)


def test_gps_of_photographs_becomes_pose_priors(images: Path, layout: Layout) -> None:
    photograph_at(images / "b", 52.51, 13.37, 40.5)
    listener = Listener()
    summary = import_matches(images, layout, OPTIONS, listener, StopRequest())
    assert summary.pose_priors == 1
    assert "GPS positions of 1 of 4 photographs are kept as pose priors" in listener.said
    assert priors(layout.database) == {"b": pytest.approx([-52.51, 13.37, 40.5])}
    assert make_model(images, layout, layout.database, MAPPING, Silent(), StopRequest()).registered == 4


def test_positions_that_cannot_be_true_are_named_and_missing_altitudes_filled(images: Path, layout: Layout) -> None:
    photograph_at(images / "a", 0, 0, 0)
    photograph_at(images / "b", 52.51, 13.37, 4294962.296)
    photograph_at(images / "c", 52.51, 13.37, 40.0)
    photograph_at(images / "d", 52.52, 13.37)
    listener = Listener()
    assert import_matches(images, layout, OPTIONS, listener, StopRequest()).pose_priors == 2
    (faults,) = [sentence for sentence in listener.said if "are implausible" in sentence]
    assert "2 of 4" in faults
    assert "that of a is 0, 0" in faults
    assert "that of b has the altitude 4294962 m" in faults
    assert any("lack an altitude" in sentence and "40.0 m" in sentence for sentence in listener.said)
    assert priors(layout.database)["d"] == pytest.approx([-52.52, 13.37, 40.0])


def test_a_model_is_georeferenced_after_a_check_that_it_can_be(images: Path, layout: Layout) -> None:
    photos = list_images(images, names_file=named_in(layout, "abcd"))
    with pytest.raises(InputError, match="--georeference needs the GPS positions of 3"):
        check_early(photos, OPTIONS, MAPPING, georeferenced=True)
    for name, pose in make_scene(["a", "b", "c", "d"]).poses.items():
        east, down, north = 20 * pose.centre
        photograph_at(images / name, 48 - north / 111_200, 9 + east / 74_600, 400 - down)
    check_early(photos, OPTIONS, MAPPING, georeferenced=True)
    import_matches(images, layout, OPTIONS, Silent(), StopRequest())
    make_model(images, layout, layout.database, MAPPING, Silent(), StopRequest())
    (layout.sparse / "notes.txt").write_text("no model")
    georeference_models(layout, layout.database, Silent())
    fit = compare_with_gps(layout.sparse / "0", layout.database)
    assert fit is not None
    assert gps_values(fit)["images"] == 4
    assert fit.largest_m < 1
    assert fit.to_metres.scale == pytest.approx(1)
    assert np.allclose(fit.to_metres.translation, 0, atol=1e-6)
    again = Listener()
    make_model(images, layout, layout.database, MAPPING, again, StopRequest())
    assert again.said == [f"{layout.sparse / '0'} is up to date"]


def test_photographs_that_colmap_cannot_read_are_spoken_of(images: Path, layout: Layout) -> None:
    infos = [ImageInfo("1.jpg", SIZE), ImageInfo("2.webp", SIZE), ImageInfo("3.HEIC", SIZE)]
    listener = Listener()
    choose_cameras(infos, OPTIONS, listener)
    warning, *_ = listener.said
    assert warning.startswith("COLMAP cannot read 2 of the photographs, starting with 2.webp")


@pytest.mark.parametrize(
    ("info", "is_ordinary"),
    [
        (ImageInfo("b.jpg", (800, 400)), False),
        (ImageInfo("b.jpg", (801, 400)), False),
        (ImageInfo("b.jpg", (800, 600)), True),
        (ImageInfo("b.jpg", (800, 400), focal_length_px=700.0), True),
    ],
)
def test_a_camera_of_the_whole_sphere_is_doubted_for_ordinary_photographs(info: ImageInfo, is_ordinary: bool) -> None:
    infos, listener = [ImageInfo("a.jpg", (800, 400)), info], Listener()
    cameras = CameraOptions(model="EQUIRECTANGULAR")
    choose_cameras(infos, replace(OPTIONS, cameras=cameras), listener)
    doubts = [sentence for sentence in listener.said if "spherical panoramas" in sentence]
    assert ["1 of 2 photographs is not, starting" in sentence for sentence in doubts] == [True] * is_ordinary


def test_shared_cameras_are_spoken_of() -> None:
    listener = Listener()
    choose_cameras([ImageInfo("1.jpg", SIZE), ImageInfo("2.jpg", SIZE)], OPTIONS, listener)
    (said,) = listener.said
    assert "2 photographs" in said
    assert "share 1 camera unless their pairs tell otherwise;" in said
    choose_cameras([ImageInfo("1.jpg", SIZE), ImageInfo("2.jpg", SIZE)], replace(OPTIONS, calibrate=False), listener)
    assert "share 1 camera;" in listener.said.pop()
    single = replace(OPTIONS, cameras=CameraOptions("single"))
    choose_cameras([ImageInfo("1.jpg", SIZE, 500.0), ImageInfo("2.jpg", SIZE, 700.0)], single, listener)
    assert "1.jpg (500 px) and 2.jpg (700 px)" in listener.said[1]


def test_images_without_a_known_pose_are_left_out_and_counted(images: Path, layout: Layout, tmp_path: Path) -> None:
    import_matches(images, layout, OPTIONS, Silent(), StopRequest())
    some = replace(OPTIONS, only=frozenset("abc"))
    import_matches(images, layout, some, Silent(), StopRequest())
    make_model(images, layout, layout.database, MAPPING, Silent(), StopRequest())
    known = layout.sparse.rename(tmp_path / "known") / "0"
    listener = Listener()
    options = replace(OPTIONS, known_poses=known)
    assert import_matches(images, layout, options, listener, StopRequest()).pairs == 3
    assert f"1 of 4 photographs has no pose in {known}, so no place in the database: d" in listener.said
    mapping = replace(MAPPING, known_poses=known, refine_intrinsics=False)
    made = make_model(images, layout, layout.database, mapping, Silent(), StopRequest())
    assert (made.registered, made.images) == (3, 3)
    assert make_model(images, layout, layout.database, mapping, Silent(), StopRequest()) == made
