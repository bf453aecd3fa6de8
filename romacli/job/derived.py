"""What files made from others were derived from, and what they hold: noted in the manifest."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from romacli.store.layout import Layout
from romacli.store.manifest import read_manifest, write_manifest


def digest(content: Any) -> str:
    """The sha256 of JSON values."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def content(path: Path) -> str:
    """The sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stamp(path: Path) -> list[int]:
    """Size and time of a photograph, by which a change is seen without reading it."""
    state = path.stat()
    return [state.st_size, state.st_mtime_ns]


def noted_path(layout: Layout, path: Path) -> str:
    """A path as it is noted in a job, which may be moved: relative to the job's folder where it lies inside.

    `layout.root / noted` is the path again.
    """
    whole, root = path.resolve(), layout.root.resolve()
    return whole.relative_to(root).as_posix() if whole.is_relative_to(root) else str(whole)


def held_by(layout: Layout, view: str, derived_from: str) -> dict[str, Any] | None:
    """What a view holds, if it was derived from what the digest stands for."""
    manifest = read_manifest(layout.manifest)
    noted = manifest.views.get(view) if manifest else None
    return noted["holds"] if noted and noted["derived_from"] == derived_from else None


def made_with(layout: Layout, view: str) -> str | None:
    """The options a view was made with, as they were noted."""
    noted: str | None = _noted(layout, view, "made_with")
    return noted


def sources_of(layout: Layout, view: str) -> Any:
    """The content of the files a view was made from, as it was noted; None where nobody knows."""
    return _noted(layout, view, "sources")


def _noted(layout: Layout, view: str, key: str) -> Any:
    manifest = read_manifest(layout.manifest)
    noted = manifest.views.get(view) if manifest else None
    return noted.get(key) if noted else None


def remember(
    layout: Layout,
    view: str,
    derived_from: str,
    holds: dict[str, Any],
    *,
    made_with: str | None = None,
    sources: Any = None,
) -> None:
    """Note what a view was derived from and holds. hloc files of another tool come without a manifest.

    derived_from: a digest of sources and options; sources: JSON values for the content of the sources alone.
    """
    manifest = read_manifest(layout.manifest)
    if manifest is not None:
        noted = {"derived_from": derived_from, "holds": holds, "made_with": made_with, "sources": sources}
        write_manifest(layout.manifest, replace(manifest, views={**manifest.views, view: noted}))
