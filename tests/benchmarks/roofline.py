"""The cost of the parts of a network on this machine: seconds, operations, bytes, and shares of the device's rates.

    PYTHONPATH=.:tests python tests/benchmarks/roofline.py --model roma-outdoor --seeded-weights --device cpu
    PYTHONPATH=.:tests python tests/benchmarks/roofline.py --model mini --images 6

Submodules are instrumented from outside, by name. Shares are of the rate of matrix multiplication in the same number
type, and of the copy rate; bytes are those that operations read and write, each tensor once, so data that stays in a
cache can raise that share above 1. Operations are counted during warm-up.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from romacli.eval.photographs import generate_photographs
from romacli.images.listing import list_images
from romacli.images.upright import read_upright
from romacli.matchers.device import fastest_s, wait_for
from romacli.matchers.options import MatcherOptions
from romacli.matchers.registry import load_matcher, load_seeded
from romacli.networks.parts.pointwise import pointwise

REST = "rest"


@dataclass(frozen=True)
class Part:
    """A method of the submodules whose names match a pattern, level by level.

    has_sizes: distinguished by the size of the result, as passes over the same weights differ in nothing else.
    """

    name: str
    modules: str
    method: str = "forward"
    has_sizes: bool = False


# By the network's class. Braces in a name stand for the last component of the submodule's name.
PARTS = {
    "RoMa": (
        Part("DINOv2", "dinov2"),
        Part("VGG19", "vgg.layers.*"),
        Part("projections", "projections.*"),
        *(Part("Gaussian process", "gaussian_process", method) for method in ("alpha", "kernel", "posterior")),
        Part("decoder", "decoder"),
        Part("refiner {}", "refiners.*", has_sizes=True),
    ),
    "Mini": (
        Part("trunk", "trunk"),
        Part("projections", "tokens"),
        Part("projections", "refiners.*", "describe"),
        *(Part("Gaussian process", "match_encoder", method) for method in ("condition", "coordinates", "forward")),
        Part("decoder", "decoder"),
        Part("refiner {}", "refiners.*", has_sizes=True),
    ),
}


@dataclass(frozen=True)
class Meter:
    """Something read before and after, and the difference between two readings."""

    read: Callable[[], Any]
    between: Callable[[Any, Any], Any]


def clock(device: torch.device | None) -> Meter:
    """Seconds: from events on a GPU, without synchronisation, and from the wall clock elsewhere."""
    if device is None or device.type != "cuda":
        return Meter(time.perf_counter, lambda start, end: end - start)

    def event() -> torch.cuda.Event:
        now = torch.cuda.Event(enable_timing=True)
        now.record(torch.cuda.current_stream(device))
        return now

    return Meter(event, lambda start, end: start.elapsed_time(end) / 1e3)


class Watch:
    """Readings of a meter around stages and the parts within them; of nested parts the outermost counts."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._readings: list[tuple[str, str, Any, Any]] = []
        self._stage = ""
        self._inside = False

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Readings around a stage, to which the parts that run meanwhile belong."""
        self._stage, start = name, self._meter.read()
        yield
        self._readings.append((name, "", start, self._meter.read()))

    def call(self, name: Callable[[Any], str], work: Callable[[], Any]) -> Any:
        """The result of `work`, with readings around it; the name may depend on the result."""
        if self._inside:
            return work()
        self._inside, start = True, self._meter.read()
        try:
            value = work()
        finally:
            self._inside = False
        self._readings.append((self._stage, name(value), start, self._meter.read()))
        return value

    def totals(self) -> dict[str, dict[str, Any]]:
        """By stage and part, the sums between readings, and under `REST` what a stage had outside its parts.

        On a GPU, synchronise before calling this.
        """
        totals: dict[str, dict[str, Any]] = defaultdict(lambda: defaultdict(lambda: 0))
        for stage, part, start, end in self._readings:
            totals[stage][part] = totals[stage][part] + self._meter.between(start, end)
        for parts in totals.values():
            whole = parts.pop("")
            parts[REST] = whole - sum(parts.values())
        return {stage: dict(parts) for stage, parts in totals.items()}


@contextmanager
def watched(network: nn.Module | None, watch: Watch) -> Iterator[None]:
    """Instrument the parts of a network if they are known; others are left unchanged."""
    with ExitStack() as stack:
        for part in PARTS.get(type(network).__name__, ()):
            assert network is not None
            for name, module in network.named_modules():
                if fnmatchcase(name, part.modules) and name.count(".") == part.modules.count("."):
                    stack.enter_context(_probe(module, part, part.name.format(name.rpartition(".")[2]), watch))
        yield


@contextmanager
def _probe(module: nn.Module, part: Part, name: str, watch: Watch) -> Iterator[None]:
    """Replace the module's own method by an instrumented one."""
    method = getattr(module, part.method)

    def named(value: Any) -> str:
        return f"{name} at {_size(value)}" if part.has_sizes else name

    @wraps(method)
    def run(*values: Any, **more: Any) -> Any:
        return watch.call(named, lambda: method(*values, **more))

    setattr(module, part.method, run)
    try:
        yield
    finally:
        with suppress(AttributeError):
            delattr(module, part.method)


def _size(value: Any) -> str:
    """Width and height of a refiner's certainty, the last two dimensions of the last value it returns."""
    height, width = value[-1].shape[-2:]
    return f"{width}x{height}"


_ATEN = torch.ops.aten
_PICKS = (_ATEN.index_select, _ATEN.gather, _ATEN.index, _ATEN.embedding)


@contextmanager
def counted() -> Iterator[Meter]:
    """Count the work of this thread: readings are arrays (floating-point operations, bytes).

    Operations are those of matrix products, convolutions, attention, factorisations and solves; a multiplication and an
    addition are two. Bytes are those each operation reads and writes, each tensor once. Caches may serve some of these
    instead of memory, and an operation may read a tensor more than once.
    """
    flops = FlopCounterMode(
        display=False,
        custom_mapping={
            _ATEN._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
            _ATEN.linalg_cholesky_ex: _cholesky_flops,
            _ATEN.cholesky_solve: _solve_flops,
        },
    )
    traffic = _Traffic()
    with flops, traffic:
        yield Meter(
            lambda: np.array([flops.get_total_flops(), traffic.num_bytes], np.int64), lambda start, end: end - start
        )


def _attention_flops(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query, key, value))


def _cholesky_flops(matrix: Any, *_: Any, **__: Any) -> int:
    *batch, side, _side = matrix
    return math.prod(batch) * side**3 // 3


def _solve_flops(right: Any, factor: Any, *_: Any, **__: Any) -> int:
    """Two triangular solves."""
    return 2 * math.prod(right) * int(factor[-1])


class _Traffic(TorchDispatchMode):
    """Sums the bytes of the inputs and outputs of operations."""

    def __init__(self) -> None:
        super().__init__()
        self.num_bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func.namespace == "aten":
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        out = func(*args, **kwargs)
        if not _moves_nothing(func):
            written = _bytes(out)
            read = _bytes((args, kwargs))
            self.num_bytes += written + (min(read, written) if func.overloadpacket in _PICKS else read)
        return out


def _moves_nothing(func: Any) -> bool:
    """Whether an operation is a view, or allocates memory that another writes."""
    name = func.overloadpacket.__name__
    returned = [value.alias_info for value in func._schema.returns]
    return "empty" in name or any(alias is not None and not alias.is_write for alias in returned)


def _bytes(values: Any) -> int:
    """Bytes of the tensors among values; expanded tensors occupy memory once."""
    tensors = (value for value in tree_leaves(values) if isinstance(value, Tensor))
    return sum(min(tensor.nbytes, tensor.untyped_storage().nbytes()) for tensor in tensors)


STAGES = {"encode": "image", "match": "pair"}


def measure(matcher: Any, images: list[np.ndarray], repeats: int) -> dict[str, list[tuple[float, dict[str, float]]]]:
    """By stage, for each image or pair and repeat: wall-clock seconds, in total and for each part."""
    readings: dict[str, list[tuple[float, dict[str, float]]]] = defaultdict(list)
    device = getattr(matcher, "device", None) or torch.device("cpu")
    for _ in range(repeats):
        features: list[Any] = []
        for image in images:
            prepared = matcher.prepare(image)
            features += _read(matcher, device, "encode", lambda prepared=prepared: matcher.encode([prepared]), readings)
        for a, b in zip(features, features[1:], strict=False):
            _read(matcher, device, "match", lambda pair=(a, b): matcher.match([pair], [0]), readings)
    return readings


def _read(matcher: Any, device: torch.device, stage: str, work: Callable[[], Any], readings: Any) -> Any:
    watch = Watch(clock(device))
    with watched(matcher.network, watch):
        start = time.perf_counter()
        with watch.stage(stage):
            value = work()
        wait_for(device)
        readings[stage].append((time.perf_counter() - start, watch.totals()[stage]))
    return value


def work_of(matcher: Any, images: list[np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """By stage and part, (operations, bytes) of one image and of one pair."""
    with counted() as meter:
        watch = Watch(meter)
        with watched(matcher.network, watch):
            prepared = [matcher.prepare(image) for image in images[:2]]
            features = []
            for each in prepared:
                with watch.stage("encode"):
                    features += matcher.encode([each])
            with watch.stage("match"):
                matcher.match([(features[0], features[1])], [0])
    counts = {"encode": 2, "match": 1}
    return {
        stage: {name: value / counts[stage] for name, value in parts.items()} for stage, parts in watch.totals().items()
    }


def rows_of(readings: Any, work: Any, products: float, copies: float) -> Iterator[dict[str, Any]]:
    """A row for each whole stage, with an empty `part`, and one for each of its parts."""
    for stage, each in readings.items():
        whole = sum(work[stage].values(), np.zeros(2))
        yield _row(stage, "", statistics.median(seconds for seconds, _ in each), whole, products, copies)
        for name in work[stage]:
            seconds = statistics.median(parts.get(name, 0.0) for _, parts in each)
            yield _row(stage, name, seconds, work[stage][name], products, copies)


def _row(stage: str, part: str, seconds: float, work: np.ndarray, products: float, copies: float) -> dict[str, Any]:
    flops, num_bytes = map(float, work)
    return {
        "stage": stage,
        "part": part,
        "seconds": round(seconds, 6),
        "gflop": round(flops / 1e9, 3),
        "gbyte": round(num_bytes / 1e9, 3),
        "of_products": round(flops / seconds / products, 4) if seconds else 0.0,
        "of_copies": round(num_bytes / seconds / copies, 4) if seconds else 0.0,
    }


def product_rate(device: torch.device, dtype: torch.dtype, *, side: int | None = None) -> float:
    """Floating-point operations per second in a product of square matrices, with the library that linear layers use.

    side: of the matrices; by default large enough to fill the device.
    """
    side = side or (8192 if device.type == "cuda" else 1024)
    matrix = torch.full((side, side), 0.5, dtype=dtype, device=device)
    return 2 * side**3 / fastest_s(lambda: pointwise(matrix, matrix, None), device)


def copy_rate(device: torch.device) -> float:
    """Bytes per second read and written by a copy too large for the caches, in the device's memory."""
    num_bytes = 1 << 30 if device.type == "cuda" else 1 << 27
    source = torch.zeros(num_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * num_bytes / fastest_s(lambda: target.copy_(source), device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--seeded-weights", action="store_true", help="random weights: times without a download")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--images", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    load = load_seeded if options.seeded_weights else load_matcher
    matcher: Any = load(options.model, MatcherOptions(device=options.device, dtype=options.dtype, min_overlap=0.0))
    with tempfile.TemporaryDirectory() as scratch, torch.inference_mode():
        listed = list_images(generate_photographs(Path(scratch), max(2, options.images)))
        images = [read_upright(listed.root / name)[0] for name in listed.names]
        work = work_of(matcher, images)
        readings = measure(matcher, images, options.repeats)
    device = matcher.device
    dtype = getattr(torch, matcher.settings.get("dtype", "float32"))
    products, copies = product_rate(device, dtype), copy_rate(device)
    rows = list(rows_of(readings, work, products, copies))
    heads = ("seconds", "GFLOP", "GB", "of products", "of copies")
    print(f"{'each':<28}" + "".join(f"{head:>12}" for head in heads))
    for row in rows:
        name = f"  {row['part']}" if row["part"] else f"{row['stage']}, {STAGES[row['stage']]}"
        values = (f"{row['seconds']:.4f}", f"{row['gflop']:.1f}", f"{row['gbyte']:.2f}")
        shares = (f"{100 * row[key]:.1f} %" for key in ("of_products", "of_copies"))
        print(f"{name:<28}" + "".join(f"{text:>12}" for text in (*values, *shares)))
    print(f"products {products / 1e9:.1f} GFLOP/s, copies {copies / 1e9:.2f} GB/s")
    if options.json:
        options.json.write_text(
            json.dumps({"rows": rows, "matrix_gflops": products / 1e9, "copy_gb_s": copies / 1e9}), encoding="utf-8"
        )


if __name__ == "__main__":
    main()
