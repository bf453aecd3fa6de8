"""The contents of a report as values: images, pairs, tracks, model, and what is missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from romacli.job.diagnosis import Placed
from romacli.store.history import OPTIONS, Run
from romacli.types import Pair

PairState = Literal["not done", "rejected", "matched", "verified"]
STATES: tuple[PairState, ...] = get_args(PairState)
# Stages that resume where the last run stopped; the others start over.
_STAGES_THAT_GO_ON = ("matching",)


@dataclass(frozen=True)
class ImageRow:
    """An image. pairs: planned; matched: those with a warp; verified: those in the database; in_tracks: keypoints that
    share a track with another image; points3D: None if the image is in no model; refined: the share of keypoints
    in tracks that were refined, shift_px: their median shift; both None if refinement was not tried; model: the number
    of the one the image is in."""

    name: str
    pairs: int
    matched: int
    verified: int
    keypoints: int
    in_tracks: int
    inliers: int
    points3D: int | None
    focal_length_px: float | None
    refined: float | None = None
    shift_px: float | None = None
    model: int | None = None


@dataclass(frozen=True)
class PairRow:
    """A planned pair, by the indices of its images. overlap: None before it is matched; inliers: None before it is
    verified."""

    one: int
    other: int
    state: PairState
    overlap: float | None
    matches: int
    inliers: int | None


@dataclass(frozen=True)
class Tracks:
    """The keypoints of the hloc files that matches connect; those of a track that was followed through warps may be
    several of these. lengths: number of tracks by their number of views."""

    count: int
    mean_length: float
    longest: int
    lengths: Mapping[int, int]


@dataclass(frozen=True)
class CameraSummary:
    """The number of cameras of one COLMAP camera model, and of their images."""

    model: str
    cameras: int
    images: int


@dataclass(frozen=True)
class GpsSummary:
    """The model compared with the photographs' GPS positions: residuals in m by image, after the best similarity, and
    the extent of the positions in m."""

    median_m: float
    largest_m: float
    extent_m: float
    residuals_m: Mapping[str, float]


@dataclass(frozen=True)
class ModelSummary:
    """The largest model. lengths: as in `Tracks`, for its points; cameras: by COLMAP's camera models; gps: None if the
    positions do not suffice; focal_lengths, mappers: sentences on each camera's focal length and source, and on the
    mappers that ran."""

    registered: int
    points3D: int
    mean_track_length: float
    mean_reprojection_error: float
    models: int
    lengths: Mapping[int, int]
    cameras: tuple[CameraSummary, ...]
    gps: GpsSummary | None = None
    focal_lengths: tuple[str, ...] = ()
    mappers: tuple[str, ...] = ()


@dataclass(frozen=True)
class SmallerModel:
    """A further model, in OUT/sparse/`number`."""

    number: int
    registered: int
    points3D: int
    mean_track_length: float
    mean_reprojection_error: float


@dataclass(frozen=True)
class QueryRow:
    """A photograph localized in the model. posed: whether it has a pose of its own; inliers: among its map points;
    fallback: the map image whose pose it got instead; folder: the localization's folder."""

    name: str
    folder: str
    posed: bool
    inliers: int
    points: int
    map_images: tuple[str, ...]
    why: str
    fallback: str | None


@dataclass(frozen=True)
class Summary:
    """A report without its pictures.

    settings: of the manifest; keypoint_options: of the hloc files; tracks, model: None if there are none; verified:
    whether there is a database; checks: warnings from the job's own checks; missing: sentences on what the report
    lacks; placed: the model compared with its pairs; outdated: sentences on files whose sources have changed since;
    groups: sizes of the groups of images connected by verified, or else matched, pairs; queries: those localized;
    smaller: the other models.
    """

    folder: str
    version: str
    made: str
    settings: Mapping[str, Any]
    matcher: Mapping[str, str]
    keypoint_options: Mapping[str, Any]
    images: tuple[ImageRow, ...]
    pairs: tuple[PairRow, ...]
    tracks: Tracks | None
    model: ModelSummary | None
    verified: bool
    groups: tuple[int, ...]
    checks: tuple[str, ...]
    missing: tuple[str, ...]
    runs: tuple[Run, ...]
    placed: Placed | None = None
    outdated: tuple[str, ...] = ()
    queries: tuple[QueryRow, ...] = ()
    smaller: tuple[SmallerModel, ...] = ()

    def names_of(self, pair: PairRow) -> Pair:
        return self.images[pair.one].name, self.images[pair.other].name

    def count(self, *states: PairState) -> int:
        """The number of pairs in these states."""
        return sum(pair.state in states for pair in self.pairs)

    @property
    def state_words(self) -> dict[PairState, str]:
        """The states in words: if pairs were verified, those only matched are called unverified."""
        return {state: "unverified" if state == "matched" and self.verified else state for state in STATES}

    @property
    def stages(self) -> dict[str, dict[str, int]]:
        """The number of pairs and images after each stage."""
        done = len(self.pairs) - self.count("not done")
        pairs = {
            "planned": len(self.pairs),
            "finished": done,
            "rejected": self.count("rejected"),
            "matched": self.count("matched", "verified"),
        }
        images = {"planned": len(self.images), "matched": sum(image.matched > 0 for image in self.images)}
        if self.tracks is not None:
            images["with tracks"] = sum(image.in_tracks > 0 for image in self.images)
        if self.verified:
            pairs["verified"] = self.count("verified")
            images["verified"] = sum(image.verified > 0 for image in self.images)
        if self.model is not None:
            images["registered"] = self.model.registered
        return {"pairs": pairs, "images": images}

    @property
    def timings(self) -> dict[str, dict[str, float]]:
        """Seconds, runs and counts of each stage: totals over all runs if a stage resumes, else those of its last run
        that finished."""
        total: dict[str, dict[str, float]] = {}
        for run in self.runs:
            if run.stage == OPTIONS:
                continue
            stage = total.setdefault(run.stage, {"runs": 0, "seconds": 0.0})
            stage["runs"] += 1
            stage["seconds"] = round(stage["seconds"] + run.seconds, 3)
            before = stage if run.stage in _STAGES_THAT_GO_ON else {}
            stage.update({key: before.get(key, 0) + value for key, value in run.counts.items()})
        return total

    def values(self) -> dict[str, Any]:
        """The summary as JSON values, with pairs by name."""
        values = asdict(self)
        names = [image.name for image in self.images]
        for pair in values["pairs"]:
            pair["one"], pair["other"] = names[pair["one"]], names[pair["other"]]
        return {**values, "stages": self.stages, "timings": self.timings}
