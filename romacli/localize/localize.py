"""Localize queries in a map: choose map images, match, solve poses; matches are kept for later runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from romacli.disk import check_writable
from romacli.errors import NothingFoundError, UsageError
from romacli.localize.choice import choose
from romacli.localize.map import Map
from romacli.localize.options import Fallback, LocalizeOptions
from romacli.localize.pose import QueryPose, pose_of
from romacli.localize.queries import Queries, read_queries
from romacli.localize.search import Search
from romacli.matchers.matcher import DenseMatcher, Matcher
from romacli.pairing.describe import Describer
from romacli.pairing.kept import match_kept
from romacli.progress import Progress
from romacli.run.match import MatchSummary
from romacli.run.options import MatchOptions
from romacli.run.retries.retry import check_retries
from romacli.stop import StopRequest
from romacli.store.history import noted
from romacli.store.journal import Journal
from romacli.store.localized import LIST, write_localized, write_points
from romacli.types import ImageList, PairList, canonical
from romacli.words import counted, first_few


@dataclass(frozen=True)
class Localized:
    """The result for a query.

    points: number of map points it sees; map_images: those they come from. frame: queries that share its rig pose,
    itself included; frame_inliers: of all of them. why: the reason if it has no pose; fallback: the map image whose
    pose it got instead.
    """

    name: str
    photograph: Path
    pose: QueryPose | None = None
    points: int = 0
    map_images: tuple[str, ...] = ()
    frame: tuple[str, ...] = ()
    frame_inliers: int = 0
    why: str = ""
    fallback: str | None = None


@dataclass(frozen=True)
class Localizer:
    """Localizes queries in a map. output: the folder of the results, which also keeps the matches for later runs."""

    target: Map
    output: Path
    matcher: Matcher
    options: LocalizeOptions
    matching: MatchOptions
    progress: Progress
    stop: StopRequest

    def localize(self, folder: Path) -> list[Localized]:
        """Localize the queries of a folder and write the files of store/localized.py.

        Raises:
            InputError: there are no queries, or a list, poses, a rig or the map's photographs do not fit them.
            UsageError: the matcher returns points instead of warps, or cannot retry pairs as requested.
            NothingFoundError: no query has a pose; the files say why.
            StoreError: the output folder cannot be written to.
        """
        if not isinstance(self.matcher, DenseMatcher):
            raise UsageError(
                f"localize transfers the map's points by dense warps, and {self.matcher.name} has none. Choose another "
                "--matcher, such as mini."
            )
        check_retries(self.matcher, self.matching)
        check_writable(self.output / LIST)
        with noted(self.target.job, "localizing", output=self.output) as counts:
            queries = read_queries(folder, self.target, self.options, self.progress)
            if queries.itself:
                self.progress.say(
                    f"{counted(len(queries.itself), 'query is a photograph', 'queries are photographs')} of the map, "
                    f"and matched only with the others: {first_few(list(queries.itself))}"
                )
            rows = self._posed(queries)
            write_localized(self.output, [values_of(query) for query in rows])
            counts.update(queries=len(rows), poses=sum(not query.why for query in rows))
        if not any(query.pose for query in rows):
            raise NothingFoundError(
                f"none of {counted(len(rows), 'query', 'queries')} has a pose; {self.output / LIST} says why: "
                f"{rows[0].name}: {rows[0].why}"
            )
        return rows

    def _posed(self, queries: Queries) -> list[Localized]:
        """The results in order; the points of each query are written."""
        describer = Describer(
            self.matcher, self.output / "global-features.h5", self.progress, num_workers=self.matching.num_workers
        )
        pairs, unpaired = choose(queries, self.target, self.options, describer)
        journal, summary = self._matched(queries, pairs)
        failures = {**unpaired, **queries.failures}
        failures |= {
            name: summary.failures[query.file]
            for name, query in queries.readable.items()
            if query.file in summary.failures
        }
        search = Search(self.target, journal, queries.map_files, self.options, self.matching.seed)
        found: dict[str, Localized] = {}
        with journal:
            self.progress.begin("posing", len(queries.listed))
            for frame in queries.frames(self.options.rigs):
                self.stop.check()
                found |= self._of_frame(frame, queries, search, pairs, failures)
                self.progress.advance(len(frame))
        return [self._with_fallback(found[name], pairs) for name in queries.listed]

    def _matched(self, queries: Queries, pairs: Mapping[str, Sequence[str]]) -> tuple[Journal, MatchSummary]:
        """Match each query with its map images, except for pairs that already have a record."""
        self.target.require_photographs({image for images in pairs.values() for image in images})
        wanted = [
            (queries.readable[query].file, queries.map_files[image])
            for query, images in pairs.items()
            for image in images
        ]
        unique = {canonical(pair): pair for pair in wanted}
        images = ImageList(queries.root, tuple(sorted({name for pair in unique.values() for name in pair})))
        return match_kept(
            *(self.output / "journal", images, PairList(tuple(unique.values())), self.matcher, self.matching),
            self.progress,
            settings={"seed": self.matching.seed},
            stop=self.stop,
        )

    def _of_frame(
        self,
        names: Sequence[str],
        queries: Queries,
        search: Search,
        pairs: Mapping[str, Sequence[str]],
        failures: Mapping[str, str],
    ) -> dict[str, Localized]:
        """The results for queries that share one pose; their points are written.

        failures: why a query cannot be read or has no map images, and so has no pose of its own.
        """
        rows = {name: Localized(name, queries.folder / name, why=failures.get(name, "")) for name in names}
        readable = [
            name for name in names if name in queries.readable and (name not in failures or not pairs.get(name))
        ]
        frame = search.frame({queries.readable[name]: pairs.get(name, ()) for name in readable})
        together = tuple(names) if len(names) > 1 else ()
        for name in readable:
            rows[name] = replace(rows[name], why=(rows[name].why or frame.why) if frame.why else "", frame=together)
        for found in frame.found:
            row = replace(rows[found.query], pose=found.pose, points=len(found.places.ids), map_images=found.images)
            rows[found.query] = replace(row, frame_inliers=frame.inliers if together and found.pose else 0)
            write_points(self.output, found.query, found.points)
        return rows

    def _with_fallback(self, query: Localized, pairs: Mapping[str, Sequence[str]]) -> Localized:
        """The query, with the pose of its first map image if it has none and that is requested."""
        if query.pose or self.options.fallback is not Fallback.retrieval or not pairs.get(query.name):
            return query
        image = pairs[query.name][0]
        pose = self.target.image_of[image].cam_from_world()
        fallback = pose_of(pose, self.target.camera(image), np.zeros((0, 3)), np.zeros(0, bool), None)
        return replace(query, pose=fallback, fallback=image)


def values_of(query: Localized) -> dict[str, Any]:
    """A query's result as JSON values."""
    pose = query.pose
    values: dict[str, Any] = {"name": query.name, "posed": pose is not None, "points": query.points}
    if pose is not None:
        values |= {
            "qvec": list(pose.qvec),
            "tvec": list(pose.tvec),
            "inliers": int(pose.inliers.sum()),
            "camera": {"model": pose.camera.model.name, "params": pose.camera.params.tolist()},
            "covariance": None if pose.covariance is None else np.asarray(pose.covariance).tolist(),
        }
    if query.frame:
        values |= {"frame": list(query.frame), "frame_inliers": query.frame_inliers}
    values |= {"map_images": list(query.map_images), "why": query.why or None, "fallback": query.fallback}
    return {**values, "photograph": str(query.photograph)}
