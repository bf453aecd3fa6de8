"""Read numeric arrays from MATLAB files of level 5, without executing anything in them.

Source: MathWorks, MAT-File Format, version 5.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from romacli.errors import InputError

_HEADER = 128
_MATRIX, _COMPRESSED = 14, 15
_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_NUMERIC = range(6, 16)  # classes of plain arrays: double, single and the integers
_MOST_BYTES = 2**31


def read_matrix(path: Path, name: str) -> np.ndarray:
    """A numeric array by name.

    Raises:
        InputError: the file is missing, truncated, of another format, or contains no such array.
    """
    try:
        data = path.read_bytes()
        if len(data) < _HEADER or data[126:128] != b"IM":
            raise ValueError("it is no little-endian file of level 5")
        for kind, body in _elements(data[_HEADER:]):
            if kind == _COMPRESSED:
                inflater = zlib.decompressobj()
                ((kind, body),) = _elements(inflater.decompress(body, _MOST_BYTES))
            if kind == _MATRIX and (found := _matrix(body, name)) is not None:
                return found
    except (OSError, ValueError, struct.error, zlib.error, KeyError, IndexError) as error:
        raise InputError(f"{path} cannot be read as a MATLAB file: {error}. Fetch it again.") from error
    raise InputError(f"{path} contains no {name}. Fetch it again.")


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The kind and the bytes of each element."""
    place = 0
    while place + 8 <= len(data):
        kind, size = struct.unpack_from("<II", data, place)
        if kind >> 16:  # a small one: its size in the upper half, its bytes in place of the size
            kind, size, start, step = kind & 0xFFFF, kind >> 16, place + 4, 8
        else:
            start, step = place + 8, 8 + size + (-size % 8 if kind != _COMPRESSED else 0)
        if start + size > len(data):
            raise ValueError("it is cut off")
        yield kind, data[start : start + size]
        place += step


def _matrix(body: bytes, wanted: str) -> np.ndarray | None:
    flags, shape, name, *values = _elements(body)
    if name[1].decode("latin1") != wanted or flags[1][0] not in _NUMERIC:
        return None
    kind, numbers = values[0]
    array = np.frombuffer(numbers, f"<{_TYPES[kind]}").astype(np.float64)
    return array.reshape(np.frombuffer(shape[1], "<i4"), order="F")
