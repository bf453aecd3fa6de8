"""A job in its output folder: what it was asked, what is done, and what is left to match."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from romacli import __version__
from romacli.colmap.database import check_replaceable
from romacli.errors import ImageError, InputError, NothingFoundError, StoreError, UsageError
from romacli.images.decode import SIXTEEN_BIT
from romacli.images.listing import list_images
from romacli.images.masks import find_masks, without_masks
from romacli.images.metadata import read_metadata
from romacli.images.options import MaskOptions
from romacli.job.aggregate import ReaggregateOptions, remembered_options
from romacli.job.hold import hold
from romacli.job.masks import JobMasks, note_masks
from romacli.job.options import JobOptions
from romacli.job.outputs.held import require_same_photographs, require_same_way
from romacli.job.outputs.hloc import HlocSources, derive_hloc, made_as
from romacli.job.outputs.table import OUTPUTS
from romacli.job.turned import Trial, try_turned, turned_images
from romacli.mapping.reconstruct import check_holds_models_only
from romacli.matchers.matcher import KeypointMatcher, Matcher
from romacli.matchers.registry import load_matcher
from romacli.pairing.describe import Describer
from romacli.pairing.options import source_options
from romacli.pairing.preselect import preselect
from romacli.pairing.sources import check_pairing, choose_pairs, looks_at_photographs
from romacli.pairs import read_pairs, write_pairs
from romacli.progress import Progress
from romacli.run.engine import match_in_parallel
from romacli.run.match import Append, MatchSummary, match_images
from romacli.run.options import Changed, TryRotations
from romacli.run.photographs import (
    Photographs,
    look_at,
    require_sizes,
    require_stretched,
    require_unchanged,
    tell_left_out,
    with_headers,
)
from romacli.run.refine import Refinement
from romacli.run.retries.retry import WEAK_OVERLAP, check_retries
from romacli.run.shard import order_of_work, piece, record_capacity, recorded_capacity, shard_work
from romacli.run.worker import WorkerSetup
from romacli.stop import Stopped, StopRequest
from romacli.store.history import noted
from romacli.store.hloc import check_names
from romacli.store.images import KnownImage, read_images, write_images
from romacli.store.journal import Journal, JournalWriter
from romacli.store.layout import Layout, written_whole
from romacli.store.lease import Lease, Work
from romacli.store.manifest import check_same, fingerprint, read_manifest, with_later_retries, write_manifest
from romacli.store.opened import open_journal
from romacli.store.repair import cut_torn_ends
from romacli.types import ImageList, Manifest, Pair, PairList, PairResult, Size, canonical
from romacli.words import counted, first_few


@dataclass(frozen=True)
class Job:
    """A job whose input is checked and whose settings agree with what its folder holds.

    keypoints: how they are made, as asked or as they were made before. pairs: of the whole job; piece: those of this
    run, where it is a shard. unreadable: a sentence for each photograph that could not be described, and hence has no
    pairs.
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
        """The photographs as records may have been made of them."""
        return self.photographs.accepted(self.options.changed)

    def journal(self) -> Journal:
        return open_journal(self.layout, self.manifest, self.known)

    def remaining(self) -> PairList:
        """The listed pairs that are to be matched, in the order given."""
        with self.journal() as journal:
            return PairList(journal.waiting(self.listed.pairs))


def listed_images(options: JobOptions) -> ImageList:
    """The photographs of a job.

    Raises:
        InputError: there are none, or a list names some that are not there.
    """
    images = list_images(options.images.folder, names_file=options.images.image_list)
    return without_masks(images, _keypoints(options).masks or MaskOptions())


def _keypoints(options: JobOptions) -> ReaggregateOptions:
    """How the job makes keypoints: as is asked, and for the rest as it did last."""
    before = None if options.overwrite else Layout(options.output)
    chosen = remembered_options(options.keypoints, before, options.images.folder)
    return replace(chosen, aggregate=replace(chosen.aggregate, seed=options.match.seed))


def _pairing(options: JobOptions) -> Any:
    """The options of the source of pairs, None where a file lists them.

    Raises:
        UsageError: pairs are both listed and chosen, or an option is given that the source does not read.
    """
    if options.pairs is not None and options.pairing.pairing is not None:
        raise UsageError(f"--pairs {options.pairs} lists the pairs that --pairing would choose. Leave one of them out.")
    chosen = source_options(options.pairing)
    return chosen if options.pairs is None else None


def open_job(options: JobOptions, progress: Progress) -> Job:
    """Check the photographs, the pairs and the output folder, then load the matcher.

    Writes nothing but descriptors and scores, where pairs are chosen by how photographs look.

    Raises:
        InputError: there is nothing to match, no matcher to do it, or no keypoints where they should be given.
        UsageError: pairs that make no sense, or an output folder of other settings.
    """
    images, pairing, keypoints = listed_images(options), _pairing(options), _keypoints(options)
    tell_left_out(images.left_out, progress)
    if len(images) < 2:
        raise InputError(f"{images.root} holds one image ({images.names[0]}); matching needs two or more.")
    chosen_later = pairing is not None and looks_at_photographs(pairing)
    pairs = PairList(()) if chosen_later else _pairs(options, pairing, images, progress)
    if pairing is not None:
        check_pairing(pairing, images)
    check_names(images.names)
    masks = _masks(keypoints.masks or MaskOptions(), images, progress)
    layout = Layout(options.output)
    stored = None if options.overwrite else _stored_manifest(layout)
    options, matcher = _with_matcher(options, keypoints, images)
    settings = {
        **matcher.settings,
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
    describer = Describer(
        matcher,
        options.pairing.descriptors or layout.global_features,
        progress,
        num_workers=options.match.num_workers,
        strict=options.match.strict,
    )
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


def _with_matcher(options: JobOptions, keypoints: ReaggregateOptions, images: ImageList) -> tuple[JobOptions, Matcher]:
    """The matcher, and the options with external keypoints in its own: it may look at these alone.

    Raises:
        InputError: there are no such keypoints of the images.
        UsageError: photographs are to be turned or enlarged for a matcher that does not try them so.
    """
    chosen = replace(options.matcher.matcher, keypoints=keypoints.external.source if keypoints.external else None)
    options = replace(options, matcher=replace(options.matcher, matcher=chosen))
    if keypoints.external:
        keypoints.external.check(images.names, keypoints.aggregate)
    matcher = load_matcher(options.matcher.model, options.matcher_options)
    if keypoints.external and isinstance(matcher, KeypointMatcher):
        keypoints.external.check(images.names, keypoints.aggregate, of_all=True)
    check_retries(matcher, options.match)
    return options, matcher


def run_job(job: Job, progress: Progress, stop: StopRequest) -> MatchSummary:
    """Match what is left and derive the hloc files; a shard leaves that to a run of the whole job.

    Raises:
        BusyError: another process is at work in the folder.
        NothingFoundError: no pair of the job has a usable warp.
        StoreError: with `overwrite`, the database or the models in the folder are somebody else's.
        Stopped: a signal asked for it; results so far are in the journal.
    """
    with hold(job.layout, progress, stop, _work(job)) as held:
        if job.options.overwrite:
            _clear(job.layout)
        _note(job)
        todo = _todo(job, progress)
        run = MatchSummary()
        if todo.pairs:
            with (
                _telling_what_is_done(job, progress),
                noted(job.layout, "matching", images=job.images.root) as counts,
            ):
                try:
                    run = _match(job, todo, held, progress, stop, run)
                finally:
                    counts.update(pairs=run.run, encodes=run.encodes)
            if run.flat:
                progress.warn(_about_flat(sorted(run.flat)))
            if job.options.shard is None and job.options.match.try_rotations is TryRotations.auto:
                _try_turned(job, run, held, progress, stop)
        with job.journal() as journal:
            summary = _in_all(job, journal, run)
            if summary.turned_images:
                progress.warn(
                    f"{counted(len(summary.turned_images), 'photograph is', 'photographs are')} stored turned, without "
                    f"a word in the EXIF data, and matched so: {first_few(summary.turned_images)}"
                )
            if job.options.shard is None:
                for note in journal.damaged:
                    progress.warn(f"{note}; `romacli check {job.layout.root} --repair` mends the file")
                if summary.matched == 0:
                    raise NothingFoundError(_nothing_matched(summary))
                sizes = _sizes(job, journal, summary, progress)
                _note_images(job, sizes)
                derive_hloc(job.layout, _sources(job, journal, sizes), progress, stop)
    return summary


def _sources(job: Job, journal: Journal, sizes: Mapping[str, Size]) -> HlocSources:
    """What the hloc files of a job are made of."""
    asked = job.keypoints
    refinement = Refinement(asked.refine, job.images.root, job.known)
    made_of = (journal, job.pairs, sizes, asked.aggregate, job.images.names, asked.external, job.masks, refinement)
    return HlocSources(*made_of, replaces=asked.replaces)


def _try_turned(job: Job, run: MatchSummary, held: Lease, progress: Progress, stop: StopRequest) -> None:
    """Try the photographs that hardly match anything turned; name those that lie so."""
    writing = partial(_writing, job, held)
    trial = Trial(job.layout, job.images, job.pairs, job.matcher, job.options.match, job.journal, writing)
    run.encodes += try_turned(trial, progress, stop).encodes


@contextmanager
def _writing(job: Job, held: Lease, *, expected: int = 0) -> Iterator[Append]:
    """A new journal file, written to as long as the folder is ours."""
    made_with = (job.layout.journal, job.fingerprint)
    with JournalWriter(
        *made_with, stamps=job.photographs.stamps, tried=job.manifest.retries, expected=expected
    ) as writer:

        def append(results: Sequence[tuple[Pair, PairResult]]) -> None:
            held.check()
            writer.append(results)

        yield append


@contextmanager
def _telling_what_is_done(job: Job, progress: Progress) -> Iterator[None]:
    """When a signal ends the block, say how far the job is."""
    try:
        yield
    except Stopped:
        with job.journal() as journal:
            done = len(job.listed) - len(journal.waiting(job.listed.pairs))
        progress.say(f"{done} of {counted(len(job.listed), 'pair')} are done and kept; the same command does the rest")
        raise


def _work(job: Job) -> Work:
    """What this run does in the folder, beside other shards of the same cut if it is one."""
    if job.options.shard is None:
        return Work()
    return shard_work(job.options.shard, job.pairs.pairs, recorded_capacity(job.layout.shards))


def _piece(pairs: PairList, layout: Layout, options: JobOptions) -> PairList | None:
    """The pairs of a shard.

    Raises:
        UsageError: the shard would remove what others did.
    """
    if options.shard is None:
        return None
    if options.overwrite:
        raise UsageError(
            "--overwrite with --shard would remove what other shards have done. Remove the output folder before the "
            "first shard, or leave one of them out."
        )
    order = order_of_work(pairs.pairs, recorded_capacity(layout.shards))
    return PairList(piece(order, options.shard))


def _note(job: Job) -> None:
    """Write down what the job is: its settings, its pairs, its photographs."""
    stored = read_manifest(job.layout.manifest)
    write_manifest(job.layout.manifest, replace(job.manifest, outputs=stored.outputs if stored else {}))
    note_masks(job.layout, job.keypoints.masks or MaskOptions())
    if job.options.shard is not None:
        record_capacity(job.layout.shards, recorded_capacity(job.layout.shards))
    with written_whole(job.layout.pairs) as temporary:
        write_pairs(temporary, job.pairs)
    _note_images(job, {})


def _note_images(job: Job, sizes: Mapping[str, Size]) -> None:
    known = {name: replace(image, size=sizes.get(name, image.size)) for name, image in job.known.items()}
    write_images(job.layout.images, with_headers(job.images.root, known) if sizes else known)


def _todo(job: Job, progress: Progress) -> PairList:
    """The pairs to match, once what a kill left behind the last whole record is gone."""
    with job.journal() as journal:
        if job.options.shard is None:
            cut_torn_ends(journal)
        todo = journal.waiting(job.listed.pairs)
        untried = sum(pair in journal for pair in todo)
        outdated = {*map(canonical, journal.outdated)}
    again = sum(canonical(pair) in outdated for pair in todo)
    if again:
        they = "it is" if again == 1 else "they are"
        told = counted(again, "pair was", "pairs were")
        progress.say(f"{told} matched on photographs that have changed since; {they} matched again")
    if untried:
        ways = " and ".join(f"--{name.replace('_', '-')}" for name in job.manifest.retries)
        told = counted(untried, "pair that hardly matches is", "pairs that hardly match are")
        progress.say(f"{told} tried again with {ways}")
    if len(todo) < len(job.listed):
        progress.say(
            f"{len(job.listed) - len(todo)} of {counted(len(job.listed), 'pair is', 'pairs are')} done already"
        )
    return PairList(todo)


def _match(
    job: Job, todo: PairList, held: Lease, progress: Progress, stop: StopRequest, summary: MatchSummary
) -> MatchSummary:
    """Match in this process, which counts the summary up, or in those of an engine."""
    if job.options.engine.name is not None:
        return match_in_parallel(
            _setup(job, expected=len(todo)),
            todo,
            job.options.engine,
            lambda: job.remaining().pairs,
            job.layout.given_up,
            held.check,
            progress,
            stop,
        )
    with _writing(job, held, expected=len(todo)) as append:
        return match_images(
            job.images, todo, job.matcher, append, job.options.match, progress=progress, stop=stop, summary=summary
        )


def _setup(job: Job, *, expected: int) -> WorkerSetup:
    """What a process needs to know before it is given pairs."""
    return WorkerSetup(
        ImageList(job.images.root.resolve(), job.images.names),
        job.layout.journal.resolve(),
        job.fingerprint,
        dict(job.photographs.stamps),
        job.options.matcher.model,
        job.options.matcher_options,
        job.options.match,
        tuple(job.manifest.retries),
        expected,
    )


def _pairs(options: JobOptions, pairing: Any, images: ImageList, progress: Progress) -> PairList:
    if options.pairs is None:
        return choose_pairs(images, pairing, progress)
    found = read_pairs(options.pairs, images.names)
    if found.duplicates:
        progress.warn(
            f"{options.pairs}: {counted(found.duplicates, 'pair occurs', 'pairs occur')} twice or "
            f"reversed; each is matched once"
        )
    return found.pairs


def _masks(options: MaskOptions, images: ImageList, progress: Progress) -> JobMasks | None:
    """The masks of the photographs, each of its photograph's size; one that cannot be read is spoken of later."""
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


def _stored_manifest(layout: Layout) -> Manifest | None:
    """What an earlier job left, if there was one.

    Raises:
        StoreError: the folder holds files of another kind where ours would go.
    """
    stored = read_manifest(layout.manifest)
    if stored is None and not any(layout.journal.glob("*.jnl")):  # a journal knows its settings' fingerprint itself
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
    own = [layout.journal, layout.preselected, layout.manifest, layout.pairs, layout.images, layout.shards]
    own += [layout.given_up, layout.global_features, layout.runs]
    for path in (*own, *(path for output in OUTPUTS for path in output.files(layout))):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _in_all(job: Job, journal: Journal, run: MatchSummary) -> MatchSummary:
    """The numbers of the whole job, whichever run did the work; run, encodes and seconds are this run's."""
    done = [pair for pair in job.listed.pairs if pair in journal]
    rejected = sum(journal.kind(pair) == "rejected" for pair in done)
    return MatchSummary(
        images=len(job.images),
        pairs=len(job.listed),
        matched=len(done) - rejected,
        turned=sum(journal.quarter_turns(pair) > 0 for pair in done),
        found_by=Counter(filter(None, map(journal.found_by, done))),
        rejected=rejected,
        failed=len(job.listed) - len(done),
        run=run.run,
        encodes=run.encodes,
        seconds=run.seconds,
        failures={**job.unreadable, **run.failures},
        given_up=run.given_up,
        turned_images=turned_images(manifest) if (manifest := read_manifest(job.layout.manifest)) else (),
    )


def _require_unchanged(job: Job) -> None:
    """Refuse photographs that changed since they were matched, unless it was said what to do about them.

    What a database or a model refers to is refused to change at all, unless all is to be replaced.
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
        matched = _matched_sizes(job, journal)
    sizes = {name: known.size for name, known in job.photographs.known.items() if known.size}
    require_sizes(job.images.root, sorted(job.photographs.unseen), {**sizes, **matched})
    require_unchanged(job.photographs, job.options.changed)


def _matched_sizes(job: Job, journal: Journal) -> dict[str, Size]:
    """The size that each photograph with a warp had when it was matched."""
    sizes: dict[str, Size] = {}
    for pair in job.pairs.pairs:
        if pair in journal and journal.kind(pair) == "warp" and not sizes.keys() >= set(pair):
            sizes.update(zip(pair, journal.sizes(pair), strict=True))
    return sizes


def _sizes(job: Job, journal: Journal, summary: MatchSummary, progress: Progress) -> dict[str, Size]:
    """The sizes of all photographs of the job but those that cannot be read."""
    known = {name: image.size for name, image in job.known.items() if image.size}
    known.update(_matched_sizes(job, journal))
    sizes = {}
    for name in job.images.names:
        if name in known:
            sizes[name] = known[name]
        elif name not in summary.failures:
            try:
                sizes[name] = read_metadata(job.images.root / name).size
            except ImageError as error:
                progress.warn(str(error))
    return sizes


def _about_flat(names: Sequence[str]) -> str:
    return (
        f"{counted(len(names), 'photograph is', 'photographs are')} one flat colour: {first_few(names)}. "
        "Nothing in them can be matched; leave them out, or look at how they were made."
    )


def _nothing_matched(summary: MatchSummary) -> str:
    failures: Sequence[str] = list(summary.failures.values())
    if failures:
        return f"none of {counted(summary.pairs, 'pair')} matched. First reason: {failures[0]}"
    return (
        f"none of {counted(summary.pairs, 'pair shows', 'pairs show')} the same thing ({summary.rejected} rejected). "
        "Check that the photographs overlap, lower --min-certainty or --min-overlap, or try --rescue where they were "
        "taken from far apart, --try-scales from near and far, --try-rotations where some lie on their side, or "
        "--model roma-outdoor."
    )
