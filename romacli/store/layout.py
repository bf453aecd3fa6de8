"""The file names in an output folder, and how to write files atomically."""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

from romacli.errors import StoreError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}


@dataclass(frozen=True)
class Layout:
    """The paths under the output folder `root`."""

    root: Path

    @property
    def manifest(self) -> Path:
        return self.root / "manifest.json"

    @property
    def pairs(self) -> Path:
        return self.root / "pairs.txt"

    @property
    def journal(self) -> Path:
        return self.root / "journal"

    @property
    def images(self) -> Path:
        return self.root / "images.json"

    @property
    def shards(self) -> Path:
        return self.root / "shards.json"

    @property
    def given_up(self) -> Path:
        return self.root / "given-up.txt"

    @property
    def leases(self) -> Path:
        return self.root / "leases"

    @property
    def features(self) -> Path:
        return self.root / "features.h5"

    @property
    def matches(self) -> Path:
        return self.root / "matches.h5"

    @property
    def global_features(self) -> Path:
        return self.root / "global-features.h5"

    @property
    def preselected(self) -> Path:
        return self.root / "preselected"

    @property
    def database(self) -> Path:
        return self.root / "database.db"

    @property
    def sparse(self) -> Path:
        return self.root / "sparse"

    @property
    def cloud(self) -> Path:
        return self.root / "dense" / "fused.ply"

    @property
    def depth_maps(self) -> Path:
        return self.root / "dense" / "depth_maps"

    @property
    def runs(self) -> Path:
        return self.root / "runs.jsonl"

    @property
    def report(self) -> Path:
        return self.root / "report.html"


@contextmanager
def written_whole(path: Path, option: str = "--output") -> Iterator[Path]:
    """Yield a temporary path next to `path`, which replaces `path` if the block succeeds.

    The file is flushed to disk before it is renamed, so a kill or a power cut leaves either the old or the new file.
    If the block fails, the temporary file is removed and `path` is unchanged. Missing folders are created, and
    temporary files of dead processes of this machine are removed. option: the one to change, by the message.

    Raises:
        StoreError: the disk is full, or the folder cannot be written to.
    """
    temporary = path.parent / f".{path.name}.{hostname()}-{os.getpid()}.tmp"
    try:
        _make_room(path)
        _remove_abandoned(path)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        if not _is_ours(error, temporary):
            raise
        raise unwritable(path, error, num_bytes=_size(temporary), option=option) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def check_writable(path: Path, option: str = "--output") -> None:
    """Check, before long work, that a file can be written there; creates missing folders.

    option: the one to change, by the message.

    Raises:
        StoreError: it is a folder, or its folder cannot be written to.
    """
    try:
        _make_room(path)
        with TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise unwritable(path, error, num_bytes=0, option=option) from error


def _make_room(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk, if the system supports it (Windows does not)."""
    with suppress(PermissionError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def hostname() -> str:
    """This machine's name, for use in file names."""
    return re.sub(r"[^A-Za-z0-9.-]", "_", socket.gethostname()) or "localhost"


def unwritable(path: Path, error: OSError, *, num_bytes: int, option: str = "--output") -> StoreError:
    """The error for a failed write; num_bytes: the space known to be needed; option: the one to change."""
    if error.errno in _FULL:
        needed = f"more than {_in_words(num_bytes)}" if num_bytes >= 1000 else "some space"
        return StoreError(
            f"{path} cannot be written: the disk or quota is full. Free {needed}, or choose another {option}."
        )
    if error.errno in _FORBIDDEN:
        return StoreError(
            f"{path} cannot be written: {error.strerror}. Allow writing to {path.parent}, or choose another {option}."
        )
    reason = f"{os.fsdecode(error.filename)} is a file" if error.errno == errno.EEXIST else error.strerror or error
    return StoreError(f"{path} cannot be written: {reason}. Choose another {option}.")


def _is_ours(error: OSError, temporary: Path) -> bool:
    return error.filename is None or Path(os.fsdecode(error.filename)) in (temporary, *temporary.parents)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _in_words(num_bytes: int) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if num_bytes >= scale:
            return f"{num_bytes / scale:.1f} {unit}"
    return f"{num_bytes / 1e3:.0f} kB"


def _remove_abandoned(path: Path) -> None:
    pattern = re.compile(re.escape(f".{path.name}.{hostname()}-") + r"(\d+)\.tmp")
    for neighbour in path.parent.iterdir():
        match = pattern.fullmatch(neighbour.name)
        if match and not is_running(int(match[1])):
            neighbour.unlink(missing_ok=True)


def is_running(pid: int) -> bool:
    """Whether a process is alive; on Windows, where checking would end it, always True."""
    if os.name != "posix":
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
