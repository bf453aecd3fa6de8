"""Read text files, write files and folders that appear whole or not at all, and say what to do if that fails."""

from __future__ import annotations

import errno
import fcntl
import glob
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from romacli.errors import InputError, StoreError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
_SQLITE_FULL = 13  # sqlite3.SQLITE_FULL
# More than native writers hold back in their buffers.
_PROBE_BYTES = 1 << 16


def read_text(path: Path, wanted: str) -> str:
    """Read a text file in UTF-8, with or without a byte order mark; wanted: what to give instead, for the message.

    Raises:
        InputError: it cannot be read, or is in another encoding.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}. Give {wanted}.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text. Give {wanted}, saved as UTF-8.") from error


def read_lines(path: Path, wanted: str) -> Iterator[tuple[int, str]]:
    """The lines of a text file with their numbers, stripped, without blank ones and comments; see `read_text`."""
    for number, line in enumerate(read_text(path, wanted).split("\n"), start=1):
        if (stripped := line.strip()) and not stripped.startswith("#"):
            yield number, stripped


@contextmanager
def written_whole(path: Path, option: str = "--output") -> Iterator[Path]:
    """Yield a temporary path next to `path`, which replaces `path` if the block succeeds.

    The file is flushed to disk before it is renamed, so a kill or a power cut leaves either the old or the new file.
    If the block fails, the temporary file is removed and `path` is unchanged. Missing folders are created, and
    temporary files of dead processes of this machine are removed. A link stays one: the file it leads to is replaced;
    a device or pipe is yielded itself. option: the one to change, by the message.

    Raises:
        StoreError: the disk is full, or the folder cannot be written to.
    """
    if _is_stream(path):
        yield path
        return
    target = followed(path)
    temporary = target.parent / f".{target.name}.{hostname()}-{os.getpid()}.tmp"
    try:
        _make_room(target)
        _remove_abandoned(target.parent.absolute())
        yield temporary
        _flush(temporary)
        temporary.replace(target)
        sync_folder(target.parent)
    except OSError as error:
        if not _is_about(error, path, temporary):
            raise
        raise unwritable(path, error, num_bytes=_size(temporary), option=option) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_whole(path: Path, content: str | bytes, option: str = "--output") -> None:
    """Write a file as `written_whole` does, text in UTF-8."""
    with written_whole(path, option) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def scratch_folder(path: Path, *, num_bytes: int = 0, option: str = "--output") -> Iterator[Path]:
    """Yield an empty folder next to `path`, removed afterwards, together with those of killed processes.

    Args:
        path: what the contents built in the folder will replace; missing parents are created. If it is a link, the
            folder is next to where it leads, on the same disk.
        num_bytes: free space required. SQLite and COLMAP end the whole process on a full disk, so it is
            asked for before they begin.
        option: the one to change, by the message.

    Raises:
        StoreError: the folder cannot be created, or there is too little space.
    """
    target = followed(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        put_back(path, clears=True)
        folder, held = _new_scratch(target)
    except OSError as error:
        raise unwritable(path, error, num_bytes=num_bytes, option=option) from error
    try:
        _require_room(folder, num_bytes)
        yield folder
    except Exception as error:
        failure = _os_error(error)
        if failure is None or not _is_about(failure, target, folder):
            raise
        raise unwritable(path, failure, num_bytes=num_bytes, option=option) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if held is not None:
            os.close(held)


def _new_scratch(target: Path) -> tuple[Path, int | None]:
    """An empty, held folder. Until it is held, another process may take it for abandoned and remove it."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent))
        held = _lock(folder, waits=True)
        if folder.exists():
            return folder, held
        if held is not None:
            os.close(held)


def move_in(folder: Path, path: Path) -> None:
    """Move a folder built in a scratch folder to its place; what was there is removed with the scratch folder.

    A link stays one: the folder it leads to is replaced. After a kill between the two renames, `put_back` restores
    what was there.

    Raises:
        OSError: the disk is full.
    """
    settle(folder)
    path, replaced, place = followed(path), folder.with_name("replaced"), folder.with_name("place")
    place.write_bytes(os.fsencode(os.path.relpath(path, folder.parent)))
    _flush(place)
    sync_folder(folder.parent)
    try:
        if path.exists():
            path.rename(replaced)
        folder.rename(path)
    except BaseException:  # a signal too
        if replaced.exists() and not path.exists():
            replaced.rename(path)
        raise
    sync_folder(path.parent)


def put_back(path: Path, *, clears: bool = False) -> None:
    """Put back what processes that were killed between the renames of `move_in` had moved away from `path` or below it.

    clears: also remove the scratch folders of killed processes; for the process that holds the job, as locks of other
    machines may be invisible.
    """
    target = followed(path)
    # `mkdtemp` adds eight characters; more are of a folder whose name begins with this one's.
    for scratch in target.parent.glob(f".{glob.escape(target.name)}.{'?' * 8}.tmp"):
        held = _lock(scratch)
        if held is None:
            continue
        with suppress(OSError):
            replaced, noted = scratch / "replaced", scratch / "place"
            if replaced.exists() and noted.exists():  # else it is no longer needed, and was being removed
                place = (scratch / os.fsdecode(noted.read_bytes())).resolve()
                if not place.exists() and place.is_relative_to(target.resolve()):
                    replaced.rename(place)
            if clears:
                shutil.rmtree(scratch, ignore_errors=True)
        os.close(held)


def followed(path: Path) -> Path:
    """Where a link leads, which need not exist; any other path itself."""
    return Path(os.path.realpath(path)) if os.path.islink(path) else path


def settle(path: Path) -> None:
    """Flush a file or folder that a native library wrote, and check that it had room: COLMAP and OpenCV tell of none.

    Raises:
        OSError: the disk is full.
    """
    for part in (path, *path.rglob("*")):
        if part.is_dir():
            sync_folder(part)
        else:
            _flush(part)
    with tempfile.TemporaryFile(dir=path if path.is_dir() else path.parent) as probe:
        probe.write(bytes(_PROBE_BYTES))
        probe.flush()
        os.fsync(probe.fileno())


def check_writable(path: Path, option: str = "--output") -> None:
    """Check, before long work, that a file can be written there, or where a link leads; creates missing folders.

    option: the one to change, by the message.

    Raises:
        StoreError: it is a folder, or its folder cannot be written to.
    """
    if _is_stream(path):
        return
    target = followed(path)
    try:
        _make_room(target)
        with tempfile.TemporaryFile(dir=target.parent):
            pass
    except OSError as error:
        raise unwritable(path, error, num_bytes=0, option=option) from error


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk, if that is permitted."""
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
    if is_full(error):
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


def is_full(error: OSError) -> bool:
    """Whether a write failed because a disk, quota or limit is full."""
    return error.errno in _FULL


def is_running(pid: int) -> bool:
    """Whether a process is alive."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _is_stream(path: Path) -> bool:
    """Whether a path is a device or pipe, which cannot be replaced."""
    # In place of the methods of `Path`, which raise for names too long and folders without permission.
    return os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path))


def _make_room(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))


def _require_room(folder: Path, num_bytes: int) -> None:
    if not hasattr(os, "posix_fallocate"):  # macOS
        if shutil.disk_usage(folder).free < num_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    elif num_bytes:
        with tempfile.TemporaryFile(dir=folder) as probe:
            os.posix_fallocate(probe.fileno(), 0, num_bytes)


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _is_about(error: OSError, path: Path, temporary: Path) -> bool:
    """Whether an error is of writing a path by way of a temporary one, and not of what the block reads for it."""
    if error.filename is None:
        return error.errno is not None
    place = Path(os.fsdecode(error.filename))
    return place in (path, temporary, *temporary.parents) or temporary in place.parents


def _os_error(error: Exception) -> OSError | None:
    """A failure of the system, also as SQLite reports it."""
    if getattr(error, "sqlite_errorcode", None) == _SQLITE_FULL:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return error if isinstance(error, OSError) else None


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


@cache
def _remove_abandoned(folder: Path) -> None:
    """Remove the temporary files of dead processes of this machine from a folder, once, however many are written."""
    pattern = re.compile(rf"\..+\.{re.escape(hostname())}-(\d+)\.tmp")
    with os.scandir(folder) as entries:
        for entry in entries:
            match = pattern.fullmatch(entry.name)
            if match and not is_running(int(match[1])):
                with suppress(OSError):  # somebody else's
                    os.unlink(entry.path)


def _lock(folder: Path, *, waits: bool = False) -> int | None:
    """A descriptor that holds the folder until it is closed or the process dies; None if another holds it.

    waits: until it no longer does. None, too, where the file system has no locks.
    """
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if waits else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return None
        return descriptor
    return None
