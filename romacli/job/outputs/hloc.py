"""The hloc files, derived from the journal: keypoints that pairs share, and matches between them."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from romacli import __version__
from romacli.errors import UsageError
from romacli.job.external import ExternalKeypoints
from romacli.job.masks import JobMasks
from romacli.job.outputs.in_use import KEYPOINTS, SAME_PX, KeypointsInUse, kept_keypoints
from romacli.job.outputs.origins import digest, holds, origin_of, remember, sources_of
from romacli.keypoints.aggregate import Aggregation, derive
from romacli.keypoints.checks import Checks, check
from romacli.keypoints.graph import PairGraph, scale_of
from romacli.keypoints.options import AggregateOptions
from romacli.keypoints.points import by_points
from romacli.progress import Progress
from romacli.refine.options import RefineOptions
from romacli.run.refine import Refinement
from romacli.stop import StopRequest
from romacli.store.history import noted
from romacli.store.hloc import UNREAD, read_provenance, write_features, write_matches
from romacli.store.journal import Journal
from romacli.store.layout import Layout
from romacli.store.manifest import read_manifest
from romacli.types import CompactWarp, Correspondences, Keypoints, Manifest, Matches, Pair, PairList, Size, canonical
from romacli.words import counted


@dataclass(frozen=True)
class HlocSummary:
    """What the hloc files hold, and what the checks say of it.

    pairs: those that matched; images_without_tracks: by name, of those in the list of pairs; triangle_agreement:
    None without triangles; refined: the share of matched keypoints that were moved to where the photographs agree, by
    median_shift px, None where that was not tried; warnings: sentences.
    """

    images: int
    pairs: int
    keypoints: int
    tracks: int
    mean_track_length: float
    matches: int
    images_without_tracks: Sequence[str]
    components: int
    triangle_agreement: float | None
    longest_track: int
    warnings: Sequence[str]
    refined: float | None = None
    median_shift: float | None = None


@dataclass(frozen=True)
class HlocSources:
    """The inputs of the hloc files.

    pairs: of the job; each has its group in `matches.h5`, with or without matches.
    sizes: (width, height) by name of every readable image; unmatched ones are in `features.h5` without keypoints, or
        with external ones.
    names: images of the job without a size, which are in `features.h5` as `UNREAD`; may also list those of `sizes` and
        omit those of `pairs`.
    external: keypoints to match instead of new ones.
    masks: of pixels that neither give nor receive matches.
    refinement: the photographs to refine keypoints against.
    replaces: also rebuild keypoints that a database or model of the job refers to, which otherwise stay, row by row,
        with the matches between them.
    """

    journal: Journal
    pairs: PairList
    sizes: Mapping[str, Size]
    options: AggregateOptions
    names: Iterable[str] = ()
    external: ExternalKeypoints | None = None
    masks: JobMasks | None = None
    refinement: Refinement | None = None
    replaces: bool = False

    @property
    def unread(self) -> list[str]:
        """The images without a size."""
        return sorted({*self.names, *(name for pair in self.pairs.pairs for name in pair)} - self.sizes.keys())

    @property
    def usable(self) -> list[Pair]:
        """The pairs that matched."""
        return [pair for pair in self.pairs.pairs if pair in self.journal and self.journal.kind(pair) != "rejected"]

    @property
    def are_points(self) -> bool:
        """Whether a matcher of keypoints made the records."""
        return any(self.journal.kind(pair) == "correspondences" for pair in self.pairs.pairs if pair in self.journal)

    def refining(self) -> Refinement | None:
        """The refinement to run; None if there is none.

        Raises:
            UsageError: it is asked for where it cannot be done.
        """
        if self.refinement is None:
            return None
        if not self.are_points:
            return self.refinement.of_keypoints(are_external=self.external is not None)
        if self.refinement.options.refine:
            raise UsageError(
                "--refine needs the warps of a dense matcher; this job's matcher produces keypoints. Leave it out."
            )
        return None

    def digest(self) -> str:
        """What stands for all of it: records are immutable, so their pairs, kinds and overlaps stand for them."""
        done = _finished(self.journal, self.pairs)
        keypoints = self.external.stamp(self.sizes) if self.external else None
        masked = self.masks.stamp(list(self.sizes)) if self.masks else None
        made_of = [self.journal.fingerprint, done, sorted(self.sizes.items()), asdict(self.options), keypoints, masked]
        refinement = self.refining()
        refined = [refinement.stamp(sorted(self.sizes))] if refinement else []
        return digest([digest(made_of), _listed(self.pairs), self.unread, *refined])

    def made_with(self, layout: Layout) -> str:
        """The options, as they are noted."""
        return made_as(layout, self.options, self.external, self.refinement.options if self.refinement else None)


def made_as(
    layout: Layout, options: AggregateOptions, external: ExternalKeypoints | None, refine: RefineOptions | None
) -> str:
    """The options of keypoints, as they are noted."""
    source = external.noted(layout) if external else None
    return json.dumps({**asdict(options), "keypoints": source, "refine": refine.refine if refine else None})


def derive_hloc(layout: Layout, sources: HlocSources, progress: Progress, stop: StopRequest) -> HlocSummary:
    """Make `features.h5` and `matches.h5` of the job's finished pairs, unless they are up to date.

    Raises:
        UsageError: keypoints that stay were made in another way than is asked.
    """
    of_all, made_with, origin = sources.digest(), sources.made_with(layout), origin_of(layout, KEYPOINTS)
    # If keypoints were kept, the digest is followed by + and their stamp, which counts as up to date too.
    is_same = origin == of_all or (not sources.replaces and origin.startswith(f"{of_all}+"))
    provenance = {"romacli": __version__, "derived_from": origin, "options": made_with}
    of_files = [read_provenance(path) or {} for path in (layout.features, layout.matches)]
    is_whole = all(found.get(key) == provenance[key] for found in of_files for key in ("romacli", "derived_from"))
    if is_same and is_whole:
        progress.say(f"{layout.features.name} and {layout.matches.name} are up to date")
        summary = HlocSummary(**holds(read_manifest(layout.manifest), KEYPOINTS))
    else:
        # What was made of the same is made again, row by row.
        in_use = KeypointsInUse({})
        if origin != of_all:
            in_use = kept_keypoints(layout, sources.sizes.keys(), made_with, progress, replaces=sources.replaces)
        provenance["derived_from"] = f"{of_all}+{in_use.stamp()}" if in_use.keypoints else of_all
        refinement = sources.refining()
        with noted(layout, "keypoints", images=refinement.images if refinement else None) as counts:
            summary = _derive(layout, sources, in_use, {origin}, provenance, progress, stop)
            counts.update(pairs=summary.pairs, images=summary.images)
        finished = digest(_finished(sources.journal, sources.pairs))
        made_from = provenance["derived_from"]
        remember(layout, KEYPOINTS, made_from, asdict(summary), made_with=made_with, sources=finished)
    for warning in summary.warnings:
        progress.warn(warning)
    return summary


def _derive(
    layout: Layout,
    sources: HlocSources,
    in_use: KeypointsInUse,
    origins: set[str],
    provenance: Mapping[str, str],
    progress: Progress,
    stop: StopRequest,
) -> HlocSummary:
    """Aggregate, refine, check and write. origins: of files whose matches between keypoints that stay do so, too."""
    pairs, sizes, options = sources.pairs, sources.sizes, sources.options
    external, masks, refinement = sources.external, sources.masks, sources.refining()
    usable = sources.usable
    with ExitStack() as stack:
        stack.enter_context(stop.at_once())
        anchors = {**(external.load(sizes, options, progress, stop, masks) if external else {}), **in_use.keypoints}
        kept = stack.enter_context(in_use.matches(layout, masks, {*origins, provenance["derived_from"]}))
        listed = sorted({name for pair in pairs.pairs for name in pair} & sizes.keys())
        if sources.are_points:
            aggregation = _of_points(sources, usable, anchors, in_use.keypoints, progress)
            graph = None
        else:
            graph = _graph(sources.journal, usable, masks, progress)
            aggregation = derive(graph, options, anchors=anchors, kept=kept, progress=progress)
        checks = check(graph, aggregation, options, images=listed, progress=progress)
        refined = None
        if refinement and graph:
            read = masks.read if masks else None
            refined = refinement.refine(graph, aggregation, read, progress, in_use.keypoints.keys())
        keypoints = {**anchors, **(refined.keypoints if refined else aggregation.keypoints)}
        places = {**sizes, **dict.fromkeys(sources.unread, UNREAD)}
        write_features(layout.features, _features(keypoints, places), provenance=provenance)
        write_matches(layout.matches, _matches(aggregation, keypoints, pairs), provenance=provenance)
    told = (*(masks.warnings() if masks else ()), *checks.warnings, *(refined.warnings if refined else ()))
    checks = replace(checks, warnings=told)
    summary = _summary(aggregation, checks, keypoints, images=len(sizes), pairs=len(usable))
    if refined:
        summary = replace(summary, refined=refined.share, median_shift=refined.median_shift)
    progress.say(_in_words(summary, of_points=graph is None))
    return summary


def refined_in_words(summary: HlocSummary) -> str:
    """What a sentence on keypoints says of their refinement; nothing where there was none."""
    if summary.refined is None:
        return ""
    return (
        f"; {summary.refined:.0%} of keypoints refined, by a median of {summary.median_shift:.2f} px, including the "
        "initial move to nearby texture"
    )


def _in_words(summary: HlocSummary, *, of_points: bool) -> str:
    """What came out. Matches of points are not checked yet: wrong ones join tracks of different places."""
    over = f"over {counted(summary.images, 'image')}"
    if of_points:
        return f"{counted(summary.matches, 'match', 'matches')} of {counted(summary.keypoints, 'keypoint')} {over}"
    tracks = f"{counted(summary.tracks, 'track')}, {summary.mean_track_length:.2f} views each, {over}"
    return f"{tracks}{refined_in_words(summary)}"


def _graph(journal: Journal, usable: Sequence[Pair], masks: JobMasks | None, progress: Progress) -> PairGraph:
    """The warps of a job whose matcher gives these."""

    def read(pair: Pair) -> CompactWarp:
        result = journal.read(pair)
        assert isinstance(result, CompactWarp)
        return result

    progress.begin("reading pairs", len(usable))
    return PairGraph(usable, read, progress.advance, masks.cells if masks else None)


def _of_points(
    sources: HlocSources,
    usable: Sequence[Pair],
    anchors: Mapping[str, Keypoints],
    in_use: Collection[str],
    progress: Progress,
) -> Aggregation:
    """What pairs share of a job whose matcher gives points.

    Raises:
        UsageError: keypoints are to be made by a method that needs warps.
    """
    options, masks = sources.options, sources.masks
    if options.method != AggregateOptions.method:
        raise UsageError(f"--method {options.method} needs the warps of a dense matcher; this job's gives keypoints.")

    def read(pair: Pair) -> Correspondences:
        result = sources.journal.read(pair)
        assert isinstance(result, Correspondences)
        return result

    reach = {
        name: SAME_PX if name in in_use else options.max_distance * scale_of(size)
        for name, size in sources.sizes.items()
    }
    return by_points(usable, read, progress, allows=masks.allows if masks else None, anchors=anchors, reach=reach)


def _finished(journal: Journal, pairs: PairList) -> list[Any]:
    """What is on record of the pairs, as JSON values."""
    return sorted(
        [*canonical(pair), journal.kind(pair), journal.overlap(pair)] for pair in pairs.pairs if pair in journal
    )


def is_of(layout: Layout, journal: Journal, pairs: PairList) -> bool:
    """Whether the hloc files were built from exactly the pairs now in the journal; True if they record no sources."""
    noted = sources_of(layout, KEYPOINTS)
    return noted is None or noted == digest(_finished(journal, pairs))


def triangle_agreement(manifest: Manifest) -> float | None:
    """The fraction of warp cells consistent around image triplets, as measured when keypoints were made."""
    value = holds(manifest, KEYPOINTS).get("triangle_agreement")
    return None if value is None else float(value)


def _summary(
    aggregation: Aggregation, checks: Checks, keypoints: Mapping[str, Keypoints], *, images: int, pairs: int
) -> HlocSummary:
    counted = aggregation.summary
    return HlocSummary(
        images=images,
        pairs=pairs,
        keypoints=sum(map(len, keypoints.values())),
        tracks=counted.num_tracks,
        mean_track_length=counted.mean_track_length,
        matches=counted.num_matches,
        images_without_tracks=checks.images_without_tracks,
        components=checks.components,
        triangle_agreement=checks.triangle_agreement,
        longest_track=counted.longest_track,
        warnings=checks.warnings,
    )


def _features(keypoints: Mapping[str, Keypoints], sizes: Mapping[str, Size]) -> Iterator[tuple[str, Keypoints, Size]]:
    none = Keypoints(np.zeros((0, 2), np.float32), np.zeros(0, np.float32))
    for name, size in sizes.items():
        yield name, keypoints.get(name, none), size


def _matches(
    aggregation: Aggregation, keypoints: Mapping[str, Keypoints], pairs: PairList
) -> Iterator[tuple[Pair, Matches, int]]:
    """Every pair of the job; those without a warp have no matches."""
    for pair, matches in aggregation.matches():
        yield pair, matches, len(keypoints[pair[0]])
    none = Matches(np.zeros((0, 2), np.int32), np.zeros(0, np.float32))
    for pair in _listed(pairs):
        if pair not in aggregation.num_matches:
            yield pair, none, len(keypoints.get(pair[0], ()))


def _listed(pairs: PairList) -> list[Pair]:
    """All pairs, in one order and each with its names ascending, however they are listed."""
    return sorted(map(canonical, pairs.pairs))
