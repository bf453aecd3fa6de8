"""Groups of photographs between which no pair matches well, and the pairs that may join them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from romacli.forest import Forest
from romacli.job.outputs.origins import holds_if_from, remember
from romacli.job.trials.trial import Trial, finished_digest, finished_pairs
from romacli.run.options import WEAK_OVERLAP
from romacli.store.journal import Journal
from romacli.types import Pair

_JOINS = WEAK_OVERLAP["rescue"]


def finished_overlaps(trial: Trial) -> dict[Pair, float]:
    """The overlaps of a job's finished pairs, in [0, 1]; of rejected ones an estimate too low to join groups."""
    with trial.journal() as journal:
        return {pair: _overlap(journal, pair) for pair in finished_pairs(trial.pairs, journal)}


def left_to_try(trial: Trial, name: str, overlaps: Mapping[Pair, float], most: int) -> list[Pair]:
    """The pairs between groups, at most so many, that a trial has still to try; none once it is done.

    They are noted before they are tried, as results join groups: after a kill the trial goes on with the same.
    """
    derived_from = finished_digest(overlaps, trial.known)
    noted = holds_if_from(trial.layout, name, derived_from)
    if noted is not None:
        return [(one, other) for one, other in noted.get("left", ())]
    chosen = sorted(between_groups(overlaps)[:most])
    remember(trial.layout, name, derived_from, {"left": chosen})
    return chosen


def between_groups(overlaps: Mapping[Pair, float]) -> list[Pair]:
    """The pairs between groups of images that no pair with enough overlap joins, the likeliest of each image first.

    Args:
        overlaps: of finished pairs, in [0, 1]; of rejected ones an estimate.
    """
    names = sorted({name for pair in overlaps for name in pair})
    number = {name: k for k, name in enumerate(names)}
    rows = np.array([[number[name] for name in pair] for pair in overlaps], int).reshape(-1, 2)
    groups = Forest(len(names))
    groups.join(*rows[np.array(list(overlaps.values())) >= _JOINS].T)
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


def _overlap(journal: Journal, pair: Pair) -> float:
    found = journal.overlap(pair) or 0.0
    # A rejected pair's estimate may be higher than the overlap of pairs that match.
    return found if journal.kind(pair) == "warp" else min(found, 0.5 * _JOINS)
