"""One journal record as bytes: a prefix, a header and a payload.

The prefix (little-endian) contains four letters, the header's length (u32), the payload's length (u64), the payload's
crc32 and a crc32 of everything before it and of the header. The header is JSON; the payload is the concatenated arrays
of `ARRAYS`.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Sequence
from dataclasses import replace
from io import BufferedReader
from math import prod
from typing import Any, NamedTuple

import numpy as np

from romacli.types import FOUND_BY, CompactWarp, Correspondences, Pair, PairResult, Rejected, Size

MAX_HEADER = 1 << 16  # two names of maximum path length, every letter escaped, and some numbers
_MAGIC = b"RCJ1"
_PREFIX = struct.Struct("<4sIQII")
_CHECKED_PREFIX = _PREFIX.size - 4
_CHUNK = 1 << 20
ARRAYS = {
    "warp": (("target_AB", "<u2"), ("weight_AB", "u1"), ("target_BA", "<u2"), ("weight_BA", "u1")),
    "correspondences": (("keypoints0", "<f4"), ("keypoints1", "<f4"), ("scores", "<f4")),
    "rejected": (),
}


class DamagedError(Exception):
    """Bytes that are not a complete record."""


class UnfinishedError(DamagedError):
    """A record truncated by the end of the file, as after a kill."""

    def __init__(self) -> None:
        super().__init__("the record is unfinished")


class Record(NamedTuple):
    """A record with a valid header."""

    header: dict[str, Any]
    offset: int
    payload_offset: int
    payload_crc: int
    end: int


def encode(header: dict[str, Any], payload: bytes) -> bytes:
    """A record's bytes. Names stay ASCII in the JSON, so that any file name survives."""
    text = json.dumps(header, separators=(",", ":")).encode("ascii")
    checked = _PREFIX.pack(_MAGIC, len(text), len(payload), zlib.crc32(payload), 0)[:_CHECKED_PREFIX]
    return b"".join((checked, struct.pack("<I", zlib.crc32(text, zlib.crc32(checked))), text, payload))


def record_at(file: BufferedReader, offset: int, size: int) -> Record:
    """The record at `offset` of a file of `size` bytes; its payload is neither read nor allocated.

    Raises:
        DamagedError: no complete record begins there.
    """
    file.seek(offset)
    prefix = file.read(_PREFIX.size)
    if len(prefix) < _PREFIX.size:
        raise UnfinishedError
    magic, header_length, payload_length, payload_crc, header_crc = _PREFIX.unpack(prefix)
    if magic != _MAGIC or header_length > MAX_HEADER:
        raise DamagedError("no record begins here")
    text = file.read(header_length)
    if len(text) < header_length:
        raise UnfinishedError
    if zlib.crc32(text, zlib.crc32(prefix[:_CHECKED_PREFIX])) != header_crc:
        raise DamagedError("the header does not match its checksum")
    payload_offset = offset + _PREFIX.size + header_length
    if payload_offset + payload_length > size:
        raise UnfinishedError
    return Record(_parse(text), offset, payload_offset, payload_crc, payload_offset + payload_length)


def next_offset(file: BufferedReader, offset: int, size: int) -> int | None:
    """The offset of the first complete record after `offset`; None if there is none."""
    start = offset + 1
    while start < size:
        file.seek(start)
        chunk = file.read(_CHUNK)
        found = chunk.find(_MAGIC)
        while found >= 0:
            try:
                return record_at(file, start + found, size).offset
            except DamagedError:
                found = chunk.find(_MAGIC, found + 1)
        if len(chunk) < len(_MAGIC):
            return None
        start += len(chunk) - len(_MAGIC) + 1
    return None


def verified_payload(file: BufferedReader, record: Record) -> bytearray:
    """The payload of a record, in writable memory.

    Raises:
        DamagedError: it does not match its checksum.
    """
    payload = bytearray(record.end - record.payload_offset)
    file.seek(record.payload_offset)
    length = file.readinto(payload) if payload else 0
    if length != len(payload) or zlib.crc32(payload) != record.payload_crc:
        raise DamagedError("the arrays do not match their checksum")
    return payload


def described(header: dict[str, Any]) -> tuple[Pair, str, float | None]:
    """The pair, kind and overlap in a header.

    Raises:
        DamagedError: one is missing or invalid.
    """
    try:
        (name_A, name_B), kind, overlap = header["pair"], header["kind"], header["overlap"]
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedError("the header lacks what a pair needs") from error
    is_text = all(isinstance(value, str) for value in (name_A, name_B, kind))
    if not (is_text and kind in ARRAYS and (overlap is None or isinstance(overlap, float))):
        raise DamagedError("the header is of no pair")
    return (name_A, name_B), kind, overlap


def stamps_in(header: dict[str, Any]) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """The stamps of the two photographs a result was made from; None if the record has none."""
    try:
        (bytes_A, time_A), (bytes_B, time_B) = header["stamps"]
        return (int(bytes_A), int(time_A)), (int(bytes_B), int(time_B))
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def sizes_in(header: dict[str, Any]) -> tuple[Size, Size]:
    """The (width, height) of both images of a warp.

    Raises:
        DamagedError: there are none.
    """
    sizes = header.get("size_A"), header.get("size_B")
    for size in sizes:
        if not (isinstance(size, list) and len(size) == 2 and all(type(side) is int and side > 0 for side in size)):
            raise DamagedError("the header lacks the sizes of the images")
    return tuple(map(tuple, sizes))  # type: ignore[return-value, arg-type]


def quarter_turns_in(header: dict[str, Any]) -> int:
    """The quarter turns of the second image at which its pair matched.

    Raises:
        DamagedError: it is not a number of quarter turns.
    """
    turns = header.get("quarter_turns", 0)
    if type(turns) is not int or turns not in range(4):
        raise DamagedError("the header has no number of quarter turns")
    return turns


def found_by_in(header: dict[str, Any]) -> str:
    """The retry that made a pair match, "" if none.

    Raises:
        DamagedError: it is unknown.
    """
    found_by = header.get("found_by", "")
    if found_by and (not isinstance(found_by, str) or found_by not in FOUND_BY):
        raise DamagedError("the header does not say what made the pair match")
    return str(found_by)


def tried_in(header: dict[str, Any]) -> frozenset[str]:
    """The retries, enabled after the job was created, that this record was made with.

    Raises:
        DamagedError: they are not names.
    """
    tried = header.get("tried", ())
    if not isinstance(tried, (list, tuple)) or not all(isinstance(name, str) for name in tried):
        raise DamagedError("the header does not say how the pair was tried")
    return frozenset(tried)


def split(pair: Pair, result: PairResult) -> tuple[dict[str, Any], bytes]:
    """A result as header and payload."""
    header: dict[str, Any] = {"pair": list(pair), "kind": "rejected", "overlap": None}
    if isinstance(result, CompactWarp):
        header |= {"kind": "warp", "size_A": _ints(result.size_A), "size_B": _ints(result.size_B)}
        if result.quarter_turns:
            header |= {"quarter_turns": int(result.quarter_turns)}
        if result.found_by:
            header |= {"found_by": result.found_by}
        if result.precise:
            header |= {"precise": True}
    elif isinstance(result, Correspondences):
        header |= {"kind": "correspondences"}
    if not isinstance(result, Correspondences):
        header |= {"overlap": float(result.overlap)}
    arrays = [np.ascontiguousarray(getattr(result, name), dtype) for name, dtype in ARRAYS[header["kind"]]]
    header["shapes"] = [_ints(array.shape) for array in arrays]
    return header, b"".join(array.tobytes() for array in arrays)


def join(header: dict[str, Any], payload: bytearray) -> PairResult:
    """Reassemble a result from `split`.

    Raises:
        DamagedError: header and payload do not match a result.
    """
    _, kind, overlap = described(header)
    try:
        arrays = _arrays(ARRAYS[kind], header["shapes"], payload)
        if kind == "correspondences":
            return Correspondences(**arrays)
        if overlap is None:
            raise ValueError("an overlap is missing")
        if kind == "rejected":
            return Rejected(overlap)
        size_A, size_B = sizes_in(header)
        return CompactWarp(
            **arrays,
            size_A=size_A,
            size_B=size_B,
            overlap=overlap,
            quarter_turns=quarter_turns_in(header),
            found_by=found_by_in(header),
            precise=header.get("precise") is True,
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DamagedError("header and arrays contradict each other") from error


def turned(result: PairResult) -> PairResult:
    """The same result with its images swapped."""
    if isinstance(result, CompactWarp):
        return replace(
            result,
            target_AB=result.target_BA,
            weight_AB=result.weight_BA,
            target_BA=result.target_AB,
            weight_BA=result.weight_AB,
            size_A=result.size_B,
            size_B=result.size_A,
            quarter_turns=-result.quarter_turns % 4,
        )
    if isinstance(result, Correspondences):
        return Correspondences(result.keypoints1, result.keypoints0, result.scores)
    return result


def _parse(text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DamagedError("the header is not valid JSON") from error
    if not isinstance(header, dict):
        raise DamagedError("the header is not a JSON object")
    return header


def _arrays(
    fields: Sequence[tuple[str, str]], shapes: Sequence[Sequence[int]], payload: bytearray
) -> dict[str, np.ndarray]:
    arrays, offset = {}, 0
    for (name, dtype), shape in zip(fields, shapes, strict=True):
        if any(type(side) is not int or side < 0 for side in shape):
            raise ValueError(f"{shape} is no shape")
        arrays[name] = np.frombuffer(payload, dtype, prod(shape), offset).reshape(shape)
        offset += arrays[name].nbytes
    if offset != len(payload):
        raise ValueError(f"{offset} bytes of {len(payload)} are used")
    return arrays


def _ints(values: Sequence[int]) -> list[int]:
    return [int(value) for value in values]
