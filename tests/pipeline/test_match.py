from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from plane import PlanePhotographs, photograph_plane

from romacli.errors import PartialError
from romacli.geometry.coordinates import to_colmap_pixels
from romacli.pairs import exhaustive
from romacli.pipeline.match import MatchOptions, match_images
from romacli.pipeline.stop import Stopped, StopRequest
from romacli.types import CompactWarp, ImageList, Pair, PairList, PairResult

NAMES = [f"{i}.png" for i in range(6)]


class Records:
    """A journal in memory."""

    def __init__(self) -> None:
        self.results: dict[Pair, PairResult] = {}
        self.order: list[Pair] = []

    def append(self, batch: Sequence[tuple[Pair, PairResult]]) -> None:
        for pair, result in batch:
            self.results[pair] = result
            self.order.append(pair)


@pytest.fixture
def photographs(tmp_path: Path) -> PlanePhotographs:
    return photograph_plane(tmp_path, NAMES)


def run(photographs: PlanePhotographs, options: MatchOptions, pairs: PairList | None = None) -> Records:
    records = Records()
    images = ImageList(photographs.root, photographs.names)
    match_images(images, pairs or exhaustive(photographs.names), photographs.matcher, records.append, options)
    return records


def same(a: PairResult, b: PairResult) -> bool:
    return type(a) is type(b) and all(np.array_equal(value, getattr(b, name)) for name, value in vars(a).items())


def test_every_pair_is_recorded_and_each_image_encoded_once(photographs: PlanePhotographs) -> None:
    records = run(photographs, MatchOptions())
    assert sorted(records.order) == sorted(exhaustive(photographs.names).pairs)
    assert photographs.matcher.images_encoded == len(NAMES)


def test_results_do_not_depend_on_batch_or_cache(photographs: PlanePhotographs) -> None:
    plain = run(photographs, MatchOptions())
    cramped = run(photographs, MatchOptions(batch_size=4, num_workers=3, cache_bytes=3 * 9 * 8))
    assert photographs.matcher.images_encoded > 2 * len(NAMES)
    assert plain.results.keys() == cramped.results.keys()
    assert all(same(plain.results[pair], cramped.results[pair]) for pair in plain.results)


def test_recorded_warp_is_the_homography(photographs: PlanePhotographs) -> None:
    from romacli.geometry.warp import decode_targets

    pair = (NAMES[0], NAMES[1])
    warp = run(photographs, MatchOptions(), PairList((pair,))).results[pair]
    assert isinstance(warp, CompactWarp)
    height, width = warp.weight_AB.shape
    x, y = np.meshgrid((np.arange(width) + 0.5) * 2 / width - 1, (np.arange(height) + 0.5) * 2 / height - 1)
    points = to_colmap_pixels(np.stack([x, y], -1), warp.size_A)
    matrix = np.linalg.inv(photographs.plane_from_image[NAMES[1]]) @ photographs.plane_from_image[NAMES[0]]
    expected = points @ matrix[:2, :2].T + matrix[:2, 2]
    used = warp.weight_AB > 0
    assert used.mean() > 0.5
    assert np.abs(decode_targets(warp.target_AB, warp.size_B) - expected)[used].max() < 0.02


def test_unreadable_photograph_costs_only_its_pairs(photographs: PlanePhotographs) -> None:
    (photographs.root / NAMES[2]).write_bytes(b"not an image")
    records = Records()
    images = ImageList(photographs.root, photographs.names)
    summary = match_images(images, exhaustive(NAMES), photographs.matcher, records.append, MatchOptions(batch_size=2))
    assert list(summary.failures) == [NAMES[2]]
    assert f"{NAMES[2]} cannot be read as an image" in summary.failures[NAMES[2]]
    assert (summary.failed, len(records.order)) == (5, 10)


def test_first_photograph_unreadable_is_no_special_case(photographs: PlanePhotographs) -> None:
    (photographs.root / NAMES[0]).write_bytes(b"")
    assert len(run(photographs, MatchOptions()).order) == 10


def test_strict_stops_at_an_unreadable_photograph_and_keeps_what_is_done(photographs: PlanePhotographs) -> None:
    (photographs.root / NAMES[5]).write_bytes(b"")
    records = Records()
    with pytest.raises(PartialError, match="stopped by --strict: .*5.png is empty"):
        match_images(
            ImageList(photographs.root, photographs.names),
            exhaustive(NAMES),
            photographs.matcher,
            records.append,
            MatchOptions(strict=True),
        )
    assert 0 < len(records.order) < 15


def test_stop_request_ends_after_the_batch_and_keeps_it(photographs: PlanePhotographs) -> None:
    stop, records = StopRequest(), Records()

    def append(batch: Sequence[tuple[Pair, PairResult]]) -> None:
        records.append(batch)
        stop.set(signal.SIGTERM)

    with pytest.raises(Stopped) as caught:
        match_images(
            ImageList(photographs.root, photographs.names),
            exhaustive(NAMES),
            photographs.matcher,
            append,
            MatchOptions(),
            stop=stop,
        )
    assert caught.value.signal_number == signal.SIGTERM
    assert 0 < len(records.order) < 15


def test_error_of_the_journal_ends_the_run(photographs: PlanePhotographs) -> None:
    def append(_: object) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        match_images(
            ImageList(photographs.root, photographs.names),
            exhaustive(NAMES),
            photographs.matcher,
            append,
            MatchOptions(),
        )
