"""A model and its photographs, as queries are localized in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from romacli.colmap.poses import read_model
from romacli.errors import ImageError, InputError
from romacli.images.listing import files_under
from romacli.images.metadata import read_metadata
from romacli.mapping.views import View, views_of
from romacli.names import spelled
from romacli.progress import Progress
from romacli.store.history import photographs_of
from romacli.store.layout import Layout
from romacli.types import Size
from romacli.words import counted, first_few


@dataclass(frozen=True)
class Map:
    """A model with points, and where its photographs lie.

    images: the folder of photographs. files: by name in the model, its file there, for images that see points. model:
    (pycolmap.Reconstruction), None where `observations` and `places` hold all there is of one: the points that images
    see, as `seen` gives them, and all points (n, 3) by their ids. job: the folder that it belongs to, if any.
    """

    folder: Path
    images: Path
    files: Mapping[str, str]
    model: Any | None
    observations: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    places: np.ndarray | None = None
    job: Layout | None = None

    @cached_property
    def image_of(self) -> Mapping[str, Any]:
        """The model's images (pycolmap.Image) by name."""
        return {image.name: image for image in self.model.images.values()} if self.model else {}

    @cached_property
    def xyz(self) -> np.ndarray:
        """All points, (n, 3)."""
        if self.model is None:
            return self.places if self.places is not None else np.zeros((0, 3))
        return np.array([point.xyz for point in self.model.points3D.values()]).reshape(-1, 3)

    @cached_property
    def views(self) -> Mapping[str, View]:
        """What each image looks at, of those in `files`."""
        return {name: view for name, view in views_of(self.model).items() if name in self.files}

    def seen(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """The points that an image sees: their ids (n,) and places (n, 2)."""
        if name not in self.observations:
            points = [point for point in self.image_of[name].points2D if point.has_point3D()]
            self.observations[name] = (
                np.array([point.point3D_id for point in points], np.int64),
                np.array([point.xy for point in points]).reshape(-1, 2),
            )
        return self.observations[name]

    def points(self, ids: np.ndarray) -> np.ndarray:
        """Points (n, 3) by their ids."""
        if self.model is None:
            return self.xyz[ids]
        return np.array([self.model.points3D[identity].xyz for identity in ids.tolist()]).reshape(-1, 3)

    def camera(self, name: str) -> Any:
        """The camera (pycolmap.Camera) of an image of a model."""
        assert self.model is not None
        return self.model.cameras[self.image_of[name].camera_id]

    def only_camera(self, size: Size) -> Any | None:
        """The camera of a model that has but one, if photographs of this size may be its too."""
        cameras = list(self.model.cameras.values()) if self.model else []
        return cameras[0] if len(cameras) == 1 and (cameras[0].width, cameras[0].height) == size else None

    def require_photographs(self, names: Iterable[str]) -> None:
        """Pass silently when photographs have the sizes of the model's cameras; what cannot be read passes too.

        Raises:
            InputError: one has another.
        """
        for name in sorted(names) if self.model else ():
            camera, path = self.camera(name), self.images / self.files[name]
            try:
                size = read_metadata(path).size
            except ImageError:
                continue
            if size != (camera.width, camera.height):
                raise InputError(
                    f"{path} is {size[0]}x{size[1]} px, its camera in {self.folder} has {camera.width}x{camera.height}."
                    " Give the photographs that the model was made of with --images."
                )


def open_map(model: Path, images: Path | None, progress: Progress) -> Map:
    """Read a model, of a job or any, with the folder of its photographs.

    Args:
        model: the folder of a COLMAP model, or of a job.
        images: of the photographs; None for where the job's were matched.

    Raises:
        InputError: there is no model, it has no points, nobody knows where its photographs are, or all are gone.
    """
    layouts = (Layout(model), Layout(model.absolute().parent.parent))
    job = next((layout for layout in layouts if layout.manifest.exists()), None)
    folder = layouts[0].sparse / "0" if job is layouts[0] else model
    if job is layouts[0] and not folder.is_dir():
        raise InputError(f"{model} holds no model. Run `romacli reconstruct` with this --output first.")
    read = read_model(folder)
    images = images or (photographs_of(job) if job else None)
    if images is None:
        raise InputError(f"{model} does not tell where its photographs are. Name their folder with --images DIR.")
    names = [image.name for image in read.images.values() if image.has_pose and image.num_points3D]
    if not names:
        raise InputError(f"{folder} holds no image that sees points. Localization needs a model with points.")
    files = spelled(names, files_under(images))
    gone = sorted(set(names) - files.keys())
    if not files:
        raise InputError(
            f"{images} holds none of the {len(gone)} photographs of {folder}, such as {gone[0]}. Give the folder that "
            "the names of the model are relative to with --images."
        )
    if gone:
        progress.warn(
            f"{images} lacks {len(gone)} of {counted(len(names), 'photograph')} of {folder}, which no query is matched "
            f"with: {first_few(gone)}"
        )
    return Map(folder, images, files, read, job=job)
