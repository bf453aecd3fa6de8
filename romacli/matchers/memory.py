"""Memory for a matcher's features: free memory of its device, and handling of exhaustion."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from romacli.matchers.matcher import Matcher

# Where a machine does not say what it has free.
_UNKNOWN = 4 << 30
# Other programs share a computer's memory; a GPU is mostly ours.
_SHARE_OF_GPU, _SHARE_OF_COMPUTER = 0.85, 0.5
# A pair in work takes this many times the features of an image, by the refiners' maps at their finest stride: about
# 1.8 GB beside 109 MB for RoMa at 560 and 864 in float16. The first stage of a matcher that has two takes more pairs at
# once, but needs less for all of them.
_WORK_PER_FEATURES = 16
# Of mallopt(3): blocks below the first size come from memory that is kept until so much is free at its end.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4
_KEPT_BLOCK, _KEPT_END = 1 << 30, 1 << 29
# By these a user sets the same.
_MALLOC_VARIABLES = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")


def free_bytes(matcher: Matcher) -> int:
    """The memory that the matcher's device can provide now, a conservative part of the free memory."""
    device = getattr(matcher, "device", None)
    if device is not None and device.type == "cuda":
        import torch

        return int(_SHARE_OF_GPU * torch.cuda.mem_get_info(device)[0])
    _give_back_to_system()
    return int(_SHARE_OF_COMPUTER * _free_in_computer())


def cache_bytes(free: int, feature_bytes: int, batch_size: int) -> int:
    """The memory for features next to a batch in progress, at least enough for a pair."""
    return max(2 * feature_bytes, free - _WORK_PER_FEATURES * batch_size * feature_bytes)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the device has no memory left; torch has no type of its own for it on a CPU."""
    words = str(error)
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and ("out of memory" in words or "can't allocate" in words)
    )


def keep_freed_memory() -> None:
    """Let this process use freed memory again, also of large tensors, instead of returning it to the system.

    The system clears every page it gives out: for tensors that live for one layer of a network that took a quarter of
    RoMa's time on a CPU. Without effect where the C library is not glibc, or the environment already decides.
    """
    libc = _libc()
    if not hasattr(libc, "mallopt") or any(name in os.environ for name in _MALLOC_VARIABLES):
        return
    if not libc.mallopt(_M_MMAP_THRESHOLD, _KEPT_BLOCK):  # some versions take 32 MiB at most
        libc.mallopt(_M_MMAP_MAX, 0)
    libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_END)


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
    """Bytes that programs can still have, within the limit of a container."""
    free = _UNKNOWN
    with suppress(OSError, ValueError, IndexError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    return max(0, min([free, *free_in_groups(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))]))


def free_in_groups(membership: Path, mounted: Path) -> Iterator[int]:
    """Bytes left under each limit that control groups put on this process, those it is nested in among them.

    Both versions are read, the first where SLURM and older systems still have it. What files take up in the page cache
    and can be dropped counts as free.

    Args:
        membership: the process's `cgroup` file in /proc. mounted: where the groups are mounted.
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
    """What a group and those it lies in have left. Inside a container the path may be that of the host."""
    group = root / path.lstrip("/")
    for folder in (group, *group.parents):
        with suppress(OSError, ValueError):
            free = int((folder / limit).read_text()) - int((folder / used).read_text())
            with suppress(OSError, ValueError):
                counts = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
                free += int(counts.get(droppable, 0))
            yield free
        if folder == root:
            return
