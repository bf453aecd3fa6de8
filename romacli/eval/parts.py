"""What the parts of a network take: its named submodules are watched from outside and know nothing of it."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import wraps
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn

REST = "rest"


@dataclass(frozen=True)
class Part:
    """A method of submodules whose names fit a pattern, level by level.

    has_sizes: told apart by the size of what it returns, as passes over the same weights differ by nothing else.
    """

    name: str
    modules: str
    method: str = "forward"
    has_sizes: bool = False


# By the network's class. A name with braces takes the last word of the submodule's.
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
    """Something that is read before and after, and what lies between two readings."""

    read: Callable[[], Any]
    between: Callable[[Any, Any], Any]


def clock(device: torch.device | None) -> Meter:
    """Seconds: by events on a GPU, which needs not be waited for, and of the wall clock elsewhere."""
    if device is None or device.type != "cuda":
        return Meter(time.perf_counter, lambda start, end: end - start)
    import torch

    def event() -> torch.cuda.Event:
        now = torch.cuda.Event(enable_timing=True)
        now.record(torch.cuda.current_stream(device))
        return now

    return Meter(event, lambda start, end: start.elapsed_time(end) / 1e3)


class Watch:
    """Readings of a meter about stages and the parts within them; of parts within parts the outermost counts."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._readings: list[tuple[str, str, Any, Any]] = []
        self._stage = ""
        self._inside = False

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Readings about a stage, to which the parts that run meanwhile belong."""
        self._stage, start = name, self._meter.read()
        yield
        self._readings.append((name, "", start, self._meter.read()))

    def call(self, name: Callable[[Any], str], work: Callable[[], Any]) -> Any:
        """What `work` returns, with readings about it; its name may depend on that."""
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
        """By stage and part, what lay between readings, and under `REST` what a stage had outside its parts.

        On a GPU the readings have to have happened: wait for it before.
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
    """Watch the parts of a network whose parts are known; another one is left alone."""
    with ExitStack() as stack:
        for part in PARTS.get(type(network).__name__, ()):
            assert network is not None
            for name, module in network.named_modules():
                if fnmatchcase(name, part.modules) and name.count(".") == part.modules.count("."):
                    stack.enter_context(_probe(module, part, part.name.format(name.rpartition(".")[2]), watch))
        yield


@contextmanager
def _probe(module: nn.Module, part: Part, name: str, watch: Watch) -> Iterator[None]:
    """Put a watched method before the module's own."""
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
    """Width and height of a refiner's certainty, the last two dimensions of the last thing it returns."""
    height, width = value[-1].shape[-2:]
    return f"{width}x{height}"
