"""Compare a model with the GPS positions of its photographs, and align it to them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from romacli.colmap.access import reading
from romacli.colmap.binding import load_pycolmap
from romacli.colmap.poses import Similarity, align_similarity, load_model, read_poses
from romacli.disk import move_in, scratch_folder
from romacli.errors import NothingFoundError
from romacli.geometry.globe import Position, east_north_up, position_fault

GEOREFERENCE = "georeference.json"
# A similarity fits any two positions.
FEWEST_POSITIONS = 3
_ROUNDS = 30
_WGS84 = 0


@dataclass(frozen=True)
class GpsFit:
    """Distances of a model's cameras from their GPS positions after alignment by the best similarity.

    residuals_m: distance in m by image name. to_metres: from the model's frame to m east, north and up of `origin`
    (latitude, longitude, altitude in degrees and m). extent_m: diagonal of the bounding box of the positions; width_m:
    their RMS distance from the best-fitting line.
    """

    residuals_m: Mapping[str, float]
    extent_m: float
    width_m: float
    origin: Position
    to_metres: Similarity

    @property
    def median_m(self) -> float:
        return float(np.median(list(self.residuals_m.values())))

    @property
    def worst(self) -> str:
        """The image with the largest residual."""
        return max(self.residuals_m, key=lambda name: self.residuals_m[name])

    @property
    def largest_m(self) -> float:
        return self.residuals_m[self.worst]

    def __str__(self) -> str:
        return (
            f"the model agrees with the GPS positions of {len(self.residuals_m)} photographs to {self.median_m:.2f} m "
            f"(median), {self.largest_m:.2f} m at most ({self.worst}), over an extent of {self.extent_m:.1f} m"
        )


def fit_gps(centres: Mapping[str, np.ndarray], gps: Mapping[str, Position]) -> GpsFit | None:
    """Compare camera centres with GPS positions; None if fewer than three images have both, or all coincide.

    Outlying positions are down-weighted, so a single wrong one does not affect the others.

    Args:
        centres: (3,) in the model's frame, by image name.
        gps: (latitude, longitude, altitude) in degrees and m, by image name.
    """
    names = sorted(centres.keys() & gps.keys())
    if len(names) < FEWEST_POSITIONS:
        return None
    origin = gps[names[0]]
    places = east_north_up(np.array([gps[name] for name in names], float), origin)
    cameras = np.array([centres[name] for name in names], float)
    if not all(np.ptp(points, axis=0).any() for points in (places, cameras)):
        return None
    weights = np.ones(len(names))
    for _ in range(_ROUNDS):
        similarity = align_similarity(cameras, places, weights)
        residuals = np.linalg.norm(similarity.apply(cameras) - places, axis=1)
        weights = 1 / np.maximum(residuals, max(float(np.median(residuals)), 1e-6))
    extent = float(np.linalg.norm(np.ptp(places, axis=0)))
    spread = np.linalg.svd(places - places.mean(axis=0), compute_uv=False)
    return GpsFit(
        residuals_m=dict(zip(names, residuals.tolist(), strict=True)),
        extent_m=extent,
        width_m=float(np.hypot(*spread[1:])) / len(names) ** 0.5,
        origin=origin,
        to_metres=similarity,
    )


def read_gps(database: Path) -> dict[str, Position]:
    """The plausible GPS positions among a database's pose priors, by image name.

    Raises:
        InputError: there is no such file.
        StoreError: it is not a COLMAP database.
    """
    with reading(database) as connection:
        rows = connection.execute(
            "SELECT name, position FROM pose_priors JOIN images ON image_id = corr_data_id "
            "WHERE corr_sensor_type = 0 AND coordinate_system = ?",
            (_WGS84,),
        ).fetchall()
    found = {name: np.frombuffer(position, np.float64).tolist() for name, position in rows}
    return {name: tuple(place) for name, place in found.items() if position_fault(*place) is None}


def compare_with_gps(model_folder: Path, database: Path) -> GpsFit | None:
    """Compare a model with the pose priors of the database it was made from; None if they do not suffice.

    Raises:
        InputError: the folder contains no model.
        StoreError: the file is not a COLMAP database.
    """
    gps = read_gps(database)
    if len(gps) < FEWEST_POSITIONS:
        return None
    return fit_gps({name: pose.centre for name, pose in read_poses(model_folder).items()}, gps)


def georeference(model_folder: Path, database: Path) -> GpsFit:
    """Align a model to the GPS positions of its photographs: m east, north and up of an origin written next to it.

    A georeferenced model is not changed.

    Raises:
        NothingFoundError: the positions do not determine the alignment; the model is not changed.
    """
    fit = compare_with_gps(model_folder, database)
    if fit is None:
        raise NothingFoundError(
            f"{model_folder} is not georeferenced: fewer than {FEWEST_POSITIONS} of its photographs have a GPS "
            "position, or all have the same."
        )
    if fit.width_m <= max(2 * fit.median_m, fit.extent_m / 500):
        raise NothingFoundError(
            f"{model_folder} is not georeferenced: the GPS positions of its photographs lie within {fit.width_m:.1f} m "
            f"of a line, at residuals of {fit.median_m:.1f} m, so that the turn about it is open. Add photographs from "
            "beside the line."
        )
    if (model_folder / GEOREFERENCE).exists():
        return fit
    pycolmap, model = load_pycolmap(), load_model(model_folder)
    turn = pycolmap.Rotation3d(fit.to_metres.rotation)
    model.transform(pycolmap.Sim3d(fit.to_metres.scale, turn, fit.to_metres.translation))
    latitude, longitude, altitude = fit.origin
    origin = {"latitude": latitude, "longitude": longitude, "altitude": altitude}
    with scratch_folder(model_folder.parent) as scratch:
        moved = scratch / model_folder.name
        moved.mkdir()
        model.write(moved)
        text = json.dumps({"frame": "metres east, north and up of the origin", "origin": origin}, indent=1)
        (moved / GEOREFERENCE).write_text(text + "\n", encoding="utf-8")
        move_in(moved, model_folder)
    return fit
