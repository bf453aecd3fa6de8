"""The text file of pairs that hloc and COLMAP read; tabs allow names with spaces."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from romacli.disk import write_whole
from romacli.errors import InputError, PairsError, StoreError
from romacli.names import spelled, with_guess
from romacli.types import Pair, PairList
from romacli.words import counted, is_number

_GRAMMAR = "A line is two names, separated by a tab if they contain spaces; a third column may be a number."
_NAMES_SHOWN = 5
# Tabs and line breaks separate; a # starts a comment; a byte order mark at the start of a file is dropped.
_UNWRITABLE = re.compile(r"[\t\n\r]|^\s*#|^\ufeff|^\s*$|[\ud800-\udfff]")


@dataclass(frozen=True)
class ReadPairs:
    """A list of pairs as read; `duplicates` counts lines that repeat or reverse an earlier pair."""

    pairs: PairList
    duplicates: int


def read_pairs(path: Path | str, names: Sequence[str] | None) -> ReadPairs:
    """Read pairs of image names and check each against the known images.

    A line is two words, or two names separated by a tab if they contain spaces; a third, numeric column is
    ignored; blank lines and lines starting with # are skipped. Of a pair and its reverse the first is kept.
    Names are compared regardless of Unicode normalisation.

    Args:
        path: a UTF-8 text file, or "-" for standard input.
        names: the images that pairs may name; None accepts a list from `write_pairs` unchecked, with all its blanks.

    Raises:
        InputError: the file cannot be read.
        PairsError: a line is malformed, pairs an image with itself or names an unknown image, or the file contains
            no pairs.
    """
    source, text = _read_text(path)
    known = None if names is None else frozenset(names)
    kept: dict[Pair, None] = {}
    unknown: dict[str, int] = {}
    duplicates = 0
    lines = [(number, _pair(columns, f"{source}:{number}")) for number, columns in _rows(text, known)]
    meant = spelled({name for _, pair in lines for name in pair}, known or ())
    for line_number, written in lines:
        unknown.update((name, line_number) for name in written if name not in meant and name not in unknown)
        pair = meant.get(written[0], written[0]), meant.get(written[1], written[1])
        if pair[0] == pair[1]:
            raise PairsError(f"{source}:{line_number}: {pair[0]} is paired with itself. Remove the line.")
        if pair in kept or pair[::-1] in kept:
            duplicates += 1
        else:
            kept[pair] = None
    if unknown and names is not None:
        raise PairsError(_unknown_names(source, unknown, names))
    if not kept:
        raise PairsError(f"{source} contains no pairs. {_GRAMMAR}")
    return ReadPairs(PairList(tuple(kept)), duplicates)


def read_written_pairs(path: Path) -> PairList:
    """Read a list that `write_pairs` wrote, whose last line ends too.

    Raises:
        InputError: the file cannot be read.
        PairsError: it is malformed or cut off.
    """
    pairs = read_pairs(path, None).pairs
    if not path.read_bytes().endswith(b"\n"):  # a cut name passes for another one
        raise PairsError(f"{path} ends within a line. Write it again.")
    return pairs


def read_own_pairs(path: Path) -> PairList:
    """Read the list that a job keeps of its pairs.

    Raises:
        StoreError: it is missing or damaged.
    """
    try:
        return read_written_pairs(path)
    except (InputError, PairsError) as error:
        fault = "is damaged" if path.exists() else "is missing"
        raise StoreError(
            f"{path} {fault}. Run the same `romacli match` or `romacli reconstruct` command again: it writes the list "
            "anew and keeps the finished pairs."
        ) from error


def format_pairs(pairs: PairList) -> str:
    """Format one line per pair: two words as in hloc, or a tab between names with spaces.

    Raises:
        PairsError: a name cannot be written in a line.
    """
    names = {name for pair in pairs.pairs for name in pair}
    for name in sorted(names):
        if _UNWRITABLE.search(name):
            raise PairsError(f"a list of pairs cannot represent the name {ascii(name)}. Rename the image.")
    spaced = {name for name in names if name.split() != [name]}
    return "".join(f"{a}\t{b}\n" if a in spaced or b in spaced else f"{a} {b}\n" for a, b in pairs.pairs)


def write_pairs(path: Path, pairs: PairList) -> None:
    """Write the lines of `format_pairs` to a file, atomically.

    Raises:
        PairsError: a name cannot be written in a line.
        StoreError: the file cannot be written.
    """
    write_whole(path, format_pairs(pairs))


def _read_text(path: Path | str) -> tuple[str, str]:
    source = "standard input" if str(path) == "-" else str(path)
    try:
        data = sys.stdin.buffer.read() if str(path) == "-" else Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{source} cannot be read: {error.strerror}. Give a text file of pairs.") from error
    try:
        return source, data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line_number = data.count(b"\n", 0, error.start) + 1
        raise PairsError(f"{source}:{line_number}: not UTF-8 text. Save the file as UTF-8.") from error


def _rows(text: str, known: frozenset[str] | None) -> Iterator[tuple[int, list[str]]]:
    """Yield the number and columns of each line that is neither blank nor a comment."""
    for line_number, line in enumerate(text.split("\n"), start=1):
        content = line.rstrip("\r")
        if content.strip() and not content.lstrip().startswith("#"):
            yield line_number, _columns(content, known)


def _columns(line: str, known: frozenset[str] | None) -> list[str]:
    """Split a line at its tabs, if any, unless only its words are known names; None if it is as we write lines."""
    words = line.split()
    if "\t" not in line:
        return words
    if known is None:
        return line.split("\t")
    fields = [field if field in known else field.strip() for field in line.split("\t")]
    return words if known.issuperset(words[:2]) and not known.issuperset(fields[:2]) else fields


def _pair(columns: list[str], place: str) -> Pair:
    if len(columns) not in (2, 3) or "" in columns[:2]:
        found = "one name" if len(columns) == 1 else f"{len(columns)} columns"
        raise PairsError(f"{place}: {found}, expected two names. {_GRAMMAR}")
    if len(columns) == 3 and not is_number(columns[2]):
        raise PairsError(f"{place}: the third column, {columns[2]!r}, is not a number. {_GRAMMAR}")
    return columns[0], columns[1]


def _unknown_names(source: str, unknown: dict[str, int], names: Sequence[str]) -> str:
    remedy = "Names are relative to the image folder; correct them, or leave their lines out."
    images = f"the {counted(len(names), 'image')}"
    shown = list(unknown.items())[:_NAMES_SHOWN]
    if len(unknown) == 1:
        ((name, line_number),) = shown
        return f"{source}:{line_number}: {with_guess(name, names)} is not among {images}. {remedy}"
    listed = ", ".join(f"{with_guess(name, names)} in line {line_number}" for name, line_number in shown)
    more = f" and {len(unknown) - len(shown)} more" if len(unknown) > len(shown) else ""
    return f"{source} names {len(unknown)} files that are not among {images}: {listed}{more}. {remedy}"
