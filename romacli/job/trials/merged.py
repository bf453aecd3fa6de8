"""What a merged job keeps of the trials of its parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from romacli.job.outputs.origins import holds_if_from, remember
from romacli.job.trials.joined import JOINED
from romacli.job.trials.scaled import SCALED
from romacli.job.trials.trial import finished_digest
from romacli.job.trials.turned import TURNED, turned_images
from romacli.store.images import KnownImage
from romacli.store.layout import Layout
from romacli.store.manifest import read_manifest
from romacli.types import Pair


@dataclass(frozen=True)
class Tried:
    """The trials that a job has finished on all its pairs, and the photographs it found to be stored rotated."""

    trials: frozenset[str]
    turned: frozenset[str]


def tried_in(layout: Layout, finished: Sequence[Pair], known: Mapping[str, KnownImage]) -> Tried:
    """What a job has tried. finished: its finished pairs; known: its photographs."""
    derived_from = finished_digest(finished, known)
    noted = {name: holds_if_from(layout, name, derived_from) for name in (TURNED, SCALED, JOINED)}
    done = frozenset(name for name, held in noted.items() if held is not None and not held.get("left"))
    return Tried(done, frozenset(turned_images(read_manifest(layout.manifest))))


def keep_tried(
    layout: Layout, finished: Sequence[Pair], known: Mapping[str, KnownImage], parts: Sequence[Tried]
) -> None:
    """Note in a merged job what its parts found, so that no trial is repeated that all of them have finished."""
    turned = sorted(frozenset().union(*(part.turned for part in parts)))
    done = frozenset.intersection(*(part.trials for part in parts))
    derived_from = finished_digest(finished, known)
    for name in done - {TURNED}:
        remember(layout, name, derived_from, {})
    if turned or TURNED in done:
        remember(layout, TURNED, derived_from if TURNED in done else "", {"turned": turned})
