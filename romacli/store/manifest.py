"""A job's settings: stored with its results, compared on resume, with differences as sentences.

Settings are JSON values whose keys are spelled like options (`coarse_resolution` is `--coarse-resolution`).
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from romacli.disk import write_whole
from romacli.errors import InputError, SettingsDifferError, StoreError
from romacli.types import Manifest

from .layout import Layout

FORMAT = 1
_EXACT_FLOATS = 2**53
# Settings that older jobs lack. Results depend on them only if both sides have them.
_LATER = ("sixteen_bit",)
# A setting that comes with the weights and the version, not with an option.
_MIRRORED, _WEIGHTS = "mirrored", {"model", "weights_sha256"}


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write a manifest as readable JSON, atomically."""
    content = {
        "format": FORMAT,
        "version": manifest.version,
        "settings": _plain(manifest.settings),
        "views": dict(manifest.outputs),
        **({"retries": dict(manifest.retries)} if manifest.retries else {}),
    }
    write_whole(path, json.dumps(content, indent=2) + "\n")


def manifest_of(layout: Layout, command: str = "match") -> Manifest:
    """The manifest of a job; command: that makes one, for the message.

    Raises:
        InputError: the folder contains no job.
        StoreError: as from `read_manifest`.
    """
    manifest = read_manifest(layout.manifest)
    if manifest is None:
        raise InputError(
            f"{layout.root} contains no job. Give a job's folder, or run `romacli {command}` with --output "
            f"{layout.root} first."
        )
    return manifest


def read_manifest(path: Path) -> Manifest | None:
    """The manifest stored at `path`, or None.

    Raises:
        StoreError: the file is damaged, foreign or of a newer format.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise StoreError(f"{path} has format {content['format']}, this version reads {FORMAT}. Update romacli.")
        settings, version, outputs = content["settings"], content["version"], content.get("views", {})
        if not isinstance(settings, dict) or not isinstance(version, str) or not isinstance(outputs, dict):
            raise TypeError("the values of a manifest are of other types")
        retries = {str(name): float(overlap) for name, overlap in content.get("retries", {}).items()}
    except FileNotFoundError:
        return None
    except NotADirectoryError as error:
        raise StoreError(f"{path.parent} is not a folder. Give another one.") from error
    except OSError as error:
        why = f"{path} cannot be read: {error.strerror or error}"
        raise StoreError(f"{why}. Make it readable, or give another folder.") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        mend = f"romacli check {shlex.quote(str(path.parent))} --repair"
        raise StoreError(f"{path} is damaged or not romacli's. Run `{mend}`, or give another folder.") from error
    return Manifest(settings, version, outputs, retries)


def fingerprint(manifest: Manifest) -> str:
    """The sha256 of the settings except later ones, equal before and after a round trip through the file."""
    settings = {key: value for key, value in _plain(manifest.settings).items() if key not in _LATER}
    return hashlib.sha256(_canonical(settings).encode()).hexdigest()


def difference(stored: Manifest, wanted: Manifest) -> list[str]:
    """A phrase per differing setting, such as "made with --seed 0, this run asks for 1"."""
    return list(_differing(stored, wanted).values())


def with_later_retries(stored: Manifest, wanted: Manifest, overlaps: Mapping[str, float]) -> tuple[Manifest, Manifest]:
    """Both manifests, with retries that the stored job lacks listed separately, so that its settings stay the same.

    overlaps: for each retry, by the key of its setting, the overlap below which it retries a pair.
    """
    later = {
        key: overlap
        for key, overlap in overlaps.items()
        if wanted.settings.get(key) and (key in stored.retries or not stored.settings.get(key))
    }
    settings = {key: value for key, value in wanted.settings.items() if key not in later}
    return replace(stored, retries={**stored.retries, **later}), replace(wanted, settings=settings, retries=later)


def check_same(path: Path, stored: Manifest, wanted: Manifest) -> None:
    """Check that two manifests have the same settings; `path` is named in the message.

    Raises:
        SettingsDifferError: they differ; the message names the options.
    """
    found = _differing(stored, wanted)
    if found:
        options = len(found.keys() - {_MIRRORED})
        same = ["the same value" if options == 1 else "the same values"] if options else []
        if found.keys() & _WEIGHTS == {"weights_sha256"}:  # a later version may include others
            same[0] += " (if no --weights was given, the romacli that began it)"
        same += ["the romacli that began it"] if _MIRRORED in found else []
        raise SettingsDifferError(
            f"{path} was {'; '.join(found.values())}. Use {' with '.join(same)}, another --output, or --overwrite."
        )


def _differing(stored: Manifest, wanted: Manifest) -> dict[str, str]:
    """The phrases of `difference` by setting; if the weights differ, mirrored photographs are not mentioned."""
    before, after = (_plain({**each.settings, **dict.fromkeys(each.retries, True)}) for each in (stored, wanted))
    found = {
        key: _phrase(key, before.get(key), after.get(key))
        for key in [*before, *(key for key in after if key not in before)]
        if _canonical(before.get(key)) != _canonical(after.get(key))
        and not (key in _LATER and None in (before.get(key), after.get(key)))
    }
    if found.keys() & _WEIGHTS:
        found.pop(_MIRRORED, None)
    return found


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as JSON returns them, without unset ones."""
    return {key: _value(value) for key, value in settings.items() if value is not None}


def _value(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT_FLOATS:
        return int(value)
    if isinstance(value, Mapping):
        return {str(key): _value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_value(item) for item in value]
    return value.as_posix() if isinstance(value, Path) else value


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _phrase(key: str, before: Any, after: Any) -> str:
    if key == _MIRRORED:
        return f"made {'when' if before else 'before'} romacli looked at mirrored photographs, too"
    option = "--" + key.removesuffix("_sha256").replace("_", "-")
    if before is None:
        return f"made without {option}, this run asks for {_with_option(option, key, after)}"
    asked = "none" if after is None else _words(key, after)
    if isinstance(after, bool):
        asked = _with_option(option, key, after)
    return f"made with {_with_option(option, key, before)}, this run asks for {asked}"


def _with_option(option: str, key: str, value: Any) -> str:
    if isinstance(value, bool):
        return option if value else f"--no-{option.removeprefix('--')}"
    return f"{option} {_words(key, value)}"


def _words(key: str, value: Any) -> str:
    if key.endswith("_sha256"):
        return f"sha256:{str(value)[:12]}"
    if isinstance(value, list):
        return " ".join(_words("", item) for item in value)
    return str(value) if isinstance(value, (str, int, float)) else _canonical(value)
