"""Join groups of photographs between which no pair matches well, starting pairs from SIFT's matches.

SIFT's matches are looked for in a few pairs between the groups, and only pairs in which they agree on one epipolar
geometry are matched again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from romacli.job.outputs.origins import remember
from romacli.job.trials.groups import finished_overlaps, left_to_try
from romacli.job.trials.trial import Trial, finished_digest
from romacli.matchers.matcher import pair_seed
from romacli.progress import Progress
from romacli.run.match import MatchSummary
from romacli.run.options import Try
from romacli.run.retries.rescue import verify
from romacli.run.retries.sparse import SiftMatches
from romacli.stop import StopRequest
from romacli.types import Pair

JOINED = "joined"
# SIFT is tried on one pair per this many pairs of the job, or on a few, so that trials stay a small part of the job.
_PAIRS_A_TRIAL, _FEWEST_TRIALS = 5, 20
_KEYPOINT_BYTES = 1 << 30


def try_joining(trial: Trial, progress: Progress, stop: StopRequest) -> MatchSummary:
    """Match pairs between groups of photographs starting from SIFT's matches, and record those that match.

    Trials are recorded, and not repeated until other pairs of the job are finished, or photographs replaced.
    """
    summary = MatchSummary()
    if not getattr(trial.matcher, "starts_from_points", False):
        return summary
    overlaps = finished_overlaps(trial)
    chosen = left_to_try(trial, JOINED, overlaps, max(_FEWEST_TRIALS, len(overlaps) // _PAIRS_A_TRIAL))
    if not chosen:
        return summary
    verified = _verified(trial, chosen, progress, stop)
    if verified:
        options, title = replace(trial.options, rescue=Try.always), "matching from SIFT's matches"
        summary = trial.match_again(verified, options, lambda warp: bool(warp.found_by), title, progress, stop)
    tried = {"tried": len(chosen), "verified": len(verified)}
    remember(trial.layout, JOINED, finished_digest(overlaps, trial.known), tried)
    return summary


def _verified(trial: Trial, pairs: Sequence[Pair], progress: Progress, stop: StopRequest) -> list[Pair]:
    """The pairs whose SIFT matches agree on one epipolar geometry."""
    sift = SiftMatches(trial.read, capacity_bytes=_KEYPOINT_BYTES)

    def agree(pair: Pair) -> bool:
        return verify(sift.find(pair), pair_seed(*pair, seed=trial.options.seed)) is not None

    return trial.those_that_gain(pairs, agree, "trying SIFT between groups", progress, stop)
