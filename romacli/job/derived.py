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


def stamp(path: Path) -> list[int]:
    """Size and time of a file, by which a change is seen."""
    state = path.stat()
    return [state.st_size, state.st_mtime_ns]


def held_by(layout: Layout, view: str, derived_from: str) -> dict[str, Any] | None:
    """What a view holds, if it was derived from what the digest stands for."""
    manifest = read_manifest(layout.manifest)
    noted = manifest.views.get(view) if manifest else None
    return noted["holds"] if noted and noted["derived_from"] == derived_from else None


def made_with(layout: Layout, view: str) -> str | None:
    """The options a view was made with, as they were noted."""
    manifest = read_manifest(layout.manifest)
    noted = manifest.views.get(view) if manifest else None
    return noted.get("made_with") if noted else None


def remember(
    layout: Layout, view: str, derived_from: str, holds: dict[str, Any], *, made_with: str | None = None
) -> None:
    """Note what a view was derived from and holds. hloc files of another tool come without a manifest."""
    manifest = read_manifest(layout.manifest)
    if manifest is not None:
        noted = {"derived_from": derived_from, "holds": holds, "made_with": made_with}
        write_manifest(layout.manifest, replace(manifest, views={**manifest.views, view: noted}))
