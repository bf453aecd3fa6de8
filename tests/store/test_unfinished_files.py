"""HDF5 files in use by another program, left open by a killed one, and damaged: three messages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from romacli.errors import BusyError, StoreError
from romacli.store.hloc import FeaturesFile

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="locks are of another kind")
WRITER = """
import h5py, os, signal, sys
file = h5py.File(sys.argv[1], "a", libver="latest")
file.flush()
print("open", flush=True)
os.kill(os.getpid(), signal.SIGKILL) if sys.argv[2] == "die" else sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "detector.h5"
    with h5py.File(path, "w", libver="latest") as file:
        group = file.create_group("a.jpg")
        group["keypoints"] = np.zeros((3, 2), np.float32)
        group["image_size"] = np.array([10, 10])
    return path


def writer(path: Path, end: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), end], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"open\n"
    return process


def test_a_file_that_is_being_written_is_waited_for(path: Path) -> None:
    process = writer(path, "wait")
    try:
        with pytest.raises(BusyError, match="open for writing in another program"):
            FeaturesFile(path)
    finally:
        process.communicate()
    with FeaturesFile(path) as file:
        assert file.names() == ["a.jpg"]


def test_a_file_whose_writer_was_killed_is_not_called_damaged(path: Path) -> None:
    writer(path, "die").communicate()
    with pytest.raises(StoreError, match="h5clear -s") as caught:
        FeaturesFile(path)
    assert "damaged" not in str(caught.value)


def test_a_damaged_file_is_called_so(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(StoreError, match="damaged"):
        FeaturesFile(path)
