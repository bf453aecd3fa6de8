"""Text in UTF-8; files and folders that appear whole or not at all, also after a kill and on a full disk."""

from __future__ import annotations

import errno
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from romacli.disk import (
    check_writable,
    hostname,
    move_in,
    put_back,
    read_lines,
    read_text,
    scratch_folder,
    written_whole,
)
from romacli.errors import InputError, StoreError
from romacli.store.layout import Layout, model_of

REPOSITORY = Path(__file__).resolve().parents[1]
BUILD_AND_WAIT = """
import sys, time
from pathlib import Path
from romacli.disk import scratch_folder
with scratch_folder(Path(sys.argv[1])) as folder:
    (folder / "half").write_text("built")
    print(folder, flush=True)
    time.sleep(60)
"""


@contextmanager
def files_limited(num_bytes: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


def write_whole(path, content):
    with written_whole(path) as temporary:
        temporary.write_bytes(content)


def write_and_fail(path, content, error):
    with written_whole(path) as temporary:
        temporary.write_bytes(content)
        raise error


def test_text_is_read_in_utf_8_only(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    with pytest.raises(InputError, match=r"names.txt cannot be read: No such file or directory. Give a list\.$"):
        read_text(path, "a list")
    path.write_bytes("caf\u00e9".encode("utf-8-sig"))
    assert read_text(path, "a list") == "caf\u00e9"
    path.write_text("# head\n\n caf\u00e9 1 \r\n", encoding="utf-8", newline="")
    assert list(read_lines(path, "a list")) == [(3, "caf\u00e9 1")]
    path.write_bytes("caf\u00e9".encode("utf-16"))
    with pytest.raises(InputError, match=r"names.txt is not UTF-8 text. Give a list, saved as UTF-8\.$"):
        read_text(path, "a list")


def test_a_block_that_ends_well_replaces_the_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "new" / "a.txt"
    for content in (b"one", b"two"):
        write_whole(path, content)
        assert path.read_bytes() == content
    assert os.listdir(path.parent) == ["a.txt"]


def test_a_pipe_is_written_to_and_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    check_writable(tmp_path / "pipe")
    with written_whole(tmp_path / "pipe") as file:
        assert file == tmp_path / "pipe"
    assert (tmp_path / "pipe").is_fifo()


def test_a_link_stays_and_the_file_it_leads_to_is_replaced(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "a.txt").symlink_to("elsewhere/b.txt")
    for content in (b"one", b"two"):
        write_whole(tmp_path / "a.txt", content)
        assert (tmp_path / "a.txt").is_symlink()
        assert (tmp_path / "elsewhere" / "b.txt").read_bytes() == content
    assert os.listdir(tmp_path / "elsewhere") == ["b.txt"]


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


def test_a_name_that_the_system_refuses_is_a_sentence(tmp_path):
    path = tmp_path / ("a" * 300)
    with pytest.raises(StoreError, match=r"aa cannot be written: File name too long\. .* another --output"):
        check_writable(path)
    with pytest.raises(StoreError, match=r"aa cannot be written: File name too long\. .* another --output"):
        write_whole(path, b"x")


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
        "other file": f"b.txt.{hostname()}-{dead.pid}.tmp",
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
        "from romacli.disk import written_whole\n"
        f"with written_whole(pathlib.Path({str(path)!r})) as temporary:\n"
        "    temporary.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY).returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    write_whole(path, b"new")
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_real_limit_on_file_size_is_a_sentence(tmp_path):
    with files_limited(1000), pytest.raises(StoreError, match="full"):
        write_whole(tmp_path / "a.bin", bytes(5000))
    assert os.listdir(tmp_path) == []


def start_building(path: Path) -> tuple[subprocess.Popen[str], Path]:
    process = subprocess.Popen(
        [sys.executable, "-c", BUILD_AND_WAIT, str(path)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_the_folder_lies_beside_and_goes(tmp_path: Path) -> None:
    with scratch_folder(tmp_path / "new" / "a.db", num_bytes=1000) as folder:
        assert folder.parent == tmp_path / "new"
        assert list(folder.iterdir()) == []
    assert list((tmp_path / "new").iterdir()) == []


def test_what_a_killed_process_left_goes_with_the_next_one(tmp_path: Path) -> None:
    (tmp_path / ".a.db.notes").mkdir()
    process, left = start_building(tmp_path / "a.db")
    with scratch_folder(tmp_path / "a.db"):
        assert (left / "half").exists(), "a living process lost its folder"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert (left / "half").exists()
    with scratch_folder(tmp_path / "a.db"):
        assert not left.exists()
    assert [one.name for one in tmp_path.iterdir()] == [".a.db.notes"]


def test_too_little_room_is_said_before_anything_is_built(tmp_path: Path) -> None:
    with files_limited(20_000), pytest.raises(StoreError, match=r"a\.db cannot be written: .* Free more than 3\.0 MB"):
        scratch_folder(tmp_path / "a.db", num_bytes=3_000_000).__enter__()
    assert list(tmp_path.iterdir()) == []


def build_model(path: Path) -> None:
    with scratch_folder(path) as scratch:
        (scratch / "built").mkdir()
        (scratch / "built" / "new.bin").write_text("new")
        move_in(scratch / "built", path)


def build_database(path: Path, statement: str) -> None:
    """Build one that has room for a single page."""
    with scratch_folder(path) as folder, closing(sqlite3.connect(folder / "a.db")) as database:
        database.execute("PRAGMA max_page_count = 1")
        database.execute(statement)


def test_a_disk_that_is_full_for_sqlite_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"a\.db cannot be written: .*full"):
        build_database(tmp_path / "a.db", "CREATE TABLE pairs (number)")
    with pytest.raises(sqlite3.OperationalError, match="incomplete input"):
        build_database(tmp_path / "a.db", "CREATE")


def test_a_built_folder_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    for _ in range(2):
        build_model(tmp_path / "sparse")
        assert [path.name for path in tmp_path.rglob("*")] == ["sparse", "new.bin"]


def test_a_disk_that_filled_up_unnoticed_leaves_the_old_folder(tmp_path: Path) -> None:
    (tmp_path / "sparse" / "0").mkdir(parents=True)
    with files_limited(20_000), pytest.raises(StoreError, match=r"sparse cannot be written: .*full"):
        build_model(tmp_path / "sparse")
    assert [path.name for path in tmp_path.rglob("*")] == ["sparse", "0"]


def test_a_signal_between_two_renames_leaves_the_old_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sparse" / "0").mkdir(parents=True)
    rename = Path.rename

    def interrupted(self: Path, target: Path) -> Path:
        if self.name == "built":
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build_model(tmp_path / "sparse")
    assert [path.name for path in tmp_path.rglob("*")] == ["sparse", "0"]


def test_a_link_to_a_folder_stays_and_the_folder_is_built_on_its_disk(tmp_path: Path) -> None:
    big = tmp_path / "disk" / "sparse"
    big.mkdir(parents=True)
    (big / "old.bin").write_text("old")
    (tmp_path / "sparse").symlink_to(big)
    with scratch_folder(tmp_path / "sparse") as scratch:
        assert scratch.parent == big.parent
    build_model(tmp_path / "sparse")
    assert (tmp_path / "sparse").is_symlink()
    assert [path.name for path in big.parent.rglob("*")] == ["sparse", "new.bin"]


KILLED_BETWEEN = """
import os, sys, signal
from pathlib import Path
from romacli.disk import move_in, scratch_folder
rename = Path.rename
def killed(self, target):
    if self.name == "built":
        os.kill(os.getpid(), signal.SIGKILL)
    return rename(self, target)
Path.rename = killed
with scratch_folder(Path(sys.argv[1])) as scratch:
    (scratch / "built").mkdir()
    move_in(scratch / "built", Path(sys.argv[2]))
"""


@pytest.mark.parametrize("part", [".", "0"])
def test_a_kill_between_two_renames_is_put_right_afterwards(tmp_path: Path, part: str) -> None:
    old = tmp_path / "sparse" / "0" / "old.bin"
    old.parent.mkdir(parents=True)
    old.write_text("old")
    place = tmp_path / "sparse" / part
    arguments = [sys.executable, "-c", KILLED_BETWEEN, str(tmp_path / "sparse"), str(place)]
    killed = subprocess.run(arguments, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not old.exists()
    assert model_of(Layout(tmp_path)) == old.parent
    assert old.read_text() == "old"
    with scratch_folder(tmp_path / "sparse"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["sparse"]


def left_by_a_kill(scratch: Path, place: str | None) -> Path:
    """The old folder in a scratch folder, and the file that says where it was."""
    (scratch / "replaced").mkdir(parents=True)
    if place is not None:
        (scratch / "place").write_text(place)
    return scratch / "replaced"


def test_only_what_was_there_is_put_back_there(tmp_path: Path) -> None:
    of_another = left_by_a_kill(tmp_path / ".sparse.v2.abcd_123.tmp", "../sparse.v2")
    strange = left_by_a_kill(tmp_path / ".sparse.abcd_123.tmp", "../elsewhere")
    put_back(tmp_path / "sparse", clears=True)
    assert of_another.exists()
    assert not strange.exists()
    put_back(tmp_path / "sparse.v2")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".sparse.v2.abcd_123.tmp", "sparse.v2"]


def test_a_scratch_folder_taken_for_abandoned_as_it_is_made_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, make = [], tempfile.mkdtemp

    def made_and_cleared(**where: str) -> str:
        made.append(make(**where))
        if len(made) == 1:
            put_back(tmp_path / "sparse", clears=True)  # by another process
        return made[-1]

    monkeypatch.setattr("tempfile.mkdtemp", made_and_cleared)
    with scratch_folder(tmp_path / "sparse") as scratch:
        assert made == [made[0], str(scratch)]
        put_back(tmp_path / "sparse", clears=True)
        assert scratch.exists()


def test_a_scratch_folder_whose_removal_was_cut_off_is_removed(tmp_path: Path) -> None:
    left_by_a_kill(tmp_path / ".sparse.abcd_123.tmp", None)
    put_back(tmp_path / "sparse", clears=True)
    assert not any(tmp_path.iterdir())


def test_room_is_asked_for_where_files_cannot_be_allocated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "posix_fallocate")
    with scratch_folder(tmp_path / "a.db", num_bytes=1000):
        pass
    with pytest.raises(StoreError, match=r"a\.db cannot be written: .*full"):
        scratch_folder(tmp_path / "a.db", num_bytes=1 << 60).__enter__()


def test_a_place_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"file/a\.db cannot be written: .*Choose another --output"):
        scratch_folder(tmp_path / "file" / "a.db").__enter__()


def test_the_check_before_the_work_looks_where_a_link_leads(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for name, place in (("good.txt", "new folder"), ("bad.txt", "file")):
        (tmp_path / name).symlink_to(tmp_path / place / "a.txt")
    check_writable(tmp_path / "good.txt")
    with pytest.raises(StoreError, match=r"bad\.txt cannot be written: .*file is a file"):
        check_writable(tmp_path / "bad.txt")
