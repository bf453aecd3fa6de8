"""The hloc files, derived from the journal: keypoints that pairs share, and matches between them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict

import numpy as np

from romacli import __version__
from romacli.errors import UsageError
from romacli.keypoints.aggregate import AggregateOptions, Aggregation, aggregate
from romacli.pipeline.progress import Progress
from romacli.pipeline.stop import StopRequest
from romacli.store.hloc import read_provenance, write_features, write_matches
from romacli.store.journal import Journal
from romacli.store.layout import Layout
from romacli.types import CompactWarp, Keypoints, Matches, Pair, PairList, Size


def derive_views(
    layout: Layout,
    journal: Journal,
    pairs: PairList,
    sizes: Mapping[str, Size],
    options: AggregateOptions,
    progress: Progress,
    stop: StopRequest,
) -> None:
    """Make `features.h5` and `matches.h5` of the job's finished pairs, unless they are up to date.

    Args:
        sizes: (width, height) by name of every image to have in `features.h5`; one that nothing matches is there
            with no keypoints.
    """
    usable = [pair for pair in pairs.pairs if pair in journal and journal.kind(pair) == "warp"]
    provenance = {"romacli": __version__, "derived_from": _digest(journal, pairs, sizes, options)}
    if all(read_provenance(path) == provenance for path in (layout.features, layout.matches)):
        progress.say(f"{layout.features.name} and {layout.matches.name} are up to date")
        return
    points = [pair for pair in pairs.pairs if pair in journal and journal.kind(pair) == "correspondences"]
    if points:
        raise UsageError(f"{points[0][0]} {points[0][1]} has points only; shared keypoints need a dense matcher.")

    def read(pair: Pair) -> CompactWarp:
        result = journal.read(pair)
        assert isinstance(result, CompactWarp)
        return result

    with stop.at_once():
        aggregation = aggregate(usable, read, options, progress=progress)
    write_features(layout.features, _features(aggregation, sizes), provenance=provenance)
    write_matches(layout.matches, _matches(aggregation), provenance=provenance)
    report(aggregation, progress)


def report(aggregation: Aggregation, progress: Progress) -> None:
    """Say how many keypoints there are and how many views share one."""
    summary = aggregation.summary
    progress.say(
        f"{summary.num_tracks} tracks, {summary.mean_track_length:.2f} views each, "
        f"over {len(aggregation.keypoints)} images"
    )


def _digest(journal: Journal, pairs: PairList, sizes: Mapping[str, Size], options: AggregateOptions) -> str:
    """What the views depend on: records are immutable, so their pairs and kinds stand for them."""
    done = sorted([*sorted(pair), journal.kind(pair)] for pair in pairs.pairs if pair in journal)
    content = json.dumps([journal.fingerprint, done, sorted(sizes), asdict(options)], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def _features(aggregation: Aggregation, sizes: Mapping[str, Size]) -> Iterator[tuple[str, Keypoints, Size]]:
    none = Keypoints(np.zeros((0, 2), np.float32), np.zeros(0, np.float32))
    for name, size in sizes.items():
        yield name, aggregation.keypoints.get(name, none), size


def _matches(aggregation: Aggregation) -> Iterator[tuple[Pair, Matches, int]]:
    for pair, matches in aggregation.matches():
        yield pair, matches, len(aggregation.keypoints[pair[0]])
