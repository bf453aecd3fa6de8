"""Run a job: match its missing pairs and make its files from the journal."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial

from romacli.colmap.database import check_replaceable
from romacli.errors import ImageError, NothingFoundError, StoreError
from romacli.images.metadata import read_metadata
from romacli.images.options import MaskOptions
from romacli.job.hold import hold
from romacli.job.job import Job, matched_sizes
from romacli.job.masks import note_masks
from romacli.job.outputs.hloc import HlocSources, derive_hloc
from romacli.job.outputs.table import OUTPUTS
from romacli.job.trials.joined import try_joining
from romacli.job.trials.scaled import try_scaling
from romacli.job.trials.trial import Trial
from romacli.job.trials.turned import try_turned, turned_images
from romacli.mapping.reconstruct import check_holds_models_only
from romacli.pairs.listfile import write_pairs
from romacli.progress import Progress
from romacli.run.engine import match_in_parallel
from romacli.run.match import Append, MatchSummary, match_images
from romacli.run.options import Try
from romacli.run.photographs import with_contents, with_hashes
from romacli.run.refine import Refinement
from romacli.run.shard import record_capacity, recorded_capacity, shard_work
from romacli.run.worker import WorkerSetup
from romacli.stop import Stopped, StopRequest
from romacli.store.history import note_options, noted
from romacli.store.images import KnownImage, write_images
from romacli.store.journal import Journal, JournalWriter
from romacli.store.layout import Layout
from romacli.store.lease import Lease, Work
from romacli.store.manifest import read_manifest, write_manifest
from romacli.store.repair import cut_torn_ends
from romacli.types import ImageList, Pair, PairList, PairResult, Size, canonical
from romacli.words import counted, counted_of, first_few


def run_job(job: Job, progress: Progress, stop: StopRequest) -> MatchSummary:
    """Match the remaining pairs and derive the hloc files; a shard leaves the latter to a run of the whole job.

    Raises:
        BusyError: another process is working in the folder.
        NothingFoundError: no pair of the job has a usable warp.
        StoreError: with `overwrite`, the database or models in the folder were not made by romacli.
        Stopped: by a signal; results so far are in the journal.
    """
    with hold(job.layout, progress, stop, _work(job)) as lease:
        if job.options.overwrite:
            _clear(job.layout)
        _note(job)
        todo = _todo(job, progress)
        run = MatchSummary()
        with _telling_what_is_done(job, progress):
            typed = job.options.lasting
            if not todo.pairs:
                note_options(job.layout, images=job.images.root, typed=typed)
            else:
                with noted(job.layout, "matching", images=job.images.root, typed=typed) as counts:
                    try:
                        run = _match(job, todo, lease, progress, stop, run)
                    finally:
                        counts.update(pairs=run.run, encodes=run.encodes)
                        counts.update({f"{dtype} pairs": count for dtype, count in run.run_in.items()})
                if run.flat:
                    progress.warn(
                        f"{counted(len(run.flat), 'photograph is', 'photographs are')} a single flat colour: "
                        f"{first_few(sorted(run.flat))}. Such photographs cannot be matched; check them, or leave "
                        "them out."
                    )
            if job.options.shard is None:
                _try_more(job, run, lease, progress, stop)
        with job.journal() as journal:
            summary = _in_all(job, journal, run)
            mirrored = _mirrored(job)
            if turned := [name for name in summary.turned_images if name not in mirrored]:
                progress.warn(
                    f"{counted(len(turned), 'photograph')} stored rotated without an EXIF orientation, matched "
                    f"upright: {first_few(turned)}"
                )
            if mirrored:
                progress.warn(
                    f"{counted(len(mirrored), 'photograph is', 'photographs are')} stored mirrored, by the EXIF "
                    f"orientation: {first_few(mirrored)}. Pixels count as stored, so these fit no other photographs, "
                    "or wrongly. Save copies whose pixels are as shown, or leave them out"
                )
            if job.options.shard is None:
                for note in journal.damaged:
                    progress.warn(f"{note}; `romacli check {job.layout.root} --repair` repairs the file")
                if summary.matched == 0:
                    raise NothingFoundError(_nothing_matched(summary))
                sizes = _sizes(job, journal, summary, progress)
                with stop.at_once():
                    write_images(job.layout.images, with_contents(job.images.root, _sized(job, sizes), progress))
                derive_hloc(job.layout, _sources(job, journal, sizes), progress, stop)
    return summary


def _sources(job: Job, journal: Journal, sizes: Mapping[str, Size]) -> HlocSources:
    """The sources of a job's hloc files."""
    asked = job.keypoints
    refinement = Refinement(asked.refine, job.images.root, job.known)
    made_of = (journal, job.pairs, sizes, asked.aggregate, job.images.names, asked.external, job.masks, refinement)
    return HlocSources(*made_of, replaces=asked.replaces)


def _try_more(job: Job, run: MatchSummary, lease: Lease, progress: Progress, stop: StopRequest) -> None:
    """Try rotations of photographs that hardly match anything, then scales and SIFT between groups no pair joins."""
    asked, writing = job.options.match, partial(_writing, job, lease)
    trial = Trial(job.layout, job.images, job.known, job.pairs, job.matcher, asked, job.journal, writing)
    if asked.try_rotations is Try.auto:
        run.encodes += try_turned(trial, progress, stop).encodes
    if asked.try_scales is Try.auto:
        run.encodes += try_scaling(trial, progress, stop).encodes
    if asked.rescue is Try.auto:
        run.encodes += try_joining(trial, progress, stop).encodes


@contextmanager
def _writing(job: Job, lease: Lease, *, expected: int = 0) -> Iterator[Append]:
    """A new journal file, written while this process holds the folder."""
    made_with = (job.layout.journal, job.fingerprint)
    with JournalWriter(
        *made_with, stamps=job.photographs.stamps, tried=job.manifest.retries, expected=expected
    ) as writer:

        def append(results: Sequence[tuple[Pair, PairResult]]) -> None:
            lease.check()
            writer.append(results)

        yield append


@contextmanager
def _telling_what_is_done(job: Job, progress: Progress) -> Iterator[None]:
    """If a signal ends the block, report the job's progress."""
    try:
        yield
    except Stopped:
        with job.journal() as journal:
            done = len(job.listed) - len(journal.waiting(job.listed.pairs))
        if job.options.shard is None:
            with suppress(StoreError):  # a full disk would hide the signal
                write_images(job.layout.images, with_hashes(job.images.root, job.known))
        progress.say(
            f"{counted_of(done, len(job.listed), 'pair', 'is', 'are')} done and kept; run the same command again for "
            "the rest"
        )
        raise


def _work(job: Job) -> Work:
    """This run's kind of lease: exclusive, or shared with shards of the same split."""
    if job.options.shard is None:
        return Work()
    return shard_work(job.options.shard, job.pairs.pairs, recorded_capacity(job.layout.shards))


def _note(job: Job) -> None:
    """Record the job's settings, pairs and photographs."""
    stored = read_manifest(job.layout.manifest)
    write_manifest(job.layout.manifest, replace(job.manifest, outputs=stored.outputs if stored else {}))
    note_masks(job.layout, job.keypoints.masks or MaskOptions())
    if job.options.shard is not None:
        record_capacity(job.layout.shards, recorded_capacity(job.layout.shards))
    write_pairs(job.layout.pairs, job.pairs)
    write_images(job.layout.images, job.known)


def _sized(job: Job, sizes: Mapping[str, Size]) -> dict[str, KnownImage]:
    return {name: replace(image, size=sizes.get(name, image.size)) for name, image in job.known.items()}


def _todo(job: Job, progress: Progress) -> PairList:
    """The pairs to match, after removing incomplete records of a killed run."""
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
    if done := len(job.listed) - len(todo):
        progress.say(f"{counted_of(done, len(job.listed), 'pair', 'is', 'are')} already done")
    return PairList(todo)


def _match(
    job: Job, todo: PairList, lease: Lease, progress: Progress, stop: StopRequest, summary: MatchSummary
) -> MatchSummary:
    """Match in this process, which updates the summary, or in an engine's processes."""
    if job.options.engine.name is not None:
        return match_in_parallel(
            _setup(job, expected=len(todo)),
            todo,
            job.options.engine,
            lambda: job.remaining().pairs,
            job.layout.given_up,
            lease.check,
            progress,
            stop,
        )
    with _writing(job, lease, expected=len(todo)) as append:
        return match_images(
            job.images, todo, job.matcher, append, job.options.match, progress=progress, stop=stop, summary=summary
        )


def _setup(job: Job, *, expected: int) -> WorkerSetup:
    """The settings a worker process needs before it gets pairs; its number type is the job's, whatever its device."""
    asked = job.options.matcher_options
    return WorkerSetup(
        ImageList(job.images.root.resolve(), job.images.names),
        job.layout.journal.resolve(),
        job.fingerprint,
        dict(job.photographs.stamps),
        job.options.matcher.model,
        replace(asked, dtype=job.manifest.settings.get("dtype", asked.dtype)),
        job.options.match,
        tuple(job.manifest.retries),
        expected,
    )


def _clear(layout: Layout) -> None:
    """Remove what an earlier job left in the folder, and nothing else.

    Raises:
        StoreError: the database or models there were not made by romacli; nothing is removed.
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
    """The counts of the whole job over all runs; run, encodes and seconds are this run's."""
    done = [pair for pair in job.listed.pairs if pair in journal]
    rejected = sum(journal.kind(pair) == "rejected" for pair in done)
    turned = [pair for pair in done if journal.quarter_turns(pair) > 0]
    in_turned = {name for pair in turned for name in pair}
    return MatchSummary(
        images=len(job.images),
        pairs=len(job.listed),
        matched=len(done) - rejected,
        turned=len(turned),
        found_by=Counter(filter(None, map(journal.found_by, done))),
        rejected=rejected,
        failed=len(job.listed) - len(done),
        run=run.run,
        encodes=run.encodes,
        seconds=run.seconds,
        failures={**job.unreadable, **run.failures},
        given_up=run.given_up,
        turned_images=tuple(name for name in turned_images(read_manifest(job.layout.manifest)) if name in in_turned),
    )


def _sizes(job: Job, journal: Journal, summary: MatchSummary, progress: Progress) -> dict[str, Size]:
    """The sizes of all readable photographs of the job."""
    known = {name: image.size for name, image in job.known.items() if image.size}
    known.update(matched_sizes(job, journal))
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


def _mirrored(job: Job) -> list[str]:
    """The readable photographs whose pixels are stored mirrored."""
    found = []
    for name in job.images.names:
        with suppress(ImageError):
            if read_metadata(job.images.root / name).is_mirrored:
                found.append(name)
    return found


def _nothing_matched(summary: MatchSummary) -> str:
    failures: Sequence[str] = list(summary.failures.values())
    if failures:
        return f"none of {counted(summary.pairs, 'pair')} matched. First reason: {failures[0]}"
    return (
        f"none of {counted(summary.pairs, 'pair')} overlaps enough ({summary.rejected} rejected). Check that the "
        "photographs overlap, lower --min-certainty or --min-overlap, or try --rescue always for wide baselines, "
        "--try-scales always for large scale changes, --try-rotations if some are rotated, or --model roma-outdoor."
    )
