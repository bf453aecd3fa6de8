from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from romacli.errors import SettingsDifferError, StoreError
from romacli.store import journal as journal_module
from romacli.store.journal import Journal, JournalWriter
from romacli.types import CompactWarp, Correspondences, Rejected

ROOT = Path(__file__).resolve().parents[2]
KILLED_WRITER = """
import itertools, pathlib, sys
import numpy as np
from romacli.store.journal import JournalWriter
from romacli.types import CompactWarp, Rejected

def result(i):
    if i % 3 == 0:
        return Rejected(i / 1e6)
    target, weight = np.full((40, 40, 2), i % 65536, np.uint16), np.full((40, 40), i % 256, np.uint8)
    return CompactWarp(target, weight, target, weight, (640, 480), (640, 480), 0.5)

with JournalWriter(pathlib.Path(sys.argv[1]), "job") as writer:
    for start in itertools.count(0, 5):
        writer.append([((f"{i}.jpg", "other.jpg"), result(i)) for i in range(start, start + 5)])
        print(start + 5, flush=True)
"""


def warp(seed=0, shape_A=(3, 4), shape_B=(5, 2)):
    rng = np.random.default_rng(seed)
    return CompactWarp(
        target_AB=rng.integers(0, 65536, (*shape_A, 2), np.uint16),
        weight_AB=rng.integers(0, 256, shape_A, np.uint8),
        target_BA=rng.integers(0, 65536, (*shape_B, 2), np.uint16),
        weight_BA=rng.integers(0, 256, shape_B, np.uint8),
        size_A=(640, 480),
        size_B=(300, 400),
        overlap=float(rng.random()),
        precise=bool(seed % 2),
    )


def correspondences(seed=0, count=7):
    rng = np.random.default_rng(seed)
    points = rng.normal(0, 1e3, (2, count, 2)).astype(np.float32)
    return Correspondences(points[0], points[1], rng.random(count).astype(np.float32))


def write(folder, results, fingerprint="job"):
    with JournalWriter(folder, fingerprint) as writer:
        writer.append(results)
    return writer.path


def same(a, b):
    if type(a) is not type(b):
        return False
    return all(
        np.array_equal(x, y) and np.asarray(x).dtype == np.asarray(y).dtype
        for x, y in zip(vars(a).values(), vars(b).values(), strict=True)
    )


def turned(result):
    if isinstance(result, CompactWarp):
        names = ("target_BA", "weight_BA", "target_AB", "weight_AB", "size_B", "size_A", "overlap")
        return CompactWarp(*(getattr(result, name) for name in names), precise=result.precise)
    if isinstance(result, Correspondences):
        return Correspondences(result.keypoints1, result.keypoints0, result.scores)
    return result


def is_read(journal, pair, result):
    """Whether the result is read back; otherwise it must be refused by a StoreError, never changed."""
    try:
        found = journal.read(pair)
    except StoreError:
        return False
    assert same(found, result)
    return True


THREE = [
    (("b.jpg", "a.jpg"), warp(1)),
    (("a.jpg", "c d/ü.jpg"), correspondences(2)),
    (("c d/ü.jpg", "b.jpg"), Rejected(0.125)),
]

names = st.text(st.characters(exclude_categories=()), min_size=1, max_size=8)
grids = st.tuples(st.integers(0, 5), st.integers(0, 5))
seeds = st.integers(0, 1000)
results_of_pairs = (
    st.builds(warp, seeds, grids, grids)
    | st.builds(correspondences, seeds, st.integers(0, 9))
    | st.builds(Rejected, st.floats(0, 1))
)
batches = st.dictionaries(st.tuples(names, names).filter(lambda pair: pair[0] < pair[1]), results_of_pairs, max_size=6)


@settings(deadline=None, derandomize=True, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(batch=batches)
def test_whatever_is_appended_is_read_back_in_either_direction(batch, tmp_path_factory):
    folder = tmp_path_factory.mktemp("journal")
    write(folder, list(batch.items()))
    with Journal(folder, "job") as journal:
        assert journal.pairs == tuple(batch)
        assert journal.damaged == []
        for pair, result in batch.items():
            assert same(journal.read(pair), result)
            assert same(journal.read(pair[::-1]), turned(result))


def test_the_index_answers_without_reading_payloads(tmp_path):
    write(tmp_path, THREE)
    with Journal(tmp_path) as journal:
        assert journal.fingerprint == "job"
        assert len(journal) == 3
        assert journal.pairs == tuple(pair for pair, _ in THREE)
        assert ("a.jpg", "b.jpg") in journal
        assert ("a.jpg", "x.jpg") not in journal
        assert [journal.kind(pair) for pair in journal.pairs] == ["warp", "correspondences", "rejected"]
        assert journal.overlap(("a.jpg", "b.jpg")) == THREE[0][1].overlap
        assert journal.overlap(("a.jpg", "c d/ü.jpg")) is None
        assert journal.overlap(("b.jpg", "c d/ü.jpg")) == 0.125
        with pytest.raises(KeyError):
            journal.read(("a.jpg", "x.jpg"))


def test_sizes_follow_the_order_of_the_names(tmp_path):
    write(tmp_path, THREE)
    with Journal(tmp_path) as journal:
        assert journal.sizes(("b.jpg", "a.jpg")) == ((640, 480), (300, 400))
        assert journal.sizes(("a.jpg", "b.jpg")) == ((300, 400), (640, 480))
        with pytest.raises(KeyError):
            journal.sizes(("b.jpg", "c d/ü.jpg"))


def test_arrays_that_come_back_may_be_written_to(tmp_path):
    write(tmp_path, THREE)
    with Journal(tmp_path) as journal:
        journal.read(("b.jpg", "a.jpg")).target_AB[:] = 0


def test_a_folder_that_is_not_there_is_an_empty_journal(tmp_path):
    with Journal(tmp_path / "none", "job") as journal:
        assert len(journal) == 0
        assert journal.fingerprint == "job"


def test_truncation_at_any_byte_of_the_last_record_keeps_all_earlier_ones(tmp_path):
    path = write(tmp_path, THREE[:2])
    whole = path.stat().st_size
    path = write(tmp_path / "other", [*THREE[:2], (("x", "y"), warp(9))])
    content = path.read_bytes()
    for length in range(whole, len(content)):
        path.write_bytes(content[:length])
        with Journal(path.parent, "job") as journal:
            assert journal.pairs == (THREE[0][0], THREE[1][0])
            assert journal.torn == [(path, whole)] * (length > whole)
            assert journal.damaged == []
            assert all(same(journal.read(pair), result) for pair, result in THREE[:2])


def test_a_flip_of_any_byte_loses_no_other_record_and_is_never_read_as_truth(tmp_path, monkeypatch):
    monkeypatch.setattr(journal_module, "_UNSETTLED_BYTES", 1)
    path = write(tmp_path, THREE)
    content = path.read_bytes()
    starts = [index for index in range(len(content)) if content[index : index + 4] == b"RCJ1"]
    assert len(starts) == 4
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 0x41
        path.write_bytes(damaged)
        hit = sum(start <= position for start in starts) - 2
        with Journal(tmp_path, "job") as journal:
            intact = [] if hit < 0 else [pair for pair, _ in THREE if pair != THREE[hit][0]]
            assert [pair for pair, result in THREE if pair in journal and is_read(journal, pair, result)] == intact
            refused = [pair for pair, _ in THREE if pair in journal and pair not in intact]
            assert journal.damaged or journal.torn or refused == [THREE[hit][0]]


@pytest.mark.parametrize("content", [b"", b"\0" * 4096, b"RCJ1" + b"\xff" * 200, b"a text"])
def test_a_file_that_is_no_journal_is_passed_over_and_noted(tmp_path, content):
    write(tmp_path, THREE)
    (tmp_path / "z.jnl").write_bytes(content)
    with Journal(tmp_path, "job") as journal:
        assert len(journal) == 3
        assert len(journal.damaged) + len(journal.torn) == bool(content)


def test_a_damaged_payload_in_the_middle_is_found_by_verify_and_by_reading(tmp_path, monkeypatch):
    monkeypatch.setattr(journal_module, "_UNSETTLED_BYTES", 1)
    path = write(tmp_path, THREE)
    content = path.read_bytes()
    wanted = THREE[0][1].target_AB.tobytes()
    path.write_bytes(content.replace(wanted, bytes(len(wanted))))
    with Journal(tmp_path) as journal:
        assert len(journal) == 3
        with pytest.raises(StoreError, match=rf"{path.name} is damaged at byte \d+, in the record of b.jpg a.jpg"):
            journal.read(THREE[0][0])
    with Journal(tmp_path, verify=True) as journal:
        assert journal.pairs == tuple(pair for pair, _ in THREE[1:])
        assert len(journal.damaged) == 1
        assert path.name in journal.damaged[0]


def test_a_damaged_payload_near_the_end_is_found_without_asking(tmp_path):
    path = write(tmp_path, THREE)
    content = path.read_bytes()
    wanted = THREE[0][1].target_AB.tobytes()
    path.write_bytes(content.replace(wanted, bytes(len(wanted))))
    with Journal(tmp_path) as journal:
        assert THREE[0][0] not in journal


def test_a_file_shortened_after_opening_is_a_sentence(tmp_path):
    path = write(tmp_path, THREE)
    with Journal(tmp_path) as journal:
        os.truncate(path, 200)
        with pytest.raises(StoreError, match="is damaged at byte"):
            journal.read(THREE[1][0])


def test_the_first_of_two_records_of_a_pair_counts_whatever_their_direction(tmp_path):
    first = write(tmp_path, [(("a", "b"), warp(1))])
    second = write(tmp_path, [(("b", "a"), warp(2)), (("a", "c"), Rejected(0.0))])
    second = second.rename(tmp_path / "zz.jnl")
    assert first.name < second.name
    with Journal(tmp_path) as journal:
        assert journal.pairs == (("a", "b"), ("a", "c"))
        assert same(journal.read(("a", "b")), warp(1))


def test_every_writer_has_a_file_of_its_own_and_all_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(journal_module, "_MAX_OPEN_FILES", 3)
    paths = {write(tmp_path, [((f"{i}", "x"), Rejected(i / 10))]) for i in range(10)}
    assert len(paths) == 10
    with Journal(tmp_path, "job") as journal:
        for i in (*range(10), *range(10)):
            assert journal.read(("x", f"{i}")) == Rejected(i / 10)


def test_other_settings_are_refused(tmp_path):
    path = write(tmp_path, THREE, fingerprint="old")
    with pytest.raises(SettingsDifferError, match=rf"{path.name} was made with other settings.*--overwrite"):
        Journal(tmp_path, "new")
    write(tmp_path, THREE, fingerprint="new")
    with pytest.raises(SettingsDifferError):
        Journal(tmp_path)


def test_records_made_of_other_versions_of_a_photograph_do_not_count(tmp_path):
    with JournalWriter(tmp_path, "job", stamps={"a.jpg": (10, 1), "b.jpg": (20, 1)}) as writer:
        writer.append(THREE)
    with Journal(tmp_path, "job", stamps={"a.jpg": {(10, 1)}, "b.jpg": {(20, 1), (20, 2)}}) as journal:
        assert (len(journal), journal.outdated) == (3, ())
    changed = {"a.jpg": {(10, 2)}, "c d/ü.jpg": {(1, 1)}}
    with Journal(tmp_path, "job", stamps=changed) as journal:
        assert journal.pairs == (("a.jpg", "c d/ü.jpg"), ("c d/ü.jpg", "b.jpg"))
        assert journal.outdated == (("a.jpg", "b.jpg"),)
    with JournalWriter(tmp_path, "job", stamps={"a.jpg": (10, 2), "b.jpg": (20, 1)}) as writer:
        writer.append([(("a.jpg", "b.jpg"), warp(7))])
    with Journal(tmp_path, "job", stamps=changed) as journal:
        assert same(journal.read(("a.jpg", "b.jpg")), warp(7))
        assert journal.outdated == ()


def test_a_newer_format_is_refused_and_not_taken_for_damage(tmp_path, monkeypatch):
    monkeypatch.setattr(journal_module, "FORMAT", 2)
    write(tmp_path, THREE)
    monkeypatch.undo()
    with pytest.raises(StoreError, match="has format 2, this version reads 1"):
        Journal(tmp_path)


def test_a_live_file_can_be_read_between_batches(tmp_path):
    with JournalWriter(tmp_path, "job") as writer:
        for count, item in enumerate(THREE, start=1):
            writer.append([item])
            with Journal(tmp_path, "job") as journal:
                assert len(journal) == count
                assert journal.damaged == []


def test_one_batch_is_one_write(tmp_path, monkeypatch):
    with JournalWriter(tmp_path, "job") as writer:
        sizes = []
        monkeypatch.setattr(writer, "_write", lambda data: sizes.append(len(data)))
        writer.append(THREE)
        assert len(sizes) == 1
        monkeypatch.undo()


def test_appending_syncs_about_every_second(tmp_path, monkeypatch):
    synced = []
    now = [100.0]
    monkeypatch.setattr(journal_module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: synced.append(now[0]))
    writer = JournalWriter(tmp_path, "job")
    for now[0] in (100.5, 100.9, 101.1, 101.5, 102.2):
        writer.append([THREE[0]])
    assert synced == [100.0, 101.1, 102.2]
    writer.close()
    writer.close()
    assert synced == [100.0, 101.1, 102.2, 102.2]


def test_a_full_disk_is_a_sentence_and_later_batches_are_whole_again(tmp_path):
    writer = JournalWriter(tmp_path, "job")
    writer.append(THREE[:1])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (writer.path.stat().st_size + 70, hard))
    try:
        with pytest.raises(StoreError, match=r"full\. Free more than \d+ kB, or choose another --output"):
            writer.append([(("x", "y"), warp(5, (40, 40), (40, 40)))])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    with Journal(tmp_path) as journal:
        assert journal.pairs == (THREE[0][0],)
        assert len(journal.torn) == 1
    writer.append(THREE[1:])
    writer.close()
    with Journal(tmp_path) as journal:
        assert journal.damaged == []
        assert all(same(journal.read(pair), result) for pair, result in THREE)


def test_a_failing_sync_is_a_sentence(tmp_path, monkeypatch):
    writer = JournalWriter(tmp_path, "job")

    def refuse(descriptor):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", refuse)
    with pytest.raises(StoreError, match=rf"{writer.path.name} cannot be written: Input/output error"):
        writer.close()


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path):
    (tmp_path / "journal").write_text("a file")
    with pytest.raises(StoreError, match="cannot be written.*another --output"):
        JournalWriter(tmp_path / "journal", "job")


def test_many_threads_read_one_journal(tmp_path, monkeypatch):
    monkeypatch.setattr(journal_module, "_MAX_OPEN_FILES", 2)
    expected = {(f"{i}", "x"): warp(i) for i in range(12)}
    for item in expected.items():
        write(tmp_path, [item])
    wrong = []
    with Journal(tmp_path) as journal:

        def read_all():
            wrong.extend(p for p in [*expected] * 10 if not same(journal.read(p), expected[p]))

        threads = [threading.Thread(target=read_all) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


@pytest.mark.parametrize("delay_s", [0.0, 0.01, 0.03, 0.07, 0.15, 0.3])
def test_a_killed_writer_loses_no_acknowledged_pair(tmp_path, delay_s):
    writer = subprocess.Popen(
        [sys.executable, "-c", KILLED_WRITER, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    first = writer.stdout.readline()
    time.sleep(delay_s)
    writer.send_signal(signal.SIGKILL)
    acknowledged = int((first + writer.stdout.read()).split("\n")[-2])
    writer.wait()
    writer.stdout.close()
    with Journal(tmp_path, "job", verify=True) as journal:
        assert {(f"{i}.jpg", "other.jpg") for i in range(acknowledged)} <= set(journal.pairs)
        for i in range(acknowledged):
            result = journal.read((f"{i}.jpg", "other.jpg"))
            if i % 3 == 0:
                assert result == Rejected(i / 1e6)
            else:
                assert np.all(result.target_BA == i % 65536)
