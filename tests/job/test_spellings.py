"""Photographs with names as macOS spells them; lists, masks, HDF5 files, models and databases as others do."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from unicodedata import normalize

import cv2
import numpy as np
import pytest
from support.small_scene import SIZE, make_scene

from romacli.colmap.cameras import ImageInfo
from romacli.colmap.options import VerifyOptions
from romacli.errors import InputError, PairsError
from romacli.images.listing import list_images
from romacli.images.masks import find_masks
from romacli.images.options import MaskOptions
from romacli.job.external import ExternalKeypoints
from romacli.job.options import ImportOptions
from romacli.job.outputs.database import import_matches
from romacli.keypoints.options import AggregateOptions
from romacli.mapping.cameras import known_cameras
from romacli.mapping.options import MapperOptions
from romacli.mapping.reconstruct import reconstruct
from romacli.pairing.database import DatabaseOptions
from romacli.pairing.model import CovisibleOptions, PosesOptions
from romacli.pairing.sources import choose_pairs
from romacli.pairing.spatial import SpatialOptions
from romacli.pairs.listfile import read_pairs
from romacli.progress import Silent
from romacli.stop import StopRequest
from romacli.store.global_features import GlobalFeature, GlobalFeaturesFile, write_global_features
from romacli.store.hloc import write_features, write_matches
from romacli.store.layout import Layout
from romacli.types import Keypoints, Matches

TYPED = [f"Café {index}.png" for index in range(4)]
STORED = [normalize("NFD", name) for name in TYPED]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    white = cv2.imencode(".png", np.full(SIZE[::-1], 255, np.uint8))[1].tobytes()
    for name in STORED:
        (folder / name).write_bytes(white)
    return folder


@pytest.fixture(scope="module")
def mapped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database and a model of the photographs under their typed names."""
    folder = tmp_path_factory.mktemp("mapped")
    make_scene(TYPED).write(folder / "a.db", verify=VerifyOptions(num_threads=1))
    reconstruct(folder / "a.db", folder, folder / "sparse", MapperOptions(refine_intrinsics=False, num_threads=1))
    return folder


def test_lists_of_names_and_of_pairs(photos: Path, tmp_path: Path) -> None:
    names, pairs = tmp_path / "names.txt", tmp_path / "pairs.txt"
    names.write_text("\n".join(TYPED[:3]))
    assert list(list_images(photos, names_file=names).names) == STORED[:3]
    pairs.write_text(f"{TYPED[0]}\t{TYPED[1]}\n{STORED[1]}\t{TYPED[0]}\n{STORED[2]}\t{TYPED[0]}\n")
    read = read_pairs(pairs, STORED)
    assert read.pairs.pairs == ((STORED[0], STORED[1]), (STORED[2], STORED[0]))
    assert read.duplicates == 1
    pairs.write_text(f"{TYPED[0]}\t{STORED[0]}\n")
    with pytest.raises(PairsError, match="paired with itself"):
        read_pairs(pairs, STORED)


def test_a_list_of_names_that_are_not_there_has_guesses(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("other/café 1.PNG\n")
    with pytest.raises(InputError, match=f"did you mean {STORED[1]}"):
        list_images(photos, names_file=tmp_path / "names.txt")


@pytest.mark.parametrize("ending", [".png.png", ".png"])
def test_masks(photos: Path, tmp_path: Path, ending: str) -> None:
    mask = np.zeros(SIZE[::-1], np.uint8)
    mask[:9] = 255
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / TYPED[1].replace(".png", ending)).write_bytes(cv2.imencode(".png", mask)[1].tobytes())
    assert list(find_masks(photos, STORED, MaskOptions(tmp_path / "masks")).files) == [STORED[1]]
    assert list(find_masks(photos, STORED[:1] + STORED[1:2], MaskOptions(tmp_path / "masks")).files) == [STORED[1]]
    (tmp_path / "masks" / "Hof.png").write_bytes(cv2.imencode(".png", mask)[1].tobytes())
    with pytest.raises(InputError, match=r"Hof\.png is the mask of no photograph"):
        find_masks(photos, STORED, MaskOptions(tmp_path / "masks"))


def test_positions(photos: Path, tmp_path: Path) -> None:
    file = tmp_path / "positions.txt"
    file.write_text("".join(f"{name}\t48.5\t9.000{index}\n" for index, name in enumerate(TYPED)))
    found = choose_pairs(list_images(photos), SpatialOptions(positions=file), Silent())
    assert len(found) == 6


def test_keypoints_and_descriptors(tmp_path: Path) -> None:
    points = {name: np.full((3, 2), index + 1, np.float32) for index, name in enumerate(TYPED)}
    rows = ((name, Keypoints(xy, np.ones(3, np.float32)), SIZE) for name, xy in points.items())
    write_features(tmp_path / "given.h5", rows, provenance={})
    given = ExternalKeypoints(str(tmp_path / "given.h5"))
    given.check(STORED, AggregateOptions())
    loaded = given.load(dict.fromkeys(STORED, SIZE), AggregateOptions(), Silent(), StopRequest())
    assert {name: keypoints.xy.tolist() for name, keypoints in loaded.items()} == {
        stored: points[typed].tolist() for typed, stored in zip(TYPED, STORED, strict=True)
    }
    features = {name: GlobalFeature(np.full(4, index, np.float32)) for index, name in enumerate(TYPED)}
    write_global_features(tmp_path / "global.h5", features, provenance={})
    with GlobalFeaturesFile(tmp_path / "global.h5") as file:
        held = file.read(STORED)
    assert [held[name].descriptor[0] for name in STORED] == [0, 1, 2, 3]


@pytest.mark.parametrize("name", ["poses", "covisible", "from-database"])
def test_models_and_databases_choose_pairs(photos: Path, mapped: Path, name: str) -> None:
    model = mapped / "sparse" / "0"
    options = {
        "poses": PosesOptions(reference_model=model, num_matched=3),
        "covisible": CovisibleOptions(reference_model=model, num_matched=3),
        "from-database": DatabaseOptions(reference_database=mapped / "a.db"),
    }[name]
    found = choose_pairs(list_images(photos), options, Silent())
    assert {name for pair in found.pairs for name in pair} == set(STORED)


def test_known_poses(mapped: Path, tmp_path: Path) -> None:
    model = mapped / "sparse" / "0"
    _, camera_of = known_cameras(model, [ImageInfo(name, SIZE) for name in STORED])
    assert set(camera_of) == set(STORED)
    make_scene(STORED).write(tmp_path / "b.db", verify=VerifyOptions(num_threads=1))
    options = MapperOptions(known_poses=model, refine_intrinsics=False, num_threads=1)
    assert reconstruct(tmp_path / "b.db", tmp_path, tmp_path / "sparse", options).registered == 4


def test_hloc_files_are_imported_under_the_names_of_the_folder(photos: Path, tmp_path: Path) -> None:
    scene, layout = make_scene(TYPED), Layout(tmp_path / "hloc")
    layout.root.mkdir()
    points = {name: Keypoints(xy, np.ones(len(xy), np.float32)) for name, xy in scene.keypoints.items()}
    write_features(layout.features, ((name, points[name], SIZE) for name in TYPED), provenance={})
    rows = ((pair, Matches(rows, np.ones(len(rows), np.float32))) for pair, rows in scene.matches.items())
    write_matches(layout.matches, ((pair, found, len(points[pair[0]])) for pair, found in rows), provenance={})
    options = ImportOptions(verify=VerifyOptions(num_threads=1), only=frozenset(STORED[:3]))
    assert import_matches(photos, layout, options, Silent(), StopRequest()).verified == 3
    with closing(sqlite3.connect(layout.database)) as connection:
        assert {name for (name,) in connection.execute("SELECT name FROM images")} == set(STORED[:3])
