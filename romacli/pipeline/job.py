"""A job in its output folder: what it was asked, what is done, and what is left to match."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from romacli import __version__
from romacli.colmap.database import check_replaceable
from romacli.colmap.reconstruct import check_holds_models_only
from romacli.errors import ImageError, InputError, NothingFoundError, StoreError
from romacli.images.decode import image_size
from romacli.images.listing import list_images, other_photographs
from romacli.images.masks import MaskOptions, find_masks, without_masks
from romacli.keypoints.aggregate import AggregateOptions
from romacli.matching.matcher import Matcher, MatcherOptions
from romacli.matching.registry import DEFAULT, load_matcher
from romacli.pairs import exhaustive, read_pairs, write_pairs
from romacli.pipeline.given import GivenKeypoints
from romacli.pipeline.masks import JobMasks, note_masks
from romacli.pipeline.match import MatchOptions, MatchSummary, match_images
from romacli.pipeline.progress import Progress
from romacli.pipeline.runs import noted
from romacli.pipeline.stop import StopRequest
from romacli.pipeline.views import derive_views
from romacli.store.hloc import check_names
from romacli.store.journal import Journal, JournalWriter
from romacli.store.layout import Layout
from romacli.store.manifest import check_same, fingerprint, read_manifest, write_manifest
from romacli.types import ImageList, Manifest, PairList, Size

DEFAULT_OUTPUT = Path("romacli-out")


@dataclass(frozen=True)
class JobOptions:
    """What a job is asked: photographs, pairs, matcher, and how keypoints are made of the warps.

    pairs: a pairs file, `-` for standard input, None for every pair.
    image_list: a file of names, one a line, in place of the whole folder.
    masks: which pixels of the photographs count.
    keypoints: "sift" or a features file of hloc, whose keypoints are matched in place of new ones.
    overwrite: begin anew, whatever the output folder holds of an earlier job.
    """

    images: Path
    output: Path = DEFAULT_OUTPUT
    pairs: str | None = None
    image_list: Path | None = None
    model: str = DEFAULT
    matcher: MatcherOptions = field(default_factory=MatcherOptions)
    match: MatchOptions = field(default_factory=MatchOptions)
    aggregate: AggregateOptions = field(default_factory=AggregateOptions)
    masks: MaskOptions = field(default_factory=MaskOptions)
    keypoints: str | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class Job:
    """A job whose input is checked and whose settings agree with what its folder holds."""

    options: JobOptions
    layout: Layout
    images: ImageList
    pairs: PairList
    matcher: Matcher
    manifest: Manifest
    masks: JobMasks | None = None

    @property
    def given(self) -> GivenKeypoints | None:
        """The keypoints to match in place of new ones."""
        source = self.options.keypoints
        return GivenKeypoints(source, self.images.root) if source else None

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.manifest)

    def journal(self) -> Journal:
        return Journal.open(self.layout.journal, self.fingerprint)

    def remaining(self) -> PairList:
        """The pairs without a record, in the order given."""
        with self.journal() as journal:
            return PairList(tuple(pair for pair in self.pairs.pairs if pair not in journal))


def open_job(options: JobOptions, progress: Progress) -> Job:
    """Check the photographs, the pairs and the output folder, then load the matcher. Writes nothing.

    Raises:
        InputError: there is nothing to match, no matcher to do it, or no keypoints where they should be given.
        UsageError: pairs that make no sense, or an output folder of other settings.
    """
    images = without_masks(list_images(options.images, names_file=options.image_list), options.masks)
    if others := other_photographs(options.images):
        progress.warn(f"{len(others)} files are left out, {others[0]} first: convert them to JPEG or PNG to use them")
    if len(images) < 2:
        raise InputError(f"{options.images} holds one image ({images.names[0]}); matching needs two or more.")
    pairs = _pairs(options, images, progress)
    check_names(images.names)
    masks = _masks(options.masks, images, progress)
    layout = Layout(options.output)
    stored = None if options.overwrite else _stored_manifest(layout)
    matcher = load_matcher(options.model, options.matcher)
    manifest = Manifest({**matcher.settings, "seed": options.match.seed}, __version__)
    if stored is not None:
        check_same(layout.root, stored, manifest)
    job = Job(options, layout, images, pairs, matcher, manifest, masks)
    if job.given:
        job.given.check(images.names, options.aggregate)
    return job


def run_job(job: Job, progress: Progress, stop: StopRequest) -> MatchSummary:
    """Match what is left and derive the hloc files.

    Raises:
        InputError: a photograph has changed its size since it was matched.
        NothingFoundError: no pair of the job has a usable warp.
        StoreError: with `overwrite`, the database or the models in the folder are somebody else's.
        Stopped: a signal asked for it; results so far are in the journal.
    """
    if job.options.overwrite:
        _clear(job.layout)
    _require_unchanged(job)
    views = read_manifest(job.layout.manifest)
    write_manifest(job.layout.manifest, replace(job.manifest, views=views.views if views else {}))
    note_masks(job.layout, job.options.masks)
    write_pairs(job.layout.pairs, job.pairs)
    todo = job.remaining()
    if len(todo) < len(job.pairs):
        progress.say(f"{len(job.pairs) - len(todo)} of {len(job.pairs)} pairs are done already")
    if todo.pairs:
        with (
            JournalWriter(job.layout.journal, job.fingerprint) as writer,
            noted(job.layout, "matching", images=job.images.root) as counts,
        ):
            run = match_images(
                job.images, todo, job.matcher, writer.append, job.options.match, progress=progress, stop=stop
            )
            counts.update(pairs=run.pairs, encodes=run.encodes)
    else:
        run = MatchSummary()
    with job.journal() as journal:
        for note in journal.damaged:
            progress.warn(f"{note}; pairs lost there are matched again")
        summary = _in_all(job, journal, run)
        if summary.matched == 0:
            raise NothingFoundError(_nothing_matched(summary))
        sizes = _sizes(job, journal, summary, progress)
        derive_views(
            job.layout,
            journal,
            job.pairs,
            sizes,
            job.options.aggregate,
            progress,
            stop,
            given=job.given,
            masks=job.masks,
        )
    return summary


def _pairs(options: JobOptions, images: ImageList, progress: Progress) -> PairList:
    if options.pairs is None:
        return exhaustive(images.names)
    found = read_pairs(options.pairs, images.names)
    if found.duplicates:
        progress.warn(f"{options.pairs}: {found.duplicates} pairs occur twice or reversed; each is matched once")
    return found.pairs


def _masks(options: MaskOptions, images: ImageList, progress: Progress) -> JobMasks | None:
    """The masks of the photographs, each of its photograph's size; one that cannot be read is spoken of later."""
    if options == MaskOptions():
        return None
    masks = find_masks(images.root, images.names, options)
    sizes = {}
    for name in masks.files:
        with suppress(ImageError):
            sizes[name] = image_size(images.root / name)
    masks.require_sizes(sizes)
    progress.say(f"masks for {len(masks.files)} of {len(images)} images")
    return JobMasks(masks)


def _stored_manifest(layout: Layout) -> Manifest | None:
    """What an earlier job left, if there was one.

    Raises:
        StoreError: the folder holds files of another kind where ours would go.
    """
    stored = read_manifest(layout.manifest)
    if stored is None:
        foreign = [path.name for path in (layout.journal, layout.features, layout.matches) if path.exists()]
        if foreign:
            raise StoreError(
                f"{layout.root} holds {foreign[0]} but no {layout.manifest.name}. "
                "Choose another --output, or --overwrite."
            )
    return stored


def _clear(layout: Layout) -> None:
    """Remove what an earlier job left in the folder, and nothing else.

    Raises:
        StoreError: the database or the models there are somebody else's; nothing is removed.
    """
    check_replaceable(layout.database)
    check_holds_models_only(layout.sparse)
    for folder in (layout.journal, layout.sparse):
        shutil.rmtree(folder, ignore_errors=True)
    for file in (
        layout.manifest,
        layout.pairs,
        layout.features,
        layout.matches,
        layout.database,
        layout.runs,
        layout.report,
        layout.report.with_suffix(".json"),
    ):
        file.unlink(missing_ok=True)


def _in_all(job: Job, journal: Journal, run: MatchSummary) -> MatchSummary:
    """The numbers of the whole job, whichever run did the work; encodes and seconds are this run's."""
    done = [pair for pair in job.pairs.pairs if pair in journal]
    rejected = sum(journal.kind(pair) == "rejected" for pair in done)
    return MatchSummary(
        images=len(job.images),
        pairs=len(job.pairs),
        matched=len(done) - rejected,
        rejected=rejected,
        failed=len(job.pairs) - len(done),
        encodes=run.encodes,
        seconds=run.seconds,
        failures=run.failures,
    )


def require_size(path: Path, size: Size, *, matched: Size) -> None:
    """Pass silently when a photograph has the size (width, height) it had when it was matched.

    Raises:
        InputError: it has another.
    """
    if size != matched:
        raise InputError(
            f"{path} is {size[0]}x{size[1]} px, but was {matched[0]}x{matched[1]} when it was matched. "
            "Restore the photograph, or match again with --overwrite."
        )


def _require_unchanged(job: Job) -> None:
    """Refuse photographs of another size than their warps; one that cannot be read now is no obstacle."""
    with job.journal() as journal:
        matched = _matched_sizes(job, journal)
    for name, size in matched.items():
        path = job.images.root / name
        with suppress(ImageError):
            require_size(path, image_size(path), matched=size)


def _matched_sizes(job: Job, journal: Journal) -> dict[str, Size]:
    """The size that each photograph with a warp had when it was matched."""
    sizes: dict[str, Size] = {}
    for pair in job.pairs.pairs:
        if pair in journal and journal.kind(pair) == "warp" and not sizes.keys() >= set(pair):
            sizes.update(zip(pair, journal.sizes(pair), strict=True))
    return sizes


def _sizes(job: Job, journal: Journal, summary: MatchSummary, progress: Progress) -> dict[str, Size]:
    """The sizes of all photographs of the job but those that cannot be read."""
    matched = _matched_sizes(job, journal)
    sizes = {}
    for name in job.images.names:
        if name in matched:
            sizes[name] = matched[name]
        elif name not in summary.failures:
            try:
                sizes[name] = image_size(job.images.root / name)
            except ImageError as error:
                progress.warn(str(error))
    return sizes


def _nothing_matched(summary: MatchSummary) -> str:
    failures: Sequence[str] = list(summary.failures.values())
    if failures:
        return f"none of {summary.pairs} pairs matched. First reason: {failures[0]}"
    return (
        f"none of {summary.pairs} pairs show the same thing ({summary.rejected} rejected). "
        "Check that the photographs overlap, lower --min-certainty or --min-overlap, or try --model roma-outdoor."
    )
