"""Merge the shards of a job: copy journals of other folders, and derive the hloc files from all of them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from romacli.disk import written_whole
from romacli.errors import InputError, SettingsDifferError
from romacli.job.hold import hold
from romacli.job.outputs.hloc import HlocSummary
from romacli.job.reaggregate import ReaggregateOptions, reaggregate_held
from romacli.job.trials.merged import keep_tried, tried_in
from romacli.job.trials.trial import finished_pairs
from romacli.pairs.listfile import read_own_pairs, write_pairs
from romacli.progress import Progress
from romacli.run.photographs import note_photographs
from romacli.stop import StopRequest
from romacli.store.history import photographs_of
from romacli.store.images import KnownImage, read_images, write_images
from romacli.store.layout import Layout
from romacli.store.manifest import difference, manifest_of, read_manifest, write_manifest
from romacli.store.opened import open_journal
from romacli.store.repair import cut_torn_ends
from romacli.types import Manifest, Pair, PairList, canonical


@dataclass(frozen=True)
class MergeSummary:
    """The contents of the merged job. missing: pairs that no shard has matched."""

    pairs: int
    missing: Sequence[Pair]
    files: int
    keypoints: HlocSummary


def merge(
    layout: Layout, others: Sequence[Layout], options: ReaggregateOptions, progress: Progress, stop: StopRequest
) -> MergeSummary:
    """Merge other folders of the same job into this one and derive the hloc files from all of them.

    Raises:
        BusyError: a process is working in the target folder; the others may be in use.
        InputError: a folder contains no job, or two have different photographs of the same name.
        NothingFoundError: no pair has a usable warp.
        SettingsDifferError: two were made with different settings.
    """
    manifest = _common_manifest(layout, others)
    with hold(layout, progress, stop):
        parts = [(each, _united_pairs([each]), read_images(each.images)) for each in (layout, *others)]
        pairs = _united_pairs([layout, *others])
        images = _united_images([layout, *others])
        layout.root.mkdir(parents=True, exist_ok=True)
        if read_manifest(layout.manifest) is None:
            parts = parts[1:]
            write_manifest(layout.manifest, replace(manifest, outputs={}))
        write_pairs(layout.pairs, pairs)
        write_images(layout.images, images)
        with stop.at_once():
            images = note_photographs(layout, options.images or photographs_of(layout), images, progress)
        files = sum(_take_in(path, layout) for other in others for path in sorted(other.journal.glob("*.jnl")))
        with open_journal(layout, manifest, images) as journal:
            cut_torn_ends(journal)
            missing = journal.waiting(pairs.pairs)
            if others:
                tried = [tried_in(each, finished_pairs(listed, journal), known) for each, listed, known in parts]
                keep_tried(layout, finished_pairs(pairs, journal), images, tried)
            keypoints = reaggregate_held(layout, manifest, images, journal, options, progress, stop)
    return MergeSummary(len(pairs), missing, files, keypoints)


def _common_manifest(layout: Layout, others: Sequence[Layout]) -> Manifest:
    """The manifest common to the folders; the first may be new."""
    common: Manifest | None = read_manifest(layout.manifest)
    for other in others or [layout]:
        manifest = manifest_of(other)
        common = common or manifest
        if phrases := difference(manifest, common):
            raise SettingsDifferError(
                f"{other.root} was {'; '.join(phrases)}. Merge only folders matched with the same options and romacli."
            )
    assert common is not None
    return common


def _united_pairs(layouts: Sequence[Layout]) -> PairList:
    seen: dict[Pair, Pair] = {}
    for layout in layouts:
        if layout.pairs.exists():
            for pair in read_own_pairs(layout.pairs).pairs:
                seen.setdefault(canonical(pair), pair)
    return PairList(tuple(seen.values()))


def _united_images(layouts: Sequence[Layout]) -> dict[str, KnownImage]:
    """The photographs of all folders. Copies may differ in time, but not in size in bytes."""
    united: dict[str, KnownImage] = {}
    home: dict[str, Path] = {}
    for layout in layouts:
        for name, image in read_images(layout.images).items():
            known = united.get(name, KnownImage(()))
            sizes = {num_bytes for num_bytes, _ in (*known.stamps, *image.stamps)}
            contents = {known.sha256, image.sha256} - {None}
            if known.stamps and (len(sizes) > 1 or len(contents) > 1):
                parts = "contents" if len(sizes) == 1 else "file sizes"
                raise InputError(
                    f"{name} differs between {home[name]} and {layout.root}: the {parts} are not equal. Match it "
                    "again in one of them, with the photograph of the other."
                )
            stamps = dict.fromkeys((*known.stamps, *image.stamps))
            united[name] = KnownImage(tuple(stamps), known.size or image.size, sha256=known.sha256 or image.sha256)
            home.setdefault(name, layout.root)
    return united


def _take_in(path: Path, layout: Layout) -> bool:
    """Copy a journal file unless it already exists; file names contain machine, process and time."""
    target = layout.journal / path.name
    if target.exists() and target.stat().st_size >= path.stat().st_size:
        return False
    with written_whole(target) as temporary:
        shutil.copyfile(path, temporary)
    return True
