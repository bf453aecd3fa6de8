from __future__ import annotations

import pytest
import torch
from benchmarks import roofline

from romacli.matchers import device as devices
from romacli.matchers.device import fastest_s, has_fast_bfloat16, product_rate


@pytest.mark.parametrize(("bfloat16_rate", "expected"), [(2.0, True), (0.5, False)])
def test_bfloat16_is_used_on_a_cpu_only_where_it_is_faster(monkeypatch, bfloat16_rate, expected):
    rates = {torch.bfloat16: bfloat16_rate, torch.float32: 1.0}
    monkeypatch.setattr(devices, "product_rate", lambda device, dtype, side: rates[dtype])
    assert has_fast_bfloat16(torch.device("cpu")) is expected


def test_the_fastest_run_after_the_first_counts(monkeypatch):
    instants = iter([0.0, 0.1, 1.0, 4.0, 5.0, 7.0])
    monkeypatch.setattr(devices.time, "perf_counter", lambda: next(instants))
    assert fastest_s(lambda: None, torch.device("cpu"), repeats=2) == pytest.approx(2.0)


def test_rates_are_of_what_is_multiplied_and_moved(monkeypatch):
    for room in (devices, roofline):
        monkeypatch.setattr(room, "fastest_s", lambda work, device: work() is not None and 0.5)
    assert product_rate(torch.device("cpu"), torch.float32, side=64) == 2 * 64**3 / 0.5
    assert roofline.copy_rate(torch.device("cpu")) == 2 * (1 << 27) / 0.5
