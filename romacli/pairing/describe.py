"""Global descriptors of photographs from the matcher's coarse stage, stored in hloc's global features file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from romacli import __version__
from romacli.disk import check_writable
from romacli.errors import InputError, PartialError, RomacliError, UsageError
from romacli.images.upright import read_upright
from romacli.matchers.matcher import CoarseMatcher, Matcher, kept_settings
from romacli.pairing.source import Described
from romacli.progress import Progress
from romacli.run.photographs import look_at
from romacli.run.stream import Prefetched
from romacli.store.global_features import GlobalFeature, GlobalFeaturesFile, write_global_features
from romacli.store.images import Stamp
from romacli.types import ImageList, PreparedImage
from romacli.words import counted

# The settings of a matcher that its descriptors depend on.
_SETTINGS = ("model", "weights_sha256", "backbone_sha256", "coarse_resolution", "dtype")
# Images between writes of the file; a kill loses at most these.
_KEPT_EVERY = 2000


@dataclass
class Describer:
    """Computes descriptors of photographs with a matcher.

    path: a global features file to reuse and extend; another tool's is used unchanged. None stores nothing. option: the
    one that names it, for messages.
    failures: an error per unreadable photograph.
    """

    matcher: Matcher | None
    path: Path | None
    progress: Progress
    num_workers: int = 2
    strict: bool = False
    option: str = "--output"
    failures: dict[str, str] = field(default_factory=dict)

    def __call__(self, images: ImageList) -> Described:
        """The descriptors of the images that can be read.

        Raises:
            UsageError: the matcher has no coarse stage of its own.
            InputError: another tool's file lacks some of the images, or fewer than two can be read.
            StoreError: the file is damaged, or cannot be written.
        """
        foreign = self._foreign(images)
        found = self._ours(images) if foreign is None else foreign
        names = tuple(name for name in images.names if name in found)
        if len(names) < 2:
            raise InputError(
                f"{len(names)} of {counted(len(images), 'photograph')} can be read; pairs need two or more."
            )
        rows = np.stack([found[name].descriptor for name in names])
        return Described(names, rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))

    def _foreign(self, images: ImageList) -> dict[str, GlobalFeature] | None:
        """The descriptors in another tool's file; None if the file is romacli's or does not exist."""
        if self.path is None or not self.path.exists():
            return None
        with GlobalFeaturesFile(self.path) as file:
            if "romacli" in file.provenance():
                return None
            found = file.read(list(images.names))
        missing = [name for name in images.names if name not in found]
        if missing:
            raise InputError(
                f"{self.path}, from another tool, has no descriptors of {len(missing)} of {len(images)} photographs, "
                f"starting with {missing[0]}. Add them with that tool, or give another file with --descriptors."
            )
        return found

    def _ours(self, images: ImageList) -> dict[str, GlobalFeature]:
        matcher = self._coarse()
        provenance = {"romacli": __version__, **_settings(matcher)}
        stamps = look_at(images, {}).stamps
        held = self._held(images, provenance)
        found = {name: feature for name, feature in held.items() if feature.stamp == stamps.get(name)}
        todo = [name for name in images.names if name not in found]
        if found:
            self.progress.say(f"descriptors of {len(found)} of {len(images)} photographs already exist")
        if todo:
            if self.path is not None:
                check_writable(self.path, self.option)
            self.progress.begin("describing", len(todo))
            for start in range(0, len(todo), _KEPT_EVERY):
                try:
                    self._describe(images.root, todo[start : start + _KEPT_EVERY], matcher, stamps, found)
                finally:
                    if self.path is not None and found:
                        content = {**held, **found}
                        write_global_features(self.path, content, provenance=provenance, option=self.option)
        return found

    def _coarse(self) -> CoarseMatcher:
        if not isinstance(self.matcher, CoarseMatcher):
            name = "it" if self.matcher is None else f"'{self.matcher.name}'"
            raise UsageError(
                f"retrieval needs descriptors from a matcher's coarse stage, which {name} does not have. Try --model "
                "mini, or give another tool's file with --descriptors."
            )
        return self.matcher

    def _held(self, images: ImageList, provenance: dict[str, str]) -> dict[str, GlobalFeature]:
        """The file's descriptors of these images, if made with these weights."""
        if self.path is None or not self.path.exists():
            return {}
        with GlobalFeaturesFile(self.path) as file:
            made_with = file.provenance()
            same = {key: value for key, value in made_with.items() if key != "romacli"}
            if same != {key: value for key, value in provenance.items() if key != "romacli"}:
                self.progress.say(f"{self.path} was made with other weights or settings and is rebuilt")
                return {}
            return file.read(list(images.names))

    def _describe(
        self,
        root: Path,
        names: Sequence[str],
        matcher: CoarseMatcher,
        stamps: Mapping[str, Stamp],
        found: dict[str, GlobalFeature],
    ) -> None:
        def prepare(name: str) -> PreparedImage:
            return matcher.prepare(read_upright(root / name)[0])

        with Prefetched(names, prepare, workers=self.num_workers, ahead=2 * self.num_workers) as decoded:
            for start in range(0, len(names), matcher.batch_size):
                batch = {}
                for name in names[start : start + matcher.batch_size]:
                    prepared = decoded.take(name)
                    if isinstance(prepared, RomacliError):
                        self._fail(name, prepared)
                    else:
                        batch[name] = prepared
                if batch:
                    rows = matcher.describe(list(batch.values()))
                    found.update(
                        (name, GlobalFeature(row, stamps.get(name))) for name, row in zip(batch, rows, strict=True)
                    )
                self.progress.advance(min(matcher.batch_size, len(names) - start))

    def _fail(self, name: str, error: RomacliError) -> None:
        if self.strict:
            raise PartialError(f"stopped by --strict: {error}") from error
        self.failures[name] = str(error)
        self.progress.warn(str(error))


def _settings(matcher: Matcher) -> dict[str, str]:
    settings = kept_settings(matcher)
    return {key: str(settings[key]) for key in _SETTINGS if settings.get(key) is not None}
