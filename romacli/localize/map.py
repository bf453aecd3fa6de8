"""A model with its photographs, in which queries are localized."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from romacli.colmap.poses import load_model
from romacli.errors import ImageError, InputError
from romacli.images.listing import files_under
from romacli.images.metadata import read_metadata
from romacli.mapping.views import View, views_of
from romacli.names import spelled
from romacli.progress import Progress
from romacli.store.history import photographs_of
from romacli.store.layout import Layout, layout_of, model_of
from romacli.types import Size
from romacli.words import counted, first_few


@dataclass(frozen=True)
class Map:
    """A model with points, and its photographs.

    images: the folder of photographs. files: for images that see points, their files in that folder, by their names in
    the model. model: (pycolmap.Reconstruction), or None if `observations` (the points that images see, as from `seen`)
    and `places` (all points (n, 3), indexed by id) are given instead. job: the folder it belongs to, if any.
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
        """The views of the images in `files`."""
        return {name: view for name, view in views_of(self.model).items() if name in self.files}

    def seen(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """The points that an image sees: ids (n,) and positions (n, 2)."""
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
        """The camera of a model with a single one, if it fits photographs of this size."""
        cameras = list(self.model.cameras.values()) if self.model else []
        return cameras[0] if len(cameras) == 1 and (cameras[0].width, cameras[0].height) == size else None

    def require_photographs(self, names: Iterable[str]) -> None:
        """Check that photographs have the sizes of the model's cameras; unreadable ones are skipped.

        Raises:
            InputError: one has a different size.
        """
        for name in sorted(names) if self.model else ():
            camera, path = self.camera(name), self.images / self.files[name]
            try:
                size = read_metadata(path).size
            except ImageError:
                continue
            if size != (camera.width, camera.height):
                raise InputError(
                    f"{path} is {size[0]}x{size[1]} px, but its camera in {self.folder} has "
                    f"{camera.width}x{camera.height}. Give the photographs that the model was built from with --images."
                )


def open_map(model: Path, images: Path | None, progress: Progress) -> Map:
    """Read a model, from a job or elsewhere, and find its photographs.

    Args:
        model: the folder of a COLMAP model, or of a job, for its largest.
        images: folder of the photographs; by default the one the job matched.

    Raises:
        InputError: there is no model, it has no points, or its photographs are unknown or all missing.
    """
    layouts = (layout_of(model), Layout(model.absolute().parent.parent))
    job = next((layout for layout in layouts if layout.manifest.exists()), None)
    folder = model_of(layouts[0]) if job is layouts[0] else model
    read = load_model(folder)
    images = images or (photographs_of(job) if job else None)
    if images is None:
        raise InputError(f"{model} does not record where its photographs are. Give their folder with --images DIR.")
    names = [image.name for image in read.images.values() if image.has_pose and image.num_points3D]
    if not names:
        raise InputError(f"{folder} contains no image that sees points. Localization needs a model with points.")
    files = spelled(names, files_under(images))
    gone = sorted(set(names) - files.keys())
    if not files:
        raise InputError(
            f"{images} contains none of the {counted(len(gone), 'photograph')} of {folder}, such as {gone[0]}. "
            "With --images give the folder that the names in the model are relative to."
        )
    if gone:
        progress.warn(
            f"{images} lacks {len(gone)} of {counted(len(names), 'photograph')} of {folder}; no query is matched "
            f"with them: {first_few(gone)}"
        )
    return Map(folder, images, files, read, job=job)
