"""Pair sources on files: EXIF positions, models, databases, and the messages when they do not fit the folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from PIL.ExifTags import GPS, IFD
from support.small_scene import make_scene
from support.told import Told

from romacli.colmap.options import VerifyOptions
from romacli.errors import InputError, StoreError, UsageError
from romacli.images.listing import list_images
from romacli.mapping.options import MapperOptions
from romacli.mapping.reconstruct import reconstruct
from romacli.pairing.database import DatabaseOptions
from romacli.pairing.model import CovisibleOptions, PosesOptions
from romacli.pairing.retrieval import LookAlikeOptions
from romacli.pairing.sources import choose_pairs
from romacli.pairing.spatial import SpatialOptions
from romacli.progress import Silent

OPTIONS_BY_NAME = {
    "poses": lambda scene: PosesOptions(reference_model=scene / "sparse" / "0"),
    "covisible": lambda scene: CovisibleOptions(reference_model=scene / "sparse" / "0"),
    "from-database": lambda scene: DatabaseOptions(reference_database=scene / "database.db"),
}
SPATIAL = SpatialOptions(max_distance_m=50)


def write_photograph(path: Path, place: tuple[float, float] | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    if place is not None:
        tags = exif.get_ifd(IFD.GPSInfo)
        for (number, reference), degrees, words in (
            ((GPS.GPSLatitude, GPS.GPSLatitudeRef), place[0], "NS"),
            ((GPS.GPSLongitude, GPS.GPSLongitudeRef), place[1], "EW"),
        ):
            tags[number] = (abs(degrees), 0.0, 0.0)
            tags[reference] = words[degrees < 0]
    Image.new("RGB", (16, 12)).save(path, exif=exif)


def pairs_in(folder: Path, options: Any, notes: Silent | None = None):
    return choose_pairs(list_images(folder), options, notes or Told()).pairs


def test_spatial_reads_exif_across_the_date_line(tmp_path):
    for name, longitude in (("é 1.jpg", 179.9999), ("é 2.jpg", -179.9999), ("é 10.jpg", 170.0)):
        write_photograph(tmp_path / name, (10.0, longitude))
    assert pairs_in(tmp_path, SPATIAL) == (("é 1.jpg", "é 2.jpg"),)


def test_spatial_says_which_photographs_have_no_position_and_a_file_mends_it(tmp_path):
    folder, file = tmp_path / "photos", tmp_path / "positions.txt"
    write_photograph(folder / "a.jpg", (48.0, 9.0))
    write_photograph(folder / "b.jpg")
    with pytest.raises(InputError, match=r"1 of 2 photographs has no position in the EXIF data: b.jpg\. .*--positions"):
        pairs_in(folder, SPATIAL)
    file.write_text("b.jpg 48.0001 9.0\nelsewhere.jpg 1 2\n")
    notes = Told()
    assert pairs_in(folder, replace(SPATIAL, positions=file), notes) == (("a.jpg", "b.jpg"),)
    assert notes.warnings == [f"{file} has positions of 1 other file; it is left out"]


def test_a_photograph_without_a_partner_is_named(tmp_path):
    for name, longitude in (("1.jpg", 9.0), ("2.jpg", 9.0001), ("3.jpg", 10.0)):
        write_photograph(tmp_path / name, (48.0, longitude))
    notes = Told()
    assert pairs_in(tmp_path, SPATIAL, notes) == (("1.jpg", "2.jpg"),)
    (warning,) = notes.warnings
    assert "in no pair: 1 of 3 photographs, 3.jpg" in warning


def test_a_place_without_a_fix_is_no_place(tmp_path):
    folder, file = tmp_path / "photos", tmp_path / "positions.txt"
    for name, place in (("1.jpg", (48.0, 9.0)), ("2.jpg", (0.0, 0.0)), ("3.jpg", (0.0, 0.0))):
        write_photograph(folder / name, place)
    with pytest.raises(InputError, match=r": 2.jpg, 3.jpg\..*that of 2.jpg is 0, 0.*that of 3.jpg"):
        pairs_in(folder, SPATIAL)
    file.write_text("2.jpg 48 9\n3.jpg 0 0\n")
    with pytest.raises(InputError, match=r"positions.txt:2: the position of 3.jpg is 0, 0"):
        pairs_in(folder, replace(SPATIAL, positions=file))


def test_heights_count_when_asked(tmp_path):
    folder, file = tmp_path / "photos", tmp_path / "positions.txt"
    for name in ("a.jpg", "b.jpg"):
        write_photograph(folder / name)
    file.write_text("a.jpg 0 0 0\nb.jpg 3 4 80\n")
    options = replace(SPATIAL, positions=file, cartesian=True)
    assert pairs_in(folder, options) == (("a.jpg", "b.jpg"),)
    with pytest.raises(InputError, match="spatial pairing found no pair among 2 photographs. Raise --max-distance-m"):
        pairs_in(folder, replace(options, altitude=True))


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """A folder with photographs of a scene, its database and its model."""
    root = tmp_path_factory.mktemp("scene")
    scene = make_scene([f"view {index}.png" for index in range(6)])
    for name in scene.names:
        (root / "photos").mkdir(exist_ok=True)
        cv2.imwrite(str(root / "photos" / name), np.zeros((480, 640, 3), np.uint8))
    scene.write(root / "database.db", verify=VerifyOptions(num_threads=1))
    reconstruct(root / "database.db", root / "photos", root / "sparse", MapperOptions())
    return root


def test_poses_and_covisible_read_a_model(scene):
    photos, model = scene / "photos", scene / "sparse" / "0"
    options = PosesOptions(reference_model=model, num_matched=2)
    near = {(f"view {i}.png", f"view {i + 1}.png") for i in range(5)}
    assert near <= set(pairs_in(photos, options))
    assert len(pairs_in(photos, replace(options, num_matched=None))) == 15
    assert set(pairs_in(photos, replace(options, max_rotation_deg=12))) == near
    assert near <= set(pairs_in(photos, CovisibleOptions(reference_model=model)))
    with pytest.raises(InputError, match="covisible pairing found no pair .* Lower --min-shared-points"):
        pairs_in(photos, CovisibleOptions(reference_model=model, min_shared_points=10**6))


def test_from_database_takes_verified_pairs_and_leaves_the_file_alone(scene):
    before = (scene / "database.db").read_bytes()
    options = DatabaseOptions(reference_database=scene / "database.db")
    found = pairs_in(scene / "photos", options)
    assert set(found) == set(make_scene([f"view {index}.png" for index in range(6)]).matches)
    assert (scene / "database.db").read_bytes() == before
    assert sorted(path.name for path in scene.glob("database.db*")) == ["database.db"]
    with pytest.raises(InputError, match="contains no pair with 1000000 inliers. Lower --min-inliers"):
        pairs_in(scene / "photos", replace(options, min_inliers=10**6))


@pytest.mark.parametrize("name", ["poses", "covisible", "from-database"])
def test_names_that_do_not_fit_the_folder_are_shown_beside_its_own(scene, tmp_path, name):
    write_photograph(tmp_path / "photos" / "1.jpg")
    write_photograph(tmp_path / "photos" / "2.jpg")
    options = OPTIONS_BY_NAME[name](scene)
    with pytest.raises(
        InputError, match="knows 0 of the 2 photographs .* such as view 0.png, the folder's such as 1.jpg"
    ):
        pairs_in(tmp_path / "photos", options)


def test_photographs_without_a_pose_are_counted(scene, tmp_path):
    photos = tmp_path / "photos"
    for name in ("view 0.png", "view 1.png", "later.png"):
        write_photograph(photos / name)
    notes = Told()
    options = PosesOptions(reference_model=scene / "sparse" / "0")
    assert pairs_in(photos, options, notes) == (("view 0.png", "view 1.png"),)
    assert "1 photograph is unknown to" in notes.warnings[0]
    assert "later.png" in notes.warnings[0]
    assert "knows 4 images that are not in" in notes.warnings[1]


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        (PosesOptions(), UsageError, "--reference-model DIR"),
        (PosesOptions(reference_model=Path("nowhere")), InputError, "nowhere contains no COLMAP model"),
        (DatabaseOptions(), UsageError, "--reference-database FILE"),
        (DatabaseOptions(reference_database=Path("no.db")), InputError, "no.db is missing"),
        (LookAlikeOptions(num_matched=9), UsageError, "--num-matched is 9, but .* only 1"),
        (SpatialOptions(cartesian=True), UsageError, "--positions FILE"),
    ],
)
def test_what_a_source_lacks_is_said(tmp_path, options, error, sentence):
    write_photograph(tmp_path / "1.jpg")
    write_photograph(tmp_path / "2.jpg")
    with pytest.raises(error, match=sentence):
        pairs_in(tmp_path, options)


def test_a_database_of_another_kind_is_refused(tmp_path):
    for name in ("1.jpg", "2.jpg"):
        write_photograph(tmp_path / "photos" / name)
    (tmp_path / "text.db").write_text("no database")
    options = DatabaseOptions(reference_database=tmp_path / "text.db")
    with pytest.raises(StoreError, match="text.db cannot be read as a COLMAP database"):
        pairs_in(tmp_path / "photos", options)
