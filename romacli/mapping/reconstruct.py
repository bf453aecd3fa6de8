"""Map a verified database to COLMAP models, which are moved into place complete.

Works on databases and folders of models, independent of how the matches were made.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from romacli.colmap.access import PAIR_BASE, open_readonly, reading
from romacli.colmap.numbers import read_numbers, take_cameras_of
from romacli.colmap.poses import load_model
from romacli.colmap.reading import pair_inliers, read_keypoints
from romacli.colmap.verify import MAPPED_CONFIGS
from romacli.disk import move_in, scratch_folder
from romacli.errors import InputError, NothingFoundError, StoreError
from romacli.names import respelled
from romacli.store.layout import model_folders
from romacli.types import Pair
from romacli.words import counted, first_few

from .evidence import Attempt, find_at_odds, judge
from .georeference import GEOREFERENCE
from .incremental import extend, leave_out_unsupported, write_model
from .mappers import run_mapper
from .options import SMALLEST_GROUP, Content, MapperInput, MapperName, MapperOptions
from .standpoint import is_from_one_place
from .supply import measure_supply, verified_groups, what_lacks

_SAME_PX = 0.01
# Images with a smaller share of the median number of points leave the model: hardly anything supports their poses.
_LEAST_OF_USUAL = 0.04
COLMAP_FILES = {
    f"{name}.{kind}" for name in ("cameras", "images", "points3D", "rigs", "frames") for kind in ("bin", "txt")
}
MODEL_FILES = COLMAP_FILES | {"project.ini", "points3D.ply", GEOREFERENCE}


@dataclass(frozen=True)
class ReconstructionSummary:
    """The largest model of a reconstruction, the number of models and the sizes of the others; error in px.

    attempts: a sentence for each mapper that ran: its result, doubts about it, whether it is kept.
    left_out: images that were placed by hardly any points. at_odds: images of models that left because their focal
    length contradicts that of others.
    """

    images: int
    registered: int
    points3D: int
    observations: int
    mean_track_length: float
    mean_reprojection_error: float
    models: int
    others: tuple[int, ...] = ()
    attempts: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    at_odds: tuple[str, ...] = ()

    @property
    def warnings(self) -> list[str]:
        """Sentences on the images left out."""
        found = []
        if self.left_out:
            found.append(
                f"{counted(len(self.left_out), 'image was', 'images were')} placed by hardly any points (too few to be "
                f"registered by, or less than {_LEAST_OF_USUAL:.0%} of the usual number), and left out of the model: "
                f"{first_few(self.left_out)}"
            )
        if self.at_odds:
            found.append(
                f"{counted(len(self.at_odds), 'image was', 'images were')} left out with a model whose focal length "
                "contradicts that of the others, as matches of places that only look alike lead to: "
                f"{first_few(self.at_odds)}. If another lens took them, use --camera-mode per-folder or per-image"
            )
        return found


def reconstruct(
    database: Path,
    image_root: Path,
    sparse_folder: Path,
    options: MapperOptions | None = None,
    *,
    without: Collection[Pair] = (),
    contradicted: Mapping[Pair, np.ndarray] | None = None,
    progress: Callable[[int], None] | None = None,
) -> ReconstructionSummary:
    """Write the models of a database to `sparse_folder`/0, 1, ..., largest first, and summarise the largest.

    The database is copied first and not changed. Models in the folder are replaced once the new ones are complete.
    Models without points do not count.

    Args:
        image_root: the folder of the photographs, for the colours of the points.
        without: pairs of names excluded from mapping; groups that no other pair connects become separate models from
            three images on. contradicted: which inliers (M,) of other pairs are excluded, too.
        progress: called with the number of newly placed images, each counted once, by the incremental mapper only.

    Raises:
        InputError: there is no folder of photographs, or no database.
        NothingFoundError: no pair is verified, no model was found, or the camera only rotated.
        StoreError: `sparse_folder` contains anything but models, or cannot be written.
    """
    options = options or MapperOptions()
    if not image_root.is_dir():
        raise InputError(f"{image_root} is missing. Give the folder of the photographs.")
    check_holds_models_only(sparse_folder)
    content = read_content(database)
    _check_pairs(database, content)
    if options.known_poses is None and is_from_one_place(database):
        raise NothingFoundError(
            f"{image_root} was photographed from one place: a camera that only turns explains nearly all of "
            f"{counted(content.usable_pairs, 'verified pair')}, so nothing has a depth. Take photographs from places "
            "apart, by a tenth of the distance to what they show or more."
        )
    # Copies of the database, one of them thinned and one with all matches, and smaller models.
    with scratch_folder(sparse_folder, num_bytes=4 * database.stat().st_size) as scratch:
        copy, output, models = (scratch / name for name in ("database.db", "mapped", "models"))
        _copy_database(database, copy)
        _exclude(copy, without, contradicted or {})
        options = _for_groups(options, verified_groups(copy), is_reduced=bool(without))
        output.mkdir()
        given = MapperInput(copy, image_root, options, content, progress)
        found, attempts, left_out, disputed = _map(given, output, in_parts=bool(without))
        ranked = sorted(found, key=lambda index: _rank(found[index]), reverse=True)
        if not any(found[index].num_points3D() for index in ranked):
            ran = " and ".join(f"the {attempt.mapper} mapper" for attempt in attempts) or "triangulation"
            raise NothingFoundError(
                f"{ran} found no model in {counted(content.usable_pairs, 'verified pair')} of "
                f"{counted(content.images, 'image')}. "
                f"{what_lacks(measure_supply(database))}"
            )
        models.mkdir()
        for place, index in enumerate(ranked):
            (output / str(index)).rename(models / str(place))
        move_in(models, sparse_folder)
    return summarise([found[index] for index in ranked], content.images, tuple(map(str, attempts)), left_out, disputed)


def _map(
    given: MapperInput, output: Path, *, in_parts: bool
) -> tuple[Mapping[int, Any], tuple[Attempt, ...], tuple[str, ...], tuple[str, ...]]:
    """The models in `output`, the mappers that ran, and the images removed: as hardly any points placed them, and with
    models that contradict others, if pairs are excluded.

    None are removed from models with known poses, or from those of COLMAP's mappers that run unmodified.
    """
    found, attempts = run_mapper(given, output)
    asked = given.options
    if asked.known_poses is not None or asked.settings or asked.mapper not in ("auto", "incremental"):
        return found, attempts, (), ()
    removed = given.left_out
    for index, model in found.items():
        counts = [model.images[image].num_points3D for image in model.reg_image_ids()]
        if weak := leave_out_unsupported(model, _LEAST_OF_USUAL * np.median(counts or [0])):
            write_model(model, output / str(index))
            removed |= set(weak)
    doubted = find_at_odds(found) if in_parts else []
    disputed = _placed([found[index] for index in doubted])
    found = {index: model for index, model in found.items() if index not in doubted}
    if removed or doubted:
        attempts = tuple(
            replace(judge(attempt.mapper, found, given.database), is_kept=True) if attempt.is_kept else attempt
            for attempt in attempts
        )
    placed = _placed(found.values())
    return found, attempts, tuple(sorted(removed - placed - disputed)), tuple(sorted(disputed - placed))


def _placed(models: Iterable[Any]) -> set[str]:
    return {model.images[image].name for model in models for image in model.reg_image_ids()}


def extend_model(
    database: Path,
    image_root: Path,
    folder: Path,
    names: Collection[str],
    options: MapperOptions | None = None,
    *,
    adjusts_all: bool = False,
) -> tuple[list[str], Any]:
    """Add images of a database to the model in a folder, which is replaced atomically; see `extend`.

    Returns:
        The names of the images that were added, and the model.

    Raises:
        InputError: database or model is missing, or the model was not made from the database.
        NothingFoundError: none could be added; the model is not changed.
    """
    content, model = read_content(database), load_model(folder)
    _require_same(model, database, folder)
    with scratch_folder(folder.parent, num_bytes=2 * database.stat().st_size) as scratch:
        copy, written = scratch / "database.db", scratch / folder.name
        _copy_database(database, copy)
        with closing(sqlite3.connect(copy)) as connection, connection:
            take_cameras_of(connection, model)
        given = MapperInput(copy, image_root, options or MapperOptions(), content)
        added = extend(model, given, names, adjusts_all=adjusts_all)
        if not added:
            raise NothingFoundError(
                f"none of {counted(len(names), 'photograph')} sees enough points of {folder}. "
                "Match them with more of its photographs, or rebuild the model with `romacli reconstruct`."
            )
        write_model(model, written)
        if (folder / GEOREFERENCE).exists():
            shutil.copy2(folder / GEOREFERENCE, written)
        move_in(written, folder)
    return added, model


def take_out(
    sparse_folder: Path, names: Collection[str], summary: ReconstructionSummary
) -> tuple[ReconstructionSummary, set[str]]:
    """Remove images from all models of a folder, and models with fewer than two left.

    Models are sorted by size again; the largest must keep at least two images.

    Returns:
        The new summary, and the names of all images that left: those of a rig's frame leave together.
    """
    models = [load_model(folder) for folder in model_folders(sparse_folder)]
    before = _placed(models)
    for model in models:
        for frame in {image.frame_id for image in model.images.values() if image.has_pose and image.name in names}:
            model.deregister_frame(frame)
    ranked = sorted((model for model in models if model.num_reg_images() > 1), key=_rank, reverse=True)
    with scratch_folder(sparse_folder, num_bytes=0) as scratch:
        for place, model in enumerate(ranked):
            write_model(model, scratch / "models" / str(place))
        move_in(scratch / "models", sparse_folder)
    left = summarise(ranked, summary.images, summary.attempts, summary.left_out, summary.at_odds)
    return left, before - _placed(ranked)


def _require_same(model: Any, database: Path, folder: Path) -> None:
    """Check that a database has the images of a model with the same ids and keypoints.

    Raises:
        InputError: it does not.
    """
    names = {image.name: image for image in model.images.values() if image.has_pose}
    numbers, keypoints = read_numbers(database, names).images, read_keypoints(database)
    for name, image in names.items():
        places = np.array([point.xy for point in image.points2D], np.float32).reshape(-1, 2)
        found = keypoints.get(name, np.zeros((0, 2), np.float32))
        if (
            numbers.get(name) != image.image_id
            or found.shape != places.shape
            or np.abs(found - places).max(initial=0) > _SAME_PX
        ):
            raise InputError(
                f"{folder} was not made of {database}: {name} has other keypoints or another number there. Rebuild the "
                "model with `romacli reconstruct`."
            )


def check_holds_models_only(sparse_folder: Path) -> None:
    """Check that a folder is missing, empty or contains only numbered COLMAP models, so that it may be replaced.

    Raises:
        StoreError: it contains something else, or is a file.
    """
    if not sparse_folder.exists():
        return
    if not sparse_folder.is_dir():
        raise StoreError(f"{sparse_folder} is a file; the models need a folder of that name. Move it away.")
    for path in sorted(sparse_folder.iterdir()):
        is_model = path.is_dir() and path.name.isdigit() and {one.name for one in path.iterdir()} <= MODEL_FILES
        if not is_model:
            raise StoreError(f"{path} is no COLMAP model and would be lost with the old models. Move it away.")


def read_content(database: Path) -> Content:
    """Count the contents of a database that matter to a mapper.

    Raises:
        InputError: there is none.
        StoreError: it is not a COLMAP database.
    """
    counts = (
        "SELECT count(*) FROM images",
        "SELECT count(*) FROM cameras WHERE prior_focal_length = 0",
        "SELECT count(*) FROM two_view_geometries WHERE rows > 0",
        "SELECT count(*) FROM two_view_geometries WHERE rows > 0 AND F IS NULL",
        f"SELECT count(*) FROM two_view_geometries WHERE rows > 0 AND config IN {MAPPED_CONFIGS}",
    )
    with reading(database) as connection:
        return Content(*(int(connection.execute(sql).fetchone()[0]) for sql in counts))


def _check_pairs(database: Path, content: Content) -> None:
    if content.usable_pairs:
        return
    if content.pairs:
        raise NothingFoundError(
            f"{database} has {content.pairs} pairs, but their geometries have no configuration, and COLMAP ignores "
            "such pairs. Verify the matches: romacli colmap-import does."
        )
    raise NothingFoundError(
        f"{database} has {counted(content.images, 'image')}, but no verified pair. "
        f"{what_lacks(measure_supply(database))}"
    )


def _copy_database(source: Path, target: Path) -> None:
    """Copy a database consistently, even while another program writes; pycolmap would migrate the original."""
    with closing(open_readonly(source)) as reader, closing(sqlite3.connect(target)) as writer:
        reader.backup(writer)


def _exclude(database: Path, pairs: Collection[Pair], contradicted: Mapping[Pair, np.ndarray]) -> None:
    """Remove the geometries of pairs of names from a database, and inliers of others, by (M,) bool of each.

    Raises:
        NothingFoundError: no geometry is left.
    """
    with closing(sqlite3.connect(database)) as connection:
        ids = _pair_ids(connection, pairs).values()
        connection.executemany("DELETE FROM two_view_geometries WHERE pair_id = ?", [(pair_id,) for pair_id in ids])
        for pair, pair_id in _pair_ids(connection, contradicted).items():
            left = pair_inliers(connection, pair_id)[~contradicted[pair]]
            connection.execute(
                "UPDATE two_view_geometries SET rows = ?, data = ? WHERE pair_id = ?",
                (len(left), np.ascontiguousarray(left).tobytes(), pair_id),
            )
        connection.commit()
        (count,) = connection.execute("SELECT count(*) FROM two_view_geometries WHERE rows > 0").fetchone()
    if pairs and not count:
        raise NothingFoundError(
            "every verified pair seems to show places that only look alike, so none is left to map. Give "
            "--no-filter to map them all the same."
        )


def _pair_ids(connection: sqlite3.Connection, pairs: Iterable[Pair]) -> dict[Pair, int]:
    """The ids of the pairs of names whose images a database has, however it spells them."""
    listed = list(pairs)
    numbers = {name: number for number, name in connection.execute("SELECT image_id, name FROM images")}
    spelled_here = respelled({name: name for pair in listed for name in pair}, numbers)
    number_of = {name: numbers[here] for here, name in spelled_here.items() if here in numbers}
    ids = {pair: sorted(number_of[name] for name in pair) for pair in listed if number_of.keys() >= set(pair)}
    return {pair: PAIR_BASE * one + other for pair, (one, other) in ids.items()}


def _for_groups(options: MapperOptions, groups: Sequence[int], *, is_reduced: bool) -> MapperOptions:
    """Options for groups of these sizes, without the pairs that connected them if `is_reduced`.

    Small models count where there are several groups. After a reduction the global mapper, which makes one model of
    barely connected groups, runs only on request.
    """
    if is_reduced and options.mapper == MapperName.auto:
        options = replace(options, mapper=MapperName.incremental)
    if is_reduced or sum(size >= SMALLEST_GROUP for size in groups) > 1:
        options = replace(options, min_model_size=min(options.min_model_size, SMALLEST_GROUP))
    return options


def _rank(model: Any) -> tuple[int, int]:
    return model.num_reg_images(), model.num_points3D()


def summarise(
    ranked: Sequence[Any],
    images: int,
    attempts: tuple[str, ...],
    left_out: tuple[str, ...] = (),
    at_odds: tuple[str, ...] = (),
) -> ReconstructionSummary:
    model, *others = ranked
    return ReconstructionSummary(
        images=images,
        registered=model.num_reg_images(),
        points3D=model.num_points3D(),
        observations=model.compute_num_observations(),
        mean_track_length=model.compute_mean_track_length(),
        mean_reprojection_error=model.compute_mean_reprojection_error(),
        models=len(ranked),
        others=tuple(other.num_reg_images() for other in others),
        attempts=attempts,
        left_out=left_out,
        at_odds=at_odds,
    )
