"""Repair journals: incomplete ends are removed, records after damage are kept."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from romacli.disk import unwritable, written_whole

from .journal import Journal, job_record
from .record import DamagedError, Record, UnfinishedError, described, next_offset, record_at, verified_payload


@dataclass(frozen=True)
class Damage:
    """Bytes of a journal file that are not a complete record, and why; `is_torn` if cut off by a kill."""

    start: int
    end: int
    reason: str
    is_torn: bool = False


@dataclass(frozen=True)
class Survey:
    """A journal file: its size, its verified records of pairs, and the damage between them."""

    path: Path
    size: int
    records: tuple[Record, ...]
    damages: tuple[Damage, ...]

    @property
    def is_foreign(self) -> bool:
        """Whether it is not a journal, or its job is unknown."""
        return any(damage.start == 0 and not damage.is_torn for damage in self.damages)


def survey(path: Path) -> Survey:
    """Read every byte of a journal file."""
    size = path.stat().st_size
    records: list[Record] = []
    damages: list[Damage] = []
    offset = 0
    with path.open("rb") as file:
        while offset < size:
            try:
                record = record_at(file, offset, size)
            except DamagedError as error:
                behind = next_offset(file, offset, size)
                is_torn = behind is None and (offset > 0 or isinstance(error, UnfinishedError))
                damages.append(Damage(offset, behind or size, str(error), is_torn))
                offset = behind or size
                continue
            try:
                if offset or record.header.get("kind") != "job":
                    described(record.header)
                verified_payload(file, record)
                records.append(record)
            except DamagedError as error:
                damages.append(Damage(offset, record.end, str(error)))
            offset = record.end
    return Survey(path, size, tuple(records), tuple(damages))


def cut_torn_ends(journal: Journal) -> int:
    """Remove incomplete records from the ends of a journal's files, and return their number. No process may be writing.

    Raises:
        StoreError: a file cannot be written.
    """
    for path, offset in journal.torn:
        try:
            os.truncate(path, offset) if offset else path.unlink()
        except OSError as error:
            raise unwritable(path, error, num_bytes=0) from error
    return len(journal.torn)


def repair(surveyed: Survey, fingerprint: str) -> None:
    """Remove everything but complete records from a journal file; a file that is not a journal is renamed.

    fingerprint: of the folder's job, for a file that has lost the record of it.

    Raises:
        StoreError: the file cannot be written.
    """
    path = surveyed.path
    try:
        if surveyed.is_foreign and not surveyed.records:
            path.replace(path.with_name(path.name + ".damaged"))
        elif not surveyed.records:
            path.unlink()
        elif all(damage.is_torn for damage in surveyed.damages):
            os.truncate(path, surveyed.records[-1].end)
        else:
            _rewrite(surveyed, fingerprint)
    except OSError as error:
        raise unwritable(path, error, num_bytes=surveyed.size) from error


def _rewrite(surveyed: Survey, fingerprint: str) -> None:
    with written_whole(surveyed.path) as temporary, surveyed.path.open("rb") as source, temporary.open("wb") as target:
        if surveyed.is_foreign:
            target.write(job_record(fingerprint))
        for record in surveyed.records:
            source.seek(record.offset)
            target.write(source.read(record.end - record.offset))
