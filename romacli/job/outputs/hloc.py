"""Derive the hloc files from the journal: keypoints that pairs share, and matches between them."""

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
from romacli.types import Keypoints, Manifest, Matches, Pair, PairList, Size, canonical
from romacli.words import counted


@dataclass(frozen=True)
class HlocSummary:
    """The contents of the hloc files, and the findings of the checks.

    pairs: those that matched. images_without_tracks: names, among those in the list of pairs. triangle_agreement:
    None without triangles. refined: the share of matched keypoints that refinement moved, by median_shift px; None
    without refinement. warnings: sentences.
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

    pairs: of the job; each gets a group in `matches.h5`, with or without matches.
    sizes: (width, height) by name of every readable image; unmatched ones are in `features.h5` without keypoints, or
        with external ones.
    names: images of the job without a size, which are in `features.h5` as `UNREAD`; may also list those of `sizes` and
        omit those of `pairs`.
    external: keypoints to match instead of new ones.
    masks: of pixels without matches.
    refinement: the photographs to refine keypoints against.
    replaces: also rebuild keypoints in use by a database or model of the job, which otherwise stay, row by row, with
        the matches between them.
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
            UsageError: it is requested but impossible.
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
        """The digest of all sources; records are immutable, so their pairs, kinds and overlaps represent them."""
        done = _finished(self.journal, self.pairs)
        keypoints = self.external.stamp(self.sizes) if self.external else None
        masked = self.masks.stamp(list(self.sizes)) if self.masks else None
        made_of = [self.journal.fingerprint, done, sorted(self.sizes.items()), asdict(self.options), keypoints, masked]
        refinement = self.refining()
        refined = [refinement.stamp(sorted(self.sizes))] if refinement else []
        return digest([digest(made_of), _listed(self.pairs), self.unread, *refined])

    def made_with(self, layout: Layout) -> str:
        """The options, as recorded in the job."""
        return made_as(layout, self.options, self.external, self.refinement.options if self.refinement else None)


def made_as(
    layout: Layout, options: AggregateOptions, external: ExternalKeypoints | None, refine: RefineOptions | None
) -> str:
    """The options of keypoints, as recorded in the job."""
    source = external.noted(layout) if external else None
    return json.dumps({**asdict(options), "keypoints": source, "refine": refine.refine if refine else None})


def derive_hloc(layout: Layout, sources: HlocSources, progress: Progress, stop: StopRequest) -> HlocSummary:
    """Make `features.h5` and `matches.h5` of the job's finished pairs, unless they are up to date.

    Raises:
        UsageError: keypoints in use were made with other options.
    """
    of_all, made_with, origin = sources.digest(), sources.made_with(layout), origin_of(layout, KEYPOINTS)
    # If keypoints were kept, the digest is followed by + and their stamp, which is up to date too.
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
    """Aggregate, refine, check and write. origins: of files from which matches between kept keypoints are kept too."""
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
            progress.begin("reading pairs", len(usable))
            graph = PairGraph(usable, sources.journal.warp, progress.advance, masks.cells if masks else None)
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
    """The clause on refinement in a sentence on keypoints; empty if there was none."""
    if summary.refined is None:
        return ""
    if summary.refined == 0:
        return "; no keypoints refined"
    return (
        f"; {summary.refined:.0%} of keypoints refined, by a median of {summary.median_shift:.2f} px, including the "
        "initial move to nearby texture"
    )


def _in_words(summary: HlocSummary, *, of_points: bool) -> str:
    """The result in words. Matches of points are not verified yet: wrong ones join tracks of different points."""
    over = f"over {counted(summary.images, 'image')}"
    if of_points:
        return f"{counted(summary.matches, 'match', 'matches')} of {counted(summary.keypoints, 'keypoint')} {over}"
    if not summary.tracks:
        return f"no tracks {over}"
    tracks = f"{counted(summary.tracks, 'track')}, {summary.mean_track_length:.2f} views each, {over}"
    return f"{tracks}{refined_in_words(summary)}"


def _of_points(
    sources: HlocSources,
    usable: Sequence[Pair],
    anchors: Mapping[str, Keypoints],
    in_use: Collection[str],
    progress: Progress,
) -> Aggregation:
    """The shared keypoints and matches of a job whose matcher produces keypoints.

    Raises:
        UsageError: the method of making keypoints needs warps.
    """
    options, masks = sources.options, sources.masks
    if options.method != AggregateOptions.method:
        raise UsageError(f"--method {options.method} needs the warps of a dense matcher; this job's gives keypoints.")

    reach = {
        name: SAME_PX if name in in_use else options.max_distance * scale_of(size)
        for name, size in sources.sizes.items()
    }
    allows, read = masks.allows if masks else None, sources.journal.points
    return by_points(usable, read, progress, allows=allows, anchors=anchors, reach=reach)


def _finished(journal: Journal, pairs: PairList) -> list[Any]:
    """The finished pairs with kind and overlap, as JSON values."""
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
    """The matches of every pair of the job; empty for pairs without a warp."""
    for pair, matches in aggregation.matches():
        yield pair, matches, len(keypoints[pair[0]])
    none = Matches(np.zeros((0, 2), np.int32), np.zeros(0, np.float32))
    for pair in _listed(pairs):
        if pair not in aggregation.num_matches:
            yield pair, none, len(keypoints.get(pair[0], ()))


def _listed(pairs: PairList) -> list[Pair]:
    """All pairs, sorted, each with its names ascending."""
    return sorted(map(canonical, pairs.pairs))
