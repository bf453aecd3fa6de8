"""Resolve words such as `auto` and `cuda:1` to torch devices and number types."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import torch

from romacli.errors import InputError, UsageError
from romacli.matchers.matcher import EITHER_DTYPE
from romacli.networks.parts.pointwise import pointwise

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
# Products whose times are compared; they were 2.3 times as fast with AVX-512's bfloat16, 0.5 and 0.2 times without.
_PROBE_SIDE, _PROBE_TURNS, _CLEARLY = 256, 5, 1.25


def resolve_device(word: str) -> torch.device:
    """The torch device named by `--device`.

    Raises:
        UsageError: the word is not a device.
        InputError: the device is not available.
    """
    if word == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(word)
    except RuntimeError as error:
        raise UsageError(f"--device {word} is not a device. Use auto, cpu, cuda, cuda:N or mps.") from error
    if not _is_there(device):
        raise InputError(f"--device {word} is not available on this machine. Use --device cpu or --device auto.")
    return device


def _is_there(device: torch.device) -> bool:
    if device.type == "cuda":
        return (device.index or 0) < torch.cuda.device_count()
    if device.type == "mps":
        return torch.backends.mps.is_available()
    return device.type == "cpu"


def resolve_dtype(word: str, device: torch.device, *, bfloat16_on_cpu: bool = False) -> torch.dtype:
    """The number type named by `--dtype`; `auto` is float16 on CUDA and float32 elsewhere.

    bfloat16_on_cpu: `auto` is the faster of `EITHER_DTYPE` on a CPU.
    """
    if word == EITHER_DTYPE or (word == "auto" and device.type == "cpu" and bfloat16_on_cpu):
        return torch.bfloat16 if has_fast_bfloat16(device) else torch.float32
    if word == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    if word not in DTYPES:
        raise UsageError(f"--dtype {word} is not known. Use auto, {', '.join(DTYPES)}.")
    if word == "float16" and device.type == "cpu":
        raise UsageError("--dtype float16 is not supported on a CPU. Use float32 or bfloat16.")
    return DTYPES[word]


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether matrix products in bfloat16 are faster than in float32; CPUs without bfloat16 units emulate them.

    Measured, in some 5 ms on a CPU, as torch identifies the instruction sets of only some processors. On a busy machine
    too: the types take turns, the shortest times count, and one thread waits for no other.
    """
    if device.type != "cpu":
        return True
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        matrices = [torch.full((_PROBE_SIDE,) * 2, 0.5, dtype=dtype) for dtype in (torch.bfloat16, torch.float32)]
        turns = [
            [fastest_s(partial(pointwise, each, each, None), device, repeats=1) for each in matrices]
            for _ in range(_PROBE_TURNS)
        ]
    finally:
        torch.set_num_threads(threads)
    bfloat16_s, float32_s = map(min, zip(*turns, strict=True))
    return float32_s > _CLEARLY * bfloat16_s


def fastest_s(work: Callable[[], object], device: torch.device, *, repeats: int = 5) -> float:
    """The shortest time of several runs, in seconds, after one run to warm up."""
    seconds = []
    for _ in range(repeats + 1):
        wait_for(device)
        began = time.perf_counter()
        work()
        wait_for(device)
        seconds.append(time.perf_counter() - began)
    return min(seconds[1:])


def wait_for(device: torch.device) -> None:
    """Wait until the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
