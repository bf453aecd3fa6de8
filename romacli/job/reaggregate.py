"""Make a job's keypoints again from its journal, without matching; photographs are only read to refine them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from romacli.errors import InputError, NothingFoundError, StoreError
from romacli.images.options import MaskOptions
from romacli.job.external import SIFT, ExternalKeypoints
from romacli.job.hold import hold
from romacli.job.masks import masks_of, note_masks, noted_masks
from romacli.job.options import KeypointOptions
from romacli.job.outputs.hloc import KEYPOINTS, HlocSources, HlocSummary, derive_hloc
from romacli.job.outputs.origins import made_with
from romacli.keypoints.options import AggregateOptions
from romacli.pairs.listfile import read_own_pairs
from romacli.progress import Progress
from romacli.refine.options import RefineOptions
from romacli.run.photographs import note_photographs
from romacli.run.refine import Refinement
from romacli.stop import StopRequest
from romacli.store.history import photographs_of, require_photographs
from romacli.store.hloc import UNREAD, FeaturesFile, check_names
from romacli.store.images import KnownImage, read_images
from romacli.store.journal import Journal
from romacli.store.layout import Layout
from romacli.store.manifest import manifest_of
from romacli.store.opened import open_journal
from romacli.types import Manifest, PairList, Size
from romacli.words import counted_of


@dataclass(frozen=True)
class ReaggregateOptions:
    """How keypoints are made, apart from the seed, which is the job's.

    external: keypoints to match instead of new ones. masks: None for the job's last ones. images: the folder of
    photographs to refine against, None for the folder they were matched in. replaces: replace all keypoints, even
    those in use by a database or model.
    """

    aggregate: AggregateOptions = field(default_factory=AggregateOptions)
    external: ExternalKeypoints | None = None
    masks: MaskOptions | None = None
    refine: RefineOptions = field(default_factory=RefineOptions)
    images: Path | None = None
    replaces: bool = False


def asked_options(asked: KeypointOptions, images: Path | None) -> ReaggregateOptions:
    """The keypoint options as given; masks default to those of the previous run."""
    external = ExternalKeypoints(asked.keypoints, images) if asked.keypoints else None
    masks = asked.masks if asked.names_masks else None
    return ReaggregateOptions(asked.aggregate, external, masks, asked.refine, images, asked.replaces)


def remembered_options(asked: KeypointOptions, job: Layout | None, images: Path | None) -> ReaggregateOptions:
    """The keypoint options as given; the others default to the job's last ones.

    job: None ignores earlier runs. images: the folder of photographs.
    """
    before = ReaggregateOptions() if job is None else noted_options(job)
    source = asked.keypoints
    if source is None and before.external and "method" not in asked.typed:
        source = before.external.source
    changed = {name: value for name, value in vars(asked.aggregate).items() if name in asked.typed}
    if source is not None:
        changed["method"] = asked.aggregate.method
    return ReaggregateOptions(
        replace(before.aggregate, **changed),
        ExternalKeypoints(source, images) if source else None,
        asked.masks if asked.names_masks else before.masks,
        asked.refine if "refine" in asked.typed else before.refine,
        images,
        asked.replaces,
    )


def noted_options(layout: Layout) -> ReaggregateOptions:
    """The options that a job's hloc files were last made with; defaults if not recorded."""
    noted = json.loads(made_with(layout, KEYPOINTS) or "{}")
    known = {field.name for field in fields(AggregateOptions)}
    options = AggregateOptions(**{key: value for key, value in noted.items() if key in known})
    source = noted.get("keypoints")
    if source and source != SIFT:
        source = str(layout.root / source)
    external = ExternalKeypoints(source, photographs_of(layout)) if source else None
    return ReaggregateOptions(options, external, noted_masks(layout), RefineOptions(refine=noted.get("refine")))


def refined_options(layout: Layout, images: Path | None, *, replaces: bool = False) -> ReaggregateOptions:
    """The options that a job's hloc files were last made with, plus refinement. images: None for the folder matched
    in.

    Raises:
        InputError: the folder has none of the photographs.
    """
    require_photographs(layout, images, unchanged=True)
    noted = noted_options(layout)
    external = noted.external and ExternalKeypoints(noted.external.source, images or noted.external.images)
    return replace(noted, external=external, refine=RefineOptions(refine=True), images=images, replaces=replaces)


def reaggregate(layout: Layout, options: ReaggregateOptions, progress: Progress, stop: StopRequest) -> HlocSummary:
    """Derive the hloc files of a job from the pairs it has finished.

    Raises:
        BusyError: another process is at work in the folder.
        InputError: the folder contains no job.
        NothingFoundError: no pair has a usable warp.
        UsageError: options that contradict each other.
    """
    manifest = manifest_of(layout)
    with hold(layout, progress, stop):
        folder = options.images or photographs_of(layout)
        with stop.at_once():
            images = note_photographs(layout, folder, read_images(layout.images), progress)
        with open_journal(layout, manifest, images) as journal:
            return reaggregate_held(layout, manifest, images, journal, options, progress, stop)


def reaggregate_held(
    layout: Layout,
    manifest: Manifest,
    images: Mapping[str, KnownImage],
    journal: Journal,
    options: ReaggregateOptions,
    progress: Progress,
    stop: StopRequest,
) -> HlocSummary:
    """`reaggregate` in a folder that this process holds. images: the job's photographs."""
    aggregate = replace(options.aggregate, seed=manifest.settings.get("seed", AggregateOptions.seed))
    pairs = read_own_pairs(layout.pairs)
    check_names({name for pair in pairs.pairs for name in pair})
    for note in journal.damaged:
        progress.warn(f"{note}; `romacli check {layout.root} --repair` repairs the file")
    _require_matches(layout, journal, pairs, progress)
    known = _known_sizes(layout, journal, pairs, images)
    sizes = {name: size for name, size in known.items() if size != UNREAD}
    if options.images is not None:
        require_photographs(layout, options.images)
    if options.external:
        options.external.check(list(sizes), aggregate)
    masks = masks_of(options.masks or noted_masks(layout), sizes)
    if options.masks is not None:
        note_masks(layout, options.masks)
    refinement = Refinement(options.refine, options.images or photographs_of(layout), images)
    made_of = (journal, pairs, sizes, aggregate, known, options.external, masks, refinement)
    return derive_hloc(layout, HlocSources(*made_of, replaces=options.replaces), progress, stop)


def _require_matches(layout: Layout, journal: Journal, pairs: PairList, progress: Progress) -> None:
    done = [pair for pair in pairs.pairs if pair in journal]
    if len(done) < len(pairs):
        progress.say(
            f"{layout.pairs}: {counted_of(len(done), len(pairs), 'pair', 'is', 'are')} done; the others are left out "
            "until `romacli match` finishes them"
        )
    if all(journal.kind(pair) == "rejected" for pair in done):
        raise NothingFoundError(
            f"{layout.root} contains no pair that matched ({len(done)} of {len(pairs)} are done). "
            "Finish the job with `romacli match`, or match photographs that overlap."
        )


def _known_sizes(
    layout: Layout, journal: Journal, pairs: PairList, images: Mapping[str, KnownImage]
) -> dict[str, Size]:
    """The size of every image of the job; records of rejected pairs lack it, earlier features files have it."""
    sizes = dict.fromkeys(images, UNREAD)
    with suppress(InputError, StoreError), FeaturesFile(layout.features) as features:
        sizes.update((name, features.image_size(name)) for name in features.names())
    sizes.update({name: image.size for name, image in images.items() if image.size})
    for pair in pairs.pairs:
        is_unknown = any(sizes.get(name, UNREAD) == UNREAD for name in pair)
        if is_unknown and pair in journal and journal.kind(pair) == "warp":
            sizes.update(zip(pair, journal.sizes(pair), strict=True))
    return sizes
