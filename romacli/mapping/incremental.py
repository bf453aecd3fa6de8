"""COLMAP's incremental mapper, started from preselected pairs on a few good tracks; the others are added at the end.

Most of a mapper's time is spent on repeated bundle adjustment with ten thousand points per image, and on trying initial
pairs. Here it starts from a known good pair, without distortion, and registers images by some hundred tracks each. Then
the remaining tracks are triangulated and everything is adjusted, finally with a robust loss.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from romacli.colmap.access import images_of
from romacli.colmap.binding import load_pycolmap
from romacli.colmap.options import PANORAMA
from romacli.colmap.poses import align_similarity

from .initial import InitialPair, apart, initial_pairs, least_angle_deg
from .options import MapperInput
from .settings import apply_settings
from .signals import signals_end_the_process
from .supply import groups_of
from .thinning import thin, widen

# Maximum initial pairs tried for a model, and models tried until one has most images of its group.
_STARTS, _MODELS = 5, 2
ENOUGH = 0.9
_MOST_MODELS = 50
# Time limit, at which COLMAP returns what it has; typical models take less than a tenth of it.
_SECONDS, _SECONDS_PER_IMAGE = 120, 30
# Early adjustments need not converge fully.
_TOLERANCE, _REFINEMENTS, _GROWTH = 1e-6, 2, 1.3
_OWN_TRIALS = 10
# Scale of the Cauchy loss in the final adjustment.
_CAUCHY_PX = 0.5
# Minimum relative gain in cost for distortion to be estimated: where its effect hardly differs from that of the focal
# length, as with long lenses, both would be wrong.
_LEAST_GAIN = 0.01
# Iterations of that adjustment, and of one that moves only points: more change cameras of photographs by less than
# 0.005 degrees, and take up to three times as long.
_MOST_STEPS, _MOST_STEPS_OF_POINTS = 20, 5
# Maximum reprojection error of observations that refinement did not confirm.
_FITTING_PX = 1.4


class HighWater:
    """Receives counts of images registered, removed and registered again; reports only increases of the maximum."""

    def __init__(self, progress: Callable[[int], None] | None, images: int) -> None:
        self._progress, self._images = progress or (lambda _: None), images
        self._before = self._now = self._most = 0

    def begin(self, before: int) -> None:
        """Start another model after models with this many images."""
        self._before = self._now = before

    def first_pair(self) -> None:
        self._now = self._before
        self.add(2)

    def add(self, count: int = 1) -> None:
        self._now = min(self._now + count, self._images)
        if self._now > self._most:
            self._progress(self._now - self._most)
            self._most = self._now


def set_incremental(chosen: Any, given: MapperInput) -> None:
    """Set the options of COLMAP's incremental mapper."""
    options, content = given.options, given.content
    chosen.num_threads, chosen.random_seed = options.threads, options.seed
    chosen.min_model_size = min(options.min_model_size, content.images)
    chosen.ba_refine_focal_length = chosen.ba_refine_extra_params = options.adjusts_cameras
    chosen.mapper.abs_pose_refine_focal_length = options.adjusts_cameras
    chosen.mapper.abs_pose_refine_extra_params = options.adjusts_cameras
    chosen.ba_refine_sensor_from_rig = not are_rigs_known(given.database)
    # With two images every track has two views, and ignoring those leaves nothing.
    chosen.triangulation.ignore_two_view_tracks = content.images > 2


def _allow_angles(chosen: Any, least_deg: float) -> None:
    """Accept points with at least this triangulation angle."""
    chosen.triangulation.min_angle = chosen.mapper.filter_min_tri_angle = least_deg


def map_incrementally(given: MapperInput, output: Path) -> Mapping[int, Any]:
    """The models of a database, one per group of connected images, in `output`/0, 1, ...

    The mapper checks for signals itself, so Ctrl-C ends it. With user-set COLMAP options, rigs of several cameras or
    spherical panoramas, COLMAP's mapper runs unmodified.
    """
    placed = HighWater(given.progress, given.content.images)
    given = replace(given, database=_with_known_fisheyes(given.database))
    if given.options.settings or _is_for_colmap(given.database):
        return _map_alone(given, output, placed)
    few = output.with_name("few.db")
    shutil.copyfile(given.database, few)
    thin(few)
    names, pairs = _images_and_pairs(few)
    ranked = initial_pairs(few)
    found: dict[int, Any] = {}
    left = set(names)
    while len(found) < _MOST_MODELS and (groups := groups_of(left, pairs)):
        group = groups[0]
        if found and len(group) < given.options.min_model_size:
            break
        placed.begin(sum(model.num_reg_images() for model in found.values()))
        trials = _trials(replace(given, database=few), ranked, {image: names[image] for image in group}, placed)
        model = max(trials, key=lambda one: one.num_reg_images(), default=None)
        if model is not None:
            complete(model, given, left, least_deg=least_angle_deg(ranked))
        registered = set(model.reg_image_ids()) if model is not None else set()
        if not registered or (found and len(registered) < given.options.min_model_size):
            left -= set(group)  # other groups may have one
            continue
        write_model(model, output / str(len(found)))
        found[len(found)] = model
        left -= registered
    few.unlink()
    return found or _map_alone(given, output, placed, most_trials=_OWN_TRIALS)


def complete(model: Any, given: MapperInput, images: Collection[int] = (), *, least_deg: float) -> None:
    """Triangulate all tracks of a model, register what they allow of `images`, and adjust everything.

    Squared errors come first: a robust loss alone would prevent convergence of the distortion. Distortion is estimated
    from the model's few tracks, or found to be absent, so a single adjustment of all tracks by squared errors suffices.
    Matches that are not inliers are added last, and move no camera.
    """
    chosen = load_pycolmap().IncrementalPipelineOptions()
    set_incremental(chosen, given)
    _allow_angles(chosen, least_deg)
    chosen.ba_global_function_tolerance = _TOLERANCE
    if given.options.adjusts_cameras and not _is_distorted(model, chosen):
        chosen.ba_refine_extra_params = chosen.mapper.abs_pose_refine_extra_params = False
        _straighten(model)
    triangulation, course = chosen.get_triangulation(), chosen.get_mapper()
    adjustment = chosen.get_global_bundle_adjustment()
    adjustment.print_summary = False
    with signals_end_the_process():
        mapper = _begin(model, given.database, chosen)
        for _ in range(_REFINEMENTS):
            mapper.adjust_global_bundle(course, adjustment)
            mapper.filter_points(course)
        for image in sorted(model.reg_image_ids()):
            mapper.triangulate_image(triangulation, image)
        _register(mapper, course, triangulation, images)
        mapper.complete_and_merge_tracks(triangulation)
        mapper.iterative_global_refinement(1, chosen.ba_global_max_refinement_change, course, adjustment, triangulation)
        _make_robust(adjustment, _MOST_STEPS)
        mapper.adjust_global_bundle(course, adjustment)
        mapper.filter_points(course)
        mapper.end_reconstruction(False)
        given.left_out.update(leave_out_unsupported(model, course.abs_pose_min_num_inliers))
        _add_waiting(model, given.database, chosen)
        model.extract_colors_for_all_images(given.images)


def leave_out_unsupported(model: Any, fewest: float) -> list[str]:
    """Remove the frames of a model whose images have fewer points, if two are left; the names of these images."""
    counts = Counter[int]()
    for image in model.reg_image_ids():
        counts[model.images[image].frame_id] += model.images[image].num_points3D
    weak = {frame for frame, count in counts.items() if count < fewest}
    if len(counts) - len(weak) < 2:
        return []
    names = [model.images[image].name for image in model.reg_image_ids() if model.images[image].frame_id in weak]
    for frame in weak:
        model.deregister_frame(frame)
    return names


def _is_distorted(model: Any, chosen: Any) -> bool:
    """Whether the tracks of a model fit clearly better if its cameras may have distortion."""
    pycolmap, costs = load_pycolmap(), []
    for is_allowed in (False, True):
        one, solving = pycolmap.Reconstruction(model), chosen.get_global_bundle_adjustment()
        solving.print_summary, solving.refine_extra_params = False, is_allowed
        config = pycolmap.BundleAdjustmentConfig()
        for image in one.reg_image_ids():
            config.add_image(image)
        config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
        if is_allowed:
            pycolmap.create_default_bundle_adjuster(solving, config, one).solve()
        else:
            _straighten(one)
        _make_robust(solving, _MOST_STEPS)
        solved = pycolmap.create_default_bundle_adjuster(solving, config, one).solve()
        costs.append(getattr(solved, "ceres_summary", solved).final_cost)  # COLMAP 4.2 has it in a part
    return costs[1] < (1 - _LEAST_GAIN) * costs[0]


def _straighten(model: Any) -> None:
    """Set the distortion of all cameras of a model to 0."""
    for camera in model.cameras.values():
        params = camera.params.copy()
        params[list(camera.extra_params_idxs())] = 0
        camera.params = params


def _add_waiting(model: Any, database: Path, chosen: Any) -> None:
    """Add observations from matches of verified pairs that are not inliers, if they fit the model.

    They are less accurate than those the model was built from, so they move points, under a robust loss, but not
    cameras.
    """
    wide = database.with_name("wide.db")
    shutil.copyfile(database, wide)
    if widen(wide, model):
        triangulation, course = chosen.get_triangulation(), chosen.get_mapper()
        mapper = _begin(model, wide, chosen)
        for image in sorted(model.reg_image_ids()):
            mapper.triangulate_image(triangulation, image)
        mapper.complete_and_merge_tracks(triangulation)
        course.filter_max_reproj_error = _FITTING_PX
        pycolmap, solving = load_pycolmap(), chosen.get_global_bundle_adjustment()
        solving.print_summary = False
        _make_robust(solving, _MOST_STEPS_OF_POINTS)
        for _ in range(2):
            pycolmap.create_default_bundle_adjuster(solving, _points_alone(model), model).solve()
            mapper.filter_points(course)
        mapper.end_reconstruction(False)
        model.update_point_3d_errors()
    wide.unlink()


def _points_alone(model: Any) -> Any:
    """A bundle adjustment of points with fixed cameras."""
    config = load_pycolmap().BundleAdjustmentConfig()
    for image in model.reg_image_ids():
        config.add_image(image)
        config.set_constant_cam_intrinsics(model.images[image].camera_id)
        config.set_constant_rig_from_world_pose(model.images[image].frame_id)
    return config


def extend(model: Any, given: MapperInput, names: Collection[str], *, adjusts_all: bool) -> list[str]:
    """Register further images by the points of a model, as far as possible, and triangulate new points.

    Existing images, cameras and points keep their ids, points their tracks, and the model its frame. Existing cameras
    are not changed, nor are poses and points unless `adjusts_all`.

    Args:
        given: with a database whose images have the model's ids and keypoints. names: of the images to add.

    Returns:
        The names of those that were registered.
    """
    chosen = load_pycolmap().IncrementalPipelineOptions()
    set_incremental(chosen, given)
    triangulation, course = chosen.get_triangulation(), chosen.get_mapper()
    old = {point: model.points3D[point].xyz.copy() for point in model.point3D_ids()}
    cameras = {model.images[image].camera_id for image in model.reg_image_ids()}
    with signals_end_the_process():
        mapper = _begin(model, given.database, chosen)
        added = _register(
            mapper, course, triangulation, {key for key, image in model.images.items() if image.name in names}
        )
        mapper.triangulator.complete_tracks(triangulation, model.point3D_ids() - old.keys())
        solving = chosen.get_global_bundle_adjustment()
        for _ in range(_REFINEMENTS if added else 0):
            adjustment = _adjustment(model, added, cameras, old.keys(), adjusts_all=adjusts_all)
            load_pycolmap().create_default_bundle_adjuster(solving, adjustment, model).solve()
            _make_robust(solving, _MOST_STEPS)
            added = _without_outliers(mapper, model, course, added, old.keys())
        if adjusts_all and added:
            _move_back(model, old)
        names = [model.images[image].name for image in added]
        mapper.end_reconstruction(False)
        model.update_point_3d_errors()
        for name in names:
            model.extract_colors_for_image(model.find_image_with_name(name).image_id, given.images / name)
    return sorted(names)


def _make_robust(adjustment: Any, most_steps: int) -> None:
    """Use the robust loss of a model's last adjustment."""
    solver = getattr(adjustment, "ceres", adjustment)  # COLMAP 4.2 has it in a part
    solver.loss_function_type, solver.loss_function_scale = load_pycolmap().LossFunctionType.CAUCHY, _CAUCHY_PX
    solver.solver_options.max_num_iterations = most_steps


def _begin(model: Any, database: Path, chosen: Any) -> Any:
    pycolmap = load_pycolmap()
    asked = pycolmap.DatabaseCacheOptions(min_num_matches=chosen.min_num_matches)
    with closing(pycolmap.Database.open(database)) as opened:
        mapper = pycolmap.IncrementalMapper(pycolmap.DatabaseCache.create(opened, asked))
    mapper.begin_reconstruction(model)
    return mapper


def _register(mapper: Any, course: Any, triangulation: Any, images: Collection[int]) -> list[int]:
    """Register and triangulate `images` as far as possible, those with most visible points first."""
    added: list[int] = []
    while new := [image for image in mapper.find_next_images(course, False) if image in images]:
        registered = [image for image in new if mapper.register_next_image(course, image)]
        for image in registered:
            mapper.triangulate_image(triangulation, image)
        if not registered:
            break
        added += registered
    return added


def _adjustment(
    model: Any, added: Collection[int], cameras: Collection[int], old: Collection[int], *, adjusts_all: bool
) -> Any:
    """A bundle adjustment after `added` images: of all but old cameras, or of these images and new points only."""
    pycolmap = load_pycolmap()
    config = pycolmap.BundleAdjustmentConfig()
    images = model.reg_image_ids() if adjusts_all else added
    for image in images:
        config.add_image(image)
    for camera in {model.images[image].camera_id for image in images} & set(cameras):
        config.set_constant_cam_intrinsics(camera)
    if adjusts_all:
        config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
        return config
    seen = {p.point3D_id for image in added for p in model.images[image].points2D if p.has_point3D()}
    for point in seen & set(old):
        config.add_constant_point(point)
    for point in model.point3D_ids() - set(old):
        config.add_variable_point(point)
    return config


def _without_outliers(mapper: Any, model: Any, course: Any, added: Collection[int], old: Collection[int]) -> list[int]:
    """Remove outliers among new points and new observations; the images that keep enough points."""
    manager, most_px = mapper.observation_manager, course.filter_max_reproj_error
    manager.filter_points3D(most_px, course.filter_min_tri_angle, model.point3D_ids() - set(old))
    for image in added:
        view = model.images[image]
        for row, point in enumerate(view.points2D):
            if point.has_point3D() and point.point3D_id in old:
                place = view.project_point(model.points3D[point.point3D_id].xyz)
                if place is None or np.hypot(*(place - point.xy)) > most_px:
                    manager.delete_observation(image, row)
    counts = Counter[int]()  # the images of a rig's frame stay or leave together
    for image in added:
        counts[model.images[image].frame_id] += model.images[image].num_points3D
    weak = {frame for frame, count in counts.items() if count < course.abs_pose_min_num_inliers}
    kept = [image for image in added if model.images[image].frame_id not in weak]
    for frame in weak:
        manager.deregister_frame(frame)
    return kept


def _move_back(model: Any, old: Mapping[int, np.ndarray]) -> None:
    """Restore a model's frame after an adjustment by its points' old positions, distant ones weighted less."""
    points = [point for point in old if model.exists_point3D(point)]
    before, now = np.array([old[point] for point in points]), np.array([model.points3D[point].xyz for point in points])
    distance = np.linalg.norm(before - np.median(before, axis=0), axis=1)
    weights = 1 / (distance**2 + np.median(distance) ** 2)
    back = align_similarity(now, before, weights)
    pycolmap = load_pycolmap()
    model.transform(pycolmap.Sim3d(back.scale, pycolmap.Rotation3d(back.rotation), back.translation))


def write_model(model: Any, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    model.write(folder)


def _trials(
    given: MapperInput, ranked: list[InitialPair], group: Mapping[int, str], placed: HighWater
) -> Iterator[Any]:
    """Models from the best initial pairs of a group, the first without distortion, until one has most images."""
    models = 0
    for start in apart(ranked, group)[:_STARTS]:
        chosen = load_pycolmap(verbose=given.options.verbose).IncrementalPipelineOptions()
        set_incremental(chosen, given)
        if not models:
            chosen.ba_refine_extra_params = chosen.mapper.abs_pose_refine_extra_params = False
        chosen.image_names = sorted(group.values())
        chosen.multiple_models = chosen.extract_colors = False
        chosen.init_num_trials = 1
        chosen.init_image_id1, chosen.init_image_id2 = start.images
        chosen.mapper.init_min_num_inliers = min(chosen.mapper.init_min_num_inliers, start.inliers // 2)
        chosen.mapper.init_min_tri_angle = min(chosen.mapper.init_min_tri_angle, start.angle_deg / 2)
        chosen.mapper.init_max_forward_motion = 1.0
        _allow_angles(chosen, least_angle_deg(ranked))
        chosen.ba_global_function_tolerance, chosen.ba_global_max_refinements = _TOLERANCE, _REFINEMENTS
        chosen.ba_global_frames_ratio = chosen.ba_global_points_ratio = _GROWTH
        chosen.max_runtime_seconds = _SECONDS + _SECONDS_PER_IMAGE * len(group)
        for model in _run(chosen, given, given.database.with_name("trial"), placed).values():
            yield model
            models += 1
            if model.num_reg_images() >= ENOUGH * len(group):
                return
        if models == _MODELS:
            return


def _map_alone(
    given: MapperInput, output: Path, placed: HighWater, *, most_trials: int | None = None
) -> Mapping[int, Any]:
    """COLMAP's incremental mapper unmodified, with the user's options."""
    chosen = load_pycolmap(verbose=given.options.verbose).IncrementalPipelineOptions()
    set_incremental(chosen, given)
    chosen.init_num_trials = most_trials or chosen.init_num_trials
    apply_settings(chosen, given.options.settings)
    return _run(chosen, given, output, placed)


def _run(chosen: Any, given: MapperInput, output: Path, placed: HighWater) -> Mapping[int, Any]:
    output.mkdir(exist_ok=True)
    return load_pycolmap(verbose=given.options.verbose).incremental_mapping(
        given.database,
        given.images,
        output,
        options=chosen,
        initial_image_pair_callback=placed.first_pair,
        next_image_callback=placed.add,
    )


def are_rigs_known(database: Path) -> bool:
    """Whether every camera of a rig has a given pose in it, which is then kept.

    Nothing else determines the scale, nor the offset between cameras that see no common point.
    """
    with closing(load_pycolmap().Database.open(database)) as opened:
        return all(pose is not None for rig in opened.read_all_rigs() for pose in rig.non_ref_sensors.values())


def _is_for_colmap(database: Path) -> bool:
    """Whether there are rigs of several cameras, or spherical panoramas."""
    with closing(load_pycolmap().Database.open(database)) as opened:
        has_rigs = any(rig.num_sensors() > 1 for rig in opened.read_all_rigs())
        return has_rigs or any(camera.model.name == PANORAMA for camera in opened.read_all_cameras())


def _with_known_fisheyes(database: Path) -> Path:
    """The database, or a copy where focal lengths of fisheyes count as known: COLMAP starts no model from others."""
    known = database.with_name("fisheyes.db")
    with closing(load_pycolmap().Database.open(database)) as opened:
        cameras = [camera for camera in opened.read_all_cameras() if "FISHEYE" in camera.model.name]
    if all(camera.has_prior_focal_length for camera in cameras):
        return database
    shutil.copyfile(database, known)
    with closing(load_pycolmap().Database.open(known)) as opened:
        for camera in cameras:
            camera.has_prior_focal_length = True
            opened.update_camera(camera)
    return known


def _images_and_pairs(database: Path) -> tuple[dict[int, str], np.ndarray]:
    """The names of images by id, and (N, 2) the image ids of each verified pair."""
    with closing(load_pycolmap().Database.open(database)) as opened:
        names = {image.image_id: image.name for image in opened.read_all_images()}
        pair_ids, _ = opened.read_two_view_geometry_num_inliers()
    return names, np.array([images_of(pair_id) for pair_id in pair_ids]).reshape(-1, 2)
