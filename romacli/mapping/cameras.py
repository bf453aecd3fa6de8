"""The registered cameras of a model as arrays: pixels to rays and points to pixels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from romacli.colmap.poses import Pose, read_model
from romacli.types import Size


@dataclass(frozen=True)
class PosedCamera:
    """A registered image of a model: name, image id, cam_from_world, (width, height) and mean focal length in px."""

    name: str
    number: int
    pose: Pose
    size: Size
    focal_px: float
    camera: Any  # pycolmap.Camera

    def rays(self, points: np.ndarray) -> np.ndarray:
        """Where the rays of points (n, 2), in COLMAP pixels, meet depth 1, as (n, 2); NaN where there is no ray."""
        found = self.camera.cam_from_img(np.asarray(points, np.float64).reshape(-1, 2))
        return np.asarray(found, np.float64).reshape(-1, 2)

    def pixels(self, points: np.ndarray) -> np.ndarray:
        """The COLMAP pixels (n, 2) of points (n, 3) in this camera's frame; NaN where they are not in front of it."""
        points = np.asarray(points, np.float64).reshape(-1, 3)
        found = np.full((len(points), 2), np.nan)
        front = points[:, 2] > 0
        found[front] = self.camera.img_from_cam(points[front])
        return found


def read_cameras(model_folder: Path) -> list[PosedCamera]:
    """The registered images of a model, by ascending id.

    Raises:
        InputError: the folder holds no COLMAP model.
    """
    model = read_model(model_folder)
    found = []
    for image in sorted(model.images.values(), key=lambda image: image.image_id):
        if image.has_pose:
            cam_from_world, camera = image.cam_from_world(), model.cameras[image.camera_id]
            pose = Pose(cam_from_world.rotation.matrix(), np.array(cam_from_world.translation))
            size = (camera.width, camera.height)
            found.append(PosedCamera(image.name, image.image_id, pose, size, camera.mean_focal_length(), camera))
    return found
