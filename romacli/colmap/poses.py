"""Camera poses of models, and errors between two sets of them."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from romacli.errors import InputError
from romacli.geometry.epipolar import rotation_angle_deg

from .binding import load_pycolmap

# Raised when reading a model that is damaged or may not be read.
UNREADABLE = (OSError, ValueError, RuntimeError, IndexError, KeyError, MemoryError, OverflowError)


@dataclass(frozen=True)
class Pose:
    """cam_from_world of one image: x_cam = rotation (3, 3) x_world + translation (3,)."""

    rotation: np.ndarray
    translation: np.ndarray

    @property
    def centre(self) -> np.ndarray:
        """The camera's position in the world, (3,)."""
        return -self.rotation.T @ self.translation

    def to(self, other: Pose) -> Pose:
        """From this camera's frame to another's: x_other = rotation (3, 3) x_this + translation (3,)."""
        rotation = other.rotation @ self.rotation.T
        return Pose(rotation, other.translation - rotation @ self.translation)


@dataclass(frozen=True)
class Similarity:
    """x_target = scale * rotation (3, 3) x_source + translation (3,)."""

    scale: float
    rotation: np.ndarray
    translation: np.ndarray

    def apply(self, points: np.ndarray) -> np.ndarray:
        """Move points (N, 3) from the source's frame to the target's."""
        return self.scale * points @ self.rotation.T + self.translation


@dataclass(frozen=True)
class PoseErrors:
    """Errors of poses against a reference, per image.

    names: the images in both.
    rotation_deg: (N,) after the one rotation that fits all orientations best.
    position: (N,) after the best similarity of the centres, relative to the mean distance of the reference's
        centres from their middle; NaN with fewer than three images, which a similarity always fits.
    missing: the reference's images that have no pose.
    """

    names: tuple[str, ...]
    rotation_deg: np.ndarray
    position: np.ndarray
    missing: tuple[str, ...]


def load_model(model_folder: Path) -> Any:
    """Read a COLMAP model.

    Raises:
        InputError: the folder contains none, or a damaged one.
    """
    try:
        return open_model(model_folder)
    except UNREADABLE as error:
        raise InputError(f"{model_folder} cannot be read as a COLMAP model. Rebuild it, or copy it again.") from error


def open_model(model_folder: Path) -> Any:
    """Read a COLMAP model with its full names; a damaged one raises an error among `UNREADABLE`.

    Raises:
        InputError: the folder contains none.
    """
    if not any((model_folder / f"images.{kind}").is_file() for kind in ("bin", "txt")):
        raise InputError(
            f"{model_folder} contains no COLMAP model: images.bin and images.txt are missing. Give the folder of one."
        )
    _require_whole(model_folder)
    model = load_pycolmap().Reconstruction(model_folder)
    if not all((model_folder / f"{name}.bin").is_file() for name in ("cameras", "images", "points3D")):
        for number, name in _names_in_text(model_folder / "images.txt"):
            model.images[number].name = name
    return model


def _names_in_text(path: Path) -> Iterator[tuple[int, str]]:
    """Id and name of each image of a text model, since COLMAP's reader cuts names at the first space.

    An image is two lines, the second of which, its points, may be empty.
    """
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if line.strip() and not line.startswith("#"):
                fields = line.split(maxsplit=9)
                yield int(fields[0]), fields[9].strip()
                next(lines, None)


def read_poses(model_folder: Path) -> dict[str, Pose]:
    """Read the poses of a model's registered images, by name.

    Raises:
        InputError: the folder contains no COLMAP model.
    """
    return {image.name: pose for image, pose in posed_images(load_model(model_folder))}


def posed_images(model: Any) -> Iterator[tuple[Any, Pose]]:
    """The registered images (pycolmap.Image) of a model (pycolmap.Reconstruction), with their poses."""
    for image in model.images.values():
        if image.has_pose:
            cam_from_world = image.cam_from_world()
            yield image, Pose(cam_from_world.rotation.matrix(), np.array(cam_from_world.translation))


def align_similarity(source: np.ndarray, target: np.ndarray, weights: np.ndarray | None = None) -> Similarity:
    """Find the similarity that moves points `source` (N, 3) closest to `target` (N, 3), by least squares.

    weights: (N,) of the squared distances, all alike where they are left out.

    Source: Umeyama, Least-squares estimation of transformation parameters, PAMI 1991, eqs. 40 to 42.
    """
    shares = np.full(len(source), 1 / len(source)) if weights is None else weights / weights.sum()
    source_middle, target_middle = shares @ source, shares @ target
    source, target = source - source_middle, target - target_middle
    u, singular, vt = np.linalg.svd(target.T * shares @ source)
    signs = np.array([1, 1, np.sign(np.linalg.det(u @ vt))])
    rotation = u * signs @ vt
    scale = float(singular @ signs / (shares @ source**2).sum())
    return Similarity(scale, rotation, target_middle - scale * rotation @ source_middle)


def compare_poses(poses: Mapping[str, Pose], reference: Mapping[str, Pose]) -> PoseErrors:
    """Compare poses with a reference that may differ in frame and scale.

    Rotations are aligned by the orientations themselves, not by the similarity of the centres: centres on a
    line leave a rotation about it open.

    Raises:
        InputError: no image is in both.
    """
    names = tuple(sorted(poses.keys() & reference.keys()))
    if not names:
        raise InputError(
            "the poses and their reference have no image name in common: "
            f"{min(poses, default='none')} is one of the first, {min(reference, default='none')} of the second. Names "
            "must be relative to the same folder."
        )
    mine, theirs = [poses[name] for name in names], [reference[name] for name in names]
    return PoseErrors(
        names,
        _rotation_errors(mine, theirs),
        _position_errors(*(np.array([pose.centre for pose in side]) for side in (mine, theirs))),
        tuple(sorted(reference.keys() - poses.keys())),
    )


def common_rotation(poses: Sequence[Pose], reference: Sequence[Pose]) -> np.ndarray:
    """The rotation (3, 3) from the reference's world to the world of `poses` that best fits their orientations."""
    u, _, vt = np.linalg.svd(sum(mine.rotation.T @ true.rotation for mine, true in zip(poses, reference, strict=True)))
    rotation: np.ndarray = u * [1, 1, np.sign(np.linalg.det(u @ vt))] @ vt
    return rotation


def _rotation_errors(poses: Sequence[Pose], reference: Sequence[Pose]) -> np.ndarray:
    """Angles (N,) that remain after the rotation of the world that best fits `poses` to `reference`."""
    world = common_rotation(poses, reference)
    return np.array(
        [
            rotation_angle_deg((mine.rotation @ world).T @ true.rotation)
            for mine, true in zip(poses, reference, strict=True)
        ]
    )


def _position_errors(centres: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Distances (N,) after the best similarity, relative to the reference's mean distance from its centroid."""
    if len(centres) < 3:
        return np.full(len(centres), np.nan)
    extent = np.linalg.norm(reference - reference.mean(0), axis=1).mean()
    moved = align_similarity(centres, reference).apply(centres)
    return np.linalg.norm(moved - reference, axis=1) / extent


def _require_whole(folder: Path) -> None:
    """Check that the files of a binary model end with their last row.

    COLMAP reads on past the end of a file, takes zeros for cameras and may ask for any amount of memory.
    Source: COLMAP, reconstruction_io_binary.cc.

    Raises:
        ValueError: one does not.
    """
    for name, next_row in (("cameras", _after_camera), ("images", _after_image), ("points3D", _after_point)):
        path = folder / f"{name}.bin"
        if not path.is_file():
            continue
        data, offset = path.read_bytes(), 8
        try:
            for _ in range(struct.unpack_from("<Q", data)[0]):
                offset = next_row(data, offset)
        except struct.error:
            offset = -1
        if offset != len(data):
            raise ValueError(f"{path} does not end with its last row")


def _after_camera(data: bytes, offset: int) -> int:
    """The row: id, model, width and height, then the parameters."""
    pycolmap = load_pycolmap()
    (model,) = struct.unpack_from("<i", data, offset + 4)
    camera = pycolmap.Camera.create_from_model_id(0, pycolmap.CameraModelId(model), 1.0, 1, 1)
    return offset + 24 + 8 * len(camera.params)


def _after_image(data: bytes, offset: int) -> int:
    """The row: id, pose and camera, the name, the number of points and the points."""
    points = data.index(b"\0", offset + 64) + 1
    return points + 8 + 24 * int(struct.unpack_from("<Q", data, points)[0])


def _after_point(data: bytes, offset: int) -> int:
    """The row: id, position, colour and error, the length of the track and the track."""
    return offset + 51 + 8 * int(struct.unpack_from("<Q", data, offset + 43)[0])
