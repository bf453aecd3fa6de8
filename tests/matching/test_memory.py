from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

# Above 32 MiB glibc gives every freed block back.
SIZE = 64 << 20
TIMES = 16
PROGRAM = f"""
import resource
import torch
from romacli.matching.memory import keep_freed_memory

keep_freed_memory()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({TIMES}):
    torch.full(({SIZE},), 1, dtype=torch.uint8)
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * resource.getpagesize() / {SIZE})
"""
VARIABLES = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")


def tensors_mapped(**given: str) -> float:
    """How many of some large tensors, one after the other, the system had to find memory for."""
    known = {key: value for key, value in os.environ.items() if key not in VARIABLES} | given
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=known, capture_output=True, text=True, check=True)
    return float(done.stdout)


def test_freed_memory_of_large_tensors_is_used_again() -> None:
    assert tensors_mapped() < TIMES / 2


def test_what_the_environment_says_of_freed_memory_stands() -> None:
    assert tensors_mapped(MALLOC_MMAP_THRESHOLD_=str(1 << 20)) > TIMES - 1
