"""Temporary files next to a database or a model while it is built, and after a kill."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from romacli.colmap.scratch import scratch_folder
from romacli.errors import StoreError

REPOSITORY = Path(__file__).resolve().parents[2]
BUILD_AND_WAIT = """
import sys, time
from pathlib import Path
from romacli.colmap.scratch import scratch_folder
with scratch_folder(Path(sys.argv[1])) as folder:
    (folder / "half").write_text("built")
    print(folder, flush=True)
    time.sleep(60)
"""


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
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(StoreError, match=r"a\.db cannot be written: .* Free 3 MB"):
            scratch_folder(tmp_path / "a.db", num_bytes=3_000_000).__enter__()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"file/a\.db cannot be written: .*Choose another place"):
        scratch_folder(tmp_path / "file" / "a.db").__enter__()
