"""Join groups of photographs between which no pair matches well, starting pairs from SIFT's matches.

SIFT's matches are looked for in a few pairs between the groups, and only pairs in which they agree on one epipolar
geometry are matched again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

import numpy as np

from romacli.errors import RomacliError
from romacli.forest import Forest
from romacli.images.upright import read_upright
from romacli.job.outputs.origins import contents_if_from, digest, remember
from romacli.job.trials.trial import Trial
from romacli.matchers.matcher import pair_seed
from romacli.progress import Progress
from romacli.run.match import MatchSummary
from romacli.run.options import Try
from romacli.run.retries.rescue import verify
from romacli.run.retries.retry import WEAK_OVERLAP
from romacli.run.retries.sparse import SiftMatches
from romacli.stop import StopRequest
from romacli.store.journal import Journal
from romacli.types import Pair

JOINED = "joined"
# SIFT is tried on one pair per this many pairs of the job, or on a few, so that trials stay a small part of the job.
_PAIRS_A_TRIAL, _FEWEST_TRIALS = 5, 20
_KEYPOINT_BYTES = 1 << 30


def try_joining(trial: Trial, progress: Progress, stop: StopRequest) -> MatchSummary:
    """Match pairs between groups of photographs starting from SIFT's matches, and record those that match.

    Trials are recorded, and not repeated until results of the job change.
    """
    summary = MatchSummary()
    overlaps = _overlaps(trial)
    chosen = between_groups(overlaps)[: max(_FEWEST_TRIALS, len(overlaps) // _PAIRS_A_TRIAL)]
    able = getattr(trial.matcher, "starts_from_points", False)
    if not (able and chosen) or contents_if_from(trial.layout, JOINED, _digest(overlaps)):
        return summary
    verified = _verified(trial, sorted(chosen), progress, stop)
    if verified:
        options, title = replace(trial.options, rescue=Try.always), "matching from SIFT's matches"
        summary = trial.match_again(verified, options, lambda warp: bool(warp.found_by), title, progress, stop)
    remember(trial.layout, JOINED, _digest(_overlaps(trial)), {"tried": len(chosen), "verified": len(verified)})
    return summary


def between_groups(overlaps: Mapping[Pair, float]) -> list[Pair]:
    """The pairs between groups of images that no pair with enough overlap joins, the likeliest of each image first.

    Args:
        overlaps: of finished pairs, in [0, 1]; of rejected ones an estimate.
    """
    names = sorted({name for pair in overlaps for name in pair})
    number = {name: k for k, name in enumerate(names)}
    rows = np.array([[number[name] for name in pair] for pair in overlaps], int).reshape(-1, 2)
    groups = Forest(len(names))
    groups.join(*rows[np.array(list(overlaps.values())) >= WEAK_OVERLAP["rescue"]].T)
    roots = groups.roots()
    between = [pair for pair, (a, b) in zip(overlaps, rows, strict=True) if roots[a] != roots[b]]
    between.sort(key=lambda pair: -overlaps[pair])
    before: dict[str, int] = dict.fromkeys(names, 0)
    rank: dict[Pair, int] = {}
    for pair in between:
        rank[pair] = min(before[name] for name in pair)
        for name in pair:
            before[name] += 1
    return sorted(between, key=rank.__getitem__)


def _overlaps(trial: Trial) -> dict[Pair, float]:
    with trial.journal() as journal:
        return {pair: _overlap(journal, pair) for pair in trial.pairs.pairs if pair in journal}


def _overlap(journal: Journal, pair: Pair) -> float:
    found = journal.overlap(pair) or 0.0
    # A rejected pair's estimate may be higher than the overlap of pairs that match.
    return found if journal.kind(pair) == "warp" else min(found, 0.5 * WEAK_OVERLAP["rescue"])


def _digest(overlaps: Mapping[Pair, float]) -> str:
    return digest([[*pair, round(overlap, 6)] for pair, overlap in overlaps.items()])


def _verified(trial: Trial, pairs: Sequence[Pair], progress: Progress, stop: StopRequest) -> list[Pair]:
    """The pairs whose SIFT matches agree on one epipolar geometry."""
    progress.begin("trying SIFT between groups", len(pairs))
    sift = SiftMatches(lambda name: read_upright(trial.images.root / name)[0], capacity_bytes=_KEYPOINT_BYTES)
    found = []
    for pair in pairs:
        with stop.at_once(), suppress(RomacliError):  # unreadable ones were reported before
            if verify(sift.between(pair), pair_seed(*pair, seed=trial.options.seed)) is not None:
                found.append(pair)
        progress.advance()
    return found
