"""Options of COLMAP's mappers by name: what is set, and the messages for names and values that do not fit."""

from __future__ import annotations

from contextlib import closing

import pycolmap
import pytest

from romacli.colmap.binding import load_pycolmap
from romacli.errors import UsageError
from romacli.mapping.incremental import set_incremental
from romacli.mapping.mappers import check_settings, set_global
from romacli.mapping.options import Content, MapperInput, MapperOptions
from romacli.mapping.settings import apply_settings, parse_setting


def set_on(word: str, kind: str = "IncrementalPipelineOptions"):
    options = getattr(load_pycolmap(), kind)()
    apply_settings(options, (parse_setting(word),))
    return options


def refusal(word: str, kind: str = "IncrementalPipelineOptions") -> str:
    with pytest.raises(UsageError) as caught:
        set_on(word, kind)
    return str(caught.value)


def test_an_option_is_set_by_its_name_with_or_without_its_group():
    assert set_on("init_min_tri_angle=4").mapper.init_min_tri_angle == 4
    assert set_on(" mapper.init_min_tri_angle = 4.5 ").mapper.init_min_tri_angle == 4.5
    assert set_on("random_seed=7").random_seed == 7
    assert set_on("image_names=['a b.jpg', 'ü.jpg']").image_names == ["a b.jpg", "ü.jpg"]
    assert set_on("ba_gpu_index='0'").ba_gpu_index == "0"
    assert set_on("image_selection_method='MAX_VISIBLE_POINTS_RATIO'").mapper.image_selection_method.name == (
        "MAX_VISIBLE_POINTS_RATIO"
    )
    assert set_on("leaf_max_num_images=50", "HierarchicalPipelineOptions").clustering_options.leaf_max_num_images == 50
    assert set_on("init_max_error=2", "HierarchicalPipelineOptions").incremental_options.mapper.init_max_error == 2


@pytest.mark.parametrize(("value", "expected"), [("0", False), ("1", True), ("False", False), ("True", True)])
def test_switches_are_true_false_1_or_0(value, expected):
    assert set_on(f"ba_refine_focal_length={value}").ba_refine_focal_length is expected


def test_unknown_names_are_told_the_nearest():
    assert refusal("init_min_tri=4") == (
        "--mapper-option init_min_tri is no option of this mapper. Near it: mapper.init_min_tri_angle, init_num_trials."
    )
    assert refusal("qqqq=4") == "--mapper-option qqqq is no option of this mapper."


class Group:
    def __init__(self, **options):
        self._options = options
        vars(self).update(options)

    def todict(self, recursive=True):
        return self._options


def test_a_name_of_several_groups_asks_for_one():
    options = Group(one=Group(use_gpu=True), two=Group(use_gpu=True), deep=Group(er=Group(use_gpu=True)))
    with pytest.raises(UsageError, match=r"is in several groups. Write one of one.use_gpu, two.use_gpu."):
        apply_settings(options, (parse_setting("use_gpu=False"),))


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        ("random_seed=7.5", "a whole number"),
        ("min_angle=True", "a number"),
        ("min_angle='1'", "a number"),
        ("ba_refine_focal_length=2", "True or False"),
        ("ba_gpu_index=0", "'text'"),
        ("num_threads=99999999999999", "a whole number"),
        ("image_names=3", "a value like []"),
    ],
)
def test_values_of_another_kind_are_refused(word, kind):
    assert refusal(word).endswith(f"does not fit. Give {kind}.")


def test_an_unknown_member_of_an_enumeration_lists_the_known():
    assert "Give one of 'MAX_VISIBLE_POINTS_NUM', " in refusal("image_selection_method='BEST'")


@pytest.mark.parametrize("value", ["__import__('os').getcwd()", "true", "1+x", "open('f')", "nan", "(" * 5000])
def test_values_are_literals_and_nothing_is_run(value):
    with pytest.raises(UsageError, match="is no value. Write a number, True, False, or 'text' in quotes."):
        (parse_setting(f"min_angle={value}"),)


@pytest.mark.parametrize("word", ["min_angle", "=3", "min_angle=", ""])
def test_a_word_that_is_no_pair_is_refused(word):
    with pytest.raises(UsageError, match="has to be KEY=VALUE"):
        (parse_setting(word),)


def test_options_are_checked_for_the_mapper_that_is_asked_for(tmp_path):
    of_global = (parse_setting("ba_num_iterations=2"),)
    check_settings(MapperOptions("global", settings=of_global))
    for mapper in (
        MapperOptions(settings=of_global),
        MapperOptions("global", known_poses=tmp_path, settings=of_global),
    ):
        with pytest.raises(UsageError, match="ba_num_iterations is no option of this mapper"):
            check_settings(mapper)


@pytest.mark.parametrize("pose", [pycolmap.Rigid3d(), None])
def test_given_poses_within_a_rig_stay_unless_asked(tmp_path, pose):
    with closing(pycolmap.Database.open(tmp_path / "a.db")) as database:
        cameras = [pycolmap.Camera.create_from_model_name(0, "PINHOLE", 500, 640, 480) for _ in range(2)]
        first, second = (
            pycolmap.sensor_t(pycolmap.SensorType.CAMERA, database.write_camera(camera)) for camera in cameras
        )
        rig = pycolmap.Rig()
        rig.add_ref_sensor(first)
        rig.add_sensor(second, pose)
        database.write_rig(rig)
    given = MapperInput(tmp_path / "a.db", tmp_path, MapperOptions(), Content(4, 0, 6, 0, 6))
    chosen = pycolmap.IncrementalPipelineOptions()
    set_incremental(chosen, given)
    for adjustment in (chosen.get_global_bundle_adjustment(), chosen.get_local_bundle_adjustment()):
        assert adjustment.refine_sensor_from_rig == (pose is None)
    apply_settings(chosen, (parse_setting("ba_refine_sensor_from_rig=True"),))
    assert chosen.get_global_bundle_adjustment().refine_sensor_from_rig
    of_global = pycolmap.GlobalPipelineOptions()
    set_global(of_global, given)
    for stage in (of_global.mapper.get_rotation_averaging(), of_global.mapper.get_bundle_adjustment()):
        assert stage.refine_sensor_from_rig == (pose is None)
