from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from support.homography import HomographyMatcher, same
from support.plane import PlanePhotographs, photograph_plane
from support.told import Told

from romacli.errors import BusyError, PartialError, UsageError
from romacli.geometry.coordinates import to_colmap_pixels
from romacli.matchers.memory import cache_bytes
from romacli.pairs.exhaustive import exhaustive
from romacli.run.match import match_images
from romacli.run.options import MatchOptions
from romacli.stop import Stopped, StopRequest
from romacli.types import CompactWarp, Features, ImageList, Pair, PairList, PairResult, PreparedImage, Rejected

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


def test_every_pair_is_recorded_and_each_image_encoded_once(photographs: PlanePhotographs) -> None:
    records = run(photographs, MatchOptions())
    assert sorted(records.order) == sorted(exhaustive(photographs.names).pairs)
    assert photographs.matcher.images_encoded == len(NAMES)


def test_results_do_not_depend_on_batch_or_cache(photographs: PlanePhotographs) -> None:
    plain = run(photographs, MatchOptions())
    cramped = run(photographs, MatchOptions(batch_size=4, num_workers=3, cache_gb=3 * 9 * 8 / 1e9))
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


def test_a_job_resumed_beside_an_unreadable_photograph_encodes_one_to_size_its_cache(
    photographs: PlanePhotographs,
) -> None:
    (photographs.root / NAMES[2]).write_bytes(b"not an image")
    left = PairList(tuple((name, NAMES[2]) for name in NAMES if name != NAMES[2]))
    assert not run(photographs, MatchOptions(), left).order
    assert photographs.matcher.images_encoded == 1


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


class Starved(HomographyMatcher):
    """Runs out of memory above a number of pairs at once, or after encoding a number of images without a pause."""

    def __init__(self, photographs: PlanePhotographs, *, most_pairs: int = 99, encodes: Sequence[int] = ()) -> None:
        super().__init__(photographs.by_digest)
        self.most_pairs, self.failing = most_pairs, set(encodes)

    def encode(self, images: Sequence[PreparedImage]) -> list[Features]:
        features = super().encode(images)
        if self.images_encoded in self.failing:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
        return features

    def match(self, pairs: Sequence[tuple[Features, Features]], seeds: Sequence[int]) -> list[CompactWarp | Rejected]:
        if len(pairs) > self.most_pairs:
            raise MemoryError
        return super().match(pairs, seeds)


def run_starved(photographs: PlanePhotographs, matcher: Starved, options: MatchOptions) -> tuple[Records, list[str]]:
    records, told = Records(), Told()
    images = ImageList(photographs.root, photographs.names)
    match_images(images, exhaustive(photographs.names), matcher, records.append, options, progress=told)
    return records, told.warnings


def test_batch_that_does_not_fit_is_halved_and_results_are_the_same(photographs: PlanePhotographs) -> None:
    plain = run(photographs, MatchOptions())
    records, warnings = run_starved(photographs, Starved(photographs, most_pairs=1), MatchOptions(batch_size=5))
    assert sorted(records.order) == sorted(exhaustive(NAMES).pairs)
    assert all(same(plain.results[pair], records.results[pair]) for pair in plain.results)
    assert warnings == [f"the device ran out of memory; --batch-size is {size} from now on" for size in (2, 1)]


def test_cache_that_does_not_fit_shrinks_and_the_rest_is_planned_anew(photographs: PlanePhotographs) -> None:
    plain = run(photographs, MatchOptions())
    records, warnings = run_starved(photographs, Starved(photographs, encodes=(5,)), MatchOptions())
    assert sorted(records.order) == sorted(exhaustive(NAMES).pairs)
    assert all(same(plain.results[pair], records.results[pair]) for pair in plain.results)
    assert [warning.split(";")[0] for warning in warnings] == ["the device ran out of memory with 4 images cached"]
    assert "continuing with 3" in warnings[0]


def test_pair_that_never_fits_is_a_sentence_and_loses_nothing(photographs: PlanePhotographs) -> None:
    with pytest.raises(BusyError, match="enough memory for one pair. Use a smaller --coarse-resolution"):
        run_starved(photographs, Starved(photographs, most_pairs=0), MatchOptions(cache_gb=3 * 9 * 8 / 1e9))
    with pytest.raises(BusyError, match="enough memory for one pair"):
        run_starved(photographs, Starved(photographs, encodes=range(1, 9)), MatchOptions())


def test_cache_for_one_image_is_refused_with_what_a_pair_needs(photographs: PlanePhotographs) -> None:
    with pytest.raises(UsageError, match="is too small: the features of a pair need 1.44e-07. Give at least that"):
        run(photographs, MatchOptions(cache_gb=9 * 8 / 1e9))


def test_summary_counts_encodes_for_each_pair(photographs: PlanePhotographs) -> None:
    images = ImageList(photographs.root, photographs.names)
    summary = match_images(images, exhaustive(NAMES), photographs.matcher, lambda _: None, MatchOptions())
    assert (summary.run, summary.encodes_per_pair) == (15, 6 / 15)


def test_cache_leaves_room_for_a_batch_in_work_and_holds_a_pair_in_any_case() -> None:
    assert cache_bytes(10_000, 100, 1) > cache_bytes(10_000, 100, 4) > 200
    assert cache_bytes(0, 100, 4) == 200
