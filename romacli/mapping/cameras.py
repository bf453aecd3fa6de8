"""The cameras of a model: pixels to rays, points to pixels, and assignment to the photographs of a job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from romacli.colmap.cameras import CameraSpec, ImageInfo
from romacli.colmap.options import PANORAMA
from romacli.colmap.poses import Pose, load_model, posed_images
from romacli.errors import InputError
from romacli.names import respelled
from romacli.types import Size


@dataclass(frozen=True)
class PosedCamera:
    """A registered image of a model: name, image id, cam_from_world, (width, height) and mean focal length in px.

    The focal length of a spherical panorama is its px per radian.
    """

    name: str
    number: int
    pose: Pose
    size: Size
    focal_px: float
    camera: Any  # pycolmap.Camera

    @property
    def is_spherical(self) -> bool:
        return bool(self.camera.model.name == PANORAMA)

    def rays(self, points: np.ndarray) -> np.ndarray:
        """The rays of COLMAP pixels (n, 2) as points (n, 2) at depth 1; NaN where there is none."""
        found = self.camera.cam_from_img(np.asarray(points, np.float64).reshape(-1, 2))
        return np.asarray(found, np.float64).reshape(-1, 2)

    def pixels(self, points: np.ndarray) -> np.ndarray:
        """The COLMAP pixels (n, 2) of points (n, 3) in this camera's frame; NaN behind it, unless it is spherical."""
        points = np.asarray(points, np.float64).reshape(-1, 3)
        found = np.full((len(points), 2), np.nan)
        seen = points.any(axis=1) if self.is_spherical else points[:, 2] > 0
        found[seen] = self.camera.img_from_cam(points[seen])
        return found

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The COLMAP pixels (n, 2), NaN as from `pixels`, and depths (n,) of points (n, 3) in the world.

        The depths of a spherical camera are distances.
        """
        seen = points @ self.pose.rotation.T + self.pose.translation
        return self.pixels(seen), np.linalg.norm(seen, axis=1) if self.is_spherical else seen[:, 2]


def read_cameras(model_folder: Path) -> list[PosedCamera]:
    """The registered images of a model, by ascending id.

    Raises:
        InputError: the folder contains no COLMAP model.
    """
    model = load_model(model_folder)
    found = []
    for image, pose in posed_images(model):
        camera = model.cameras[image.camera_id]
        size, focal_px = (camera.width, camera.height), camera.mean_focal_length() or camera.width / (2 * np.pi)
        found.append(PosedCamera(image.name, image.image_id, pose, size, focal_px, camera))
    return sorted(found, key=lambda camera: camera.number)


def known_cameras(model_folder: Path, images: Sequence[ImageInfo]) -> tuple[list[CameraSpec], dict[str, int]]:
    """The cameras of a model, and the index of each photograph's camera by name, for photographs with a pose.

    Raises:
        InputError: there is no model, none of its images is among the photographs, or one has another size.
    """
    model = load_model(model_folder)
    posed = {image.name: image.camera_id for image in model.images.values() if image.has_pose}
    posed = respelled(posed, [image.name for image in images])
    if not posed:
        raise InputError(f"{model_folder} contains no image with a pose. Give --known-poses a model that has poses.")
    found = [image for image in images if image.name in posed]
    if not found:
        raise InputError(
            f"none of the {len(posed)} images of {model_folder} is among the photographs: it has {min(posed)}, the "
            f"folder has {images[0].name}. Give the folder that the names of the model are relative to."
        )
    order = sorted({posed[image.name] for image in found})
    cameras = []
    for camera_id in order:
        camera = model.cameras[camera_id]
        size = (camera.width, camera.height)
        cameras.append(CameraSpec(camera.model_name, size, tuple(camera.params.tolist()), "given"))
    camera_of = {image.name: order.index(posed[image.name]) for image in found}
    for image in found:
        size = cameras[camera_of[image.name]].size
        if size != image.size:
            raise InputError(
                f"{image.name} is {image.size[0]}x{image.size[1]} px, its camera in {model_folder} has "
                f"{size[0]}x{size[1]}. Give the photographs that the model was made of."
            )
    return cameras, camera_of
