from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from romacli.matchers import memory
from romacli.matchers.memory import free_in_groups

# glibc returns every freed block above 32 MiB to the system.
SIZE = 64 << 20
TIMES = 16
PROGRAM = f"""
import ctypes
import resource
import torch
from romacli.matchers.memory import keep_freed_memory

ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE: a large page would count as one of 4 kB
keep_freed_memory()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({TIMES}):
    torch.full(({SIZE},), 1, dtype=torch.uint8)
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * resource.getpagesize() / {SIZE})
"""
on_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")


def tensors_mapped(**given: str) -> float:
    """How many of several large tensors, allocated in turn, needed new memory from the system."""
    known = {key: value for key, value in os.environ.items() if key not in memory._MALLOC_VARIABLES} | given
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=known, capture_output=True, text=True, check=True)
    return float(done.stdout)


@on_glibc
def test_freed_memory_of_large_tensors_is_used_again() -> None:
    assert tensors_mapped() < TIMES / 2


@on_glibc
def test_what_the_environment_says_of_freed_memory_stands() -> None:
    assert tensors_mapped(MALLOC_MMAP_THRESHOLD_=str(1 << 20)) > TIMES - 1


def test_a_c_library_that_limits_the_size_maps_no_block(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in memory._MALLOC_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    asked = []
    old = SimpleNamespace(mallopt=lambda option, value: asked.append((option, value)) or int(value <= 32 << 20))
    monkeypatch.setattr(memory, "_libc", lambda: old)
    memory.keep_freed_memory()
    assert (memory._M_MMAP_MAX, 0) in asked


@pytest.mark.parametrize("libc", [None, SimpleNamespace()], ids=["not Linux", "not glibc"])
def test_other_systems_are_left_alone(libc: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_libc", lambda: libc)
    memory.keep_freed_memory()
    memory.give_back(SimpleNamespace(device=torch.device("cpu")))


def write_group(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text + "\n")


def test_limits_of_all_groups_around_count_and_droppable_pages_are_free(tmp_path: Path) -> None:
    mounted, membership = tmp_path / "cgroup", tmp_path / "self"
    membership.write_text("0::/job/step\n")
    write_group(mounted / "job/step", memory__max="max", memory__current="300")
    write_group(mounted / "job", memory__max="1000", memory__current="700", memory__stat="anon 500\ninactive_file 150")
    assert list(free_in_groups(membership, mounted)) == [1000 - 700 + 150]


def test_the_first_version_of_groups_is_read_where_slurm_has_it(tmp_path: Path) -> None:
    mounted, membership = tmp_path / "cgroup", tmp_path / "self"
    membership.write_text("11:cpuset:/\n7:memory:/slurm/uid_0/job_7\n0::/\n")
    inner = mounted / "memory/slurm/uid_0/job_7"
    write_group(inner, memory__limit_in_bytes="800", memory__usage_in_bytes="100")
    write_group(mounted / "memory", memory__limit_in_bytes=str(1 << 62), memory__usage_in_bytes="0")
    assert min(free_in_groups(membership, mounted)) == 700


def test_a_path_of_the_host_leaves_the_limit_of_the_container(tmp_path: Path) -> None:
    mounted, membership = tmp_path / "cgroup", tmp_path / "self"
    membership.write_text("0::/../../elsewhere\n")
    write_group(mounted, memory__max="500", memory__current="200")
    assert min(free_in_groups(membership, mounted)) == 300
    assert list(free_in_groups(tmp_path / "none", mounted)) == []
