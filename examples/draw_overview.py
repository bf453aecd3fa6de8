"""Draw the result of a job: the matches of two neighbouring photographs, and the model from above.

python examples/draw_overview.py examples/scene/images romacli-out/example examples/scene/overview.jpg
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from romacli.colmap.binding import load_pycolmap
from romacli.images.decode import read_image
from romacli.images.listing import list_images
from romacli.store.hloc import FeaturesFile, MatchesFile
from romacli.store.layout import Layout

Image = NDArray[np.uint8]

NUM_LINES = 120
SIZE = (480, 360)  # of each of the three pictures, in px
JPEG_QUALITY = 88
ABOVE_DEG = 30  # angle from which the model is viewed, in addition to the tilt of the middle camera
CAMERA_COLOUR = (220, 40, 40)


def matches_drawn(images: Path, layout: Layout, names: tuple[str, str]) -> list[Image]:
    """Two photographs with matches in the same colour, as (H, W, 3) RGB."""
    with MatchesFile(layout.matches) as matches, FeaturesFile(layout.features) as features:
        indices = matches.matches(*names).indices
        keypoints = [features.keypoints(name).xy for name in names]
    chosen = indices[np.random.default_rng(0).permutation(len(indices))[:NUM_LINES]]
    pictures = []
    for column, name in enumerate(names):
        picture = read_image(images / name)
        scale = np.array(SIZE) / (picture.shape[1], picture.shape[0])
        picture = cv2.resize(picture, SIZE, interpolation=cv2.INTER_AREA)
        places = keypoints[column][chosen[:, column]] * scale
        for place, colour in zip(places, rainbow(len(chosen)), strict=True):
            centre = tuple(int(value) for value in place)
            cv2.circle(picture, centre, 4, (0, 0, 0), -1, cv2.LINE_AA)
            cv2.circle(picture, centre, 3, colour, -1, cv2.LINE_AA)
        pictures.append(picture)
    return pictures


def rainbow(count: int) -> list[tuple[int, ...]]:
    hues = np.linspace(0, 179, count).astype(np.uint8)
    saturated = np.stack((hues, *[np.full(count, 255, np.uint8)] * 2), axis=-1)[None]
    return [tuple(int(value) for value in colour) for colour in cv2.cvtColor(saturated, cv2.COLOR_HSV2RGB)[0]]


def model_drawn(layout: Layout) -> Image:
    """The points and cameras of the model, viewed from above on the middle camera's side, (H, W, 3) RGB."""
    model = load_pycolmap().Reconstruction(layout.sparse / "0")
    points = [point for point in model.points3D.values() if point.track.length() >= 3]
    positions = np.array([point.xyz for point in points])
    views = [image.cam_from_world() for _, image in sorted(model.images.items()) if image.has_pose]
    centres = np.array([-view.rotation.matrix().T @ view.translation for view in views])
    tip = cv2.Rodrigues(np.array([np.radians(ABOVE_DEG), 0, 0]))[0]
    turn = tip @ views[len(views) // 2].rotation.matrix()
    middle = np.median(positions, axis=0)
    flat = (positions - middle) @ turn.T
    cameras = (centres - middle) @ turn.T
    frame = np.abs(np.vstack((np.percentile(np.abs(flat), 95, axis=0), cameras)))[:, :2].max(axis=0)
    scale = 0.41 * float((np.array(SIZE) / frame).min())
    picture = np.full((SIZE[1], SIZE[0], 3), 255, np.uint8)
    for index in np.argsort(-flat[:, 2]):
        draw_dot(picture, flat[index], scale, 1, tuple(int(value) for value in points[index].color))
    for camera in cameras:
        draw_dot(picture, camera, scale, 4, CAMERA_COLOUR)
    return picture


def draw_dot(picture: Image, place: NDArray, scale: float, radius: int, colour: tuple[int, ...]) -> None:
    x, y = (int(value) for value in place[:2] * scale + np.array(SIZE) / 2)
    cv2.circle(picture, (x, y), radius, colour, -1, cv2.LINE_AA)


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the matches of two photographs and the model of a job.")
    parser.add_argument("images", type=Path)
    parser.add_argument("output", type=Path, help="output folder of the job")
    parser.add_argument("picture", type=Path)
    arguments = parser.parse_args()
    layout = Layout(arguments.output)
    names = list_images(arguments.images).names
    middle = len(names) // 2
    row = [
        *matches_drawn(arguments.images, layout, (names[middle - 1], names[middle + 1])),
        model_drawn(layout),
    ]
    picture = cv2.cvtColor(np.hstack(row), cv2.COLOR_RGB2BGR)
    cv2.imwrite(str(arguments.picture), picture, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])


if __name__ == "__main__":
    main()
