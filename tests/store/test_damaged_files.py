"""Reading ends in a result or an error message, whatever a file contains: no traceback, hang or excessive memory."""

from __future__ import annotations

import json
import os
import random
import struct
import time
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from romacli.errors import RomacliError, StoreError
from romacli.pairs.listfile import read_pairs
from romacli.store.hloc import FeaturesFile, MatchesFile, write_features, write_matches
from romacli.store.images import read_images
from romacli.store.journal import Journal, JournalWriter
from romacli.store.manifest import read_manifest
from romacli.store.repair import repair, survey
from romacli.types import CompactWarp, Correspondences, Keypoints, Matches, Rejected

# More with, for instance, FUZZ_EXAMPLES=5000.
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "50"))
FUZZ = settings(
    deadline=None, derandomize=EXAMPLES == 50, max_examples=EXAMPLES, suppress_health_check=list(HealthCheck)
)
NAMES = ["a.jpg", "b/c.jpg", "d.jpg"]
PREFIX = struct.Struct("<4sIQII")


@contextmanager
def new_folder() -> Iterator[Path]:
    """A folder for one of many examples, removed afterwards."""
    with TemporaryDirectory() as folder:
        yield Path(folder)


@cache
def journal_bytes() -> bytes:
    target, weight = np.full((4, 4, 2), 9, np.uint16), np.full((4, 4), 200, np.uint8)
    points = np.ones((3, 2), np.float32)
    with new_folder() as folder:
        with JournalWriter(folder, "job", stamps={name: (5, 7) for name in NAMES}) as writer:
            writer.append([((NAMES[0], NAMES[1]), CompactWarp(target, weight, target, weight, (8, 8), (8, 8), 0.5))])
            writer.append([((NAMES[1], NAMES[2]), Correspondences(points, points, np.ones(3, np.float32)))])
            writer.append([((NAMES[0], NAMES[2]), Rejected(0.0))])
        return writer.path.read_bytes()


@st.composite
def mutations(draw):
    """Changes of bytes, given by a seed so that hypothesis need not know the length of the data."""
    return draw(st.integers(0, 2**32)), draw(st.integers(1, 6))


def mutated(content: bytes, how: tuple[int, int]) -> bytes:
    rng = random.Random(how[0])
    data = bytearray(content)
    for _ in range(how[1]):
        place = rng.randrange(len(data) + 1)
        length = rng.choice((1, 1, 2, 8, 64, 500))
        change = rng.randrange(5)
        if change == 0:
            data[place : place + length] = rng.randbytes(length)
        elif change == 1:
            del data[place : place + length]
        elif change == 2:
            data[place:place] = data[rng.randrange(len(data) + 1) :][:length]
        elif change == 3:
            data[place : place + length] = bytes(length)
        else:
            data[place : place + 8] = struct.pack("<Q", rng.choice((0, 2**31, 2**40, 2**63, 2**64 - 1)))
    return bytes(data)


def use_journal(folder: Path) -> None:
    """All queries of a journal."""
    for verify in (False, True):
        with Journal(folder, verify=verify) as journal:
            for pair in journal.pairs:
                journal.overlap(pair)
                try:
                    journal.read(pair)
                    if journal.kind(pair) == "warp":
                        journal.sizes(pair)
                except StoreError:
                    pass


def quick_and_small(work, *, seconds: float = 5.0, num_bytes: int = 64 << 20) -> None:
    tracemalloc.start()
    start = time.process_time()
    try:
        work()
    except RomacliError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert time.process_time() - start < seconds
    assert peak < num_bytes


@FUZZ
@given(how=mutations())
def test_a_damaged_journal_is_read_surveyed_and_repaired(how):
    with new_folder() as folder:
        path = folder / "x.jnl"
        path.write_bytes(mutated(journal_bytes(), how))

        def work():
            use_journal(folder)
            repair(survey(path), "job")
            with Journal(folder, "job", verify=True) as journal:
                assert journal.damaged == journal.torn == []

        quick_and_small(work)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**70) | st.floats() | st.text(max_size=4) | st.just([4, 4]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@FUZZ
@given(
    field=st.sampled_from(["pair", "kind", "overlap", "shapes", "size_A", "size_B", "stamps", "fingerprint", "format"]),
    value=json_values | st.sampled_from(["warp", "rejected", "correspondences", [2**40, 2**40], [[-1], [1], [1], [1]]]),
)
def test_a_header_with_right_checksums_and_wrong_values_is_no_trap(field, value):
    header = {"pair": NAMES[:2], "kind": "warp", "overlap": 0.5, "size_A": [8, 8], "size_B": [8, 8],
              "shapes": [[1, 1, 2], [1, 1], [1, 1, 2], [1, 1]]}  # fmt: skip
    job = {"kind": "job", "format": 1, "fingerprint": "job"}
    with new_folder() as folder:
        (folder / "x.jnl").write_bytes(journal_bytes() + record({**header, field: value}, bytes(10)))
        (folder / "y.jnl").write_bytes(record({**job, field: value}, b""))
        quick_and_small(lambda: use_journal(folder))


def record(header: dict, payload: bytes, *, text: bytes | None = None) -> bytes:
    text = json.dumps(header).encode() if text is None else text
    prefix = PREFIX.pack(b"RCJ1", len(text), len(payload), zlib.crc32(payload), 0)[:-4]
    return prefix + struct.pack("<I", zlib.crc32(text, zlib.crc32(prefix))) + text + payload


@pytest.mark.parametrize("text", [b"[" * 60_000, b'{"pair":' * 5000, b"1" * 50_000, b"\xff", b"NaN", b""])
def test_a_header_that_is_no_record_is_no_trap(tmp_path, text):
    (tmp_path / "x.jnl").write_bytes(journal_bytes() + record({}, b"", text=text))
    quick_and_small(lambda: use_journal(tmp_path))


def test_a_header_that_claims_more_than_there_is_allocates_nothing(tmp_path):
    claim = PREFIX.pack(b"RCJ1", 2, 2**50, 0, 0)[:-4]
    claim += struct.pack("<I", zlib.crc32(b"{}", zlib.crc32(claim))) + b"{}"
    (tmp_path / "x.jnl").write_bytes(journal_bytes() + claim)
    quick_and_small(lambda: use_journal(tmp_path), num_bytes=4 << 20)


@cache
def hloc_files() -> tuple[bytes, bytes]:
    points = Keypoints(np.arange(8, dtype=np.float32).reshape(4, 2), np.ones(4, np.float32))
    matches = Matches(np.array([[0, 1], [2, 3]], np.int32), np.ones(2, np.float32))
    with new_folder() as folder:
        write_features(folder / "features.h5", [(name, points, (8, 8)) for name in NAMES], provenance={"k": "v"})
        write_matches(folder / "matches.h5", [((NAMES[0], NAMES[1]), matches, 4)], provenance={"k": "v"})
        return (folder / "features.h5").read_bytes(), (folder / "matches.h5").read_bytes()


def use_hloc(folder: Path) -> None:
    try:
        with FeaturesFile(folder / "features.h5") as features:
            features.provenance()
            for name in features.names():
                features.keypoints(name)
                features.known_size(name)
    except RomacliError:
        pass
    with MatchesFile(folder / "matches.h5") as matches:
        for pair in matches.pairs(NAMES):
            matches.matches(*pair)


@FUZZ
@given(how=mutations())
def test_damaged_hloc_files_are_read_or_refused(how):
    with new_folder() as folder:
        for name, content in zip(("features.h5", "matches.h5"), hloc_files(), strict=True):
            (folder / name).write_bytes(mutated(content, how))
        quick_and_small(lambda: use_hloc(folder))


def test_attributes_that_lie_in_a_heap_are_left_alone(tmp_path):
    """HDF5 may read a damaged file forever."""
    with h5py.File(tmp_path / "features.h5", "w") as file:
        file.attrs.update({"heap": "v", "fixed": np.bytes_(b"v"), "number": 3, "several": np.array([b"v", b"w"])})
    with FeaturesFile(tmp_path / "features.h5") as features:
        assert features.provenance() == {"fixed": "v"}


@pytest.mark.parametrize("bits", [0x7F800001, 0x7FC00000, 0x7F800000], ids=["signalling NaN", "NaN", "infinity"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_keypoint_that_is_nowhere_is_refused(tmp_path, bits, dtype):
    points = np.array([[1.5, 2.5], [3.5, 4.5]], np.float32)
    points.view(np.uint32)[1, 0] = bits
    with h5py.File(tmp_path / "features.h5", "w") as file:
        file["a.jpg/keypoints"] = points
    with FeaturesFile(tmp_path / "features.h5") as features, pytest.raises(StoreError, match="keypoints of a.jpg"):
        features.keypoints("a.jpg", dtype)


@pytest.mark.parametrize("chunks", [None, (1024, 2)])
def test_a_dataset_that_claims_more_than_its_file_holds_is_refused(tmp_path, chunks):
    with h5py.File(tmp_path / "features.h5", "w") as file:
        file.create_dataset("a.jpg/keypoints", (1 << 36, 2), "f4", chunks=chunks)
    with FeaturesFile(tmp_path / "features.h5") as features, pytest.raises(StoreError, match="keypoints of a.jpg"):
        features.keypoints("a.jpg")


def test_groups_that_hold_themselves_are_no_trap(tmp_path):
    with h5py.File(tmp_path / "features.h5", "w") as file:
        file["a"] = file["/"]
        file["b"] = h5py.SoftLink("/b")
        file["c"] = h5py.ExternalLink("/etc/passwd", "/")
        file["a/keypoints"] = 1
    with FeaturesFile(tmp_path / "features.h5") as features:
        quick_and_small(lambda: [features.keypoints(name) for name in features.names()])


@FUZZ
@given(content=st.binary(max_size=300) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_as_a_list_of_pairs(content):
    with new_folder() as folder:
        path = folder / "pairs.txt"
        path.write_bytes(content)
        quick_and_small(lambda: read_pairs(path, ["a.jpg", "b.jpg"]))
        quick_and_small(lambda: read_pairs(path, None))


@FUZZ
@given(content=json_values.map(json.dumps) | st.text(max_size=50) | st.just("[" * 100_000))
def test_any_json_as_manifest_and_list_of_photographs(content):
    with new_folder() as folder:
        path = folder / "file.json"
        for text in (
            content,
            *(f'{{"format": 1, "version": "0", "{key}": {content}}}' for key in ("settings", "images")),
        ):
            path.write_text(text, encoding="utf-8", errors="surrogatepass")
            quick_and_small(lambda: read_manifest(path))
            quick_and_small(lambda: read_images(path))
