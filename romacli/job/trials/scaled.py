"""Join groups of photographs between which no pair matches well, enlarging parts of photographs taken from afar."""

from __future__ import annotations

from dataclasses import replace

from romacli.job.outputs.origins import remember
from romacli.job.trials.groups import finished_overlaps, left_to_try
from romacli.job.trials.trial import Trial, finished_digest
from romacli.matchers.matcher import CoarseMatcher
from romacli.progress import Progress
from romacli.run.match import MatchSummary
from romacli.run.options import Try
from romacli.stop import StopRequest

SCALED = "scaled"
# One pair is tried per this many pairs of the job, or a few, so that trials stay a small part of the job.
_PAIRS_A_TRIAL, _FEWEST_TRIALS = 10, 5


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
    options = replace(trial.options, try_scales=Try.always)
    summary = trial.match_again(chosen, options, lambda warp: warp.found_by == "scale", "trying scales", progress, stop)
    remember(trial.layout, SCALED, finished_digest(overlaps, trial.known), {"tried": len(chosen)})
    return summary
