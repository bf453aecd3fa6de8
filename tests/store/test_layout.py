from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from romacli.errors import StoreError
from romacli.store.layout import Layout, hostname, written_whole

ROOT = Path(__file__).resolve().parents[2]


def write_whole(path, content):
    with written_whole(path) as temporary:
        temporary.write_bytes(content)


def write_and_fail(path, content, error):
    with written_whole(path) as temporary:
        temporary.write_bytes(content)
        raise error


def test_every_file_lies_directly_under_the_root_with_its_own_name():
    layout = Layout(Path("OUT"))
    paths = [
        layout.manifest,
        layout.pairs,
        layout.journal,
        layout.features,
        layout.matches,
        layout.database,
        layout.sparse,
    ]
    assert {path.parent for path in paths} == {Path("OUT")}
    assert len({path.name for path in paths}) == 7


def test_a_block_that_ends_well_replaces_the_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "new" / "a.txt"
    for content in (b"one", b"two"):
        write_whole(path, content)
        assert path.read_bytes() == content
    assert os.listdir(path.parent) == ["a.txt"]


def test_the_old_file_stands_until_the_block_ends(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with written_whole(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"


def test_a_failing_block_leaves_the_old_file_and_no_temporary_one(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError):
        write_and_fail(path, b"half", ZeroDivisionError())
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_says_how_much_to_free(tmp_path, number):
    path = tmp_path / "a.bin"
    with pytest.raises(StoreError, match=r"a\.bin cannot be written.*full\. Free more than 3\.0 MB"):
        write_and_fail(path, bytes(3_000_000), OSError(number, os.strerror(number)))
    with pytest.raises(StoreError, match=r"full\. Free some space,"):
        write_and_fail(path, b"", OSError(number, os.strerror(number)))
    assert os.listdir(tmp_path) == []


def test_a_read_only_place_names_the_file_and_the_way_out(tmp_path, monkeypatch):
    def refuse(self, target):
        raise OSError(errno.EROFS, "Read-only file system", str(self))

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(StoreError, match=r"a\.txt cannot be written: Read-only .* another --output"):
        write_whole(tmp_path / "a.txt", b"x")


def test_a_folder_that_is_a_file_is_a_sentence(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(StoreError, match=r"a\.txt cannot be written: .*out is a file.* another --output"):
        write_whole(tmp_path / "out" / "a.txt", b"x")


@pytest.mark.parametrize("name", ["", "folder"])
def test_a_file_that_is_a_folder_is_a_sentence_before_anything_is_made(tmp_path, monkeypatch, name):
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    told = r"cannot be written: Is a directory\. .* another --output"
    with pytest.raises(StoreError, match=told), written_whole(Path(name)):
        pytest.fail("the work began")


def test_trouble_with_another_file_inside_the_block_is_not_blamed_on_this_one(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(FileNotFoundError), written_whole(tmp_path / "out" / "a.txt"):
        (tmp_path / "photos" / "missing.jpg").read_bytes()


def test_temporary_files_of_dead_processes_are_removed_and_others_kept(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    names = {
        "dead": f".a.txt.{hostname()}-{dead.pid}.tmp",
        "alive": f".a.txt.{hostname()}-{os.getppid()}.tmp",
        "elsewhere": f".a.txt.other-{dead.pid}.tmp",
        "other file": f".b.txt.{hostname()}-{dead.pid}.tmp",
    }
    for name in names.values():
        (tmp_path / name).write_text("")
    write_whole(tmp_path / "a.txt", b"x")
    assert set(os.listdir(tmp_path)) == {"a.txt", *names.values()} - {names["dead"]}


def test_a_killed_writer_leaves_the_old_file_whole(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    script = (
        "import os, pathlib, signal\n"
        "from romacli.store.layout import written_whole\n"
        f"with written_whole(pathlib.Path({str(path)!r})) as temporary:\n"
        "    temporary.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT).returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    write_whole(path, b"new")
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_real_limit_on_file_size_is_a_sentence(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(StoreError, match="full"):
            write_whole(tmp_path / "a.bin", bytes(5000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(tmp_path) == []
