"""Cameras and poses that are known beforehand, out of a COLMAP model, for the photographs of a job."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from romacli.colmap.cameras import CameraSpec, ImageInfo
from romacli.colmap.poses import read_model
from romacli.errors import InputError
from romacli.names import respelled


def known_cameras(model_folder: Path, images: Sequence[ImageInfo]) -> tuple[list[CameraSpec], dict[str, int]]:
    """The cameras of a model, and the index of each photograph's by name, for those photographs that have a pose.

    Raises:
        InputError: there is no model, none of its images is among the photographs, or one has another size.
    """
    model = read_model(model_folder)
    posed = {image.name: image.camera_id for image in model.images.values() if image.has_pose}
    posed = respelled(posed, [image.name for image in images])
    if not posed:
        raise InputError(f"{model_folder} holds no image with a pose. Give --known-poses a model that has poses.")
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
