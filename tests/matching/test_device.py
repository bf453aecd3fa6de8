from __future__ import annotations

import pytest
import torch

from romacli.matching import device as devices
from romacli.matching.device import has_fast_bfloat16


@pytest.mark.parametrize(("bfloat16_s", "expected"), [(0.5, True), (2.0, False)])
def test_bfloat16_is_used_on_a_cpu_only_where_it_is_faster(monkeypatch, bfloat16_s, expected):
    monkeypatch.setattr(devices, "_product_s", {torch.bfloat16: bfloat16_s, torch.float32: 1.0}.__getitem__)
    assert has_fast_bfloat16(torch.device("cpu")) is expected


def test_products_are_timed():
    assert 0 < devices._product_s(torch.float32) < 1
