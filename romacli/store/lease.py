"""Leases on an output folder: a small file per working process, renewed while it lives.

A lease is advisory, not a lock: results are safe without it, as every process has its own journal. It keeps runs from
duplicating work and `--overwrite` from removing files that another run is writing.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from romacli.disk import hostname, is_running, unwritable
from romacli.errors import BusyError

BEAT_S = 5.0
# A process of another machine counts as dead if its lease does not change for this long. Clocks are not compared.
PATIENCE_S = 30.0
_LOOK_EVERY_S = 0.5


@dataclass(frozen=True)
class Work:
    """The work of a process in the folder.

    name: of the lease. plan: works with the same plan may run in parallel; None excludes all other work.
    """

    name: str = "job"
    plan: str | None = None

    def tolerates(self, other: Work) -> bool:
        return self.plan is not None and self.plan == other.plan and self.name != other.name


class Lease:
    """This process's lease on a folder, renewed by a thread until `release`."""

    def __init__(self, path: Path, work: Work) -> None:
        self._path = path
        # `machine` identifies the namespace of the process's id, `started` detects reused ids.
        holder = {"host": hostname(), "machine": _machine(), "pid": os.getpid(), "started": _start_time(os.getpid())}
        self._content = {**holder, **asdict(work)}
        self._beats = 0
        self._file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        self._ended = threading.Event()
        try:
            self._beat()
        except OSError:  # an empty lease would be waited for
            os.close(self._file)
            path.unlink(missing_ok=True)
            raise
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Check that the lease still belongs to this process.

        Raises:
            BusyError: another process took it over, because this one was suspended for too long.
        """
        if not self._is_ours():
            raise BusyError(
                f"{self._path.parent.parent} was taken over by another process while this one was suspended. Finished "
                "pairs are kept; run the same command again when that process has ended."
            )

    def release(self) -> None:
        self._ended.set()
        self._thread.join()
        if self._is_ours():
            self._path.unlink(missing_ok=True)
        os.close(self._file)
        with suppress(OSError):
            self._path.parent.rmdir()

    def _renew(self) -> None:
        while not self._ended.wait(BEAT_S):
            with suppress(OSError):
                self._beat()

    def _beat(self) -> None:
        self._beats += 1
        os.pwrite(self._file, json.dumps({**self._content, "beat": f"{self._beats:012}"}).encode(), 0)

    def _is_ours(self) -> bool:
        try:
            return os.path.samestat(self._path.stat(), os.fstat(self._file))
        except OSError:
            return False


@contextmanager
def lease(folder: Path, work: Work | None = None, *, say: Callable[[str], None] = lambda _: None) -> Iterator[Lease]:
    """Acquire a lease in `folder`, the leases of an output folder.

    Leases of killed processes are taken over at once on the same machine, and after `PATIENCE_S` without change on
    others.

    Raises:
        BusyError: another process is working there.
        StoreError: the folder cannot be written to.
    """
    work = work or Work()
    path = folder / f"{work.name}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error, num_bytes=0) from error
    try:
        _clear_way(folder, work, say)
        held = Lease(path, work)
    except FileExistsError as error:
        raise BusyError(_busy(path)) from error
    except OSError as error:
        raise unwritable(path, error, num_bytes=len(json.dumps(asdict(work)))) from error
    try:
        _clear_way(folder, work, say, but=path)
        yield held
    finally:
        held.release()


def _clear_way(folder: Path, work: Work, say: Callable[[str], None], *, but: Path | None = None) -> None:
    """Remove leases of dead processes; raise BusyError for a live one that excludes this work."""
    for path in sorted(folder.glob("*.json")):
        if path == but:
            continue
        content = _read(path)
        if content is not None and work.tolerates(Work(content["name"], content["plan"])):
            continue
        if _is_alive(path, content, say):
            raise BusyError(_busy(path))
        path.unlink(missing_ok=True)


def _is_alive(path: Path, content: dict[str, Any] | None, say: Callable[[str], None]) -> bool:
    """Whether the process of a lease is alive: by its id on this machine, else by changes of the lease."""
    if content is not None and content["machine"] == _machine() and content["host"] == hostname():
        return _start_time(content["pid"]) == content["started"]
    if content is not None:
        say(f"checking whether process {content['pid']} on {content['host']} is still working in {path.parent.parent}")
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        time.sleep(_LOOK_EVERY_S)
        if not path.exists():
            return False
        if _read(path) != content:
            return True
    return False


def _read(path: Path) -> dict[str, Any] | None:
    """The contents of a lease; None if it is being written or invalid."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        is_whole = {"host", "machine", "pid", "started", "name", "plan"} <= content.keys()
        return content if is_whole and isinstance(content["name"], str) and isinstance(content["pid"], int) else None
    except (OSError, ValueError, AttributeError, RecursionError):
        return None


def _busy(path: Path) -> str:
    content = _read(path) or {"pid": "?", "host": "another machine"}
    return (
        f"{path.parent.parent} is in use by process {content['pid']} on {content['host']}. Wait until it ends, stop "
        "it, or choose another --output; only shards can run in parallel (--shard)."
    )


def _machine() -> str:
    """Identifies processes that see each other's ids, by the kernel's boot id and the pid namespace."""
    try:
        return (
            Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
            + " "
            + os.readlink("/proc/self/ns/pid")
        )
    except OSError:
        return hostname()


def _start_time(pid: int) -> str:
    """A process's start time in kernel ticks; "gone" if it is dead, empty if unknown."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="latin-1")  # a program may have any name
    except FileNotFoundError:
        return "gone" if Path("/proc/self/stat").exists() or not is_running(pid) else ""
    except OSError:
        return "gone"
    fields = state.rpartition(")")[2].split()
    return "gone" if fields[0] in "ZX" else fields[19]
