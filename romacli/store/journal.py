"""The ledger of finished pairs: append-only, checksummed records, one file per process.

A pair is done once its record is complete. A kill loses at most the batch that was being written, a power cut
at most what was appended since the last sync. Knows nothing of how matches were made.

A record is a prefix, a header and a payload. The prefix (little-endian) holds four letters, the header's
length (u32), the payload's length (u64), the payload's crc32 and a crc32 of everything before it and of the
header. The header is JSON; the payload is the arrays of `_ARRAYS`, one after another. The first record of a
file is of kind "job" and carries the fingerprint of the settings.
"""

from __future__ import annotations

import json
import os
import struct
import sys
import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BufferedReader
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

from romacli.errors import SettingsDifferError, StoreError
from romacli.types import CompactWarp, Correspondences, Pair, PairResult, Rejected, Size

from .layout import hostname, sync_folder, unwritable

FORMAT = 1
_MAGIC = b"RCJ1"
_PREFIX = struct.Struct("<4sIQII")
_CHECKED_PREFIX = _PREFIX.size - 4
_MAX_HEADER = 1 << 16  # two names of the longest path, every letter escaped, and some numbers
_ARRAYS = {
    "warp": (("target_AB", "<u2"), ("weight_AB", "u1"), ("target_BA", "<u2"), ("weight_BA", "u1")),
    "correspondences": (("keypoints0", "<f4"), ("keypoints1", "<f4"), ("scores", "<f4")),
    "rejected": (),
}
_SYNC_EVERY_S = 1.0
# Payloads near a file's end are verified at every scan: a power cut can leave holes in what was written since
# the last sync, and this is more than a second of it.
_UNSETTLED_BYTES = 64 << 20
_MAX_OPEN_FILES = 64


class JournalWriter:
    """A new journal file of this process in `folder`, for results made with the settings of `fingerprint`.

    Raises:
        StoreError: the folder or the file cannot be written to; also from `append` and `sync`.
    """

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self.path = folder / f"{hostname()}-{os.getpid()}-{time.time_ns()}.jnl"
        self._length = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("xb", buffering=0)
        except OSError as error:
            raise unwritable(self.path, error, num_bytes=_MAX_HEADER) from error
        try:
            self._write(_encode({"kind": "job", "format": FORMAT, "fingerprint": fingerprint}, b""))
            self.sync()
            sync_folder(folder)
        except BaseException:
            self._file.close()
            raise

    def append(self, results: Sequence[tuple[Pair, PairResult]]) -> None:
        """Add one batch of results by a single write; afterwards they survive the end of this process.

        They also survive the end of power after the next `sync`, which happens here about every second.
        """
        self._write(b"".join(_encode(*_split(pair, result)) for pair, result in results))
        if time.monotonic() - self._synced_at >= _SYNC_EVERY_S:
            self.sync()

    def sync(self) -> None:
        """Wait until everything appended is on the disk."""
        try:
            getattr(os, "fdatasync", os.fsync)(self._file.fileno())
        except OSError as error:
            raise unwritable(self.path, error, num_bytes=self._length) from error
        self._synced_at = time.monotonic()

    def close(self) -> None:
        """Sync and close; closing again does nothing."""
        if not self._file.closed:
            try:
                self.sync()
            finally:
                self._file.close()

    def __enter__(self) -> JournalWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write(self, data: bytes) -> None:
        """Put `data` behind the last whole batch, over the rest of one that failed."""
        remaining = memoryview(data)
        try:
            self._file.seek(self._length)
            while remaining:
                remaining = remaining[self._file.write(remaining) :]
        except OSError as error:
            raise unwritable(self.path, error, num_bytes=len(data)) from error
        self._length += len(data)


class Journal:
    """All finished pairs of a folder, found by reading the records' headers; see `Journal.open`.

    Pairs are undirected: (a, b) and (b, a) are one. Of several records of one pair the first counts, in the
    order of file names and offsets. Reading is safe from several threads.
    """

    def __init__(self, folder: Path, fingerprint: str | None) -> None:
        self._folder = folder
        self._fingerprint = fingerprint
        self._paths: list[Path] = []
        self._index: dict[Pair, _Entry] = {}
        self._damaged: list[str] = []
        self._open_files = _OpenFiles()
        self._lock = threading.Lock()

    @classmethod
    def open(cls, folder: Path, fingerprint: str | None = None, *, verify: bool = False) -> Journal:
        """The journal of a folder, empty when there is none.

        A file is read up to its first torn or damaged header. A damaged payload loses its own record only; it
        is looked for in the last 64 MB of a file, with `verify` everywhere, and always when a record is read.

        Raises:
            SettingsDifferError: a file was made with settings of another fingerprint.
            StoreError: a file cannot be read or is of a newer format.
        """
        journal = cls(folder, fingerprint)
        for path in sorted(folder.glob("*.jnl")):
            try:
                journal._add(path, verify=verify)
            except OSError as error:
                raise StoreError(f"{path} cannot be read: {error.strerror or error}.") from error
        return journal

    @property
    def fingerprint(self) -> str | None:
        """The fingerprint of the settings; None when none was asked for and there is no file."""
        return self._fingerprint

    @property
    def damaged(self) -> tuple[str, ...]:
        """What was passed over while reading, each with file and offset."""
        return tuple(self._damaged)

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """Every finished pair, rejected ones too, turned as its record is."""
        return tuple(key[::-1] if entry.turned else key for key, entry in self._index.items())

    @property
    def rejected(self) -> tuple[Pair, ...]:
        """The pairs that were rejected for want of overlap, turned as their records are."""
        return tuple(pair for pair in self.pairs if self.kind(pair) == "rejected")

    def __contains__(self, pair: Pair) -> bool:
        return _key(pair) in self._index

    def __len__(self) -> int:
        return len(self._index)

    def kind(self, pair: Pair) -> str:
        """What is stored of a finished pair: "warp", "correspondences" or "rejected"."""
        return self._entry(pair).kind

    def overlap(self, pair: Pair) -> float | None:
        """The overlap of a finished pair, in [0, 1]; None for correspondences, which have none."""
        return self._entry(pair).overlap

    def sizes(self, pair: Pair) -> tuple[Size, Size]:
        """The (width, height) of both images of a pair that has a warp, in the order of `pair`.

        Raises:
            KeyError: the pair is not in the journal, or without a warp.
            StoreError: its record is damaged.
        """
        with self._reading(pair) as (_, record):
            header = record.header
        sizes = _as_size(header["size_A"]), _as_size(header["size_B"])
        return sizes if _is_turned_like(record, pair) else (sizes[1], sizes[0])

    def read(self, pair: Pair) -> PairResult:
        """The stored result, turned so that A (or 0) is the first name of `pair`, and verified.

        Raises:
            KeyError: the pair is not in the journal.
            StoreError: its record is damaged.
        """
        with self._reading(pair) as (file, record):
            result = _join(record.header, _verified_payload(file, record))
        return result if _is_turned_like(record, pair) else _turned(result)

    def close(self) -> None:
        """Close the files that reading has opened."""
        self._open_files.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _entry(self, pair: Pair) -> _Entry:
        return self._index[_key(pair)]

    @contextmanager
    def _reading(self, pair: Pair) -> Iterator[tuple[BufferedReader, _Record]]:
        """The record of a pair and its open file, for one thread at a time."""
        entry = self._entry(pair)
        path = self._paths[entry.file]
        try:
            with self._lock:
                file = self._open_files.get(path)
                yield file, _record_at(file, entry.offset, os.fstat(file.fileno()).st_size)
        except (OSError, _DamagedError) as error:
            raise StoreError(
                f"{path} is damaged at byte {entry.offset}, in the record of {pair[0]} {pair[1]} ({error}). "
                "Delete this file and run the same command again: only its pairs are matched anew."
            ) from error

    def _add(self, path: Path, *, verify: bool) -> None:
        """Index the records of one file up to the first that is torn."""
        size = path.stat().st_size
        unsettled_from = 0 if verify else size - _UNSETTLED_BYTES
        self._paths.append(path)
        with path.open("rb") as file:
            for record in self._records(file, path, size):
                try:
                    if record.end > unsettled_from:
                        _verified_payload(file, record)
                    self._add_record(record)
                except _DamagedError as error:
                    self._damaged.append(f"{path} at byte {record.offset}: {error}")

    def _records(self, file: BufferedReader, path: Path, size: int) -> Iterator[_Record]:
        """The records behind the first, which is checked to be of this job."""
        offset = 0
        try:
            while offset < size:
                record = _record_at(file, offset, size)
                if offset == 0:
                    self._check_job(path, record.header)
                else:
                    yield record
                offset = record.end
        except _DamagedError as error:
            self._damaged.append(f"{path} at byte {offset}: {error}")

    def _check_job(self, path: Path, header: dict[str, Any]) -> None:
        if header.get("kind") != "job":
            raise _DamagedError("it does not begin like a journal")
        if header.get("format") != FORMAT:
            raise StoreError(f"{path} has format {header.get('format')}, this version reads {FORMAT}. Update romacli.")
        if self._fingerprint is None:
            self._fingerprint = header.get("fingerprint")
        if header.get("fingerprint") != self._fingerprint:
            raise SettingsDifferError(
                f"{path} was made with other settings. Use the same ones, another --output, or --overwrite."
            )

    def _add_record(self, record: _Record) -> None:
        try:
            name_A, name_B = record.header["pair"]
            kind = sys.intern(record.header["kind"])
            overlap = record.header["overlap"]
            pair = (sys.intern(name_A), sys.intern(name_B))
        except (KeyError, TypeError, ValueError) as error:
            raise _DamagedError("the header lacks what a pair needs") from error
        if kind not in _ARRAYS:
            raise _DamagedError(f"the kind {kind} is unknown")
        key = _key(pair)
        if key not in self._index:
            self._index[key] = _Entry(len(self._paths) - 1, record.offset, kind, overlap, key != pair)


class _DamagedError(Exception):
    """Bytes that are no whole record."""


class _Entry(NamedTuple):
    """Where a pair's record lies; `turned` when its names are not in the order of the index's key."""

    file: int
    offset: int
    kind: str
    overlap: float | None
    turned: bool


class _Record(NamedTuple):
    """A record whose header is whole."""

    header: dict[str, Any]
    offset: int
    payload_offset: int
    payload_crc: int
    end: int


class _OpenFiles:
    """Files kept open for reading, the least recently used closed first."""

    def __init__(self) -> None:
        self._files: OrderedDict[Path, BufferedReader] = OrderedDict()

    def get(self, path: Path) -> BufferedReader:
        if path not in self._files:
            self._files[path] = path.open("rb")
        self._files.move_to_end(path)
        if len(self._files) > _MAX_OPEN_FILES:
            self._files.popitem(last=False)[1].close()
        return self._files[path]

    def close(self) -> None:
        while self._files:
            self._files.popitem()[1].close()


def _is_turned_like(record: _Record, pair: Pair) -> bool:
    return record.header["pair"] == list(pair)


def _key(pair: Pair) -> Pair:
    return pair if pair[0] <= pair[1] else (pair[1], pair[0])


def _encode(header: dict[str, Any], payload: bytes) -> bytes:
    """A record's bytes. Names stay ASCII in the JSON, so that any file name survives."""
    text = json.dumps(header, separators=(",", ":")).encode("ascii")
    checked = _PREFIX.pack(_MAGIC, len(text), len(payload), zlib.crc32(payload), 0)[:_CHECKED_PREFIX]
    return b"".join((checked, struct.pack("<I", zlib.crc32(text, zlib.crc32(checked))), text, payload))


def _record_at(file: BufferedReader, offset: int, size: int) -> _Record:
    """The record at `offset` of a file of `size` bytes; its payload is neither read nor allocated."""
    file.seek(offset)
    prefix = file.read(_PREFIX.size)
    if len(prefix) < _PREFIX.size:
        raise _DamagedError("the record is unfinished")
    magic, header_length, payload_length, payload_crc, header_crc = _PREFIX.unpack(prefix)
    if magic != _MAGIC or header_length > _MAX_HEADER:
        raise _DamagedError("no record begins here")
    payload_offset = offset + _PREFIX.size + header_length
    end = payload_offset + payload_length
    if end > size:
        raise _DamagedError("the record is unfinished")
    text = file.read(header_length)
    if zlib.crc32(text, zlib.crc32(prefix[:_CHECKED_PREFIX])) != header_crc:
        raise _DamagedError("the header does not match its checksum")
    return _Record(_parse(text), offset, payload_offset, payload_crc, end)


def _parse(text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text)
    except ValueError as error:
        raise _DamagedError("the header is no JSON") from error
    if not isinstance(header, dict):
        raise _DamagedError("the header is no JSON object")
    return header


def _verified_payload(file: BufferedReader, record: _Record) -> bytearray:
    """The payload of a record, in memory that arrays may be written to."""
    payload = bytearray(record.end - record.payload_offset)
    file.seek(record.payload_offset)
    length = file.readinto(payload) if payload else 0
    if length != len(payload) or zlib.crc32(payload) != record.payload_crc:
        raise _DamagedError("the arrays do not match their checksum")
    return payload


def _split(pair: Pair, result: PairResult) -> tuple[dict[str, Any], bytes]:
    """A result as header and payload."""
    header: dict[str, Any] = {"pair": list(pair), "kind": "rejected", "overlap": None}
    if isinstance(result, CompactWarp):
        header |= {"kind": "warp", "size_A": _ints(result.size_A), "size_B": _ints(result.size_B)}
    elif isinstance(result, Correspondences):
        header |= {"kind": "correspondences"}
    if not isinstance(result, Correspondences):
        header |= {"overlap": float(result.overlap)}
    arrays = [np.ascontiguousarray(getattr(result, name), dtype) for name, dtype in _ARRAYS[header["kind"]]]
    header["shapes"] = [_ints(array.shape) for array in arrays]
    return header, b"".join(array.tobytes() for array in arrays)


def _join(header: dict[str, Any], payload: bytearray) -> PairResult:
    """The result that `_split` took apart."""
    try:
        kind, overlap = header["kind"], header["overlap"]
        arrays = _arrays(_ARRAYS[kind], header["shapes"], payload)
        if kind == "rejected":
            return Rejected(overlap)
        if kind == "correspondences":
            return Correspondences(**arrays)
        return CompactWarp(
            **arrays, size_A=_as_size(header["size_A"]), size_B=_as_size(header["size_B"]), overlap=overlap
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _DamagedError("header and arrays contradict each other") from error


def _arrays(
    fields: Sequence[tuple[str, str]], shapes: Sequence[Sequence[int]], payload: bytearray
) -> dict[str, np.ndarray]:
    arrays, offset = {}, 0
    for (name, dtype), shape in zip(fields, shapes, strict=True):
        arrays[name] = np.frombuffer(payload, dtype, prod(shape), offset).reshape(shape)
        offset += arrays[name].nbytes
    if offset != len(payload):
        raise ValueError(f"{offset} bytes of {len(payload)} are used")
    return arrays


def _turned(result: PairResult) -> PairResult:
    """The same result with its two images exchanged."""
    if isinstance(result, CompactWarp):
        return CompactWarp(
            target_AB=result.target_BA,
            weight_AB=result.weight_BA,
            target_BA=result.target_AB,
            weight_BA=result.weight_AB,
            size_A=result.size_B,
            size_B=result.size_A,
            overlap=result.overlap,
        )
    if isinstance(result, Correspondences):
        return Correspondences(result.keypoints1, result.keypoints0, result.scores)
    return result


def _ints(values: Sequence[int]) -> list[int]:
    return [int(value) for value in values]


def _as_size(values: Sequence[int]) -> Size:
    width, height = values
    return width, height
