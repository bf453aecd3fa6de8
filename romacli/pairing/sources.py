"""Which photographs are matched with which: the sources of pairs by name, with the files they read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from romacli.colmap.views import View, read_listed_pairs, read_observations, read_views
from romacli.errors import InputError, UsageError
from romacli.geometry.globe import chord_m, to_metres
from romacli.images.listing import list_images
from romacli.images.metadata import read_metadata
from romacli.names import respelled, spelled
from romacli.pairing.gps import believed, named
from romacli.pairs import (
    Frustum,
    RetrievalOptions,
    covisible,
    exhaustive,
    merge,
    posed,
    read_positions,
    retrieve,
    sequential,
    spatial,
)
from romacli.pairs.retrieval import DEFAULT_MATCHED
from romacli.run.progress import Progress
from romacli.types import ImageList, Pair, PairList
from romacli.words import counted

_NAMES_SHOWN = 5
# Without points in a model, things are taken to lie this near and far, in diameters of the cameras' places.
_DEPTHS_WITHOUT_POINTS = (0.1, 1.0)


@dataclass(frozen=True)
class PairingOptions:
    """A source of pairs and what it is asked; each value matters to the sources that read it.

    name: a key of `SOURCES`. overlap ... loop_period: of sequential. retrieval: of retrieval and of loops; its
    num_matched also of poses and covisible. query_list, database_list: files of names, for retrieval.
    positions ... max_num_neighbors: of spatial. reference_model: of poses and covisible, a COLMAP model.
    reference_database, min_inliers: of from-database.
    """

    name: str = "exhaustive"
    retrieval: RetrievalOptions = field(default_factory=RetrievalOptions)
    query_list: Path | None = None
    database_list: Path | None = None
    overlap: int = 5
    quadratic: bool = False
    loop_closure: bool = False
    loop_period: int = 10
    positions: Path | None = None
    cartesian: bool = False
    altitude: bool = False
    # COLMAP's defaults.
    max_distance_m: float = 100.0
    max_num_neighbors: int = 50
    reference_model: Path | None = None
    max_rotation_deg: float = 60.0
    min_frustum_overlap: float = 0.1
    min_shared_points: int = 15
    reference_database: Path | None = None
    min_inliers: int = 15

    @property
    def looks_at_photographs(self) -> bool:
        """Whether the source needs descriptors of the photographs, hence a matcher."""
        return self.name == "retrieval" or (self.name == "sequential" and self.loop_closure)

    def check(self, images: ImageList) -> None:
        """Pass silently when the photographs can give what is asked, before long work begins.

        Raises:
            UsageError: there are too few of them.
            InputError: a list names others.
        """
        if self.name in ("retrieval", "poses", "covisible"):
            self.retrieval.check(len(images))
        for path in (self.query_list, self.database_list):
            if path is not None:
                _names_in(path, images)


@dataclass(frozen=True)
class Described:
    """Descriptors (N, D) float32 of unit length of the images with these names, in natural order."""

    names: tuple[str, ...]
    descriptors: np.ndarray


Describe = Callable[[ImageList], Described]


def choose_pairs(
    images: ImageList, options: PairingOptions, progress: Progress, *, describe: Describe | None = None
) -> PairList:
    """The pairs that a source finds among the photographs of a folder, each in natural order.

    Args:
        describe: gives the descriptors that retrieval compares; needed where `options.looks_at_photographs`.

    Raises:
        UsageError: no such source, or options that make no sense.
        InputError: what the source reads is missing, damaged, or of other photographs; or no pair comes out.
    """
    if options.name not in SOURCES:
        raise UsageError(f"pairing {options.name} is not known. Choose from: {', '.join(SOURCES)}.")
    options.check(images)
    pairs = SOURCES[options.name](images, options, progress, describe)
    if not pairs.pairs:
        raise InputError(
            f"{options.name} pairing found no pair among {counted(len(images), 'photograph')}. {_WIDER[options.name]}"
        )
    paired = {name for pair in pairs.pairs for name in pair}
    if alone := [name for name in images.names if name not in paired]:
        progress.warn(
            f"in no pair: {len(alone)} of {counted(len(images), 'photograph')}, {_first_few(alone)}. "
            f"{_WIDER[options.name]}"
        )
    return pairs


def _exhaustive(images: ImageList, options: PairingOptions, progress: Progress, describe: Describe | None) -> PairList:
    return exhaustive(images.names)


def _sequential(images: ImageList, options: PairingOptions, progress: Progress, describe: Describe | None) -> PairList:
    along = sequential(images.names, overlap=options.overlap, quadratic=options.quadratic)
    if not options.loop_closure:
        return along
    if options.loop_period < 1:
        raise UsageError(f"--loop-period is {options.loop_period}; it counts images and must be at least 1.")
    described = _described(images, describe)
    queries = described.names[:: options.loop_period]
    loops = retrieve(
        described.names, described.descriptors, options.retrieval, queries=queries, min_gap=options.overlap
    )
    merged = merge([along, loops])
    progress.say(f"{counted(merged.added[0], 'pair')} in order, {merged.added[1]} more that may close loops")
    return merged.pairs


def _retrieval(images: ImageList, options: PairingOptions, progress: Progress, describe: Describe | None) -> PairList:
    queries, database = (
        None if path is None else _names_in(path, images) for path in (options.query_list, options.database_list)
    )
    described = _described(images, describe)
    held = set(described.names)
    return retrieve(
        described.names,
        described.descriptors,
        options.retrieval,
        queries=None if queries is None else [name for name in queries if name in held],
        database=None if database is None else [name for name in database if name in held],
    )


def _spatial(images: ImageList, options: PairingOptions, progress: Progress, describe: Describe | None) -> PairList:
    places = np.array(_places(images, options, progress), float)
    if not options.altitude:
        places[:, 2] = 0
    if options.cartesian:
        metres, limit = places, options.max_distance_m
    else:
        metres, limit = to_metres(places), chord_m(options.max_distance_m)
    return spatial(images.names, metres, max_distance_m=limit, max_num_neighbors=options.max_num_neighbors)


def _poses(images: ImageList, options: PairingOptions, progress: Progress, describe: Describe | None) -> PairList:
    folder = _reference_model(options)
    views = respelled(read_views(folder), images.names)
    names = _held(images, views, folder, progress)
    frusta = _frusta([views[name] for name in names], folder, progress)
    return posed(
        names,
        frusta,
        num_matched=_num_matched(options, len(names)),
        max_rotation_deg=options.max_rotation_deg,
        min_frustum_overlap=options.min_frustum_overlap,
    )


def _covisible(images: ImageList, options: PairingOptions, progress: Progress, describe: Describe | None) -> PairList:
    folder = _reference_model(options)
    seen = respelled(read_observations(folder), images.names)
    names = _held(images, seen, folder, progress)
    _, points = np.unique(np.concatenate([seen[name] for name in names]), return_inverse=True)
    image = np.repeat(np.arange(len(names)), [len(seen[name]) for name in names])
    return covisible(
        names,
        np.stack((image, points), axis=1),
        num_matched=_num_matched(options, len(names)),
        min_shared_points=options.min_shared_points,
    )


def _from_database(
    images: ImageList, options: PairingOptions, progress: Progress, describe: Describe | None
) -> PairList:
    if options.reference_database is None:
        raise UsageError("from-database pairing reads a COLMAP database. Name it with --reference-database FILE.")
    listed = read_listed_pairs(options.reference_database, min_inliers=options.min_inliers)
    meant = spelled({name for pair in listed for name in pair}, images.names)
    listed = [(meant.get(a, a), meant.get(b, b)) for a, b in listed]
    names = _held(images, dict.fromkeys(name for pair in listed for name in pair), options.reference_database, progress)
    order = {name: row for row, name in enumerate(names)}
    pairs: list[Pair] = [
        (a, b) if order[a] < order[b] else (b, a) for a, b in listed if a in order and b in order and a != b
    ]
    return PairList(tuple(sorted(dict.fromkeys(pairs), key=lambda pair: (order[pair[0]], order[pair[1]]))))


SOURCES = {
    "exhaustive": _exhaustive,
    "sequential": _sequential,
    "retrieval": _retrieval,
    "spatial": _spatial,
    "poses": _poses,
    "covisible": _covisible,
    "from-database": _from_database,
}
_WIDER = {
    "exhaustive": "Give two or more.",
    "sequential": "Give two or more.",
    "retrieval": "Lower --min-score, or leave out --mutual.",
    "spatial": "Raise --max-distance-m.",
    "poses": "Raise --max-rotation or lower --min-frustum-overlap.",
    "covisible": "Lower --min-shared-points.",
    "from-database": "Give a database of these photographs.",
}


def _described(images: ImageList, describe: Describe | None) -> Described:
    assert describe is not None, "retrieval needs descriptors"
    return describe(images)


def _names_in(path: Path, images: ImageList) -> list[str]:
    """The photographs that a file lists, one a line.

    Raises:
        InputError: it cannot be read, is empty, or names others than the photographs of the job.
    """
    names = list_images(images.root, names_file=path).names
    if strangers := sorted(set(names) - set(images.names)):
        raise InputError(
            f"{path} names photographs that --image-list leaves out: {_first_few(strangers)}. Change one of the lists."
        )
    return list(names)


def _places(images: ImageList, options: PairingOptions, progress: Progress) -> list[tuple[float, float, float]]:
    """A position for every photograph: the file's, or else its EXIF data's.

    Raises:
        InputError: some have none; the message says which.
    """
    known = {} if options.positions is None else read_positions(options.positions, cartesian=options.cartesian)
    known = respelled(known, images.names)
    if unused := len(known.keys() - set(images.names)):
        progress.warn(
            f"{options.positions} has positions of "
            f"{counted(unused, 'other file; it is', 'other files; they are')} left out"
        )
    if options.cartesian and options.positions is None:
        raise UsageError("--cartesian tells how to read a file of positions. Name it with --positions FILE.")
    unknown = [name for name in images.names if name not in known]
    exif = {} if options.cartesian else {name: read_metadata(images.root / name) for name in unknown}
    faults = {name: told.gps_fault for name, told in exif.items() if told.gps_fault is not None}
    gps = {name: told.gps for name, told in exif.items() if told.gps is not None}
    if missing := [name for name in unknown if name not in gps]:
        where = "in its EXIF data" if options.positions is None else f"in {options.positions} or in its EXIF data"
        unbelievable = f"A position that cannot be true counts as none: {named(faults)}. " if faults else ""
        count = "none" if len(missing) == len(images) else f"{len(images) - len(missing)}"
        raise InputError(
            f"{count} of {counted(len(images), 'photograph')} in {images.root} have a position {where}; "
            f"missing for {_first_few(missing)}. {unbelievable}Give them in a file with --positions, or choose "
            "photographs with --image-list."
        )
    known |= believed(gps, {}, len(images), progress) if options.altitude else gps
    return [known[name] for name in images.names]


def _reference_model(options: PairingOptions) -> Path:
    if options.reference_model is None:
        raise UsageError(f"{options.name} pairing reads a COLMAP model. Name its folder with --reference-model DIR.")
    return options.reference_model


def _held(images: ImageList, known: Collection[str], source: Path, progress: Progress) -> list[str]:
    """The photographs that a model or database knows, in natural order.

    Raises:
        InputError: fewer than two.
    """
    held = set(known)
    names = [name for name in images.names if name in held]
    if len(names) < 2:
        raise InputError(
            f"{source} knows {len(names)} of the {counted(len(images), 'photograph')} in {images.root}. "
            f"Its names are such as {min(held, default='none')}, the folder's such as {images.names[0]}. "
            "Give the folder they are relative to."
        )
    if missing := [name for name in images.names if name not in held]:
        progress.warn(
            f"{counted(len(missing), 'photograph is', 'photographs are')} unknown to {source}, so without pairs: "
            f"{_first_few(missing)}"
        )
    if others := len(held - set(names)):
        progress.warn(
            f"{source} knows {counted(others, 'image that is', 'images that are')} not in {images.root}, left out"
        )
    return names


def _num_matched(options: PairingOptions, count: int) -> int:
    options.retrieval.check(count)
    return options.retrieval.num_matched or min(DEFAULT_MATCHED, count - 1)


def _frusta(views: Sequence[View], folder: Path, progress: Progress) -> list[Frustum]:
    centres = np.stack([view.pose.centre for view in views])
    diameter = float(np.linalg.norm(centres.max(axis=0) - centres.min(axis=0))) or 1.0
    without = sum(view.depths is None for view in views)
    if without:
        progress.warn(
            f"{without} images of {folder} see no points; what they show is taken to be between "
            f"{_DEPTHS_WITHOUT_POINTS[0]:g} and {_DEPTHS_WITHOUT_POINTS[1]:g} diameters of the cameras' places away"
        )
    near, far = (share * diameter for share in _DEPTHS_WITHOUT_POINTS)
    return [
        Frustum(view.pose.rotation, view.pose.translation, *view.edges, *(view.depths or (near, far))) for view in views
    ]


def _first_few(names: Sequence[str], count: int = _NAMES_SHOWN) -> str:
    rest = len(names) - count
    return ", ".join(names[:count]) + (f" and {rest} more" if rest > 0 else "")
