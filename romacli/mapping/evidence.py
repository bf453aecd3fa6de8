"""Judge whether a model is plausible, and which of two is better, by the verified matches that its points explain."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from romacli.colmap.access import images_of, open_readonly
from romacli.colmap.cameras import DEFAULT_FOCAL_FACTOR
from romacli.colmap.reading import read_focal_lengths
from romacli.words import counted

from .incremental import ENOUGH
from .supply import measure_supply

# Plausible focal lengths in long sides, and the maximum factor between a known focal length and the refined one.
_FOCAL_PER_SIDE, _MOST_FACTOR = (0.2, 5.0), 1.6
# Maximum plausible displacement of a corner by the first distortion term, relative to its radius.
_MOST_DISTORTION = 0.5
# Maximum relative difference of a model's focal length from the one that others have of the same camera.
_MOST_OFF = 0.05


@dataclass(frozen=True)
class Attempt:
    """The result of one mapper on `images`: images of its largest model, sizes of the others, doubts about it.

    evidence: sum over all images of the share of their verified matches that the largest model's points explain.
    """

    mapper: str
    images: int
    registered: int = 0
    others: tuple[int, ...] = ()
    doubts: tuple[str, ...] = ()
    evidence: float = 0.0
    is_kept: bool = False

    @property
    def ran_away(self) -> bool:
        """Whether a camera of the largest model is implausible."""
        return any("ran away" in doubt for doubt in self.doubts)

    def __str__(self) -> str:
        others = f" and {counted(len(self.others), 'smaller model')}" if self.others else ""
        against = f" ({'; '.join(self.doubts)})" if self.doubts else ""
        end = ", kept" if self.is_kept else ""
        return f"{self.mapper}: {self.registered} of {counted(self.images, 'image')}{others}{against}{end}"


def judge(mapper: str, models: Mapping[int, Any], database: Path) -> Attempt:
    """Judge the models of a database, which is not changed."""
    supply = measure_supply(database)
    if not models:
        return Attempt(mapper, supply.images, doubts=("no model",))
    largest, *others = sorted(models.values(), key=lambda model: model.num_reg_images(), reverse=True)
    registered = largest.num_reg_images()
    doubts = [*_runaways(largest, database)]
    if registered < ENOUGH * supply.connected:
        doubts.append(f"{supply.connected - registered} of {supply.connected} connected images not registered")
    evidence = _evidence(largest, database)
    sizes = tuple(model.num_reg_images() for model in others)
    return Attempt(mapper, supply.images, registered, sizes, tuple(doubts), evidence)


def better(one: Attempt, other: Attempt) -> bool:
    """Whether an attempt's largest model has more evidence than another's; models with runaway cameras rank last."""
    return _weight(one) > _weight(other)


def find_at_odds(models: Mapping[int, Any]) -> list[int]:
    """The models whose focal length of a camera is not the one that two or more others agree on.

    Models of separate parts of a scene estimate the focal length of their camera independently; one built from matches
    of places that only look alike arrives at another. The usual one is the median over the images of all models. A
    camera counts where it took half of a model's images or more: a few, as of a flat wall, may not determine it.
    """
    focals: dict[int, list[tuple[float, int, int]]] = {}
    for index, model in models.items():
        counts = Counter(model.images[image].camera_id for image in model.reg_image_ids())
        for camera, count in counts.items():
            if 2 * count >= model.num_reg_images():
                focals.setdefault(camera, []).append((model.cameras[camera].mean_focal_length(), count, index))
    found = set[int]()
    for told in focals.values():
        of_images = np.sort(np.repeat([focal for focal, _, _ in told], [count for _, count, _ in told]))
        usual = of_images[len(of_images) // 2]
        off = {index for focal, _, index in told if abs(focal - usual) > _MOST_OFF * usual}
        if len(told) - len(off) > 1:
            found |= off
    return sorted(found)


def _weight(attempt: Attempt) -> tuple[bool, float]:
    return attempt.registered > 0 and not attempt.ran_away, attempt.evidence


def _runaways(model: Any, database: Path) -> Iterable[str]:
    """A sentence for each camera that is implausible, or whose known focal length changed too much."""
    start, images = read_focal_lengths(database), Counter(image.camera_id for image in model.images.values())
    for number, camera in model.cameras.items():
        side, focal = max(camera.width, camera.height), float(camera.mean_focal_length())
        if not focal:  # a spherical panorama
            continue
        was, is_known = start.get(number, (focal, False))
        # That of a single photograph may be a guess from all pairs, off by a factor of 2.
        is_known = is_known or (images[number] > 1 and abs(was / side / DEFAULT_FOCAL_FACTOR - 1) > 1e-3)
        low, high = (was / _MOST_FACTOR, was * _MOST_FACTOR) if is_known else (side * most for most in _FOCAL_PER_SIDE)
        if not low <= focal <= high:
            yield f"the focal length of camera {number} ran away, from {was:.0f} to {focal:.0f} px"
        extra = [camera.params[index] for index in camera.extra_params_idxs()]
        if extra and "FISHEYE" not in camera.model.name:
            corner = (camera.width**2 + camera.height**2) / (2 * focal) ** 2
            if abs(extra[0]) * corner > _MOST_DISTORTION:
                yield f"the distortion of camera {number} ran away, to {extra[0]:.2f}"


def _evidence(model: Any, database: Path) -> float:
    """The sum over images of the share of their verified matches whose ends observe one point of a model."""
    with closing(open_readonly(database)) as connection:
        counts = dict(connection.execute("SELECT image_id, rows FROM keypoints"))
        rows = connection.execute("SELECT pair_id, rows, data FROM two_view_geometries WHERE rows > 0").fetchall()
    points = {image: np.full(count, -1, np.int64) for image, count in counts.items()}
    for number, point in model.points3D.items():
        for element in point.track.elements:
            points[element.image_id][element.point2D_idx] = number
    all_matches, held = dict.fromkeys(counts, 0), dict.fromkeys(counts, 0)
    for pair_id, count, data in rows:
        first, second = images_of(pair_id)
        matches = np.frombuffer(data, np.uint32).reshape(count, 2)
        seen = points[first][matches[:, 0]]
        agreeing = int(((seen >= 0) & (seen == points[second][matches[:, 1]])).sum())
        for image in (first, second):
            all_matches[image] += count
            held[image] += agreeing
    return sum(held[image] / count for image, count in all_matches.items() if count)
