"""COLMAP's mappers and its triangulation, each run on a database of ours that it may change."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from romacli.colmap.binding import load_pycolmap
from romacli.colmap.poses import read_poses
from romacli.names import respelled

from .options import MapperOptions
from .settings import apply_settings


@dataclass(frozen=True)
class Content:
    """What a database offers a mapper; pairs without F keep COLMAP from calibrating cameras by them."""

    images: int
    guessed_cameras: int
    pairs: int
    pairs_without_F: int
    usable_pairs: int


def check_settings(options: MapperOptions) -> None:
    """Return if the mapper has all the options that were set, before there is anything to map.

    Raises:
        UsageError: it lacks one, or a value is of another kind.
    """
    apply_settings(_blank(options), options.settings)


def run_mapper(
    database: Path,
    image_root: Path,
    output: Path,
    options: MapperOptions,
    content: Content,
    progress: Callable[[int], None] | None,
) -> Mapping[int, Any]:
    """The models found, by the name of their folder in `output`; `database` may be changed."""
    if options.known_poses is not None:
        return _triangulate(database, image_root, output, options, content)
    if options.mapper == "hierarchical":
        return _map_hierarchically(database, image_root, output, options, content)
    if options.mapper == "global":
        return _map_globally(database, image_root, output, options, content)
    return _map_incrementally(database, image_root, output, options, content, progress)


def _blank(options: MapperOptions) -> Any:
    """COLMAP's options of the mapper that is asked for, as COLMAP has them."""
    pycolmap = load_pycolmap(verbose=options.verbose)
    if options.known_poses is None and options.mapper == "hierarchical":
        return pycolmap.HierarchicalPipelineOptions()
    if options.known_poses is None and options.mapper == "global":
        return pycolmap.GlobalPipelineOptions()
    return pycolmap.IncrementalPipelineOptions()


def _set_incremental(chosen: Any, options: MapperOptions, content: Content) -> None:
    chosen.num_threads, chosen.random_seed = options.threads, options.seed
    chosen.min_model_size = min(options.min_model_size, content.images)
    chosen.ba_refine_focal_length = chosen.ba_refine_extra_params = options.adjusts_cameras
    chosen.mapper.abs_pose_refine_focal_length = options.adjusts_cameras
    chosen.mapper.abs_pose_refine_extra_params = options.adjusts_cameras
    # With two images every track has two views, and ignoring those leaves nothing.
    chosen.triangulation.ignore_two_view_tracks = content.images > 2


def _map_incrementally(
    database: Path,
    image_root: Path,
    output: Path,
    options: MapperOptions,
    content: Content,
    progress: Callable[[int], None] | None,
) -> Mapping[int, Any]:
    """COLMAP's incremental mapper, which looks at signals now and then and so ends at Ctrl-C by itself."""
    chosen = _blank(options)
    _set_incremental(chosen, options, content)
    apply_settings(chosen, options.settings)
    placed = progress or (lambda _: None)
    return load_pycolmap(verbose=options.verbose).incremental_mapping(
        database,
        image_root,
        output,
        options=chosen,
        initial_image_pair_callback=lambda: placed(2),
        next_image_callback=lambda: placed(1),
    )


def _map_hierarchically(
    database: Path, image_root: Path, output: Path, options: MapperOptions, content: Content
) -> Mapping[int, Any]:
    """COLMAP's hierarchical mapper: the scene in overlapping parts, mapped incrementally and merged."""
    chosen = _blank(options)
    chosen.num_threads = options.threads
    _set_incremental(chosen.incremental_options, options, content)
    apply_settings(chosen, options.settings)
    pycolmap = load_pycolmap(verbose=options.verbose)
    with _signals_end_the_process():
        try:
            return pycolmap.hierarchical_mapping(database, image_root, output, options=chosen)
        except IndexError:  # COLMAP 4.2 takes the first model of all parts, whether there is one or not
            return {}


def _map_globally(
    database: Path, image_root: Path, output: Path, options: MapperOptions, content: Content
) -> Mapping[int, Any]:
    """COLMAP's global mapper (GLOMAP), after its own calibration where focal lengths are guesses."""
    pycolmap, chosen = load_pycolmap(verbose=options.verbose), _blank(options)
    chosen.num_threads, chosen.random_seed = options.threads, options.seed
    if hasattr(chosen, "min_model_size"):  # since COLMAP 4.2; before, it makes one model of any size
        chosen.min_model_size = min(options.min_model_size, max(2, content.images // 2))
    adjustment = chosen.mapper.bundle_adjustment
    adjustment.refine_focal_length = adjustment.refine_extra_params = options.adjusts_cameras
    if content.images == 2:
        chosen.mapper.track_min_num_views_per_track = 2
        chosen.mapper.global_positioning.min_num_view_per_track = 2
        adjustment.min_track_length = 2
        chosen.mapper.retriangulation.ignore_two_view_tracks = False
    apply_settings(chosen, options.settings)
    with _signals_end_the_process():
        if content.guessed_cameras and not content.pairs_without_F and options.adjusts_cameras:
            pycolmap.calibrate_view_graph(database)
        return pycolmap.global_mapping(database, image_root, output, options=chosen)


def _triangulate(
    database: Path, image_root: Path, output: Path, options: MapperOptions, content: Content
) -> Mapping[int, Any]:
    """Points of a database whose images stand where a model says they do; its cameras are those of the database."""
    assert options.known_poses is not None
    pycolmap, chosen = load_pycolmap(verbose=options.verbose), _blank(options)
    _set_incremental(chosen, options, content)
    chosen.load_all_images = True
    apply_settings(chosen, options.settings)
    model = _posed(database, options.known_poses)
    folder = output / "0"
    folder.mkdir()
    with _signals_end_the_process():
        made = pycolmap.triangulate_points(
            model, database, image_root, folder, options=chosen, refine_intrinsics=options.adjusts_cameras
        )
    return {0: made} if made.num_points3D() else {}


def _posed(database: Path, known_poses: Path) -> Any:
    """The images of a database as a model without points, each at its known pose."""
    pycolmap = load_pycolmap()
    with closing(pycolmap.Database.open(database)) as opened:
        cache = pycolmap.DatabaseCache.create(opened, pycolmap.DatabaseCacheOptions(load_all_images=True))
    model = pycolmap.Reconstruction()
    model.load(cache)
    poses = respelled(read_poses(known_poses), [image.name for image in model.images.values()])
    for image in model.images.values():
        pose = poses[image.name]
        cam_from_world = pycolmap.Rigid3d(pycolmap.Rotation3d(pose.rotation), pose.translation)
        image.frame.set_cam_from_world(image.camera_id, cam_from_world)
        model.register_frame(image.frame_id)
    return model


@contextmanager
def _signals_end_the_process() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the process at once, with a sentence, while native code never looks at signals.

    Python's own handlers wait for the native code; the byte that a signal leaves in a pipe does not.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: None) for number in numbers]
    listener = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_end_at_signal, args=(reader,), name="signals", daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(listener)
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
        os.close(writer)


def _end_at_signal(reader: int) -> None:
    """Wait for a signal's byte, or for the end of the pipe."""
    with os.fdopen(reader, "rb", buffering=0) as pipe:
        number = pipe.read(1)
    if number:
        sentence = "stopped in the mapper, which cannot be continued; the same command maps anew, all else is kept\n"
        os.write(2, sentence.encode())
        os._exit(128 + number[0])
