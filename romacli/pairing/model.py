"""Photographs that see the same part of the scene in a COLMAP model: by camera poses, or by shared points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np

from romacli.errors import UsageError
from romacli.names import respelled
from romacli.options import Option
from romacli.pairing.source import Request, Source, held
from romacli.pairs.covisible import covisible
from romacli.pairs.poses import Frustum, posed
from romacli.pairs.retrieval import PartnerOptions
from romacli.progress import Progress
from romacli.types import ImageList, PairList
from romacli.words import counted

if TYPE_CHECKING:
    from romacli.mapping.views import View

# For a model without points, the scene is assumed to be within these depths, in diameters of the camera positions.
_DEPTHS_WITHOUT_POINTS = (0.1, 1.0)


@dataclass(frozen=True)
class ModelOptions(PartnerOptions):
    reference_model: Annotated[Path | None, Option("COLMAP model of the photographs, binary or text.", "DIR")] = None

    def folder(self, source: str) -> Path:
        """The model's folder.

        Raises:
            UsageError: none is given.
        """
        if self.reference_model is None:
            raise UsageError(f"{source} pairing reads a COLMAP model. Give its folder with --reference-model DIR.")
        return self.reference_model


@dataclass(frozen=True)
class PosesOptions(ModelOptions):
    """Pair images whose cameras, in a COLMAP model, look at the same part of space.

    The overlap of two cameras is the mean fraction of each view frustum, cut off at its nearest and farthest point,
    that the other camera sees.
    """

    max_rotation_deg: Annotated[
        float,
        Option("Maximum rotation between the cameras of a pair, in degrees.", min=0, max=180, name="max-rotation"),
    ] = 60.0
    min_frustum_overlap: Annotated[
        float, Option("Minimum overlap of the view frusta of a pair, as a fraction.", min=0, max=1)
    ] = 0.1


@dataclass(frozen=True)
class CovisibleOptions(ModelOptions):
    """Pair images that see the same points of a COLMAP model."""

    min_shared_points: Annotated[int, Option("Minimum points of the model seen by both images of a pair.", min=1)] = 15


def find_by_poses(options: PosesOptions, request: Request) -> PairList:
    from romacli.mapping.views import read_views

    folder = options.folder("poses")
    views = respelled(read_views(folder), request.images.names)
    names = held(request.images, views, folder, request.progress)
    return posed(
        names,
        _frusta([views[name] for name in names], folder, request.progress),
        num_matched=options.partners(len(names)),
        max_rotation_deg=options.max_rotation_deg,
        min_frustum_overlap=options.min_frustum_overlap,
    )


def find_by_points(options: CovisibleOptions, request: Request) -> PairList:
    from romacli.mapping.views import read_points_seen

    folder = options.folder("covisible")
    seen = respelled(read_points_seen(folder), request.images.names)
    names = held(request.images, seen, folder, request.progress)
    _, points = np.unique(np.concatenate([seen[name] for name in names]), return_inverse=True)
    image = np.repeat(np.arange(len(names)), [len(seen[name]) for name in names])
    return covisible(
        names,
        np.stack((image, points), axis=1),
        num_matched=options.partners(len(names)),
        min_shared_points=options.min_shared_points,
    )


def check(options: ModelOptions, images: ImageList) -> None:
    options.check(len(images))


def _frusta(views: Sequence[View], folder: Path, progress: Progress) -> list[Frustum]:
    centres = np.stack([view.pose.centre for view in views])
    diameter = float(np.linalg.norm(centres.max(axis=0) - centres.min(axis=0))) or 1.0
    without = sum(view.depths is None for view in views)
    if without:
        progress.warn(
            f"{counted(without, 'image sees', 'images see')} no points of {folder}; what is there is assumed to be "
            f"between {_DEPTHS_WITHOUT_POINTS[0]:g} and {_DEPTHS_WITHOUT_POINTS[1]:g} diameters of the camera "
            "positions away"
        )
    near, far = (share * diameter for share in _DEPTHS_WITHOUT_POINTS)
    return [
        Frustum(view.pose.rotation, view.pose.translation, *view.edges, *(view.depths or (near, far))) for view in views
    ]


POSES = Source(
    "poses",
    PosesOptions,
    find_by_poses,
    "photos/ --reference-model sparse/0",
    "Raise --max-rotation or lower --min-frustum-overlap.",
    check=check,
)
COVISIBLE = Source(
    "covisible",
    CovisibleOptions,
    find_by_points,
    "photos/ --reference-model sparse/0",
    "Lower --min-shared-points.",
    check=check,
)
