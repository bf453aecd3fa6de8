"""Join groups of photographs between which no pair matches well, enlarging parts of photographs taken from afar.

Only pairs that gain by it at the coarse stage are matched again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from romacli.job.outputs.origins import remember
from romacli.job.trials.groups import finished_overlaps, left_to_try
from romacli.job.trials.trial import Trial, finished_digest
from romacli.matchers.matcher import CoarseMatcher
from romacli.progress import Progress
from romacli.run.match import MatchSummary
from romacli.run.options import Try
from romacli.run.retries.recent import RecentFeatures
from romacli.run.retries.scales import Scales
from romacli.stop import StopRequest
from romacli.types import Pair

SCALED = "scaled"
# One pair is tried per this many pairs of the job, or a few, so that trials stay a small part of the job.
_PAIRS_A_TRIAL, _FEWEST_TRIALS = 10, 5
_FEATURE_BYTES = 1 << 30


def try_scaling(trial: Trial, progress: Progress, stop: StopRequest) -> MatchSummary:
    """Match pairs between groups of photographs with parts enlarged, and record those that match.

    Trials are recorded, and not repeated until other pairs of the job are finished, or photographs replaced.
    """
    if not isinstance(trial.matcher, CoarseMatcher):
        return MatchSummary()
    overlaps = finished_overlaps(trial)
    chosen = left_to_try(trial, SCALED, overlaps, max(_FEWEST_TRIALS, len(overlaps) // _PAIRS_A_TRIAL))
    if not chosen:
        return MatchSummary()
    summary, gaining = MatchSummary(), _which_gain(trial, trial.matcher, chosen, progress, stop)
    if gaining:
        options, title = replace(trial.options, try_scales=Try.always), "matching enlarged parts"
        summary = trial.match_again(gaining, options, lambda warp: warp.found_by == "scale", title, progress, stop)
    remember(trial.layout, SCALED, finished_digest(overlaps, trial.known), {"tried": len(chosen)})
    return summary


def _which_gain(
    trial: Trial, matcher: CoarseMatcher, pairs: Sequence[Pair], progress: Progress, stop: StopRequest
) -> list[Pair]:
    """The pairs of which half a photograph overlaps clearly more."""
    scales = Scales(matcher, trial.read, capacity_bytes=_FEATURE_BYTES)
    wholes = RecentFeatures(lambda name: matcher.encode_coarse([matcher.prepare(trial.read(name))]), _FEATURE_BYTES)

    def gains(pair: Pair) -> bool:
        return scales.best_part(pair, (wholes[pair[0]][0], wholes[pair[1]][0])) is not None

    return trial.those_that_gain(pairs, gains, "trying scales", progress, stop)
