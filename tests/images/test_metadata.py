"""Camera data in EXIF, against COLMAP's reading of the same file and hand-worked values."""

from __future__ import annotations

import json
import math
import os

import numpy as np
import pytest
from PIL import Image
from PIL.ExifTags import GPS, IFD, Base
from PIL.TiffImagePlugin import IFDRational

from romacli.errors import ImageError
from romacli.images import metadata
from romacli.images.metadata import ImageMetadata, read_metadata, recall_metadata, written

SIZE = (400, 300)
BERLIN = {
    GPS.GPSLatitudeRef: "N",
    GPS.GPSLatitude: (52.0, 30.0, 36.0),
    GPS.GPSLongitudeRef: "E",
    GPS.GPSLongitude: (13.0, 22.0, 12.0),
    GPS.GPSAltitudeRef: b"\x00",
    GPS.GPSAltitude: 40.5,
}


@pytest.fixture
def photograph(tmp_path):
    """Return a function that writes a photograph with the given EXIF tags."""

    def write(base=None, camera=None, gps=None, extension=".jpg"):
        exif = Image.Exif()
        exif.update({Base.Software: "1"} | (base or {}))  # Pillow writes no EXIF block without a main tag
        exif.get_ifd(IFD.Exif).update(camera or {})
        exif.get_ifd(IFD.GPSInfo).update(gps or {})
        path = tmp_path / f"photograph{extension}"
        Image.fromarray(np.zeros(SIZE[::-1], np.uint8)).save(path, exif=exif)
        return path

    return write


def bitmap(path):
    """COLMAP's view of a file. pycolmap must be the last native import: see OpenCV's PNG writer."""
    import cv2  # noqa: F401

    pycolmap = pytest.importorskip("pycolmap")
    return pycolmap.Bitmap.read(str(path), True)


def test_a_photograph_without_exif_has_a_size_and_nothing_else(tmp_path):
    for extension in (".jpg", ".png", ".tif", ".bmp", ".webp"):
        path = tmp_path / f"plain{extension}"
        Image.fromarray(np.zeros(SIZE[::-1], np.uint8)).save(path)
        assert read_metadata(path) == ImageMetadata(SIZE)


@pytest.mark.parametrize("extension", [".jpg", ".png", ".webp", ".tif"])
def test_orientation_is_told_and_the_size_stays_as_stored(photograph, extension):
    metadata = read_metadata(photograph({Base.Orientation: 6}, extension=extension))
    assert metadata.orientation == 6
    assert metadata.size == SIZE


@pytest.mark.parametrize("nonsense", [0, 9, 6000])
def test_an_impossible_orientation_counts_as_none(photograph, nonsense):
    assert read_metadata(photograph({Base.Orientation: nonsense})).orientation == 1


@pytest.mark.parametrize("extension", [".jpg", ".png", ".webp"])
def test_the_35_mm_equivalent_compares_diagonals(photograph, extension):
    path = photograph(camera={Base.FocalLengthIn35mmFilm: 28, Base.FocalLength: 4.2}, extension=extension)
    assert read_metadata(path).focal_length_px == pytest.approx(28 * 500 / math.sqrt(36**2 + 24**2))


def test_the_focal_length_agrees_with_colmap(photograph):
    equivalent = photograph(camera={Base.FocalLengthIn35mmFilm: 28})
    # COLMAP rounds the diagonal of 35 mm film to 43.27 mm.
    assert read_metadata(equivalent).focal_length_px == pytest.approx(bitmap(equivalent).exif_focal_length(), rel=2e-4)
    tags = {
        Base.FocalLength: IFDRational(5),
        Base.FocalPlaneXResolution: IFDRational(1000),
        Base.FocalPlaneResolutionUnit: 2,
    }
    sensor = photograph(camera=tags)
    assert read_metadata(sensor).focal_length_px == pytest.approx(bitmap(sensor).exif_focal_length(), rel=1e-9)


@pytest.mark.parametrize(
    ("unit", "px_per_unit", "taken", "expected"),
    [
        (2, 2540.0, (400, 300), 500.0),
        (3, 1000.0, (400, 300), 500.0),
        (4, 100.0, (400, 300), 500.0),
        (3, 1000.0, (300, 400), 500.0),  # rotated upright after it was taken
        (3, 2000.0, (800, 600), 500.0),  # halved after it was taken
    ],
)
def test_the_sensor_resolution_in_any_unit(photograph, unit, px_per_unit, taken, expected):
    tags = {
        Base.FocalLength: 5.0,
        Base.FocalPlaneXResolution: px_per_unit,
        Base.FocalPlaneResolutionUnit: unit,
        Base.ExifImageWidth: taken[0],
        Base.ExifImageHeight: taken[1],
    }
    assert read_metadata(photograph(camera=tags)).focal_length_px == pytest.approx(expected)


@pytest.mark.parametrize(
    "tags",
    [
        {Base.FocalLength: 5.0},
        {Base.FocalLengthIn35mmFilm: 0},
        {Base.FocalLengthIn35mmFilm: 60000},
        {Base.FocalLength: IFDRational(5, 0), Base.FocalPlaneXResolution: 1000.0},
        {Base.FocalLength: 5.0, Base.FocalPlaneXResolution: 0.001},
        {Base.FocalLength: 5.0, Base.FocalPlaneXResolution: 1000.0, Base.FocalPlaneResolutionUnit: 77},
    ],
)
def test_a_focal_length_that_makes_no_sense_is_none(photograph, tags):
    assert read_metadata(photograph(camera=tags)).focal_length_px is None


@pytest.mark.parametrize(
    ("maker", "model", "expected"),
    [
        ("Apple", "iPhone 12", "Apple iPhone 12"),
        ("Canon", "Canon EOS 5D", "Canon EOS 5D"),
        ("SONY\0\0", " DSC-W1 \0", "SONY DSC-W1"),
        ("", "DSC-W1", "DSC-W1"),
        ("Nokia", "", "Nokia"),
        ("", "", None),
    ],
)
def test_the_camera_model_begins_with_its_maker_once(photograph, maker, model, expected):
    assert read_metadata(photograph({Base.Make: maker, Base.Model: model})).camera_model == expected


def test_gps_in_degrees_agrees_with_colmap(photograph):
    path = photograph(gps=BERLIN)
    assert read_metadata(path).gps == pytest.approx((52.51, 13.37, 40.5))
    colmap = bitmap(path)
    expected = (colmap.exif_latitude(), colmap.exif_longitude(), colmap.exif_altitude())
    assert read_metadata(path).gps == pytest.approx(expected)


def test_gps_south_west_and_below_the_sea(photograph):
    below = BERLIN | {GPS.GPSLatitudeRef: "S", GPS.GPSLongitudeRef: "W", GPS.GPSAltitudeRef: b"\x01"}
    assert read_metadata(photograph(gps=below)).gps == pytest.approx((-52.51, -13.37, -40.5))


@pytest.mark.parametrize(
    "change",
    [
        {GPS.GPSLatitude: (91.0, 0.0, 0.0)},
        {GPS.GPSLongitude: (13.0, 22.0)},
        {GPS.GPSLatitude: (IFDRational(0, 0), 30.0, 36.0)},
        {GPS.GPSLatitude: (0.0, 0.0, 0.0), GPS.GPSLongitude: (0.0, 0.0, 0.0), GPS.GPSAltitude: 0.0},
        {GPS.GPSAltitude: IFDRational(4294962296, 1000)},
        {GPS.GPSAltitude: IFDRational(0, 0)},
    ],
)
def test_a_place_that_makes_no_sense_is_none_and_told(photograph, change):
    found = read_metadata(photograph(gps=BERLIN | change))
    assert found.gps is None
    assert found.gps_fault


def test_device_tells_maker_model_lens_and_focal_length(photograph):
    camera = {Base.LensModel: "50mm f/1.8", Base.FocalLength: IFDRational(50, 1)}
    path = photograph({Base.Make: "Canon", Base.Model: "Canon EOS 5D"}, camera)
    assert read_metadata(path).device == "Canon EOS 5D, 50mm f/1.8, 50 mm"
    assert read_metadata(photograph()).device == ""


def test_photographs_without_a_place_have_no_fault(photograph):
    assert read_metadata(photograph(gps={GPS.GPSDateStamp: "2020:01:01"})).gps_fault is None


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("seed", range(20))
def test_damaged_exif_never_raises(photograph, seed):
    path = photograph({Base.Orientation: 6}, {Base.FocalLengthIn35mmFilm: 28}, BERLIN)
    data = bytearray(path.read_bytes())
    start = data.index(b"Exif\0\0") + 6
    length = int.from_bytes(data[start - 8 : start - 6], "big") - 8
    noise = np.random.default_rng(seed)
    for position in noise.integers(start, start + length, size=12):
        data[position] = noise.integers(256)
    path.write_bytes(data)
    assert read_metadata(path).size == SIZE


def test_what_is_no_image_is_refused(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"hello")
    with pytest.raises(ImageError, match=r"a\.jpg cannot be read as an image\. Convert it"):
        read_metadata(path)


def test_a_header_is_read_once_until_its_file_changes(photograph, monkeypatch):
    path = photograph({Base.Orientation: 6}, {Base.FocalLengthIn35mmFilm: 28}, BERLIN)
    os.utime(path, ns=(10**18, 10**18))
    known = read_metadata(path)
    monkeypatch.setattr(metadata, "image_size", lambda path: pytest.fail(f"{path} is opened again"))
    assert read_metadata(path) == known
    recall_metadata(path.with_name("moved.jpg"), (1, 2), json.loads(json.dumps(written(known))))
    path.with_name("moved.jpg").write_bytes(b"x")
    os.utime(path.with_name("moved.jpg"), ns=(2, 2))
    assert read_metadata(path.with_name("moved.jpg")) == known
    monkeypatch.undo()
    assert read_metadata(photograph({Base.Orientation: 3})).orientation == 3
