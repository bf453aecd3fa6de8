"""The journal of finished pairs: append-only, checksummed records, one file per process.

A pair is done once its record is complete. A kill loses at most the batch being written, a power cut at most what was
appended since the last sync. Damage affects only the record it is in.

The first record of a file is of kind "job" and contains the fingerprint of the settings.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any, NamedTuple

from romacli.disk import hostname, sync_folder, unwritable
from romacli.errors import SettingsDifferError, StoreError
from romacli.types import CompactWarp, Correspondences, Pair, PairResult, Size, canonical

from .images import Stamp
from .record import (
    MAX_HEADER,
    DamagedError,
    Record,
    UnfinishedError,
    described,
    encode,
    found_by_in,
    join,
    next_offset,
    quarter_turns_in,
    record_at,
    sizes_in,
    split,
    stamps_in,
    tried_in,
    turned,
    verified_payload,
)

FORMAT = 1
_SYNC_EVERY_S = 1.0
# Payloads near a file's end are verified at every scan: a power cut can leave holes in data written since the last
# sync, and this is more than a second of it.
_UNSETTLED_BYTES = 64 << 20
_MAX_OPEN_FILES = 64


class JournalWriter:
    """A new journal file of this process in `folder`, for results made with the settings of `fingerprint`.

    stamps: of the photographs, by name; those of a pair are stored with it. tried: retries enabled after the job was
    created. expected: number of results to come, for the message if the disk is full.

    Raises:
        StoreError: the folder or the file cannot be written to; also from `append` and `sync`.
    """

    def __init__(
        self,
        folder: Path,
        fingerprint: str,
        *,
        stamps: Mapping[str, Stamp] | None = None,
        tried: Iterable[str] = (),
        expected: int = 0,
    ) -> None:
        self.path = folder / f"{hostname()}-{os.getpid()}-{time.time_ns()}.jnl"
        self._length = 0
        self._stamps = stamps or {}
        self._tried = sorted(tried)
        self._count, self._expected = 0, expected
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("xb", buffering=0)
        except OSError as error:
            raise unwritable(self.path, error, num_bytes=MAX_HEADER) from error
        try:
            self._write(job_record(fingerprint))
            self.sync()
            sync_folder(folder)
        except BaseException:
            self._file.close()
            raise

    def append(self, results: Sequence[tuple[Pair, PairResult]]) -> None:
        """Append one batch of results in a single write; afterwards they survive the end of this process.

        They survive a power cut after the next `sync`, which this calls about every second.
        """
        self._write(b"".join(encode(*self._stamped(*split(pair, result))) for pair, result in results))
        self._count += len(results)
        if time.monotonic() - self._synced_at >= _SYNC_EVERY_S:
            self.sync()

    def sync(self) -> None:
        """Flush everything appended to disk."""
        try:
            getattr(os, "fdatasync", os.fsync)(self._file.fileno())
        except OSError as error:
            raise unwritable(self.path, error, num_bytes=self._length) from error
        self._synced_at = time.monotonic()

    def close(self) -> None:
        """Sync and close; may be called again."""
        if not self._file.closed:
            try:
                self.sync()
            finally:
                self._file.close()

    def __enter__(self) -> JournalWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write(self, data: bytes) -> None:
        """Write `data` after the last complete batch, overwriting the rest of a failed one."""
        remaining = memoryview(data)
        try:
            self._file.seek(self._length)
            while remaining:
                remaining = remaining[self._file.write(remaining) :]
        except OSError as error:
            raise unwritable(self.path, error, num_bytes=self._needed(len(data))) from error
        self._length += len(data)

    def _needed(self, num_bytes: int) -> int:
        """Space needed for the remaining results, including the current `num_bytes`."""
        if not self._count:
            return num_bytes
        return max(num_bytes, (self._expected - self._count) * self._length // self._count)

    def _stamped(self, header: dict[str, Any], payload: bytes) -> tuple[dict[str, Any], bytes]:
        name_A, name_B = header["pair"]
        if name_A in self._stamps and name_B in self._stamps:
            header["stamps"] = [list(self._stamps[name_A]), list(self._stamps[name_B])]
        if self._tried:
            header["tried"] = self._tried
        return header, payload


class Journal:
    """All finished pairs of a folder, found by reading the records' headers; empty if there is no folder.

    Pairs are undirected: (a, b) and (b, a) are the same. Of several records of a pair the first counts, in the order of
    file names and offsets, unless a retry found more. Damaged records are skipped; reading continues at the next
    complete one. Damaged headers are always detected, damaged payloads in the last 64 MB of a file, with `verify`
    everywhere, and when a record is read. Reading is thread-safe.

    Attributes:
        fingerprint: of the settings; None if none was given and there is no file.
        damaged: the damage skipped while reading, with file and offset; ends truncated by a kill are not damage.
        torn: files that end in an incomplete record, from a kill, a power cut or a running writer, and its offset.
    """

    def __init__(
        self,
        folder: Path,
        fingerprint: str | None = None,
        *,
        stamps: Mapping[str, Collection[Stamp]] | None = None,
        retries: Mapping[str, float] | None = None,
        verify: bool = False,
    ) -> None:
        """Read a folder.

        Args:
            stamps: the accepted stamps of photographs, by name; records of other versions do not count.
            retries: as in `Manifest`; pairs not yet retried so are `waiting`.

        Raises:
            SettingsDifferError: a file was made with settings of another fingerprint.
            StoreError: a file cannot be read or is of a newer format.
        """
        self.fingerprint = fingerprint
        self.damaged: list[str] = []
        self.torn: list[tuple[Path, int]] = []
        self._folder = folder
        self._stamps = stamps or {}
        self._retries = retries or {}
        self._tried: dict[Pair, frozenset[str]] = {}
        self._paths: list[Path] = []
        self._index: dict[Pair, _Entry] = {}
        self._outdated: set[Pair] = set()
        self._open_files = _OpenFiles()
        self._lock = threading.Lock()
        for path in sorted(folder.glob("*.jnl")):
            try:
                self._add(path, verify=verify)
            except OSError as error:
                raise StoreError(f"{path} cannot be read: {error.strerror or error}.") from error

    @property
    def outdated(self) -> tuple[Pair, ...]:
        """Pairs whose only records were made of other versions of their photographs."""
        return tuple(sorted(self._outdated - self._index.keys()))

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """Every finished pair, including rejected ones, in the order of its record."""
        return tuple(key[::-1] if entry.turned else key for key, entry in self._index.items())

    def waiting(self, pairs: Iterable[Pair]) -> tuple[Pair, ...]:
        """The pairs still to be matched: without a record, or due for a retry enabled later."""
        return tuple(pair for pair in pairs if pair not in self or self.is_untried(pair))

    def is_untried(self, pair: Pair) -> bool:
        """Whether a finished pair's overlap is low enough to be retried in a way enabled later."""
        overlap, tried = self.overlap(pair), self._tried.get(canonical(pair), frozenset())
        return any(
            overlap is not None and overlap < least and name not in tried for name, least in self._retries.items()
        )

    def __contains__(self, pair: Pair) -> bool:
        return canonical(pair) in self._index

    def __len__(self) -> int:
        return len(self._index)

    def kind(self, pair: Pair) -> str:
        """The kind of a finished pair's record: "warp", "correspondences" or "rejected"."""
        return self._entry(pair).kind

    def overlap(self, pair: Pair) -> float | None:
        """The overlap of a finished pair, in [0, 1]; None for correspondences."""
        return self._entry(pair).overlap

    def quarter_turns(self, pair: Pair) -> int:
        """The clockwise quarter turns of a finished pair's second image at which the pair matched."""
        turns = self._entry(pair).quarter_turns
        return turns if canonical(pair) == pair else -turns % 4

    def found_by(self, pair: Pair) -> str:
        """The retry that made a finished pair match, "" if none; see `CompactWarp`."""
        return self._entry(pair).found_by

    def sizes(self, pair: Pair) -> tuple[Size, Size]:
        """The (width, height) of both images of a pair that has a warp, in the order of `pair`.

        Raises:
            KeyError: the pair is not in the journal, or without a warp.
            StoreError: its record is damaged.
        """
        if self.kind(pair) != "warp":
            raise KeyError(pair)
        with self._reading(pair) as (_, record):
            sizes = sizes_in(record.header)
        return sizes if described(record.header)[0] == pair else (sizes[1], sizes[0])

    def read(self, pair: Pair) -> PairResult:
        """The stored, verified result, oriented so that A (or 0) is the first name of `pair`.

        Raises:
            KeyError: the pair is not in the journal.
            StoreError: its record is damaged.
        """
        with self._reading(pair) as (file, record):
            result = join(record.header, verified_payload(file, record))
        return result if described(record.header)[0] == pair else turned(result)

    def warp(self, pair: Pair) -> CompactWarp:
        """`read` for a pair that has a warp."""
        result = self.read(pair)
        assert isinstance(result, CompactWarp)
        return result

    def points(self, pair: Pair) -> Correspondences:
        """`read` for a pair that has correspondences."""
        result = self.read(pair)
        assert isinstance(result, Correspondences)
        return result

    def close(self) -> None:
        """Close the files opened for reading."""
        self._open_files.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _entry(self, pair: Pair) -> _Entry:
        return self._index[canonical(pair)]

    @contextmanager
    def _reading(self, pair: Pair) -> Iterator[tuple[BufferedReader, Record]]:
        """The record of a pair and its open file, for one thread at a time."""
        entry = self._entry(pair)
        path = self._paths[entry.file]
        try:
            with self._lock:
                file = self._open_files.get(path)
                yield file, record_at(file, entry.offset, os.fstat(file.fileno()).st_size)
        except (OSError, DamagedError) as error:
            raise StoreError(
                f"{path} is damaged at byte {entry.offset}, in the record of {pair[0]} {pair[1]} ({error}). Run "
                f"`romacli check {self._folder.parent} --repair` and the same command again: only this pair is "
                "matched again."
            ) from error

    def _add(self, path: Path, *, verify: bool) -> None:
        """Index the complete records of one file."""
        size = path.stat().st_size
        unsettled_from = 0 if verify else size - _UNSETTLED_BYTES
        self._paths.append(path)
        with path.open("rb") as file:
            for record in self._records(file, path, size):
                try:
                    if record.end > unsettled_from:
                        verified_payload(file, record)
                    self._add_record(record)
                except DamagedError as error:
                    self.damaged.append(f"{path} at byte {record.offset}: {error}")

    def _records(self, file: BufferedReader, path: Path, size: int) -> Iterator[Record]:
        """The records after the first, which is checked to belong to this job."""
        offset: int | None = 0
        while offset is not None and offset < size:
            try:
                record = record_at(file, offset, size)
                if offset == 0:
                    self._check_job(path, record.header)
                else:
                    yield record
                offset = record.end
            except DamagedError as error:
                behind = next_offset(file, offset, size) if offset else None
                if behind is None and (offset or isinstance(error, UnfinishedError)):
                    self.torn.append((path, offset))
                else:
                    self.damaged.append(f"{path} at byte {offset}: {error}")
                offset = behind

    def _check_job(self, path: Path, header: dict[str, Any]) -> None:
        if header.get("kind") != "job":
            raise DamagedError("it is not a journal")
        if header.get("format") != FORMAT:
            raise StoreError(f"{path} has format {header.get('format')}, this version reads {FORMAT}. Update romacli.")
        if self.fingerprint is None:
            self.fingerprint = header.get("fingerprint")
        if header.get("fingerprint") != self.fingerprint:
            raise SettingsDifferError(
                f"{path} was made with other settings. Use the same ones, another --output, or --overwrite."
            )

    def _add_record(self, record: Record) -> None:
        pair, kind, overlap = described(record.header)
        pair = sys.intern(pair[0]), sys.intern(pair[1])
        key = canonical(pair)
        if self._is_outdated(pair, record):
            self._outdated.add(key)
            return
        tried, held = tried_in(record.header), self._index.get(key)
        self._tried[key] = tried | self._tried.get(key, frozenset())
        turns, found_by = quarter_turns_in(record.header), found_by_in(record.header)
        is_turned = turns and not (held and held.quarter_turns)
        retried = tried or found_by
        finds_more = retried and kind != "rejected" and held is not None and (overlap or 0) > (held.overlap or 0)
        if held is None or is_turned or finds_more:
            self._index[key] = _Entry(
                file=len(self._paths) - 1,
                offset=record.offset,
                kind=sys.intern(kind),
                overlap=overlap,
                turned=key != pair,
                quarter_turns=turns if key == pair else -turns % 4,
                found_by=sys.intern(found_by),
            )

    def _is_outdated(self, pair: Pair, record: Record) -> bool:
        made_of = stamps_in(record.header)
        if made_of is None:
            return False
        return any(
            name in self._stamps and stamp not in self._stamps[name] for name, stamp in zip(pair, made_of, strict=True)
        )


class _Entry(NamedTuple):
    """The position of a pair's record, and what it tells.

    turned: whether its names are not in the order of the index's key. quarter_turns: of the second image of the key.
    """

    file: int
    offset: int
    kind: str
    overlap: float | None
    turned: bool
    quarter_turns: int
    found_by: str


class _OpenFiles:
    """Files kept open for reading; the least recently used is closed first."""

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


def job_record(fingerprint: str) -> bytes:
    """The first record of a file."""
    return encode({"kind": "job", "format": FORMAT, "fingerprint": fingerprint}, b"")
