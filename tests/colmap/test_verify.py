"""True matches are kept, false ones removed, and the result does not depend on threads."""

from __future__ import annotations

import numpy as np
import pytest
from support.small_scene import GIVEN, SIZE, make_scene

from romacli.colmap.cameras import ImageInfo, assign_cameras
from romacli.colmap.options import CameraOptions, VerifyOptions
from romacli.colmap.verify import CALIBRATED, UNCALIBRATED, verify_pair, verify_pairs
from romacli.geometry.epipolar import sampson_error

PAIR = ("000.jpg", "001.jpg")
GUESSED = CameraOptions()


def camera_by_name(options: CameraOptions, names=PAIR):
    cameras, index = assign_cameras([ImageInfo(name, SIZE) for name in names], options)
    return {name: cameras[index[name]] for name in names}


def spoilt(matches: np.ndarray, share: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The matches with a share of their second column shuffled, and which rows are still true."""
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(matches))[: round(share * len(matches))]
    result = matches.copy()
    result[rows, 1] = np.roll(matches[rows, 1], 1)
    return result, ~np.isin(np.arange(len(matches)), rows)


@pytest.mark.parametrize(("cameras", "config"), [(GIVEN, CALIBRATED), (GUESSED, UNCALIBRATED)])
def test_true_matches_stay_and_false_ones_go(cameras, config):
    scene = make_scene(2, points=400)
    matches, is_true = spoilt(scene.matches[PAIR], 0.4)
    verified = verify_pair(
        PAIR,
        matches,
        keypoints=scene.keypoints,
        cameras=camera_by_name(cameras),
        options=VerifyOptions(max_error_px=2.0),
    )
    kept = {tuple(row) for row in verified.inliers}
    assert verified.config == config
    assert len(kept & {tuple(row) for row in matches[is_true]}) > 0.97 * is_true.sum()
    assert len(kept & {tuple(row) for row in matches[~is_true]}) < 0.1 * (~is_true).sum()


def test_matrix_of_a_calibrated_pair_explains_the_true_motion():
    scene = make_scene(2, points=400)
    verified = verify_pair(
        PAIR,
        scene.matches[PAIR],
        keypoints=scene.keypoints,
        cameras=camera_by_name(GIVEN),
        options=VerifyOptions(),
    )
    exact = make_scene(2, points=400, noise_px=0.0)
    rays = [
        (exact.keypoints[name][exact.matches[PAIR][:, side]] - np.array(SIZE) / 2) / 700
        for side, name in enumerate(PAIR)
    ]
    assert 700 * np.median(sampson_error(verified.matrix, *rays)) < 0.3


@pytest.mark.parametrize("cameras", [GIVEN, GUESSED])
@pytest.mark.parametrize("count", [100, 400, 2000])
def test_shuffled_matches_are_not_believed(cameras, count):
    scene = make_scene(2, points=count)
    matches, _ = spoilt(scene.matches[PAIR], 1.0)
    assert (
        verify_pair(
            PAIR,
            matches,
            keypoints=scene.keypoints,
            cameras=camera_by_name(cameras),
            options=VerifyOptions(),
        )
        is None
    )


def test_fewer_matches_than_inliers_wanted_are_not_believed():
    scene = make_scene(2)
    arguments = {"keypoints": scene.keypoints, "cameras": camera_by_name(GUESSED)}
    few = scene.matches[PAIR][:14]
    assert verify_pair(PAIR, few, options=VerifyOptions(), **arguments) is None
    assert verify_pair(PAIR, few, options=VerifyOptions(min_inliers=14), **arguments) is not None


def test_points_without_a_ray_have_no_say():
    scene = make_scene(2, points=300)
    matches = scene.matches[PAIR]
    keypoints = {name: xy.copy() for name, xy in scene.keypoints.items()}
    keypoints[PAIR[0]][matches[:20, 0]] = 1e6
    wide = CameraOptions(model="EUCM", params=(700.0, 700.0, 320.0, 240.0, 0.51, 1.0))
    verified = verify_pair(
        PAIR,
        matches,
        keypoints=keypoints,
        cameras=camera_by_name(wide),
        options=VerifyOptions(max_error_px=10),
    )
    assert verified is not None
    assert not np.isin(verified.inliers[:, 0], matches[:20, 0]).any()


def test_result_depends_neither_on_threads_nor_on_the_order_of_pairs():
    scene = make_scene(6, points=150)
    matches = {pair: spoilt(rows, 0.3)[0] for pair, rows in scene.matches.items()}
    cameras = camera_by_name(GUESSED, scene.names)

    def verify(pairs, threads):
        options = VerifyOptions(num_threads=threads)
        found = list(verify_pairs(pairs, keypoints=scene.keypoints, cameras=cameras, options=options))
        assert [pair for pair, _, _ in found] == [pair for pair, _ in pairs]
        return {pair: verified.inliers.tolist() for pair, _, verified in found}

    pairs = list(matches.items())
    assert verify(pairs, 1) == verify(pairs, 3) == verify(pairs[::-1], 2)


def test_pairs_are_read_only_a_little_ahead_of_those_taken():
    scene = make_scene(2, points=60)
    taken = []

    def pairs():
        for number in range(1000):
            taken.append(number)
            yield PAIR, scene.matches[PAIR]

    results = verify_pairs(
        pairs(),
        keypoints=scene.keypoints,
        cameras=camera_by_name(GUESSED),
        options=VerifyOptions(num_threads=2),
    )
    next(results)
    assert len(taken) < 20
    results.close()


def test_a_library_error_costs_its_pair_alone_and_names_it(tmp_path, monkeypatch):
    import cv2

    scene = make_scene(4, points=120)
    estimate, bad = cv2.findFundamentalMat, scene.keypoints[scene.names[0]][0]

    def find(points0, points1, *more):
        if (points0 == bad).all(1).any():
            raise cv2.error("no model in setModelParameters")
        return estimate(points0, points1, *more)

    monkeypatch.setattr(cv2, "findFundamentalMat", find)
    summary = scene.write(tmp_path / "a.db", cameras=GUESSED, verify=VerifyOptions(num_threads=2))
    touched = [
        pair
        for pair, rows in scene.matches.items()
        if scene.names[0] in pair and 0 in rows[:, pair.index(scene.names[0])]
    ]
    assert len(summary.failed) == len(touched) > 0
    assert all(scene.names[0] in sentence and "setModelParameters" in sentence for sentence in summary.failed)
    assert summary.verified == len(scene.matches) - len(touched)
