from __future__ import annotations

import pytest
import torch
from benchmarks.roofline import PARTS, REST, Meter, Watch, clock, counted, watched
from support.small_roma import random_images, small_roma
from support.tiny_mini import TINY
from torch._subclasses.fake_tensor import FakeTensorMode

from romacli.networks.mini import Mini
from romacli.networks.parts import local_correlation
from romacli.networks.roma import RoMa


def test_a_product_counts_two_operations_a_term_and_each_tensor_once() -> None:
    a, b = torch.zeros(3, 5), torch.zeros(5, 7)
    with counted() as meter:
        start = meter.read()
        a @ b
        flops, num_bytes = meter.between(start, meter.read())
    assert flops == 2 * 3 * 5 * 7
    assert num_bytes == 4 * (3 * 5 + 5 * 7 + 3 * 7)


def test_views_and_rows_that_are_not_picked_move_nothing() -> None:
    rows = torch.zeros(100, 4)
    with counted() as meter, torch.inference_mode():
        start = meter.read()
        rows.reshape(4, 100).transpose(0, 1)[3:]
        torch.empty(1000)
        after_views = meter.read()
        rows.index_select(0, torch.tensor([1, 2]))
        end = meter.read()
    assert meter.between(start, after_views)[1] == 0
    assert 2 * 4 * 2 * 4 <= meter.between(after_views, end)[1] < rows.nbytes


def test_factorisation_solve_and_attention_are_counted() -> None:
    side, columns = 12, 5
    tokens = torch.zeros(1, 2, 6, 8)
    with counted() as meter, torch.inference_mode():
        start = meter.read()
        factor = torch.linalg.cholesky(torch.eye(side))
        factored = meter.read()
        torch.cholesky_solve(torch.ones(side, columns), factor)
        solved = meter.read()
        torch.nn.functional.scaled_dot_product_attention(tokens, tokens, tokens)
        end = meter.read()
    assert meter.between(start, factored)[0] == side**3 // 3
    assert meter.between(factored, solved)[0] == 2 * side**2 * columns
    assert meter.between(solved, end)[0] == 4 * 2 * 6 * 6 * 8


# GFLOP of the published sizes at 560 and 864, from the layers' shapes: an image, and a pair in both directions. The
# correlations at strides 8 and 4, 17 GFLOP of a pair, are written in place on a CPU, which is not counted.
ENCODE = {"DINOv2": 1220.9, "VGG19": 746.1, "projections": 24.7, "Gaussian process": 6.6}
MATCH = {
    "Gaussian process": 3 * 2.62,
    "decoder": 2 * 267.2,
    "refiner 8 at 70x70": 2 * 116.6,
    "refiner 4 at 140x140": 2 * 119.3,
    "refiner 2 at 280x280": 2 * 34.4,
    "refiner 1 at 560x560": 2 * 6.7,
    "refiner 8 at 108x108": 2 * 277.5,
    "refiner 4 at 216x216": 2 * 284.0,
    "refiner 2 at 432x432": 2 * 81.9,
    "refiner 1 at 864x864": 2 * 15.9,
}


def test_romas_operations_are_those_of_its_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_correlation, "CHUNK_BYTES", 1 << 40)  # one step: nothing is computed here
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)  # with one, tokens are padded
    with FakeTensorMode(), torch.inference_mode(), counted() as meter:
        network, watch = RoMa().eval(), Watch(meter)
        with watched(network, watch):
            with watch.stage("encode"):
                features = network.encode(torch.zeros(1, 3, 560, 560), torch.zeros(1, 3, 864, 864))
            with watch.stage("match"):
                network.match(features, features)
    gflop = {
        stage: {name: values[0] / 1e9 for name, values in parts.items()} for stage, parts in watch.totals().items()
    }
    assert sum(gflop["encode"].values()) == pytest.approx(1998.3, rel=1e-3)
    assert gflop["encode"] == pytest.approx({**ENCODE, REST: 0}, rel=1e-2)
    # At stride 16 the correlation is one product with the whole other image and its padding.
    assert gflop["match"].pop("refiner 16 at 40x40") > 2 * 55.6
    assert gflop["match"] == pytest.approx({**MATCH, REST: 0}, rel=1e-2)
    assert sum(gflop["match"].values()) == pytest.approx(2546.5 - 2 * (55.6 + 1.8) - 16.8, rel=2e-3)


@pytest.mark.parametrize("name", ["RoMa", "Mini"])
def test_every_part_is_watched_and_afterwards_none(name: str) -> None:
    network = small_roma() if name == "RoMa" else Mini(TINY).eval()
    sides = ((56, 70), (64, 80)) if name == "RoMa" else ((64, 64), (96, 96))
    before = {key: set(vars(module)) for key, module in network.named_modules()}
    with counted() as meter, torch.inference_mode():
        watch = Watch(meter)
        with watched(network, watch):
            with watch.stage("encode"):
                features = network.encode(*(random_images(1, shape) for shape in sides))
            with watch.stage("match"):
                network.match(features, features)
        total = meter.between(0, meter.read())
    found = {part for parts in watch.totals().values() for part in parts}
    words = {part.name.replace(" {}", "") for part in PARTS[name]}
    assert {word for word in words if any(part.startswith(word) for part in found)} == words
    assert sum(sum(parts.values())[0] for parts in watch.totals().values()) == total[0]
    assert len([part for part in found if part.startswith("refiner")]) == (9 if name == "RoMa" else 6)
    assert {key: set(vars(module)) for key, module in network.named_modules()} == before


def test_a_part_within_a_part_counts_once() -> None:
    readings = iter(range(10))
    watch = Watch(Meter(lambda: next(readings), lambda start, end: end - start))
    with watch.stage("encode"):
        watch.call(lambda _: "outer", lambda: watch.call(lambda _: "inner", lambda: None))
    assert watch.totals() == {"encode": {"outer": 1, REST: 2}}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpus_clock_tells_the_seconds_of_its_work() -> None:
    device = torch.device("cuda")
    matrix = torch.ones(2048, 2048, device=device)
    meter = clock(device)
    start = meter.read()
    for _ in range(10):
        matrix @ matrix
    end = meter.read()
    torch.cuda.synchronize(device)
    assert 0 < meter.between(start, end) < 10
