"""The pose of a query, or of simultaneous queries of a rig, from the map points attached by its matches."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from romacli.geometry.warp import warp_fields
from romacli.localize.attach import Places, Sighting, attach
from romacli.localize.map import Map
from romacli.localize.options import LocalizeOptions
from romacli.localize.pose import Attached, QueryPose, solve_pose, solve_rig
from romacli.localize.queries import Query
from romacli.pairs.covisible import clusters
from romacli.store.journal import Journal
from romacli.store.localized import QueryPoints
from romacli.types import CompactWarp, Pair
from romacli.words import counted, counted_of

# Maximum number of points for solving a pose; those that most images agree on are used.
_MOST_POINTS = 20_000


@dataclass(frozen=True)
class Found:
    """The points of a query from some map images, and the accepted pose, if any."""

    query: str
    places: Places
    images: tuple[str, ...]
    pose: QueryPose | None = None

    @property
    def points(self) -> QueryPoints:
        """The points in the form that is stored."""
        ids, places = self.places.ids, self.places.places
        if self.pose is None:
            return QueryPoints(ids, places, np.full(places.shape, np.nan), np.zeros(len(ids), bool))
        return QueryPoints(ids, places, self.pose.projected, self.pose.inliers)


@dataclass(frozen=True)
class Frame:
    """The results of queries that share one pose. inliers: of all of them. why: the reason if there is no pose."""

    found: Sequence[Found] = ()
    inliers: int = 0
    why: str = "it overlaps none of the map images it was matched with"

    @property
    def num_points(self) -> int:
        return sum(len(each.places.ids) for each in self.found)


@dataclass(frozen=True)
class Search:
    """Solves poses from the records of pairs of query and map image files."""

    target: Map
    journal: Journal
    map_files: Mapping[str, str]
    options: LocalizeOptions
    seed: int

    def frame(self, queries: Mapping[Query, Sequence[str]]) -> Frame:
        """The best of the poses from each group of map images.

        Args:
            queries: those that share one pose, each with its map images.
        """
        sightings = {query: self._sightings(query, images) for query, images in queries.items()}
        images = [*dict.fromkeys(image for seen in sightings.values() for image in seen)]
        if not images:
            return Frame()
        groups = [images]
        if self.options.clusters:
            parts = clusters([self.target.seen(image)[0] for image in images])
            groups = [[images[row] for row in part] for part in parts]
        tries = [self._tried(sightings, group) for group in groups]
        return max(tries, key=lambda frame: (not frame.why, frame.inliers, frame.num_points))

    def _sightings(self, query: Query, images: Sequence[str]) -> dict[str, Sighting]:
        """For each overlapping map image, its points transferred to the query by its warp."""
        pairs = {image: (query.file, self.map_files[image]) for image in images}
        found = {image: _sighting(self.journal, pair, self.target.seen(image)) for image, pair in pairs.items()}
        return {image: sighting for image, sighting in found.items() if sighting is not None}

    def _tried(self, sightings: Mapping[Query, Mapping[str, Sighting]], group: Collection[str]) -> Frame:
        """Solve the pose from one group of map images."""
        found, attached = [], []
        for query, seen in sightings.items():
            used = {image: sighting for image, sighting in seen.items() if image in group}
            places = attach(list(used.values()), self.options.tolerance * query.per_px).best(_MOST_POINTS)
            found.append(Found(query.name, places, tuple(used)))
            placed = query.sensor.cam_from_rig if query.sensor else None
            attached.append(Attached(query.camera, places.places, self.target.points(places.ids), placed))
        count = sum(len(each.places) for each in attached)
        if count < self.options.min_inliers:
            why = f"it sees {counted(count, 'point')} of the map, fewer than --min-inliers {self.options.min_inliers}"
            return Frame(found, why=why)
        poses = self._poses(attached, self.options.max_error * max(query.per_px for query in sightings))
        inliers = sum(int(pose.inliers.sum()) for pose in poses or ())
        if poses is None or inliers < max(self.options.min_inliers, self.options.min_inlier_ratio * count):
            return Frame(found, inliers, f"{counted_of(inliers, count, 'point', 'agrees', 'agree')} on a pose, too few")
        return Frame([replace(each, pose=pose) for each, pose in zip(found, poses, strict=True)], inliers, "")

    def _poses(self, attached: Sequence[Attached], max_error_px: float) -> list[QueryPose] | None:
        if len(attached) > 1:
            return solve_rig(attached, max_error_px=max_error_px, seed=self.seed)
        pose = solve_pose(attached[0], max_error_px=max_error_px, seed=self.seed)
        return [pose] if pose else None


def _sighting(journal: Journal, pair: Pair, seen: tuple[np.ndarray, np.ndarray]) -> Sighting | None:
    """A map image's points transferred to the query, the first of the pair; None if there is no overlap."""
    ids, places = seen
    record = journal.read(pair) if pair in journal else None
    if not isinstance(record, CompactWarp):
        return None
    read = warp_fields(record)[1].at(places.astype(np.float32))
    width, height = record.size_A
    x, y = read.targets.T
    used = (read.weights > 0) & (x >= 0) & (y >= 0) & (x <= width) & (y <= height)
    return Sighting(ids[used], read.targets[used].astype(np.float64), read.weights[used]) if used.any() else None
