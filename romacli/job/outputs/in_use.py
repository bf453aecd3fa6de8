"""Keypoints in use by a job's database or model, by row, which are kept when the job grows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from romacli.colmap.database import is_ours
from romacli.colmap.reading import read_keypoints, read_model_keypoints
from romacli.errors import InputError, StoreError, UsageError
from romacli.job.masks import JobMasks
from romacli.job.outputs.origins import made_with
from romacli.job.outputs.recipe import noted_databases
from romacli.keypoints.result import LazyMatches
from romacli.names import spelled
from romacli.progress import Progress
from romacli.store.hloc import FeaturesFile, MatchesFile
from romacli.store.layout import Layout
from romacli.types import Keypoints, Matches, Pair, canonical
from romacli.words import counted, first_few

KEYPOINTS = "keypoints"
# Between the same keypoint in the hloc files and in COLMAP's, which differ by rounding.
SAME_PX = 0.01
_REMEDY = "--replace-keypoints to replace them, then rebuild database and model"


@dataclass(frozen=True)
class KeypointsInUse:
    """Keypoints in use by a database or model of a job, by row, which are kept.

    by: the file or folder that refers to them.
    """

    keypoints: Mapping[str, Keypoints]
    by: str = ""

    def of(self, names: Collection[str]) -> KeypointsInUse:
        """The keypoints of these images."""
        return replace(self, keypoints={name: one for name, one in self.keypoints.items() if name in names})

    def stamp(self) -> str:
        """A digest of their positions."""
        found = hashlib.sha256()
        for name, known in sorted(self.keypoints.items()):
            found.update(name.encode() + known.xy.astype(np.float32).tobytes())
        return found.hexdigest()

    @contextmanager
    def matches(
        self, layout: Layout, masks: JobMasks | None, origins: Collection[str]
    ) -> Iterator[Mapping[Pair, Matches]]:
        """The matches between them in the job's files; none if the files are from other origins."""
        with ExitStack() as stack:
            try:
                features = stack.enter_context(FeaturesFile(layout.features))
                matches = stack.enter_context(MatchesFile(layout.matches))
                names = features.names()
                is_known = all(file.provenance().get("derived_from") in origins for file in (features, matches))
                pairs = matches.pairs(names) if is_known else []
            except (InputError, StoreError):
                pairs = []
            kept = {canonical(pair) for pair in pairs if self.keypoints.keys() >= set(pair)}
            found = LazyMatches(kept, lambda pair: self._unmasked(pair, matches.matches(*pair), masks))
            yield found if kept else {}

    def _unmasked(self, pair: Pair, found: Matches, masks: JobMasks | None) -> Matches:
        """Matches of a pair without those in masked areas."""
        if masks is None:
            return found
        ends = [masks.allows(name, self.keypoints[name].xy) for name in pair]
        kept = ends[0][found.indices[:, 0]] & ends[1][found.indices[:, 1]]
        return Matches(found.indices[kept], found.scores[kept])


def keypoints_in_use(layout: Layout) -> KeypointsInUse:
    """The keypoints in a job's features file that its database, or else a model, refers to by row.

    If the features file is lost, they are read from the database or model.
    """
    in_use: dict[str, np.ndarray] = {}
    by = ""
    for path in noted_databases(layout):
        with suppress(StoreError):
            if path.is_file() and is_ours(path):
                in_use, by = {**read_keypoints(path), **in_use}, by or path.name
    for folder in sorted(layout.sparse.glob("[0-9]*")) if not in_use else ():
        with suppress(InputError):
            in_use, by = {**read_model_keypoints(folder), **in_use}, layout.sparse.name
    in_use = {name: xy for name, xy in in_use.items() if len(xy)}
    try:
        with FeaturesFile(layout.features) as file:
            kept = {}
            for name, other in spelled(in_use, file.names()).items():
                known = file.keypoints(other, np.float64)
                if known.xy.shape == in_use[name].shape and np.abs(known.xy - in_use[name]).max() < SAME_PX:
                    kept[other] = replace(known, uncertainty=file.uncertainty(other))
            return KeypointsInUse(kept, by)
    except (InputError, StoreError):
        return KeypointsInUse({name: Keypoints(xy, np.ones(len(xy), np.float32)) for name, xy in in_use.items()}, by)


def kept_keypoints(
    layout: Layout, names: Collection[str], made_as: str, progress: Progress, *, replaces: bool
) -> KeypointsInUse:
    """The keypoints in use, of these images.

    Raises:
        UsageError: they were made with other options.
    """
    if not replaces:
        require_same_way(layout, made_as)
    in_use = keypoints_in_use(layout).of(names)
    if not in_use.keypoints:
        return in_use
    told = f"keypoints of {counted(len(in_use.keypoints), 'image')} that {in_use.by} refers to"
    if replaces:
        progress.say(f"{told} are replaced; database and model must be rebuilt too")
        return KeypointsInUse({})
    progress.say(f"{told} are kept")
    return in_use


def require_same_way(layout: Layout, made_as: str) -> None:
    """Check that keypoints would be made as before, unless nothing refers to them.

    made_as: the options, as recorded in the job.

    Raises:
        UsageError: keypoints in use by a database or model would be replaced.
    """
    how: dict[str, Any] = json.loads(made_as)
    before, now = _effective({**how, **json.loads(made_with(layout, KEYPOINTS) or "{}")}), _effective(how)
    differing = [name for name in how if before[name] != now[name]]
    in_use = keypoints_in_use(layout) if differing else KeypointsInUse({})
    if in_use.keypoints:
        told = [f"{name.replace('_', '-')} {before[name]}, now {now[name]}" for name in differing]
        raise UsageError(
            f"{layout.root / in_use.by} refers to the keypoints of {counted(len(in_use.keypoints), 'image')}, which "
            f"were made in another way ({'; '.join(told)}). Leave the difference out to keep them, or add {_REMEDY}."
        )


def _effective(how: dict[str, Any]) -> dict[str, Any]:
    """Recorded options with defaults filled in: external keypoints are not refined."""
    return {**how, "refine": how["keypoints"] is None if how["refine"] is None else how["refine"]}


def require_same_photographs(layout: Layout, changed: Collection[str]) -> None:
    """Check that no keypoints in use are on photographs that changed.

    Raises:
        UsageError: some are.
    """
    in_use = keypoints_in_use(layout) if changed else KeypointsInUse({})
    if stale := sorted(in_use.keypoints.keys() & set(changed)):
        raise UsageError(
            f"{counted(len(stale), 'photograph')} changed since the keypoints were made that {layout.root / in_use.by} "
            f"refers to: {first_few(stale)}. Put the old ones back, or add {_REMEDY}."
        )
