"""From a verified database to COLMAP models: the mapper's options, its run, and models moved in whole.

Knows databases and folders of models; who made the matches is none of its business.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from romacli.errors import InputError, NothingFoundError, StoreError

from .binding import load_pycolmap
from .database import open_readonly
from .scratch import scratch_folder
from .verify import MAPPED_CONFIGS

MODEL_FILES = {
    f"{name}.{kind}" for name in ("cameras", "images", "points3D", "rigs", "frames") for kind in ("bin", "txt")
} | {"project.ini", "points3D.ply"}


@dataclass(frozen=True)
class MapperOptions:
    """How a model is made. `refine_intrinsics` off keeps every camera of the database as it is."""

    mapper: Literal["incremental", "global"] = "incremental"
    refine_intrinsics: bool = True
    # COLMAP keeps no smaller model, but never asks for more than half of the images.
    min_model_size: int = 10
    seed: int = 0
    num_threads: int | None = None
    verbose: bool = False

    @property
    def threads(self) -> int:
        return self.num_threads or os.cpu_count() or 1


@dataclass(frozen=True)
class ReconstructionSummary:
    """The largest model of a reconstruction and how many there are; the error is in px."""

    images: int
    registered: int
    points3D: int
    observations: int
    mean_track_length: float
    mean_reprojection_error: float
    models: int


@dataclass(frozen=True)
class _Content:
    """What a database offers a mapper; pairs without F keep COLMAP from calibrating cameras by them."""

    images: int
    guessed_cameras: int
    pairs: int
    pairs_without_F: int
    usable_pairs: int


def reconstruct(
    database: Path,
    image_root: Path,
    sparse_folder: Path,
    options: MapperOptions = MapperOptions(),
    *,
    progress: Callable[[int], None] | None = None,
) -> ReconstructionSummary:
    """Write the models of a database to `sparse_folder`/0, 1, ..., largest first, and sum the largest up.

    The database is copied first and stays as it is. Models that lay in the folder are replaced, once the new
    ones are complete.

    Args:
        image_root: the folder of the photographs, for the colours of the points.
        progress: called with the number of images that were just placed; by the incremental mapper only. One
            that is given up and placed again counts twice.

    Raises:
        InputError: there is no folder of photographs, or no database.
        NothingFoundError: no pair is verified, or no model came out.
        StoreError: `sparse_folder` holds something other than models, or cannot be written.
    """
    if not image_root.is_dir():
        raise InputError(f"{image_root} is missing. Give the folder of the photographs.")
    check_holds_models_only(sparse_folder)
    content = _read_content(database)
    _check_pairs(database, content)
    # A copy of the database, and models that hold less than it.
    with scratch_folder(sparse_folder, num_bytes=2 * database.stat().st_size) as scratch:
        copy, output, models = (scratch / name for name in ("database.db", "mapped", "models"))
        _copy_database(database, copy)
        output.mkdir()
        if options.mapper == "incremental":
            found = _map_incrementally(copy, image_root, output, options, content, progress)
        else:
            found = _map_globally(copy, image_root, output, options, content)
        ranked = sorted(found, key=lambda index: _rank(found[index]), reverse=True)
        if not ranked:
            raise NothingFoundError(
                f"the {options.mapper} mapper found no model in {content.usable_pairs} verified pairs of "
                f"{content.images} images. {_advice(options)}"
            )
        models.mkdir()
        for place, index in enumerate(ranked):
            (output / str(index)).rename(models / str(place))
        _move_in(models, sparse_folder, scratch / "replaced")
    return _summarise(found[ranked[0]], content.images, len(ranked))


def check_holds_models_only(sparse_folder: Path) -> None:
    """Return if a folder is missing, empty or holds numbered COLMAP models alone, so that it may be replaced.

    Raises:
        StoreError: there is something else in it, or it is a file.
    """
    if not sparse_folder.exists():
        return
    if not sparse_folder.is_dir():
        raise StoreError(f"{sparse_folder} is a file; the models need a folder of that name. Move it away.")
    for path in sorted(sparse_folder.iterdir()):
        is_model = path.is_dir() and path.name.isdigit() and {one.name for one in path.iterdir()} <= MODEL_FILES
        if not is_model:
            raise StoreError(f"{path} is no COLMAP model and would be lost with the old models. Move it away.")


def _map_incrementally(
    database: Path,
    image_root: Path,
    output: Path,
    options: MapperOptions,
    content: _Content,
    progress: Callable[[int], None] | None,
) -> Mapping[int, Any]:
    """COLMAP's incremental mapper, which looks at signals now and then and so ends at Ctrl-C by itself."""
    pycolmap = load_pycolmap(verbose=options.verbose)
    chosen = pycolmap.IncrementalPipelineOptions(
        num_threads=options.threads,
        random_seed=options.seed,
        min_model_size=min(options.min_model_size, content.images),
        ba_refine_focal_length=options.refine_intrinsics,
        ba_refine_extra_params=options.refine_intrinsics,
    )
    chosen.mapper.abs_pose_refine_focal_length = options.refine_intrinsics
    chosen.mapper.abs_pose_refine_extra_params = options.refine_intrinsics
    # With two images every track has two views, and ignoring those leaves nothing.
    chosen.triangulation.ignore_two_view_tracks = content.images > 2
    placed = progress or (lambda _: None)
    return pycolmap.incremental_mapping(
        database,
        image_root,
        output,
        options=chosen,
        initial_image_pair_callback=lambda: placed(2),
        next_image_callback=lambda: placed(1),
    )


def _map_globally(
    database: Path, image_root: Path, output: Path, options: MapperOptions, content: _Content
) -> Mapping[int, Any]:
    """COLMAP's global mapper (GLOMAP), after its own calibration where focal lengths are guesses."""
    pycolmap = load_pycolmap(verbose=options.verbose)
    chosen = pycolmap.GlobalPipelineOptions(num_threads=options.threads, random_seed=options.seed)
    if hasattr(chosen, "min_model_size"):  # since COLMAP 4.2; before, it makes one model of any size
        chosen.min_model_size = min(options.min_model_size, max(2, content.images // 2))
    adjustment = chosen.mapper.bundle_adjustment
    adjustment.refine_focal_length = adjustment.refine_extra_params = options.refine_intrinsics
    if content.images == 2:
        chosen.mapper.track_min_num_views_per_track = 2
        chosen.mapper.global_positioning.min_num_view_per_track = 2
        adjustment.min_track_length = 2
        chosen.mapper.retriangulation.ignore_two_view_tracks = False
    with _signals_end_the_process():
        if content.guessed_cameras and not content.pairs_without_F and options.refine_intrinsics:
            pycolmap.calibrate_view_graph(database)
        return pycolmap.global_mapping(database, image_root, output, options=chosen)


@contextmanager
def _signals_end_the_process() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the process at once while native code runs that never looks at signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, signal.SIG_DFL) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _read_content(database: Path) -> _Content:
    if not database.is_file():
        raise InputError(f"{database} is missing. Make it with romacli colmap-import.")
    try:
        with closing(open_readonly(database)) as connection:
            counts = [
                int(connection.execute(sql).fetchone()[0])
                for sql in (
                    "SELECT count(*) FROM images",
                    "SELECT count(*) FROM cameras WHERE prior_focal_length = 0",
                    "SELECT count(*) FROM two_view_geometries WHERE rows > 0",
                    "SELECT count(*) FROM two_view_geometries WHERE rows > 0 AND F IS NULL",
                    f"SELECT count(*) FROM two_view_geometries WHERE rows > 0 AND config IN {MAPPED_CONFIGS}",
                )
            ]
    except sqlite3.DatabaseError as error:
        raise InputError(f"{database} cannot be read as a COLMAP database: {error}.") from error
    return _Content(*counts)


def _check_pairs(database: Path, content: _Content) -> None:
    if content.usable_pairs:
        return
    if content.pairs:
        raise NothingFoundError(
            f"{database} has {content.pairs} pairs, but their geometries have no configuration, and COLMAP ignores "
            "such pairs. Verify the matches: romacli colmap-import does."
        )
    raise NothingFoundError(
        f"{database} has {content.images} images, but no verified pair. "
        "Look at the pairs and the overlap of the photographs, or lower --min-inliers."
    )


def _copy_database(source: Path, target: Path) -> None:
    """Copy a database as it stands, even while another program writes; pycolmap would migrate the original."""
    with closing(open_readonly(source)) as reader, closing(sqlite3.connect(target)) as writer:
        reader.backup(writer)


def _rank(model: Any) -> tuple[int, int]:
    return model.num_reg_images(), model.num_points3D()


def _advice(options: MapperOptions) -> str:
    if options.mapper == "global":
        return "Try --mapper incremental, or more pairs."
    return "The photographs may overlap too little, or all be taken from one place; try more pairs."


def _move_in(models: Path, sparse_folder: Path, replaced: Path) -> None:
    """Put the folder of models into its place; what was there goes into `replaced`."""
    if sparse_folder.exists():
        sparse_folder.rename(replaced)
    models.rename(sparse_folder)


def _summarise(model: Any, images: int, models: int) -> ReconstructionSummary:
    return ReconstructionSummary(
        images=images,
        registered=model.num_reg_images(),
        points3D=model.num_points3D(),
        observations=model.compute_num_observations(),
        mean_track_length=model.compute_mean_track_length(),
        mean_reprojection_error=model.compute_mean_reprojection_error(),
        models=models,
    )
