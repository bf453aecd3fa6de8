"""The list of a job's photographs as matched, to detect changes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from romacli.disk import write_whole
from romacli.errors import StoreError
from romacli.types import Size

FORMAT = 1
Stamp = tuple[int, int]


def stamp_of(path: Path) -> Stamp:
    """The size in bytes and modification time in ns of a file, by which changes are noticed without reading it."""
    state = path.stat()
    return state.st_size, state.st_mtime_ns


@dataclass(frozen=True)
class KnownImage:
    """The record of a photograph.

    stamps: (bytes, modification time in ns) of the file; several if copies were accepted.
    size: (width, height) px, None if never read.
    header: metadata of the file with the last stamp, as JSON; None if never read.
    """

    stamps: tuple[Stamp, ...]
    size: Size | None = None
    header: Mapping[str, Any] | None = None


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
    text = json.dumps({"format": FORMAT, "images": rows}, separators=(",", ":")) + "\n"
    if path.exists() and path.read_text(encoding="utf-8", errors="replace") == text:
        return
    write_whole(path, text)


def unusable(folder: Path | None, known: Mapping[str, KnownImage], names: Iterable[str]) -> dict[str, str]:
    """The photographs that are not in a folder as they were matched, with a word for the reason of each."""
    if folder is None or not folder.is_dir():
        return dict.fromkeys(names, "gone")
    found = {}
    for name in names:
        try:
            stamp = stamp_of(folder / name)
            if name in known and stamp not in known[name].stamps:
                found[name] = "changed"
        except OSError:
            found[name] = "gone"
    return found


def _known(row: Any) -> KnownImage:
    stamps = tuple((int(num_bytes), int(time)) for num_bytes, time in row["stamps"])
    size = None if row["size"] is None else (int(row["size"][0]), int(row["size"][1]))
    return KnownImage(stamps, size, row.get("header"))
