"""Run COLMAP's mappers and its triangulation on a copy of a database, which they may change."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from romacli.colmap.binding import load_pycolmap
from romacli.colmap.poses import read_poses
from romacli.names import respelled

from .evidence import Attempt, better, judge
from .incremental import are_rigs_known, complete, map_incrementally, set_incremental, write_model
from .initial import initial_pairs, least_angle_deg
from .options import MapperInput, MapperName, MapperOptions
from .settings import apply_settings
from .signals import signals_end_the_process


def check_settings(options: MapperOptions) -> None:
    """Check, before there is anything to map, that the mapper has all options that were set.

    Raises:
        UsageError: it lacks one, or a value has another type.
    """
    apply_settings(_blank(options), options.settings)


def run_mapper(given: MapperInput, output: Path) -> tuple[Mapping[int, Any], tuple[Attempt, ...]]:
    """The models found, by the name of their folder in `output`, and the mappers that ran."""
    options = given.options
    if options.known_poses is not None:
        return _triangulate(given, output), ()
    if options.mapper == "auto" and not options.settings:
        return _map_until_good(given, output)
    runs = {"hierarchical": _map_hierarchically, "global": _map_globally}
    found = runs.get(options.mapper, map_incrementally)(given, output)
    mapper = "incremental" if options.mapper == "auto" else options.mapper
    return found, (replace(judge(mapper, found, given.database), is_kept=True),)


def _map_until_good(given: MapperInput, output: Path) -> tuple[Mapping[int, Any], tuple[Attempt, ...]]:
    """The incremental mapper's models, or the global one's if the former are doubtful and the latter better.

    If cameras ran away in the better ones too, the incremental mapper runs again with fixed cameras, and its models
    count if they have no fewer images: two views, for instance, do not determine focal length and distortion.
    The first run's models of other images are kept besides: the global mapper may have made one of the largest group.
    """
    # Each run names the images that it leaves out apart from those of others.
    runs = {output: replace(given, left_out=set())}
    models = {output: map_incrementally(runs[output], output)}
    attempts = {output: judge("incremental", models[output], given.database)}
    best = output
    if attempts[best].doubts:
        apart = output.with_name("global")
        apart.mkdir()
        runs[apart] = replace(given, left_out=set())
        models[apart] = _map_globally_and_complete(runs[apart], apart)
        attempts[apart] = judge("global", models[apart], given.database)
        best = apart if better(attempts[apart], attempts[best]) else best
    if attempts[best].ran_away and given.options.adjusts_cameras:
        apart = output.with_name("held")
        apart.mkdir()
        runs[apart] = replace(given, left_out=set(), options=replace(given.options, refine_intrinsics=False))
        models[apart] = map_incrementally(runs[apart], apart)
        attempts[apart] = judge("incremental with cameras held", models[apart], given.database)
        if attempts[apart].registered >= attempts[best].registered and better(attempts[apart], attempts[best]):
            best = apart
    given.left_out.update(runs[best].left_out)
    if best != output:
        models[best] = _with_others(models[best], models[output], best)
        attempts[best] = judge(attempts[best].mapper, models[best], given.database)
        output.rename(output.with_name("given-up"))
        best.rename(output)
    return models[best], tuple(
        replace(attempt, is_kept=folder == best and bool(models[best])) for folder, attempt in attempts.items()
    )


def _with_others(models: Mapping[int, Any], others: Mapping[int, Any], folder: Path) -> Mapping[int, Any]:
    """The models in a folder, and those others, which are written there, that have none of their images."""
    placed = {image for model in models.values() for image in model.reg_image_ids()}
    apart = [other for other in others.values() if placed.isdisjoint(other.reg_image_ids())]
    added = dict(enumerate(apart, max(models) + 1))
    for number, other in added.items():
        write_model(other, folder / str(number))
    return {**models, **added}


def _map_globally_and_complete(given: MapperInput, output: Path) -> Mapping[int, Any]:
    """The global mapper's models, the largest extended by the images that the incremental mapper can add."""
    changed = given.database.with_name("global.db")
    shutil.copyfile(given.database, changed)
    asked = replace(given.options, mapper=MapperName.global_)
    found = _map_globally(replace(given, database=changed, options=asked), output)
    if found:
        largest = max(found, key=lambda index: found[index].num_reg_images())
        complete(found[largest], given, least_deg=least_angle_deg(initial_pairs(given.database)))
        write_model(found[largest], output / str(largest))
    return found


def _blank(options: MapperOptions) -> Any:
    """COLMAP's default options of the requested mapper."""
    pycolmap = load_pycolmap(verbose=options.verbose)
    if options.known_poses is None and options.mapper == "hierarchical":
        return pycolmap.HierarchicalPipelineOptions()
    if options.known_poses is None and options.mapper == "global":
        return pycolmap.GlobalPipelineOptions()
    return pycolmap.IncrementalPipelineOptions()


def _map_hierarchically(given: MapperInput, output: Path) -> Mapping[int, Any]:
    """COLMAP's hierarchical mapper: the scene in overlapping parts, mapped incrementally and merged."""
    options, chosen = given.options, _blank(given.options)
    chosen.num_threads = options.threads
    set_incremental(chosen.incremental_options, given)
    apply_settings(chosen, options.settings)
    pycolmap = load_pycolmap(verbose=options.verbose)
    with signals_end_the_process():
        try:
            return pycolmap.hierarchical_mapping(given.database, given.images, output, options=chosen)
        except IndexError:  # COLMAP 4.2 takes the first model of all parts even if there is none
            return {}


def _map_globally(given: MapperInput, output: Path) -> Mapping[int, Any]:
    """COLMAP's global mapper (GLOMAP), after its own calibration if focal lengths are guesses."""
    options, content = given.options, given.content
    pycolmap, chosen = load_pycolmap(verbose=options.verbose), _blank(options)
    set_global(chosen, given)
    apply_settings(chosen, options.settings)
    with signals_end_the_process():
        if content.guessed_cameras and not content.pairs_without_F and options.adjusts_cameras:
            pycolmap.calibrate_view_graph(given.database)
        return pycolmap.global_mapping(given.database, given.images, output, options=chosen)


def set_global(chosen: Any, given: MapperInput) -> None:
    """Set the options of COLMAP's global mapper."""
    options, content = given.options, given.content
    chosen.num_threads, chosen.random_seed = options.threads, options.seed
    if hasattr(chosen, "min_model_size"):  # since COLMAP 4.2; before, it makes one model of any size
        chosen.min_model_size = min(options.min_model_size, max(2, content.images // 2))
    adjustment = chosen.mapper.bundle_adjustment
    adjustment.refine_focal_length = adjustment.refine_extra_params = options.adjusts_cameras
    chosen.mapper.refine_sensor_from_rig = not are_rigs_known(given.database)  # COLMAP sets that of each stage by it
    if content.images == 2:
        chosen.mapper.track_min_num_views_per_track = 2
        chosen.mapper.global_positioning.min_num_view_per_track = 2
        adjustment.min_track_length = 2
        chosen.mapper.retriangulation.ignore_two_view_tracks = False


def _triangulate(given: MapperInput, output: Path) -> Mapping[int, Any]:
    """Triangulate points at the poses of a given model, with the cameras of the database."""
    options = given.options
    assert options.known_poses is not None
    pycolmap, chosen = load_pycolmap(verbose=options.verbose), _blank(options)
    set_incremental(chosen, given)
    chosen.load_all_images = True
    apply_settings(chosen, options.settings)
    model = _posed(given.database, options.known_poses)
    folder = output / "0"
    folder.mkdir()
    with signals_end_the_process():
        made = pycolmap.triangulate_points(
            model, given.database, given.images, folder, options=chosen, refine_intrinsics=options.adjusts_cameras
        )
    return {0: made} if made.num_points3D() else {}


def _posed(database: Path, known_poses: Path) -> Any:
    """The images of a database as a model without points, at their known poses."""
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
