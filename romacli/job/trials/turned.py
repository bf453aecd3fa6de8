"""Find photographs stored rotated without an EXIF orientation, among those that hardly match anything.

Only these are tried, at the coarse stage and against a few partners; matched pairs are not changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from romacli.geometry.turns import turn_image
from romacli.job.outputs.origins import holds, holds_if_from, remember
from romacli.job.trials.trial import Trial, finished_digest, finished_pairs
from romacli.matchers.matcher import CoarseMatcher
from romacli.progress import Progress
from romacli.run.match import MatchSummary
from romacli.run.options import Try
from romacli.run.retries.rotations import QUARTERS
from romacli.stop import StopRequest
from romacli.store.manifest import read_manifest
from romacli.types import Manifest, Pair

TURNED = "turned"
# An image whose best pair overlaps by less hardly matches anything; a rotation must gain at least this factor.
_WEAK_OVERLAP, _FEWEST_OVERLAP, _CLEAR_GAIN = 0.1, 0.05, 2.5
_PARTNERS = 3
# One image may be tried per this many pairs, so that trials stay a small part of the job.
_PAIRS_A_TRIAL = 5


def starved(pairs: Sequence[Pair], overlaps: Mapping[Pair, float]) -> dict[str, list[str]]:
    """The images that hardly match anything, each with its likeliest partners, well-matched ones first.

    Args:
        pairs: finished ones.
        overlaps: of those that matched, in [0, 1].
    """
    best: dict[str, float] = {}
    partners: dict[str, list[str]] = {}
    for pair in pairs:
        for name, other in (pair, pair[::-1]):
            best[name] = max(best.get(name, 0.0), overlaps.get(pair, 0.0))
            partners.setdefault(name, []).append(other)
    weak = [name for name in partners if best[name] < _WEAK_OVERLAP]
    return {name: sorted(partners[name], key=lambda other: -best[other])[:_PARTNERS] for name in weak}


def try_turned(trial: Trial, progress: Progress, stop: StopRequest) -> MatchSummary:
    """Find photographs stored rotated, match their pairs accordingly and record those that match.

    Trials are recorded, and not repeated until other pairs of the job are finished, or photographs replaced.
    """
    summary = MatchSummary()
    with trial.journal() as journal:
        done = finished_pairs(trial.pairs, journal)
        overlaps = {pair: journal.overlap(pair) or 0.0 for pair in done if journal.kind(pair) == "warp"}
    partners = starved(done, overlaps)
    tried = list(partners)[: max(1, len(done) // _PAIRS_A_TRIAL)]
    derived_from = finished_digest(done, trial.known)
    matcher = trial.matcher
    if not isinstance(matcher, CoarseMatcher):
        return summary
    noted = holds_if_from(trial.layout, TURNED, derived_from)
    if noted is None:
        gains = partial(_gains, trial, matcher, partners)
        gaining = set(trial.those_that_gain(tried, gains, "trying rotations", progress, stop))
        known = gaining.union(turned_images(read_manifest(trial.layout.manifest)))
        noted = {"tried": tried, "turned": sorted(known), "left": sorted(gaining)}
        remember(trial.layout, TURNED, derived_from, noted)  # beforehand, as after a kill some match well
    if noted and (turned := set(noted.get("left", ()))):
        # The second photograph of a pair is the one rotated.
        pairs = [pair if pair[1] in turned else pair[::-1] for pair in done if not turned.isdisjoint(pair)]
        options = replace(trial.options, try_rotations=Try.always)
        title = "matching rotated photographs"
        summary = trial.match_again(pairs, options, lambda warp: warp.quarter_turns > 0, title, progress, stop)
        remember(trial.layout, TURNED, derived_from, {**noted, "left": []})
    return summary


def turned_images(manifest: Manifest | None) -> tuple[str, ...]:
    """The photographs of a job found to be stored rotated without an EXIF orientation."""
    return tuple(holds(manifest, TURNED).get("turned", ()))


def _gains(trial: Trial, matcher: CoarseMatcher, partners: Mapping[str, Sequence[str]], name: str) -> bool:
    """Whether an image overlaps clearly more with a partner when rotated."""
    photograph = trial.read(name)
    views = [turn_image(photograph, turns) for turns in (0, *QUARTERS)]
    others = [trial.read(partner) for partner in partners[name]]
    described = [matcher.encode_coarse([matcher.prepare(image)])[0] for image in (*views, *others)]
    features, of_partners = described[: len(views)], described[len(views) :]
    for partner in of_partners:
        upright, *turned = matcher.overlap([(partner, view) for view in features])
        if max(turned) >= max(_FEWEST_OVERLAP, _CLEAR_GAIN * upright):
            return True
    return False
