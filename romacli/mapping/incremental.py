"""COLMAP's incremental mapper, from pairs that are chosen beforehand, on few good tracks; all of them come at the end.

Most of a mapper's time goes into adjusting ten thousand points an image again and again, and into pairs that it tries
to start from. Here it starts from what is known to be a good pair, without distortion, and places the images by some
hundred tracks each. Then the rest is triangulated and all is adjusted, in the end by a robust loss.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from romacli.colmap.access import images_of
from romacli.colmap.binding import load_pycolmap

from .initial import InitialPair, apart, initial_pairs
from .options import Content, MapperOptions
from .settings import apply_settings
from .signals import signals_end_the_process
from .supply import largest_group
from .thinning import thin

# Pairs that a model is started from until one yields any, and models until one has most images of its group.
_STARTS, _MODELS = 5, 2
ENOUGH = 0.9
_MOST_MODELS = 50
# COLMAP stops there with what it has; no model of ours took a tenth of it.
_SECONDS, _SECONDS_PER_IMAGE = 120, 30
# Early adjustments need not be the last word.
_TOLERANCE, _REFINEMENTS, _GROWTH = 1e-6, 2, 1.3
_OWN_TRIALS = 10
# In the last adjustment observations that are off by more count for less and less.
_CAUCHY_PX = 0.5


class HighWater:
    """Hears of images placed, given up and placed again; tells of those beyond the most there were."""

    def __init__(self, progress: Callable[[int], None] | None, images: int) -> None:
        self._progress, self._images = progress or (lambda _: None), images
        self._before = self._now = self._most = 0

    def begin(self, before: int) -> None:
        """A further model is begun after models of so many images."""
        self._before = self._now = before

    def first_pair(self) -> None:
        self._now = self._before
        self.add(2)

    def add(self, count: int = 1) -> None:
        self._now = min(self._now + count, self._images)
        if self._now > self._most:
            self._progress(self._now - self._most)
            self._most = self._now


def set_incremental(chosen: Any, options: MapperOptions, content: Content) -> None:
    """What is asked of COLMAP's incremental mapper, in its own options."""
    chosen.num_threads, chosen.random_seed = options.threads, options.seed
    chosen.min_model_size = min(options.min_model_size, content.images)
    chosen.ba_refine_focal_length = chosen.ba_refine_extra_params = options.adjusts_cameras
    chosen.mapper.abs_pose_refine_focal_length = options.adjusts_cameras
    chosen.mapper.abs_pose_refine_extra_params = options.adjusts_cameras
    # With two images every track has two views, and ignoring those leaves nothing.
    chosen.triangulation.ignore_two_view_tracks = content.images > 2


def map_incrementally(
    database: Path,
    image_root: Path,
    output: Path,
    options: MapperOptions,
    content: Content,
    progress: Callable[[int], None] | None,
) -> Mapping[int, Any]:
    """The models of a database, each of one group of images that pairs hold together, in `output`/0, 1, ...

    The mapper looks at signals now and then and so ends at Ctrl-C by itself. With options of COLMAP's own, or rigs of
    several cameras, it is left to itself.
    """
    placed = HighWater(progress, content.images)
    if options.settings or _has_rigs(database):
        return _map_alone(database, image_root, output, options, content, placed)
    few, trial = output.with_name("few.db"), output.with_name("trial")
    shutil.copyfile(database, few)
    thin(few)
    names, pairs = _images_and_pairs(few)
    ranked = initial_pairs(few)
    found: dict[int, Any] = {}
    left = set(names)
    while len(found) < _MOST_MODELS and (group := largest_group(left, pairs)):
        if found and len(group) < options.min_model_size:
            break
        placed.begin(sum(model.num_reg_images() for model in found.values()))
        trials = _trials(few, trial, options, content, ranked, {image: names[image] for image in group}, placed)
        model = max(trials, key=lambda one: one.num_reg_images(), default=None)
        if model is None:
            break
        complete(model, database, image_root, options, content, left)
        registered = set(model.reg_image_ids())
        if found and len(registered) < options.min_model_size:
            break
        write_model(model, output / str(len(found)))
        found[len(found)] = model
        left -= registered
    few.unlink()
    return found or _map_alone(database, image_root, output, options, content, placed, most_trials=_OWN_TRIALS)


def complete(
    model: Any,
    database: Path,
    image_root: Path,
    options: MapperOptions,
    content: Content,
    images: Collection[int] = (),
) -> None:
    """Triangulate all tracks of a model, register what they allow of `images`, and adjust all of it.

    Squared errors come first: a robust loss alone would keep a camera from finding its distortion.
    """
    pycolmap = load_pycolmap()
    chosen = pycolmap.IncrementalPipelineOptions()
    set_incremental(chosen, options, content)
    chosen.ba_global_function_tolerance = _TOLERANCE
    asked = pycolmap.DatabaseCacheOptions(min_num_matches=chosen.min_num_matches)
    triangulation, course = chosen.get_triangulation(), chosen.get_mapper()
    adjustment = chosen.get_global_bundle_adjustment()
    adjustment.print_summary = False
    with signals_end_the_process():
        with closing(pycolmap.Database.open(database)) as opened:
            mapper = pycolmap.IncrementalMapper(pycolmap.DatabaseCache.create(opened, asked))
        mapper.begin_reconstruction(model)
        for image in sorted(model.reg_image_ids()):
            mapper.triangulate_image(triangulation, image)
        while new := [image for image in mapper.find_next_images(course, False) if image in images]:
            registered = [image for image in new if mapper.register_next_image(course, image)]
            for image in registered:
                mapper.triangulate_image(triangulation, image)
            if not registered:
                break
        mapper.complete_and_merge_tracks(triangulation)
        mapper.iterative_global_refinement(
            chosen.ba_global_max_refinements, chosen.ba_global_max_refinement_change, course, adjustment, triangulation
        )
        solver = getattr(adjustment, "ceres", adjustment)  # COLMAP 4.2 has it in a part
        solver.loss_function_type, solver.loss_function_scale = pycolmap.LossFunctionType.CAUCHY, _CAUCHY_PX
        mapper.adjust_global_bundle(course, adjustment)
        mapper.filter_points(course)
        mapper.end_reconstruction(False)
        model.extract_colors_for_all_images(image_root)


def write_model(model: Any, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    model.write(folder)


def _trials(
    few: Path,
    trial: Path,
    options: MapperOptions,
    content: Content,
    ranked: list[InitialPair],
    group: Mapping[int, str],
    placed: HighWater,
) -> Iterator[Any]:
    """Models from the best pairs of a group, the first without distortion, until one has most of its images."""
    models = 0
    for start in apart(ranked, group)[:_STARTS]:
        chosen = load_pycolmap(verbose=options.verbose).IncrementalPipelineOptions()
        set_incremental(chosen, options, content)
        if not models:
            chosen.ba_refine_extra_params = chosen.mapper.abs_pose_refine_extra_params = False
        chosen.image_names = sorted(group.values())
        chosen.multiple_models = chosen.extract_colors = False
        chosen.init_num_trials = 1
        chosen.init_image_id1, chosen.init_image_id2 = start.images
        chosen.mapper.init_min_num_inliers = min(chosen.mapper.init_min_num_inliers, start.inliers // 2)
        chosen.mapper.init_min_tri_angle = min(chosen.mapper.init_min_tri_angle, start.angle_deg / 2)
        chosen.mapper.init_max_forward_motion = 1.0
        chosen.ba_global_function_tolerance, chosen.ba_global_max_refinements = _TOLERANCE, _REFINEMENTS
        chosen.ba_global_frames_ratio = chosen.ba_global_points_ratio = _GROWTH
        chosen.max_runtime_seconds = _SECONDS + _SECONDS_PER_IMAGE * len(group)
        for model in _run(chosen, few, trial, trial, options, placed).values():
            yield model
            models += 1
            if model.num_reg_images() >= ENOUGH * len(group):
                return
        if models == _MODELS:
            return


def _map_alone(
    database: Path,
    image_root: Path,
    output: Path,
    options: MapperOptions,
    content: Content,
    placed: HighWater,
    *,
    most_trials: int | None = None,
) -> Mapping[int, Any]:
    """COLMAP's incremental mapper as it is, with the options that were given by name."""
    chosen = load_pycolmap(verbose=options.verbose).IncrementalPipelineOptions()
    set_incremental(chosen, options, content)
    chosen.init_num_trials = most_trials or chosen.init_num_trials
    apply_settings(chosen, options.settings)
    return _run(chosen, database, image_root, output, options, placed)


def _run(
    chosen: Any, database: Path, image_root: Path, output: Path, options: MapperOptions, placed: HighWater
) -> Mapping[int, Any]:
    output.mkdir(exist_ok=True)
    return load_pycolmap(verbose=options.verbose).incremental_mapping(
        database,
        image_root,
        output,
        options=chosen,
        initial_image_pair_callback=placed.first_pair,
        next_image_callback=placed.add,
    )


def _has_rigs(database: Path) -> bool:
    """Whether several cameras move together."""
    with closing(load_pycolmap().Database.open(database)) as opened:
        return any(rig.num_sensors() > 1 for rig in opened.read_all_rigs())


def _images_and_pairs(database: Path) -> tuple[dict[int, str], np.ndarray]:
    """The names of images by their numbers, and (N, 2) the numbers of the images of each verified pair."""
    with closing(load_pycolmap().Database.open(database)) as opened:
        names = {image.image_id: image.name for image in opened.read_all_images()}
        pair_ids, _ = opened.read_two_view_geometry_num_inliers()
    return names, np.array([images_of(pair_id) for pair_id in pair_ids]).reshape(-1, 2)
