"""Photographs taken near each other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np

from romacli.errors import InputError, UsageError
from romacli.geometry.globe import chord_m, to_metres
from romacli.names import respelled
from romacli.options import Option
from romacli.pairing.gps import believed, named
from romacli.pairing.source import Request, Source
from romacli.pairs.positions import read_positions
from romacli.pairs.spatial import spatial
from romacli.types import PairList
from romacli.words import counted, counted_of, first_few


@dataclass(frozen=True)
class SpatialOptions:
    """Pair images taken near each other, by GPS positions from their EXIF data or a file.

    Distances are geodesic, correct across the poles and the date line.
    """

    positions: Annotated[
        Path | None,
        Option(
            "Positions: a name, latitude, longitude and optionally height per line. They take precedence over EXIF "
            "data.",
            "FILE",
        ),
    ] = None
    cartesian: Annotated[bool, Option("The file holds x, y, z in m instead of degrees.")] = False
    altitude: Annotated[bool, Option("Include the height, which GPS measures less precisely.")] = False
    # COLMAP's defaults.
    max_distance_m: Annotated[float, Option("Maximum distance between the images of a pair, in m.", min=0)] = 100.0
    max_num_neighbors: Annotated[
        int, Option("Number of nearest images each image is paired with. More take longer.", min=1)
    ] = 50


def find(options: SpatialOptions, request: Request) -> PairList:
    places = np.array(_places(options, request), float)
    if not options.altitude:
        places[:, 2] = 0
    if options.cartesian:
        metres, limit = places, options.max_distance_m
    else:
        metres, limit = to_metres(places), chord_m(options.max_distance_m)
    return spatial(request.images.names, metres, max_distance_m=limit, max_num_neighbors=options.max_num_neighbors)


def _places(options: SpatialOptions, request: Request) -> list[tuple[float, float, float]]:
    """A position for every photograph, from the file or else from its EXIF data."""
    from romacli.images.metadata import read_metadata

    images, progress = request.images, request.progress
    known = {} if options.positions is None else read_positions(options.positions, cartesian=options.cartesian)
    known = respelled(known, images.names)
    if unused := len(known.keys() - set(images.names)):
        progress.warn(
            f"{options.positions} has positions of "
            f"{counted(unused, 'other file; it is', 'other files; they are')} left out"
        )
    if options.cartesian and options.positions is None:
        raise UsageError("--cartesian applies to a file of positions. Give it with --positions FILE.")
    unknown = [name for name in images.names if name not in known]
    exif = {} if options.cartesian else {name: read_metadata(images.root / name) for name in unknown}
    faults = {name: told.gps_fault for name, told in exif.items() if told.gps_fault is not None}
    gps = {name: told.gps for name, told in exif.items() if told.gps is not None}
    if missing := [name for name in unknown if name not in gps]:
        where = "in the EXIF data" if options.positions is None else f"in {options.positions} or in the EXIF data"
        unbelievable = f"Implausible positions are ignored: {named(faults)}. " if faults else ""
        raise InputError(
            f"in {images.root}, {counted_of(len(missing), len(images), 'photograph', 'has', 'have')} no position "
            f"{where}: {first_few(missing)}. {unbelievable}Give them in a file with --positions, or choose photographs "
            "with --image-list."
        )
    known |= believed(gps, {}, len(images), progress) if options.altitude else gps
    return [known[name] for name in images.names]


SPATIAL = Source("spatial", SpatialOptions, find, "photos/ --max-distance-m 30", "Raise --max-distance-m.")
