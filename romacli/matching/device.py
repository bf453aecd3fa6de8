"""Words such as `auto` and `cuda:1` become torch devices and number types."""

from __future__ import annotations

import time

import torch

from romacli.errors import InputError, UsageError

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def resolve_device(word: str) -> torch.device:
    """The torch device a `--device` word stands for.

    Raises:
        UsageError: the word is not a device.
        InputError: the device is not there.
    """
    if word == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(word)
    except RuntimeError as error:
        raise UsageError(f"--device {word} is not a device. Use auto, cpu, cuda, cuda:N or mps.") from error
    if not _is_there(device):
        raise InputError(f"--device {word} is not there on this machine. Use --device cpu or --device auto.")
    return device


def _is_there(device: torch.device) -> bool:
    if device.type == "cuda":
        return (device.index or 0) < torch.cuda.device_count()
    if device.type == "mps":
        return torch.backends.mps.is_available()
    return device.type == "cpu"


def resolve_dtype(word: str, device: torch.device) -> torch.dtype:
    """The number type a `--dtype` word stands for: float16 on CUDA and float32 elsewhere when it is `auto`."""
    if word == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    if word not in DTYPES:
        raise UsageError(f"--dtype {word} is not known. Use auto, {', '.join(DTYPES)}.")
    if word == "float16" and device.type == "cpu":
        raise UsageError("--dtype float16 is not supported on a CPU. Use float32 or bfloat16.")
    return DTYPES[word]


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether products in bfloat16 are faster than in float32; a CPU without units for them emulates them.

    Measured, in some 20 ms on a CPU: torch names the instructions of some processors only.
    """
    if device.type != "cpu":
        return True
    return _product_s(torch.bfloat16) < _product_s(torch.float32)


def _product_s(dtype: torch.dtype) -> float:
    """The fastest of three products of square matrices, after one to warm up."""
    matrix = torch.full((512, 512), 0.5, dtype=dtype)
    seconds = []
    for _ in range(4):
        began = time.perf_counter()
        matrix @ matrix
        seconds.append(time.perf_counter() - began)
    return min(seconds[1:])
