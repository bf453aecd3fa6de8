"""Detect the pairs of a job that show places that only look alike, and record them with the reasons."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from romacli.colmap.reading import verified_places
from romacli.errors import ImageError, NothingFoundError
from romacli.filter.judge import Judged, Verdict, judge_pairs
from romacli.filter.lattice import Edge, Lattice, Views
from romacli.filter.looks import copy_size, small_copy
from romacli.filter.verified import find_contradicted_matches
from romacli.images.decode import read_image
from romacli.job.hold import hold_job
from romacli.job.masks import JobMasks, masks_of, noted_masks
from romacli.job.outputs.model import make_model, rows_of
from romacli.job.outputs.origins import digest, holds, holds_if_from, remember
from romacli.keypoints.checks import connected
from romacli.mapping.options import MapperOptions
from romacli.mapping.reconstruct import ReconstructionSummary
from romacli.pairs.listfile import read_own_pairs
from romacli.progress import Progress, Silent
from romacli.stop import StopRequest
from romacli.store.history import noted, photographs_of
from romacli.store.images import read_images, unusable
from romacli.store.journal import Journal
from romacli.store.layout import Layout
from romacli.store.manifest import manifest_of
from romacli.store.opened import open_journal
from romacli.types import CompactWarp, Manifest, Pair, canonical
from romacli.words import counted, first_few

FILTER = "filter"
# Changes with the rules, so that earlier results are not reused.
_VERSION = 13
# Triangles of pairs that are kept contradict this often where parts look alike and nothing tells which is which.
_AMBIGUOUS = 0.05


@dataclass(frozen=True)
class Dropped:
    """A pair withheld from the mapper. missing: the share of places that it should match and does not."""

    one: str
    other: str
    missing: float
    reason: str


@dataclass(frozen=True)
class FilterSummary:
    """The result of filtering a job's pairs.

    groups_before, groups: sizes of the groups of images connected by all pairs, and by the kept ones; alone: images
    without a kept pair; disputed: the share of contradicting triangles among those of kept pairs; photographs: the
    number of photographs compared; unique: kept pairs that match places that others miss, with their number; withheld:
    kept pairs of which the mapper gets fewer matches, with the number that third images contradict.
    """

    pairs: int
    dropped: tuple[Dropped, ...]
    groups_before: tuple[int, ...]
    groups: tuple[int, ...]
    alone: tuple[str, ...]
    disputed: float
    photographs: int = 0
    unique: tuple[tuple[str, str, float], ...] = ()
    withheld: tuple[tuple[str, str, int], ...] = ()

    @property
    def without(self) -> frozenset[Pair]:
        """The pairs that are dropped, names ascending."""
        return frozenset((pair.one, pair.other) for pair in self.dropped)

    @property
    def is_ambiguous(self) -> bool:
        """Whether parts look alike that the filter cannot tell apart."""
        return self.disputed > _AMBIGUOUS

    @property
    def warnings(self) -> list[str]:
        """Warnings about images that lose pairs, and about look-alike parts that cannot be told apart."""
        found = []
        if len(self.groups) > len(self.groups_before):
            found.append(
                f"without pairs of look-alike places the images form {len(self.groups)} groups, of "
                f"{' and '.join(map(str, self.groups))}, which become separate models. Match more pairs between them, "
                "or give --no-filter if the places are the same"
            )
        if self.alone:
            found.append(
                f"{counted(len(self.alone), 'image keeps', 'images keep')} no pair and cannot be placed: "
                f"{first_few(self.alone)}"
            )
        if self.is_ambiguous:
            found.append(
                f"parts of the scene look alike and nothing tells them apart: the pairs that are left contradict each "
                f"other round {self.disputed:.0%} of the ways over three images. The model may be folded; photograph "
                "what distinguishes the parts"
            )
        return found


def filter_pairs(
    layout: Layout, progress: Progress, stop: StopRequest, *, database: Path | None = None
) -> FilterSummary:
    """Judge the pairs of a job by their warps and the available photographs, unless that is done; matches nothing.

    database: if there is one, the verified matches in it are judged, too.

    Raises:
        InputError: the folder contains no job.
        NothingFoundError: no pair has a warp.
        StoreError: the list of photographs, the journal or the database is damaged.
    """
    verified = rows_of(database) if database else None
    with _matched(layout) as (journal, done, masks):
        sizes = {name: size for pair in done for name, size in zip(pair, journal.sizes(pair), strict=True)}
        stamp = masks.stamp(list(sizes)) if masks else None
        matched = [[*pair, journal.overlap(pair)] for pair in done]
        derived_from = digest([_VERSION, journal.fingerprint, matched, stamp, verified])
        known, photographs = holds_if_from(layout, FILTER, derived_from), _available(layout, sizes)
        if known is not None and (summary := _summary_of(known)).photographs >= len(photographs):
            return summary
        with hold_job(layout, progress, stop), noted(layout, "filtering") as counts, stop.at_once():
            progress.begin("filtering pairs", 2 * len(done))
            views = _read(done, journal, masks, photographs, progress)
            with verified_places(database) if database and verified else nullcontext(lambda pair: None) as inliers:
                verdict = judge_pairs(views, progress.advance, inliers)
            summary = replace(_summarise(views, verdict), photographs=len(photographs))
            counts.update(pairs=summary.pairs)
            remember(layout, FILTER, derived_from, asdict(summary))
    return summary


def filter_for_mapper(layout: Layout, database: Path, progress: Progress, stop: StopRequest) -> FilterSummary | None:
    """The same, reporting its warnings; None, with a message, if there are no warps."""
    try:
        found = filter_pairs(layout, progress, stop, database=database)
    except NothingFoundError as nothing:
        progress.say(f"No pair is filtered: {nothing}")
        return None
    for sentence in found.warnings:
        progress.warn(sentence)
    return found


def make_filtered_model(
    images: Path,
    layout: Layout,
    database: Path,
    options: MapperOptions,
    filtered: FilterSummary | None,
    progress: Progress,
    stop: StopRequest,
) -> ReconstructionSummary:
    """Map a database without the pairs that are dropped and the matches that are withheld; raises as `make_model`.

    filtered: None to use all.
    """
    if filtered is None:
        return make_model(images, layout, database, options, progress, stop)

    def contradicted() -> dict[Pair, np.ndarray]:
        if not filtered.withheld:
            return {}
        views, pairs = read_views(layout, with_photographs=False), {(one, other) for one, other, _ in filtered.withheld}
        kept = [edge for edge in views.edges if views.pair_of(edge) not in filtered.without]
        with verified_places(database) as places:
            doubtful = [edge for edge in kept if views.pair_of(edge) in pairs]
            found = find_contradicted_matches(views, kept, doubtful, places)
        count = sum(int(one.sum()) for one in found.values())
        many = counted(count, "match", "matches")
        progress.say(f"{many} withheld from the mapper, as third images contradict them")
        return {views.pair_of(edge): one for edge, one in found.items()}

    return make_model(
        images, layout, database, options, progress, stop, without=filtered.without, contradicted=contradicted
    )


def read_views(layout: Layout, *, with_photographs: bool) -> Views:
    """The warps of a job on lattices, and small copies of the available photographs; raises as `filter_pairs`."""
    with _matched(layout) as (journal, done, masks):
        names = {name for pair in done for name in pair} if with_photographs else set[str]()
        return _read(done, journal, masks, _available(layout, names), Silent())


@contextmanager
def _matched(layout: Layout) -> Iterator[tuple[Journal, list[Pair], JobMasks | None]]:
    """A job's journal, its pairs with a warp, and its masks; raises as `filter_pairs`."""
    with open_journal(layout, manifest_of(layout)) as journal:
        listed = sorted(map(canonical, read_own_pairs(layout.pairs).pairs))
        done = [pair for pair in listed if pair in journal and journal.kind(pair) != "rejected"]
        if any(journal.kind(pair) == "correspondences" for pair in done):
            raise NothingFoundError(
                f"{layout.root} contains matches of keypoints, and look-alike places are told by what warps miss. "
                "Dense matchers of `romacli models list` make warps."
            )
        if not done:
            raise NothingFoundError(f"{layout.root} contains no pair that matched, so there is nothing to filter.")
        sizes = {name: size for pair in done for name, size in zip(pair, journal.sizes(pair), strict=True)}
        masks = masks_of(noted_masks(layout), sizes)
        yield journal, done, masks


def _available(layout: Layout, names: Collection[str]) -> dict[str, Path]:
    """The photographs that have not changed since they were matched, by name."""
    folder = photographs_of(layout)
    lost = unusable(folder, read_images(layout.images), names)
    return {name: folder / name for name in names if folder is not None and name not in lost}


def noted_filter(manifest: Manifest | None) -> FilterSummary | None:
    """The recorded result of the filter; None if it never ran."""
    known = holds(manifest, FILTER)
    return _summary_of(known) if known else None


def _read(
    pairs: Collection[Pair],
    journal: Journal,
    masks: JobMasks | None,
    photographs: Mapping[str, Path],
    progress: Progress,
) -> Views:
    def read(pair: Pair) -> CompactWarp:
        record = journal.warp(pair)
        progress.advance()
        return record if masks is None else masks.without_masked(pair, record)

    def copy(name: str, lattice: Lattice) -> np.ndarray | None:
        if name not in photographs:
            return None
        try:
            return small_copy(read_image(photographs[name], copy_size(lattice)), lattice)
        except ImageError:
            return None

    return Views(pairs, read, copy)


def _summarise(views: Views, verdict: Verdict) -> FilterSummary:
    judged = verdict.pairs
    before = connected({views.pair_of(edge): 1 for edge in judged})
    groups = connected({views.pair_of(edge): 1 for edge, one in judged.items() if one.is_kept})
    kept = {name for group in groups for name in group}
    return FilterSummary(
        pairs=len(judged),
        dropped=tuple(_dropped(views, judged)),
        groups_before=tuple(map(len, before)),
        groups=tuple(map(len, groups)),
        alone=tuple(name for name in views.names if name not in kept),
        disputed=round(verdict.disputed, 4),
        unique=tuple(
            (*views.pair_of(edge), round(one.unique, 2)) for edge, one in judged.items() if one.is_kept and one.unique
        ),
        withheld=tuple((*views.pair_of(edge), one.withheld) for edge, one in judged.items() if one.withheld),
    )


def _dropped(views: Views, judged: Mapping[Edge, Judged]) -> list[Dropped]:
    """The pairs that are dropped, those that miss most first."""
    worst = sorted((edge for edge, one in judged.items() if not one.is_kept), key=lambda edge: -judged[edge].missing)
    return [Dropped(*views.pair_of(edge), round(judged[edge].share, 4), judged[edge].reason) for edge in worst]


def _summary_of(known: Mapping[str, object]) -> FilterSummary:
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in known.items()}
    values["dropped"] = tuple(Dropped(**one) for one in known["dropped"])  # type: ignore[attr-defined]
    for key in ("unique", "withheld"):
        values[key] = tuple(map(tuple, known.get(key, ())))  # type: ignore[call-overload]
    return FilterSummary(**values)  # type: ignore[arg-type]
