"""RoMa against arrays of the authors' code with the same pseudo-random weights, stage by stage."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from romacli.networks.parts.gaussian_process import GaussianProcess
from romacli.networks.parts.local_correlation import local_correlation
from romacli.networks.parts.output import NetworkMatch
from romacli.networks.roma import RoMa, decode_anchors

TESTS = Path(__file__).resolve().parents[1]
GOLDEN = TESTS / "golden"
PARITY = TESTS.parents[1] / "shared" / "parity"
CASES = sorted(GOLDEN.glob("golden_synth*.npz")) + sorted(PARITY.glob("golden_[st]*_*.npz"))
UNITS = sorted(GOLDEN.glob("golden_units.npz")) + sorted(PARITY.glob("golden_units.npz"))

# Largest differences allowed. Relative ones are in standard deviations of the golden tensor: early stages differ only
# by the order of summation, inputs and outputs of the refiners also by what has accumulated along the flow. (The
# authors' code against itself without oneDNN: features 5e-5, logits 1.5e-4, refiners' inputs up to 5e-3; romacli's with
# and without folded normalisations: their outputs up to 1.2e-2 at the finest level.)
RELATIVE = {
    "feat": 2e-4,
    "proj": 2e-4,
    "gp": 2e-4,
    "logits": 5e-4,
    "logsumexp": 5e-4,
    "gm_certainty": 5e-4,
    "in": 5e-3,
    "delta": 2e-2,
}
FLOW = 2e-4  # normalised coordinates
CERTAINTY = 2e-3  # probabilities
LOGIT = 5e-3  # intermediate certainties
EDGE_SHARE = 1e-3  # of pixels whose target is on the image's edge, so that only one side is 0
ANCHOR_MARGIN = 2e-3  # of logits; below it rounding may choose another anchor


@dataclass(frozen=True)
class Difference:
    """The difference between a tensor and its golden array, and the tolerance."""

    name: str
    found: float
    limit: float


@pytest.fixture(scope="module")
def net(seeded_checkpoints: tuple[dict[str, Tensor], dict[str, Tensor]]) -> RoMa:
    return RoMa.from_checkpoints(*seeded_checkpoints)


@pytest.mark.parametrize("path", CASES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_stage_agrees_with_the_authors_code(
    path: Path, net: RoMa, record_property: pytest.FixtureRequest
) -> None:
    found = differences(net, np.load(path))
    for difference in found:
        record_property(difference.name, f"{difference.found:.1e} of {difference.limit:.0e}")
    assert len(found) > 20
    assert [difference for difference in found if not difference.found <= difference.limit] == []


def differences(net: RoMa, golden: Mapping[str, np.ndarray]) -> list[Difference]:
    """Differences of all stages and of the results."""
    meta = json.loads(bytes(golden["meta"]))
    coarse = images(golden, meta, "coarse")
    fine = images(golden, meta, "up") if "im_A_up_u8" in golden else None
    with recorded(net) as stages:
        features = net.encode(coarse, fine)
        features_A, features_B = ({key: value[i : i + 1] for key, value in features.items()} for i in (0, 1))
        match = net.match(features_A, features_B, symmetric=meta["case"]["symmetric"])
    stages |= derived(stages)
    compared = [compare_stage(name, golden[name], stages) for name in golden if name.startswith(("c/", "u/"))]
    return [*compared, compare_anchors(golden, stages), *compare_results(golden, results(match))]


def images(golden: Mapping[str, np.ndarray], meta: dict, size: str) -> Tensor:
    """Both images, (2, 3, H, W) normalised."""
    pixels = torch.from_numpy(np.stack([golden[f"im_{side}_{size}_u8"] for side in "AB"])).float() / 255
    mean, std = (torch.tensor(meta[key]) for key in ("image_mean", "image_std"))
    return ((pixels - mean) / std).permute(0, 3, 1, 2)


@contextmanager
def recorded(net: RoMa) -> Iterator[dict[str, Tensor]]:
    """Record the stages' tensors under the golden files' names: c/ for the first pass, u/ for the second."""
    stages: dict[str, Tensor] = {}
    calls: dict[str, int] = defaultdict(int)

    def keep(name: str, tensor: Tensor) -> None:
        stages[f"{'cu'[calls[name]]}/{name}"] = tensor.clone()
        calls[name] += 1

    def watch(module: nn.Module, before: str | None, *after: str) -> None:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor | tuple[Tensor, ...]) -> None:
            outputs = output if isinstance(output, tuple) else (output,)
            for name, tensor in zip(after, outputs, strict=True):
                keep(name, tensor)

        if before:
            handles.append(module.register_forward_pre_hook(lambda _, inputs: keep(before, inputs[0])))
        if after:
            handles.append(module.register_forward_hook(hook))

    handles: list[torch.utils.hooks.RemovableHandle] = []
    watch(net.decoder, "tokens", "decoded")
    for stride in ("16", "8", "4", "2", "1"):
        watch(net.projections[stride], f"feat{stride}", f"proj{stride}")
        watch(net.refiners[stride], None, f"scale{stride}_flow", f"scale{stride}_certainty")
        watch(net.refiners[stride].block1[0], f"refiner{stride}_in")
        watch(net.refiners[stride].out_conv, None, f"refiner{stride}_delta")
    try:
        yield stages
    finally:
        for handle in handles:
            handle.remove()


def derived(stages: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors in the golden files other than the modules' inputs and outputs."""
    rows, cols = stages["c/proj16"].shape[-2:]
    decoded = stages["c/decoded"].transpose(1, 2).unflatten(2, (rows, cols))
    logits = decoded[:, :-1]
    best = logits.topk(2, dim=1).values
    return {
        "c/gp": stages["c/tokens"][..., :512].transpose(1, 2).unflatten(2, (rows, cols)),
        "c/logits": logits,
        "c/logsumexp": logits.logsumexp(1),
        "c/anchor_argmax": logits.argmax(1),
        "c/anchor_margin": best[:, 0] - best[:, 1],
        "c/gm_certainty": decoded[:, -1:],
        "c/flow_from_classifier": decode_anchors(logits),
    }


def compare_stage(golden_name: str, golden: np.ndarray, stages: Mapping[str, Tensor]) -> Difference:
    name = golden_name.partition("[")[0]
    found = sliced(stages[name], golden_name)[: len(golden)]  # proj of one direction alone is that of image A
    largest = float(np.abs(found.astype(np.float64) - golden).max())
    kind = re.sub(r"\d|refiner\d+_", "", name[2:])
    if "flow" in kind:
        return Difference(golden_name, largest, FLOW)
    if kind == "scale_certainty":
        return Difference(golden_name, largest, LOGIT)
    if kind == "anchor_margin":
        return Difference(golden_name, largest, ANCHOR_MARGIN)
    if kind == "anchor_argmax":
        return Difference(golden_name, float((found != golden).mean()), EDGE_SHARE)
    return Difference(golden_name, largest / float(golden.std()), RELATIVE[kind])


def compare_anchors(golden: Mapping[str, np.ndarray], stages: Mapping[str, Tensor]) -> Difference:
    """How many anchors with a clear margin differ."""
    clear = golden["c/anchor_margin"] > ANCHOR_MARGIN
    flipped = (stages["c/anchor_argmax"].numpy() != golden["c/anchor_argmax"]) & clear
    return Difference("clear anchors that differ", float(flipped.sum()), 0)


def results(match: NetworkMatch) -> dict[str, Tensor]:
    """The only pair's warps, and its certainties concatenated."""
    if match.warp_BA is None or match.certainty_BA is None:
        return {"warp_A_to_B": match.warp_AB[0], "certainty": match.certainty_AB[0]}
    certainty = torch.cat([match.certainty_AB[0], match.certainty_BA[0]], dim=1)
    return {"warp_A_to_B": match.warp_AB[0], "warp_B_to_A": match.warp_BA[0], "certainty": certainty}


def compare_results(golden: Mapping[str, np.ndarray], found: Mapping[str, Tensor]) -> Iterator[Difference]:
    for name in golden:
        if name.startswith("warp"):
            warp = sliced(found[name.partition("[")[0]], name)
            yield Difference(name, float(np.abs(warp - golden[name]).max()), FLOW)
        if name.startswith("certainty"):
            certainty = sliced(found["certainty"], name)
            on_edge = (certainty == 0) != (golden[name] == 0)
            yield Difference("on the edge", float(on_edge.mean()), EDGE_SHARE)
            yield Difference(name, float(np.abs(certainty - golden[name])[~on_edge].max()), CERTAINTY)


def sliced(tensor: Tensor, golden_name: str) -> np.ndarray:
    """The part of a tensor that a golden array contains: its name ends in the slices, [:,::4,::2,::2]."""
    steps = re.findall(r":(?::(\d+))?(?:,|])", golden_name)
    return tensor[tuple(slice(None, None, int(step or 1)) for step in steps)].numpy()


@pytest.fixture(params=UNITS, ids=lambda path: path.parent.name)
def units(request: pytest.FixtureRequest) -> Mapping[str, np.ndarray]:
    return np.load(request.param)


def test_anchors_at_borders_decode_as_in_the_authors_code(units: Mapping[str, np.ndarray]) -> None:
    flow = decode_anchors(torch.from_numpy(units["cls/logits"]))
    np.testing.assert_allclose(flow.permute(0, 2, 3, 1).numpy(), units["cls/flow"], atol=1e-6)


@pytest.mark.parametrize("radius", [7, 3, 2])
def test_local_correlation_agrees_with_the_authors_code(units: Mapping[str, np.ndarray], radius: int) -> None:
    x, y, flow = (torch.from_numpy(units[f"lc{radius}/{name}"]) for name in ("x", "y", "warp"))
    found = local_correlation(x, y, flow, radius)
    np.testing.assert_allclose(found.numpy(), units[f"lc{radius}/out"], atol=2e-5)


def test_gaussian_process_agrees_with_the_authors_code(units: Mapping[str, np.ndarray], net: RoMa) -> None:
    process: GaussianProcess = net.gaussian_process
    x, y = (torch.from_numpy(units[f"gp/{name}"]) for name in "xy")
    kernel = process.kernel(x.flatten(2).transpose(1, 2), y.flatten(2).transpose(1, 2))
    posterior = (kernel @ process.alpha(y)).transpose(1, 2).unflatten(2, x.shape[-2:])
    np.testing.assert_allclose(posterior[:, ::8].numpy(), units["gp/out[:,::8]"], atol=2e-5)


def test_position_embedding_agrees_with_the_authors_code(units: Mapping[str, np.ndarray], net: RoMa) -> None:
    names = [name for name in units if name.startswith("pos_embed_")]
    assert names
    for name in names:
        height, width, token_step, step = map(
            int, re.fullmatch(r"pos_embed_(\d+)x(\d+)\[:,::(\d+),::(\d+)\]", name).groups()
        )
        found = net.dinov2.position_embedding(height // 14, width // 14)[:, ::token_step, ::step]
        np.testing.assert_allclose(found.numpy(), units[name], atol=2e-6, err_msg=name)
