"""The sources and contents of each output, as recorded in the manifest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from romacli.errors import InputError
from romacli.store.layout import Layout
from romacli.store.manifest import read_manifest, write_manifest
from romacli.types import Manifest


def digest(values: Any) -> str:
    """The sha256 of JSON values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """The sha256 of a file's bytes.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}. Make it readable.") from error


def noted_path(layout: Layout, path: Path) -> str:
    """A path as recorded in a job: relative to the job's folder, which may be moved, if it is inside.

    `layout.root / noted` is the path again.
    """
    whole, root = path.resolve(), layout.root.resolve()
    return whole.relative_to(root).as_posix() if whole.is_relative_to(root) else str(whole)


def holds_if_from(layout: Layout, output: str, derived_from: str) -> dict[str, Any] | None:
    """The recorded contents of an output, if it was made from the sources of this digest."""
    noted = _noted(read_manifest(layout.manifest), output)
    return noted["holds"] if noted.get("derived_from") == derived_from else None


def origin_of(layout: Layout, output: str) -> str:
    """The digest of an output's sources; empty if unknown."""
    origin: str = _noted(read_manifest(layout.manifest), output).get("derived_from", "")
    return origin


def holds(manifest: Manifest | None, output: str) -> dict[str, Any]:
    """The recorded contents of an output; empty if unknown."""
    found: dict[str, Any] = _noted(manifest, output).get("holds", {})
    return found


def made_with(layout: Layout, output: str) -> str | None:
    """The options an output was made with, as recorded."""
    noted: str | None = _noted(read_manifest(layout.manifest), output).get("made_with")
    return noted


def sources_of(layout: Layout, output: str) -> Any:
    """The recorded content of an output's source files; None if unknown."""
    return _noted(read_manifest(layout.manifest), output).get("sources")


def _noted(manifest: Manifest | None, output: str) -> Mapping[str, Any]:
    return manifest.outputs.get(output, {}) if manifest else {}


def remember(
    layout: Layout,
    output: str,
    derived_from: str,
    holds: dict[str, Any],
    *,
    made_with: str | None = None,
    sources: Any = None,
) -> None:
    """Record the sources and contents of an output, unless the folder has no manifest (hloc files of another tool).

    derived_from: a digest of sources and options; sources: JSON values for the content of the sources alone.
    """
    manifest = read_manifest(layout.manifest)
    if manifest is not None:
        noted = {"derived_from": derived_from, "holds": holds, "made_with": made_with, "sources": sources}
        write_manifest(layout.manifest, replace(manifest, outputs={**manifest.outputs, output: noted}))
