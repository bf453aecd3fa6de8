"""Find points of one photograph in others: semantically in one other image, or in the frames of a video.

Each photograph is compared only with the first, so errors do not accumulate.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from romacli.disk import check_writable, read_lines, settle, unwritable, write_whole
from romacli.errors import ImageError, InputError, UsageError
from romacli.geometry.coordinates import from_colmap_pixels, to_colmap_pixels
from romacli.geometry.turns import turn_points, turn_points_back, turn_size
from romacli.images.listing import list_images
from romacli.images.upright import read_upright
from romacli.matchers.describers.sparse import MapDescriber, SparseMatcher
from romacli.matchers.matcher import DenseMatcher, Matcher
from romacli.networks.matcha import soft_targets
from romacli.types import Features, Size

# A point is visible if matching it there and back ends within this fraction of the long side.
MAX_CYCLE = 0.03
_COLOURS = 12
_FRAMES_PER_S = 10.0  # of a drawn video


@dataclass(frozen=True)
class Found:
    """Points found in another photograph.

    xy: (N, 2) COLMAP pixels; scores: (N,), cosine of the descriptors or certainty of the warp; visible: (N,) bool,
    whether matching back returns to the start.
    """

    xy: np.ndarray
    scores: np.ndarray
    visible: np.ndarray


@dataclass(frozen=True)
class Frame:
    """A photograph, RGB uint8 (H, W, 3), rotated upright by clockwise quarter turns from its pixels as stored."""

    image: np.ndarray
    turns: int = 0

    @property
    def stored_size(self) -> Size:
        """(width, height) in px before the rotation."""
        return turn_size((self.image.shape[1], self.image.shape[0]), self.turns)

    def upright(self, points: np.ndarray) -> np.ndarray:
        """Convert points (N, 2) of the image as stored to the upright one."""
        return turn_points(points, self.stored_size, self.turns)

    def as_stored(self, found: Found) -> Found:
        """Convert what was found in the upright image to the image as stored."""
        return replace(found, xy=turn_points_back(found.xy, self.stored_size, self.turns))


@dataclass(frozen=True)
class View:
    """A photograph of a size (width, height) in px, encoded: a map of descriptors or the matcher's features."""

    size: Size
    seen: Tensor | Features

    @property
    def nbytes(self) -> int:
        return self.seen.nbytes


class Finder:
    """Finds points of one photograph in another; both must be upright, or both as stored."""

    def __init__(self, matcher: Matcher, *, semantic: bool) -> None:
        """Take a matcher; semantic: find the same part of another object, if the matcher has semantic descriptors.

        Raises:
            UsageError: the matcher has neither warps nor a descriptor at every pixel.
        """
        describes = isinstance(matcher, SparseMatcher) and isinstance(matcher.describer, MapDescriber)
        if not (describes or isinstance(matcher, DenseMatcher)):
            raise UsageError(
                f"model {matcher.name} only describes its own keypoints. Choose a dense matcher, or matcha."
            )
        self._matcher, self._semantic = matcher, semantic

    def view(self, image: np.ndarray) -> View:
        """Encode an RGB uint8 image (H, W, 3).

        Raises:
            ImageError: the photograph is too small.
        """
        size = image.shape[1], image.shape[0]
        if isinstance(self._matcher, SparseMatcher):
            return View(size, self._matcher.maps(image, semantic=self._semantic))
        return View(size, self._matcher.encode([self._matcher.prepare(image)])[0])

    def find(self, one: View, other: View, points: np.ndarray) -> Found:
        """Find points (N, 2) of one photograph in the other, both in COLMAP pixels.

        Raises:
            InputError: a point lies outside the first photograph.
            UsageError: the matcher does not warp back.
        """
        outside = np.flatnonzero(((points < 0) | (points > one.size)).any(axis=1))
        if len(outside):
            (x, y), (width, height) = points[outside[0]], one.size
            raise InputError(
                f"point {outside[0] + 1} at {x:g} {y:g} lies outside the photograph of {width}x{height} px."
            )
        points = points.astype(np.float32)
        if isinstance(self._matcher, SparseMatcher):
            xy, scores = self._carried(one, other, points)
            back, _ = self._carried(other, one, xy)
        else:
            xy, scores, back = self._warped(one, other, points)
        inside = ((xy >= 0) & (xy <= other.size)).all(axis=1)
        cycle = np.linalg.norm(back - points, axis=1)
        return Found(xy, scores, inside & (cycle <= MAX_CYCLE * max(one.size)))

    @torch.inference_mode()
    def _carried(self, one: View, other: View, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Match points by descriptor maps: their positions in the other image, and the cosines there."""
        assert isinstance(self._matcher, SparseMatcher)
        assert isinstance(self._matcher.describer, MapDescriber)
        assert isinstance(one.seen, Tensor)
        assert isinstance(other.seen, Tensor)
        source, target = one.seen[0], other.seen[0]
        height, width = source.shape[-2:]
        cells = np.clip((points / one.size * (width, height)).astype(int), 0, (width - 1, height - 1))
        queries = source[:, cells[:, 1], cells[:, 0]].T
        found = soft_targets(queries, target)
        nearest = found.round().long()
        scores = (queries * target[:, nearest[:, 1], nearest[:, 0]].T).sum(1)
        xy = (found.cpu().numpy() + self._matcher.describer.cell_middle) / target.shape[:0:-1] * other.size
        return xy.astype(np.float32), scores.cpu().numpy()

    @torch.inference_mode()
    def _warped(self, one: View, other: View, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Warp points: their positions, the certainties there, and where the backward warp leads from there."""
        assert isinstance(self._matcher, DenseMatcher)
        assert isinstance(one.seen, Features)
        assert isinstance(other.seen, Features)
        match = self._matcher.warp([(one.seen, other.seen)])[0]
        if match.warp_BA is None:
            raise UsageError(f"model {self._matcher.name} only warps in one direction; points need both.")
        places = from_colmap_pixels(torch.from_numpy(points), one.size).to(match.warp_AB.device)
        there = _at(match.warp_AB, places)
        scores = _at(match.certainty_AB[..., None], places)[:, 0]
        back = _at(match.warp_BA, there)
        pixels = [
            to_colmap_pixels(each.cpu(), of).numpy().astype(np.float32)
            for each, of in ((there, other.size), (back, one.size))
        ]
        return pixels[0], scores.cpu().numpy(), pixels[1]


def _at(fields: Tensor, places: Tensor) -> Tensor:
    """Sample fields (H, W, C) at normalised points (N, 2)."""
    maps = fields.permute(2, 0, 1)[None].float()
    return F.grid_sample(maps, places[None, None].float(), padding_mode="border", align_corners=False)[0, :, 0].T


def transfer(matcher: Matcher, one: Path, other: Path, points: np.ndarray) -> Found:
    """Find points (N, 2) of a photograph in another, both in COLMAP pixels of the images as stored.

    Uses semantic descriptors if the matcher has them.

    Raises:
        InputError: a point lies outside, or (ImageError) a photograph cannot be read.
        UsageError: see `Finder`.
    """
    source = Frame(*read_upright(one))
    finder = Finder(matcher, semantic=True)
    first = finder.view(source.image)
    target = Frame(*read_upright(other))
    return target.as_stored(finder.find(first, finder.view(target.image), source.upright(points)))


def frames(source: Path) -> Iterator[Frame | ImageError]:
    """The frames of a video, or the photographs of a folder in order, or the error for one.

    Raises:
        InputError: the source does not exist or cannot be decoded.
    """
    if source.is_dir():
        for name in list_images(source).names:
            try:
                yield Frame(*read_upright(source / name))
            except ImageError as error:
                yield error
        return
    if not source.is_file():
        raise InputError(f"{source} does not exist. Give a video or a folder of photographs.")
    film = cv2.VideoCapture(str(source))
    try:
        count = 0
        while (read := film.read())[0]:
            count += 1
            yield Frame(cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB))
        if count == 0:
            raise InputError(f"{source} cannot be decoded as a video. Convert it, or give a folder of its frames.")
    finally:
        film.release()


def read_points(path: Path) -> np.ndarray:
    """Read points (N, 2) from a file with x and y of one point per line, separated by a comma or blanks.

    A header line is skipped.

    Raises:
        InputError: the file does not exist, contains no points, or has a malformed line.
    """
    points = []
    for number, line in read_lines(path, "a text file with x and y of one point per line"):
        words = line.replace(",", " ").split()
        if not words:  # an empty row of a spreadsheet
            continue
        try:
            x, y = map(float, words[:2])
        except ValueError:
            if number == 1:
                continue
            raise InputError(f"{path} line {number} is not a point: {line}. Write x and y in px.") from None
        if not np.isfinite([x, y]).all():
            raise InputError(f"{path} line {number} is not a point: {line}. Write x and y in px.")
        points.append((x, y))
    if not points:
        raise InputError(f"{path} contains no points. Write x and y of one point per line.")
    return np.array(points, np.float64)


HEADER = ("frame", "point", "x", "y", "score", "visible")


def rows_of(frame: int, found: Found) -> list[tuple[str, ...]]:
    """One table row per point; frames and points count from 0."""
    return [
        (str(frame), str(point), f"{x:.3f}", f"{y:.3f}", f"{score:.4f}", str(int(visible)))
        for point, ((x, y), score, visible) in enumerate(zip(found.xy, found.scores, found.visible, strict=True))
    ]


def write_table(path: Path, rows: Sequence[tuple[str, ...]]) -> None:
    """Write a CSV file atomically."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([HEADER, *rows])
    write_whole(path, text.getvalue())


class Overlay:
    """Frames with the points drawn on them: a video if the path ends in .mp4, else images in a folder."""

    def __init__(self, path: Path) -> None:
        """Take a place.

        Raises:
            UsageError: it is a file of another kind.
            StoreError: it cannot be written to.
        """
        if path.suffix.lower() not in ("", ".mp4") and not path.is_dir():
            raise UsageError(
                f"--overlay {path} ends in {path.suffix}, but videos are written as .mp4. Give a name that ends in "
                ".mp4, or a folder whose name has no dot."
            )
        self._path = path
        self._film: cv2.VideoWriter | None = None
        self._is_film = path.suffix.lower() == ".mp4"
        check_writable(path if self._is_film else path / "000000.jpg", "--overlay")

    def add(self, frame: int, image: np.ndarray, found: Found) -> None:
        """Draw visible points as discs and the others as circles.

        Raises:
            InputError: the video cannot be written.
        """
        picture = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        radius = max(3, round(max(picture.shape) / 200))
        for point, ((x, y), visible) in enumerate(zip(found.xy, found.visible, strict=True)):
            hue = np.array([[[180 * (point % _COLOURS) // _COLOURS, 255, 255]]], np.uint8)
            colour = tuple(map(int, cv2.cvtColor(hue, cv2.COLOR_HSV2BGR)[0, 0]))
            cv2.circle(picture, (round(float(x)), round(float(y))), radius, colour, -1 if visible else 1, cv2.LINE_AA)
        if not self._is_film:
            write_whole(self._path / f"{frame:06d}.jpg", cv2.imencode(".jpg", picture)[1].tobytes(), "--overlay")
            return
        if self._film is None:
            self._shape = picture.shape
            size = picture.shape[1], picture.shape[0]
            self._film = cv2.VideoWriter(str(self._path), cv2.VideoWriter.fourcc(*"mp4v"), _FRAMES_PER_S, size)
            if not self._film.isOpened():
                raise InputError(f"{self._path} cannot be written as a video. Give --overlay a folder.")
        self._film.write(cv2.resize(picture, (self._shape[1], self._shape[0])))

    def close(self) -> None:
        """Finish the video.

        Raises:
            StoreError: there was no room for it.
        """
        if self._film is not None:
            self._film.release()
            try:
                settle(self._path)
            except OSError as error:
                raise unwritable(self._path, error, num_bytes=0, option="--overlay") from error
