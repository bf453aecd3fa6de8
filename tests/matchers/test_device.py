from __future__ import annotations

import pytest
import torch
from benchmarks import roofline

from romacli.matchers import device as devices
from romacli.matchers.device import fastest_s, has_fast_bfloat16, resolve_dtype
from romacli.matchers.matcher import EITHER_DTYPE

CPU = torch.device("cpu")


@pytest.mark.parametrize(("bfloat16_s", "expected"), [(0.5, True), (0.95, False), (2.0, False)])
def test_bfloat16_is_used_on_a_cpu_only_where_it_is_clearly_faster(monkeypatch, bfloat16_s, expected):
    seconds = {torch.bfloat16: bfloat16_s, torch.float32: 1.0}
    monkeypatch.setattr(devices, "fastest_s", lambda work, device, repeats: seconds[work().dtype])
    assert has_fast_bfloat16(CPU) is expected
    assert resolve_dtype("auto", CPU, bfloat16_on_cpu=True) == (torch.bfloat16 if expected else torch.float32)
    assert resolve_dtype(EITHER_DTYPE, CPU) == (torch.bfloat16 if expected else torch.float32)
    assert resolve_dtype("auto", CPU) == torch.float32
    assert resolve_dtype("float32", CPU, bfloat16_on_cpu=True) == torch.float32


def test_other_work_delays_some_of_the_products_and_decides_nothing(monkeypatch):
    delays, threads = iter([9.0, 0, 0, 9.0, 9.0, 9.0, 0, 0, 9.0, 0]), []

    def timed(work, device, repeats):
        threads.append(torch.get_num_threads())
        return next(delays) + (0.5 if work().dtype == torch.bfloat16 else 1.0)

    monkeypatch.setattr(devices, "fastest_s", timed)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert has_fast_bfloat16(CPU)
        assert set(threads) == {1}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_the_fastest_run_after_the_first_counts(monkeypatch):
    instants = iter([0.0, 0.1, 1.0, 4.0, 5.0, 7.0])
    monkeypatch.setattr(devices.time, "perf_counter", lambda: next(instants))
    assert fastest_s(lambda: None, CPU, repeats=2) == pytest.approx(2.0)


def test_rates_are_of_what_is_multiplied_and_moved(monkeypatch):
    monkeypatch.setattr(roofline, "fastest_s", lambda work, device: work() is not None and 0.5)
    assert roofline.product_rate(CPU, torch.float32, side=64) == 2 * 64**3 / 0.5
    assert roofline.copy_rate(CPU) == 2 * (1 << 27) / 0.5
