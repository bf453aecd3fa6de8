"""A job in its output folder: its options, finished pairs and remaining pairs."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from romacli import __version__
from romacli.errors import ImageError, InputError, StoreError, UsageError
from romacli.images.decode import SIXTEEN_BIT
from romacli.images.listing import list_images
from romacli.images.masks import find_masks, without_masks
from romacli.images.metadata import read_metadata
from romacli.images.options import MaskOptions
from romacli.job.masks import JobMasks
from romacli.job.options import JobOptions
from romacli.job.outputs.hloc import made_as
from romacli.job.outputs.in_use import require_same_photographs, require_same_way
from romacli.job.reaggregate import ReaggregateOptions, remembered_options
from romacli.matchers.matcher import CPU_DTYPES, EITHER_DTYPE, KeypointMatcher, Matcher, kept_settings
from romacli.matchers.registry import load_matcher
from romacli.pairing.describe import Describer
from romacli.pairing.options import source_options
from romacli.pairing.preselect import preselect
from romacli.pairing.sources import choose_pairs, source_of
from romacli.pairs.listfile import read_pairs
from romacli.progress import Progress
from romacli.run.engine import check_engine
from romacli.run.options import WEAK_OVERLAP, Changed
from romacli.run.photographs import (
    Photographs,
    look_at,
    require_sizes,
    require_stretched,
    require_unchanged,
    tell_left_out,
)
from romacli.run.retries.retry import check_retries
from romacli.run.shard import order_of_work, piece, recorded_capacity
from romacli.store.hloc import check_names
from romacli.store.images import KnownImage, read_images
from romacli.store.journal import Journal
from romacli.store.layout import Layout, layout_of
from romacli.store.manifest import check_same, fingerprint, read_manifest, with_later_retries
from romacli.store.opened import open_journal
from romacli.types import ImageList, Manifest, PairList, Size
from romacli.words import counted


@dataclass(frozen=True)
class Job:
    """A job whose input is checked and whose settings agree with its folder.

    keypoints: how they are made, as given or as in the last run. pairs: of the whole job; piece: those of this run, if
    it is a shard. unreadable: an error per photograph that could not be described and hence has no pairs.
    """

    options: JobOptions
    layout: Layout
    images: ImageList
    pairs: PairList
    matcher: Matcher
    manifest: Manifest
    keypoints: ReaggregateOptions = field(default_factory=ReaggregateOptions)
    masks: JobMasks | None = None
    photographs: Photographs = field(default_factory=lambda: Photographs({}, {}))
    piece: PairList | None = None
    unreadable: Mapping[str, str] = field(default_factory=dict)

    @property
    def listed(self) -> PairList:
        """The pairs of this run."""
        return self.pairs if self.piece is None else self.piece

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.manifest)

    @property
    def known(self) -> dict[str, KnownImage]:
        """The photographs, as records may refer to them."""
        return self.photographs.accepted(self.options.changed)

    def journal(self) -> Journal:
        return open_journal(self.layout, self.manifest, self.known)

    def remaining(self) -> PairList:
        """The listed pairs still to be matched, in the given order."""
        with self.journal() as journal:
            return PairList(journal.waiting(self.listed.pairs))


def listed_images(options: JobOptions) -> ImageList:
    """The photographs of a job.

    Raises:
        InputError: there are none, or a list names some that do not exist.
    """
    images = list_images(options.images.folder, names_file=options.images.image_list)
    return without_masks(images, _keypoints(options).masks or MaskOptions())


def _keypoints(options: JobOptions) -> ReaggregateOptions:
    """The job's keypoint options: as given, the rest as in the last run."""
    before = None if options.overwrite else Layout(options.output)
    chosen = remembered_options(options.keypoints, before, options.images.folder)
    return replace(chosen, aggregate=replace(chosen.aggregate, seed=options.match.seed))


def _pairing(options: JobOptions) -> Any:
    """The options of the pair source, None if a file lists the pairs.

    Raises:
        UsageError: both a list and a source were given, or an option that the source does not use.
    """
    if options.pairs is not None and options.pairing.pairing is not None:
        raise UsageError(f"--pairs {options.pairs} and --pairing exclude each other. Leave one of them out.")
    chosen = source_options(options.pairing)
    return chosen if options.pairs is None else None


def open_job(options: JobOptions, progress: Progress) -> Job:
    """Check the photographs, the pairs and the output folder, then load the matcher.

    Writes nothing except descriptors and scores, if the pair source needs them.

    Raises:
        InputError: there is nothing to match, no matcher, or no external keypoints where they should be.
        UsageError: the pairs are invalid, the output folder has other settings, or the engine is not installed.
    """
    check_engine(options.engine)
    images, pairing, keypoints = listed_images(options), _pairing(options), _keypoints(options)
    tell_left_out(images.left_out, progress)
    if len(images) < 2:
        raise InputError(f"{images.root} contains one image ({images.names[0]}); matching needs two or more.")
    chosen_later = pairing is not None and source_of(pairing).looks_at_photographs(pairing)
    pairs = PairList(()) if chosen_later else _pairs(options, pairing, images, progress)
    if pairing is not None:
        source_of(pairing).check(pairing, images)
    check_names(images.names)
    masks = _masks(keypoints.masks or MaskOptions(), images, progress)
    layout = _layout_of_whole_job(options.output)
    stored = None if options.overwrite else _stored_manifest(layout)
    options, matcher = _with_matcher(options, keypoints, images, stored)
    settings = {
        **_matcher_settings(matcher, stored),
        "seed": options.match.seed,
        **options.match.retries,
        "sixteen_bit": SIXTEEN_BIT,
    }
    manifest = Manifest(settings, __version__)
    if stored is not None:
        stored, manifest = with_later_retries(stored, manifest, WEAK_OVERLAP)
        check_same(layout.root, stored, manifest)
    photographs = look_at(images, {} if options.overwrite else read_images(layout.images))
    if stored is not None and "sixteen_bit" not in stored.settings:
        require_stretched(layout.root, images.root, photographs.known)
    job = Job(options, layout, images, pairs, matcher, manifest, keypoints, masks, photographs)
    if not options.overwrite:
        _require_unchanged(job)
    describer = describer_of(options, layout, matcher, progress)
    if chosen_later:
        pairs = choose_pairs(images, pairing, progress, describe=describer)
    if options.preselected_from is not None:
        pairs = preselect(
            images,
            pairs,
            matcher,
            layout.preselected,
            min_overlap=options.preselected_from,
            options=options.match,
            progress=progress,
        )
    return replace(job, pairs=pairs, piece=_piece(pairs, layout, options), unreadable=describer.failures)


def describer_of(options: JobOptions, layout: Layout, matcher: Matcher | None, progress: Progress) -> Describer:
    """Describes photographs by a matcher, into the file of --descriptors or else the job's own."""
    given, match = options.pairing.descriptors, options.match
    return Describer(
        *(matcher, given or layout.global_features, progress, match.num_workers),
        strict=match.strict,
        option="--descriptors" if given else "--output",
    )


def _with_matcher(
    options: JobOptions, keypoints: ReaggregateOptions, images: ImageList, stored: Manifest | None
) -> tuple[JobOptions, Matcher]:
    """The matcher, and the options with external keypoints moved into its own if it matches only these.

    With `--dtype auto` a job goes on in the type it was begun in, if it is of the same matcher.

    Raises:
        InputError: there are no such keypoints of the images.
        UsageError: the matcher does not support rotated or enlarged photographs.
    """
    chosen = replace(options.matcher.matcher, keypoints=keypoints.external.source if keypoints.external else None)
    if chosen.dtype == "auto" and stored and stored.settings.get("model") == options.matcher.model:
        begun_in = _stored_dtype(stored)
        chosen = replace(chosen, dtype=begun_in if begun_in in (*CPU_DTYPES, EITHER_DTYPE) else "auto")
    options = replace(options, matcher=replace(options.matcher, matcher=chosen))
    if keypoints.external:
        keypoints.external.check(images.names, keypoints.aggregate)
    matcher = load_matcher(options.matcher.model, options.matcher_options)
    if keypoints.external and isinstance(matcher, KeypointMatcher):
        keypoints.external.check(images.names, keypoints.aggregate, of_all=True)
    check_retries(matcher, options.match, images.names)
    return options, matcher


def _matcher_settings(matcher: Matcher, stored: Manifest | None) -> dict[str, Any]:
    """The settings of the matcher; a job in either of two types continues in each of them."""
    settings = kept_settings(matcher)
    if _stored_dtype(stored) == EITHER_DTYPE and settings.get("dtype") in CPU_DTYPES:
        settings["dtype"] = EITHER_DTYPE
    return settings


def _stored_dtype(stored: Manifest | None) -> str:
    return str(stored.settings.get("dtype")) if stored else ""


def _piece(pairs: PairList, layout: Layout, options: JobOptions) -> PairList | None:
    """The pairs of a shard.

    Raises:
        UsageError: the shard would remove the results of others.
    """
    if options.shard is None:
        return None
    if options.overwrite:
        raise UsageError(
            "--overwrite with --shard would remove the results of other shards. Remove the output folder before the "
            "first shard, or leave one of them out."
        )
    order = order_of_work(pairs.pairs, recorded_capacity(layout.shards))
    return PairList(piece(order, options.shard))


def _pairs(options: JobOptions, pairing: Any, images: ImageList, progress: Progress) -> PairList:
    if options.pairs is None:
        return choose_pairs(images, pairing, progress)
    found = read_pairs(options.pairs, images.names)
    if found.duplicates:
        progress.warn(
            f"{options.pairs}: {counted(found.duplicates, 'duplicate or reversed pair')}; each pair is matched once"
        )
    return found.pairs


def _masks(options: MaskOptions, images: ImageList, progress: Progress) -> JobMasks | None:
    """The masks of the photographs, checked for size; unreadable photographs are reported later."""
    if options == MaskOptions():
        return None
    masks = find_masks(images.root, images.names, options)
    sizes = {}
    for name in masks.files:
        with suppress(ImageError):
            sizes[name] = read_metadata(images.root / name).size
    masks.require_sizes(sizes)
    progress.say(f"masks for {len(masks.files)} of {counted(len(images), 'image')}")
    return JobMasks(masks)


def _layout_of_whole_job(output: Path) -> Layout:
    """The layout of a job's folder.

    Raises:
        UsageError: it is the folder of a job's model, where a new job would begin.
    """
    layout = layout_of(output)
    if layout.root != output:
        raise UsageError(f"{output} is a model of the job {layout.root}. Give -o {layout.root}, or another --output.")
    return layout


def _stored_manifest(layout: Layout) -> Manifest | None:
    """The manifest of an earlier job, if any.

    Raises:
        StoreError: foreign files occupy the names of a job's files.
    """
    stored = read_manifest(layout.manifest)
    if stored is None and not any(layout.journal.glob("*.jnl")):  # a journal stores its settings' fingerprint
        foreign = [path.name for path in (layout.journal, layout.features, layout.matches) if path.exists()]
        if foreign:
            raise StoreError(
                f"{layout.root} contains {foreign[0]} but no {layout.manifest.name}. "
                "Choose another --output, or --overwrite."
            )
    return stored


def _require_unchanged(job: Job) -> None:
    """Refuse photographs that changed since they were matched, unless --changed allows them.

    Keypoints in use by a database or model may not change unless all are replaced.
    """
    asked = job.keypoints
    if not asked.replaces:
        require_same_way(job.layout, made_as(job.layout, asked.aggregate, asked.external, asked.refine))
    if job.options.changed is Changed.rematch:
        require_same_photographs(job.layout, () if asked.replaces else job.photographs.changed)
        return
    if not job.photographs.unseen:
        return
    with job.journal() as journal:
        matched = matched_sizes(job, journal)
    sizes = {name: known.size for name, known in job.photographs.known.items() if known.size}
    require_sizes(job.images.root, sorted(job.photographs.unseen), {**sizes, **matched})
    require_unchanged(job.photographs, job.options.changed)


def matched_sizes(job: Job, journal: Journal) -> dict[str, Size]:
    """The size that each photograph with a warp had when it was matched."""
    sizes: dict[str, Size] = {}
    for pair in job.pairs.pairs:
        if pair in journal and journal.kind(pair) == "warp" and not sizes.keys() >= set(pair):
            sizes.update(zip(pair, journal.sizes(pair), strict=True))
    return sizes
