"""Memory for a matcher's features: the free and the used memory of its device, and handling of exhaustion."""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from romacli.matchers.matcher import Matcher

# Assumed if the system does not report its free memory.
_UNKNOWN = 4 << 30
# Other programs share the computer's memory; a GPU is mostly free for this one.
_SHARE_OF_GPU, _SHARE_OF_COMPUTER = 0.85, 0.5
# Matching a pair takes this many times the features of an image, given the refiners' maps at their finest stride: about
# 1.8 GB against 109 MB for RoMa at 560 and 864 in float16. The first stage of a two-stage matcher takes more pairs at
# once, but needs less for all of them.
_WORK_PER_FEATURES = 16
# For mallopt(3): smaller blocks come from the heap, which is kept until this much is free at its end.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4
_KEPT_BLOCK, _KEPT_END = 1 << 30, 1 << 29
# A user sets the same with these variables.
_MALLOC_VARIABLES = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")


def free_bytes(matcher: Matcher) -> int:
    """The memory that the matcher's device can provide now: a conservative share of its free memory."""
    device = getattr(matcher, "device", None)
    if device is not None and device.type == "cuda":
        import torch

        return int(_SHARE_OF_GPU * torch.cuda.mem_get_info(device)[0])
    _give_back_to_system()
    return int(_SHARE_OF_COMPUTER * _free_in_computer())


def cache_bytes(free: int, feature_bytes: int, batch_size: int) -> int:
    """The memory for features next to a batch in progress; at least enough for one pair."""
    return max(2 * feature_bytes, free - _WORK_PER_FEATURES * batch_size * feature_bytes)


def keep_freed_memory() -> None:
    """Make this process reuse freed memory, including large tensors, instead of returning it to the system.

    The system clears every page it provides: for tensors that live for one layer of a network, this took a quarter of
    RoMa's time on a CPU. No effect if the C library is not glibc, or if the environment already sets the behaviour.
    """
    libc = _libc()
    if not hasattr(libc, "mallopt") or any(name in os.environ for name in _MALLOC_VARIABLES):
        return
    if not libc.mallopt(_M_MMAP_THRESHOLD, _KEPT_BLOCK):  # some versions take 32 MiB at most
        libc.mallopt(_M_MMAP_MAX, 0)
    libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_END)


def peak_bytes(device: Any) -> int:
    """The peak memory of this process so far, weights included; of the torch device, if it is a GPU."""
    if device.type == "cuda":
        import torch

        return int(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def give_back(matcher: Matcher) -> None:
    """Release unused cached memory of the matcher's device."""
    gc.collect()
    device = getattr(matcher, "device", None)
    if device is not None and device.type == "cuda":
        import torch

        torch.cuda.empty_cache()
    _give_back_to_system()


def _give_back_to_system() -> None:
    """Release freed memory kept by the C library."""
    if hasattr(libc := _libc(), "malloc_trim"):
        libc.malloc_trim(0)


def _libc() -> Any:
    """The C library of this process, on Linux; None elsewhere."""
    return ctypes.CDLL(None) if sys.platform == "linux" else None


def _free_in_computer() -> int:
    """Bytes available to programs, within the limit of a container."""
    free = _UNKNOWN
    with suppress(OSError, ValueError, IndexError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    return max(0, min([free, *free_in_groups(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))]))


def free_in_groups(membership: Path, mounted: Path) -> Iterator[int]:
    """Bytes left under each limit that control groups, including enclosing ones, set for this process.

    Reads both versions; SLURM and older systems still use the first. Droppable page cache counts as free.

    Args:
        membership: the process's `cgroup` file in /proc. mounted: mount point of the control groups.
    """
    with suppress(OSError, ValueError):
        for line in membership.read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "":
                yield from _free_up_to(mounted, path, "memory.max", "memory.current", "inactive_file")
            elif "memory" in controllers.split(","):
                names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
                yield from _free_up_to(mounted / "memory", path, *names)


def _free_up_to(root: Path, path: str, limit: str, used: str, droppable: str) -> Iterator[int]:
    """Bytes left in a group and those around it. Inside a container the path may be that of the host."""
    group = root / path.lstrip("/")
    for folder in (group, *group.parents):
        with suppress(OSError, ValueError):
            free = int((folder / limit).read_text("ascii")) - int((folder / used).read_text("ascii"))
            with suppress(OSError, ValueError):
                counts = dict(line.split() for line in (folder / "memory.stat").read_text("ascii").splitlines())
                free += int(counts.get(droppable, 0))
            yield free
        if folder == root:
            return
