"""The list of a job's photographs as matched, to detect changes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from romacli.disk import write_whole
from romacli.errors import StoreError
from romacli.types import Size

FORMAT = 1
Stamp = tuple[int, int]
# Files read at once: enough for network disks, few enough for others.
READERS = 4
# The sha256 of files read by this process.
_hashed: dict[tuple[Path, Stamp], str] = {}


def stamp_of(path: Path) -> Stamp:
    """The size in bytes and modification time in ns of a file, by which changes are noticed without reading it."""
    state = path.stat()
    return state.st_size, state.st_mtime_ns


def sha256_of(path: Path) -> str:
    """The sha256 of a photograph's file, read once per process unless its stamp changes.

    Raises:
        OSError: it cannot be read.
    """
    key = path, stamp_of(path)
    if key not in _hashed:
        with path.open("rb") as file:
            _hashed[key] = hashlib.file_digest(file, "sha256").hexdigest()
    return _hashed[key]


def known_sha256(path: Path, stamp: Stamp) -> str | None:
    """The same for a file with this stamp, if this process has read it."""
    return _hashed.get((path, stamp))


@dataclass(frozen=True)
class KnownImage:
    """The record of a photograph.

    stamps: (bytes, modification time in ns) of the file; several if copies were accepted.
    size: (width, height) px, None if never read.
    header, sha256: metadata, as JSON, and contents of the file with the last stamp; None if never read.
    """

    stamps: tuple[Stamp, ...]
    size: Size | None = None
    header: Mapping[str, Any] | None = None
    sha256: str | None = None


def read_images(path: Path) -> dict[str, KnownImage]:
    """Read the photographs listed at `path`, by name; none if there is no list.

    Raises:
        StoreError: the file is damaged or of a newer format.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise StoreError(f"{path} has format {content['format']}, this version reads {FORMAT}. Update romacli.")
        return {name: _known(row) for name, row in content["images"].items()}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise StoreError(
            f"{path} cannot be read: {error.strerror or error}. Make it readable, or give another folder."
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise StoreError(
            f"{path} is damaged. Delete it: photographs are then used as they are now, and pairs of changed ones are "
            "matched again."
        ) from error


def write_images(path: Path, images: Mapping[str, KnownImage]) -> None:
    """Write the list atomically, unless the file already has this content."""
    rows: dict[str, dict[str, Any]] = {}
    for name, known in images.items():
        rows[name] = {"stamps": [list(stamp) for stamp in known.stamps], "size": known.size and list(known.size)}
        if known.header is not None:
            rows[name]["header"] = dict(known.header)
        if known.sha256 is not None:
            rows[name]["sha256"] = known.sha256
    text = json.dumps({"format": FORMAT, "images": rows}, separators=(",", ":")) + "\n"
    if path.exists() and path.read_text(encoding="utf-8", errors="replace") == text:
        return
    write_whole(path, text)


def unusable(folder: Path | None, known: Mapping[str, KnownImage], names: Iterable[str]) -> dict[str, str]:
    """The photographs that are not in a folder as they were matched, with a word for the reason of each."""
    if folder is None or not folder.is_dir():
        return dict.fromkeys(names, "gone")
    found, stamps = {}, {}
    for name in names:
        try:
            stamps[name] = stamp_of(folder / name)
        except OSError:
            found[name] = "gone"
    return {**found, **dict.fromkeys(changed_in(folder, stamps, known), "changed")}


def changed_in(folder: Path, stamps: Mapping[str, Stamp], known: Mapping[str, KnownImage]) -> list[str]:
    """The photographs of a folder that are not as recorded, by their stamps now, or else by their contents.

    Only files that have the recorded size but another time are read.
    """
    others = [name for name, stamp in stamps.items() if name in known and stamp not in known[name].stamps]
    with ThreadPoolExecutor(READERS) as pool:
        copied = pool.map(lambda name: _is_copy(folder / name, stamps[name], known[name]), others)
        return [name for name, is_copy in zip(others, copied, strict=True) if not is_copy]


def _is_copy(path: Path, stamp: Stamp, known: KnownImage) -> bool:
    if known.sha256 is None or stamp[0] != known.stamps[-1][0]:
        return False
    try:
        return sha256_of(path) == known.sha256
    except OSError:
        return False


def _known(row: Any) -> KnownImage:
    stamps = tuple((int(num_bytes), int(time)) for num_bytes, time in row["stamps"])
    size = None if row["size"] is None else (int(row["size"][0]), int(row["size"][1]))
    return KnownImage(stamps, size, row.get("header"), row.get("sha256"))
