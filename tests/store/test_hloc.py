from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from romacli.errors import InputError, PairsError, StoreError
from romacli.store.hloc import (
    FeaturesFile,
    MatchesFile,
    check_names,
    pair_key,
    read_provenance,
    write_features,
    write_matches,
)
from romacli.types import Keypoints, Matches


def read_keypoints(path: Path, name: str) -> Keypoints:
    with FeaturesFile(path) as file:
        return file.keypoints(name)


def read_matches(path: Path, name0: str, name1: str) -> Matches:
    with MatchesFile(path) as file:
        return file.matches(name0, name1)


ROOT = Path(__file__).resolve().parents[2]
NAMES = ["a.jpg", "Straße 1/bild ä.jpg", "deep/er/c.JPG", "b-b_b.jpg"]
PROVENANCE = {"romacli": "0.1.0", "weights": "sha256:ab"}


def list_names(path):
    with FeaturesFile(path) as file:
        return file.names()


# What readers of hloc's files do, from the description of the format alone.
def peer_list_names(path):
    names = set()
    with h5py.File(path, "r") as file:
        file.visititems(lambda _, x: names.add(x.parent.name.strip("/")) if isinstance(x, h5py.Dataset) else None)
    return names


def peer_keypoints(path, name):
    with h5py.File(path, "r") as file:
        return file[name]["keypoints"].__array__()


def peer_find_pair(file, name0, name1):
    for separator in ("/", "_"):
        for a, b, is_reversed in ((name0, name1, False), (name1, name0, True)):
            key = separator.join((a.replace("/", "-"), b.replace("/", "-")))
            if key in file:
                return key, is_reversed
    raise ValueError(f"no matches of {name0} {name1}")


def peer_matches(path, name0, name1):
    with h5py.File(path, "r") as file:
        key, is_reversed = peer_find_pair(file, name0, name1)
        matches, scores = file[key]["matches0"].__array__(), file[key]["matching_scores0"].__array__()
    rows = np.where(matches != -1)[0]
    matches = np.stack([rows, matches[rows]], -1)
    return (np.flip(matches, -1) if is_reversed else matches), scores[rows]


def keypoints(count, seed=0):
    rng = np.random.default_rng(seed)
    return Keypoints((rng.random((count, 2)) * 4000).astype(np.float32), rng.random(count).astype(np.float32))


def matches(count, num_keypoints0, num_keypoints1, seed=0):
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.choice(num_keypoints0, count, replace=False))
    columns = rng.choice(num_keypoints1, count, replace=False)
    scores = rng.integers(0, 1000, count) / np.float32(1024)
    return Matches(np.stack([rows, columns], 1).astype(np.int32), scores.astype(np.float32))


@pytest.fixture
def features_path(tmp_path):
    path = tmp_path / "features.h5"
    items = [(name, keypoints(50 + i, i), (4000 + i, 3000)) for i, name in enumerate(NAMES)]
    write_features(path, items, provenance=PROVENANCE)
    return path


@pytest.fixture
def matches_path(tmp_path):
    path = tmp_path / "matches.h5"
    pairs = [(NAMES[1], NAMES[0]), (NAMES[2], NAMES[1])]
    write_matches(path, [(pair, matches(20, 50, 60, i), 50) for i, pair in enumerate(pairs)], provenance=PROVENANCE)
    return path


def test_keypoints_come_back_in_colmap_pixels(features_path):
    assert list_names(features_path) == sorted(NAMES)
    with FeaturesFile(features_path) as file:
        for i, name in enumerate(NAMES):
            assert np.abs(file.keypoints(name).xy - keypoints(50 + i, i).xy).max() < 3e-4
            assert np.array_equal(file.keypoints(name).scores, keypoints(50 + i, i).scores)
            assert file.image_size(name) == (4000 + i, 3000)
            assert file.keypoints(name).xy.dtype == np.float32


def test_the_centre_of_the_first_pixel_is_zero_in_the_file_and_a_half_here(tmp_path):
    path = tmp_path / "features.h5"
    points = Keypoints(np.array([[0.5, 0.5], [639.5, 479.5]], np.float32), np.ones(2, np.float32))
    write_features(path, [("a.jpg", points, (640, 480))], provenance={})
    assert peer_keypoints(path, "a.jpg").tolist() == [[0, 0], [639, 479]]
    assert read_keypoints(path, "a.jpg").xy.tolist() == points.xy.tolist()


def test_a_peer_finds_names_keypoints_and_both_score_keys(features_path):
    assert peer_list_names(features_path) == set(NAMES)
    with h5py.File(features_path) as file:
        for i, name in enumerate(NAMES):
            assert file[name]["keypoints"].dtype == np.float32
            assert np.array_equal(file[name]["score"][()], keypoints(50 + i, i).scores)
            assert file[name]["score"] == file[name]["scores"]
            assert file[name]["image_size"][()].tolist() == [4000 + i, 3000]


def test_a_peer_reads_matches_in_either_order(matches_path):
    expected = matches(20, 50, 60, 0)
    found, scores = peer_matches(matches_path, NAMES[1], NAMES[0])
    assert np.array_equal(found, expected.indices)
    assert np.array_equal(scores, expected.scores)
    assert np.array_equal(peer_matches(matches_path, NAMES[0], NAMES[1])[0], expected.indices[:, ::-1])


def test_a_file_tells_its_pairs_to_who_knows_the_names(matches_path):
    with MatchesFile(matches_path) as file:
        assert sorted(file.pairs(NAMES)) == sorted([(NAMES[1], NAMES[0]), (NAMES[2], NAMES[1])])
        with pytest.raises(StoreError, match=r"matches\.h5 cannot give its pairs as pairs of the images"):
            file.pairs(NAMES[:2])


def test_matches_come_back_in_either_order(matches_path):
    expected = matches(20, 50, 60, 1)
    with MatchesFile(matches_path) as file:
        assert (NAMES[1], NAMES[2]) in file
        assert (NAMES[0], NAMES[2]) not in file
        forward, backward = file.matches(NAMES[2], NAMES[1]), file.matches(NAMES[1], NAMES[2])
    assert np.array_equal(forward.indices, expected.indices)
    assert np.array_equal(backward.indices, expected.indices[:, ::-1])
    assert np.array_equal(forward.scores, expected.scores)
    assert forward.indices.dtype == np.int32


def test_more_keypoints_than_sixteen_bits_count(tmp_path):
    path = tmp_path / "matches.h5"
    expected = Matches(np.array([[0, 65_000], [69_999, 40_000]], np.int32), np.ones(2, np.float32))
    write_matches(path, [(("a", "b"), expected, 70_000)], provenance={})
    assert np.array_equal(read_matches(path, "a", "b").indices, expected.indices)
    assert np.array_equal(peer_matches(path, "a", "b")[0], expected.indices)


def test_nothing_found_is_stored_as_nothing(tmp_path):
    write_features(tmp_path / "f.h5", [("a", keypoints(0), (4, 3))], provenance={})
    write_matches(tmp_path / "m.h5", [(("a", "b"), matches(0, 5, 5), 0)], provenance={})
    assert len(read_keypoints(tmp_path / "f.h5", "a")) == 0
    assert len(read_matches(tmp_path / "m.h5", "b", "a")) == 0
    assert list_names(tmp_path / "f.h5") == ["a"]


def test_a_keypoint_matched_twice_is_refused(tmp_path):
    twice = Matches(np.array([[1, 2], [1, 3]], np.int32), np.ones(2, np.float32))
    with pytest.raises(ValueError, match="a keypoint of a has two matches in b"):
        write_matches(tmp_path / "m.h5", [(("a", "b"), twice, 5)], provenance={})
    assert os.listdir(tmp_path) == []


def test_provenance_is_read_back_and_absent_without_a_whole_file(features_path, tmp_path):
    assert read_provenance(features_path) == PROVENANCE
    assert read_provenance(tmp_path / "none.h5") is None
    (tmp_path / "torn.h5").write_bytes(features_path.read_bytes()[:500])
    assert read_provenance(tmp_path / "torn.h5") is None


def test_files_keep_the_default_format_any_reader_knows(features_path):
    assert features_path.read_bytes()[:9] == b"\x89HDF\r\n\x1a\n\x00"


def test_pair_keys_nest_and_flatten_folders():
    assert pair_key("a/x.jpg", "b/c/y.jpg") == "a-x.jpg/b-c-y.jpg"


def test_names_that_can_stand_beside_each_other_pass():
    check_names([*NAMES, "a.jpg", "deep/x.jpg", "..jpg", "a.jpg.png"])


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["a/b.jpg", "a-b.jpg"], r"a/b\.jpg and a-b\.jpg have the same name in hloc files"),
        (["a.jpg/b.jpg", "a.jpg"], r"a\.jpg/b\.jpg is inside a\.jpg"),
        (["a", "a/b/c"], "a/b/c is inside a"),
        (["./a.jpg"], r"'\./a\.jpg' cannot be a name in hloc files"),
        (["a/../b.jpg"], "cannot be a name"),
        (["/a.jpg"], "cannot be a name"),
        (["a//b.jpg"], "cannot be a name"),
        (["a/"], "cannot be a name"),
        (["."], "cannot be a name"),
        ([""], "cannot be a name"),
        (["a\0b"], "cannot be a name"),
        ([os.fsdecode(b"\xe4.jpg")], "is not UTF-8"),
    ],
)
def test_names_that_cannot_are_named(names, said):
    with pytest.raises(PairsError, match=said):
        check_names(names)


def test_a_file_of_hloc_itself_is_read(tmp_path):
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["x/a.jpg/keypoints"] = np.array([[1, 2], [3, 4]], np.float16)
        file["x/a.jpg/descriptors"] = np.zeros((8, 2), np.float16)
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["x-a.jpg_b.jpg/matches0"] = np.array([-1, 4], np.int16)
        file["x-a.jpg_b.jpg/matching_scores0"] = np.array([0, 0.5], np.float16)
    points = read_keypoints(tmp_path / "f.h5", "x/a.jpg")
    assert points.xy.tolist() == [[1.5, 2.5], [3.5, 4.5]]
    assert points.scores.tolist() == [1, 1]
    assert list_names(tmp_path / "f.h5") == ["x/a.jpg"]
    assert read_matches(tmp_path / "m.h5", "b.jpg", "x/a.jpg").indices.tolist() == [[4, 1]]


def test_what_a_file_lacks_is_named(features_path, matches_path, tmp_path):
    with pytest.raises(StoreError, match=r"features\.h5 contains no keypoints of x\.jpg"):
        read_keypoints(features_path, "x.jpg")
    with pytest.raises(StoreError, match=r"matches\.h5 contains no matches of a\.jpg x\.jpg"):
        read_matches(matches_path, "a.jpg", "x.jpg")
    with pytest.raises(InputError, match=r"none\.h5 cannot be read: No such file"):
        read_matches(tmp_path / "none.h5", "a", "b")
    with pytest.raises(InputError, match="cannot be read: Is a directory. Give an HDF5 file"):
        read_keypoints(tmp_path, "a")


def test_foreign_content_is_a_sentence(tmp_path):
    path = tmp_path / "foreign.h5"
    with h5py.File(path, "w") as file:
        file["a/b"] = np.zeros((5, 2), int)
        file["c/keypoints"] = np.zeros((5, 3))
        file["d/e/matches0"] = np.array([40_000 - 65_536], np.int16)
        file["d/e/matching_scores0"] = np.ones(1, np.float16)
    for pair in (("a", "b"), ("d", "e")):
        with pytest.raises(StoreError, match=r"foreign\.h5 cannot give the matches of"):
            read_matches(path, *pair)
    with pytest.raises(StoreError, match=r"cannot give the keypoints of c"):
        read_keypoints(path, "c")
    with FeaturesFile(path) as file, pytest.raises(StoreError, match="cannot give the size of c"):
        file.image_size("c")


def test_descriptors_that_are_not_numbers_are_refused(tmp_path):
    with h5py.File(tmp_path / "local.h5", "w") as file:
        file["a.jpg/descriptors"] = np.array([[1, 0], [0, np.nan]], np.float16)
        file["b.jpg/descriptors"] = np.eye(2, dtype=np.float16)
    with FeaturesFile(tmp_path / "local.h5") as file:
        assert file.descriptors("b.jpg").tolist() == [[1, 0], [0, 1]]
        with pytest.raises(StoreError, match="local.h5 cannot give the descriptors of a.jpg"):
            file.descriptors("a.jpg")


def test_truncated_and_empty_files_are_a_sentence(features_path, tmp_path):
    content = features_path.read_bytes()
    for length in (0, 7, 96, 800, len(content) // 2, len(content) - 1):
        path = tmp_path / "torn.h5"
        path.write_bytes(content[:length])
        with pytest.raises(StoreError, match=r"torn\.h5 cannot be opened as HDF5; it is damaged"):
            list_names(path)


@pytest.mark.parametrize("limit", [0, 500, 2500, 40_000, 200_000])
def test_a_full_disk_keeps_the_old_file_and_is_a_sentence(features_path, limit):
    before = features_path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(StoreError, match=r"features\.h5 cannot be written.*full"):
            write_features(
                features_path,
                ((f"{i}.jpg", keypoints(size), (4, 3)) for i, size in enumerate([5, 50, 50_000, 5])),
                provenance={},
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert features_path.read_bytes() == before
    assert os.listdir(features_path.parent) == [features_path.name]


def test_an_interruption_between_items_comes_out_and_keeps_the_old_file(features_path):
    before = features_path.read_bytes()

    def items():
        yield "new.jpg", keypoints(5), (4, 3)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_features(features_path, items(), provenance={})
    assert features_path.read_bytes() == before
    assert os.listdir(features_path.parent) == [features_path.name]


def test_a_killed_writer_leaves_the_old_file_whole(features_path):
    script = (
        "import os, pathlib, signal\n"
        "import numpy as np\n"
        "from romacli.store.hloc import write_features\n"
        "from romacli.types import Keypoints\n"
        "def items():\n"
        "    yield 'new.jpg', Keypoints(np.zeros((9, 2), np.float32), np.zeros(9, np.float32)), (4, 3)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        f"write_features(pathlib.Path({str(features_path)!r}), items(), provenance={{}})\n"
    )
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT).returncode == -signal.SIGKILL
    assert list_names(features_path) == sorted(NAMES)


def test_the_room_loads_neither_torch_nor_h5py():
    script = (
        "import sys, romacli.store.hloc, romacli.store.journal, romacli.store.manifest\n"
        "assert not {'torch', 'h5py'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)
