"""DKM against arrays of the authors' code, and on its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from support.golden import GOLDEN, PARITY, Difference, compared, meta, picture, sliced, watched
from support.seeded_relatives import digest, seeded_relative
from torch import Tensor, nn

from romacli.errors import WeightsError
from romacli.matchers.dense import normalise
from romacli.networks.dkm import CLASSIFIER, DKM, checkpoint_name
from romacli.networks.parts.output import NetworkMatch

CASES = sorted(GOLDEN.glob("golden_dkm*.npz")) + sorted((PARITY / "dkm").glob("golden_dkm_t*.npz"))
# In standard deviations of the golden tensor, negative ones absolute; differences at the refiners have grown along the
# flow. (The authors' code on one thread against two: refiners' inputs 2e-3, outputs 5e-3.)
LIMITS = (
    ("dfn", 3e-4),
    ("refiner\\d+_in", 1e-2),
    ("refiner\\d+_out", 2e-2),
    ("flow|warp", -1e-4),
    ("scale\\d+_certainty", 2e-3),
    ("", 2e-4),
)
CERTAINTY, EDGE_SHARE = 1e-3, 1e-3


@pytest.fixture(scope="module")
def checkpoint() -> dict[str, Tensor]:
    with torch.device("meta"):
        layout = {checkpoint_name(name): tuple(value.shape) for name, value in DKM().state_dict().items()}
    state = seeded_relative({**layout, **CLASSIFIER}, group="dkm")
    assert digest(state, absolute=True) == "31fd14e80072c237"
    return state


@pytest.fixture(scope="module")
def net(checkpoint: Mapping[str, Tensor]) -> DKM:
    return DKM.from_checkpoint(checkpoint)


@pytest.mark.parametrize("path", CASES, ids=lambda path: f"{path.parent.name}-{path.stem}")
@torch.inference_mode()
def test_every_stage_agrees_with_the_authors_code(path: Path, net: DKM) -> None:
    golden = np.load(path)
    symmetric = meta(golden)["case"]["symmetric"]
    modules = {f"proj{stride}": net.projections[stride] for stride in ("32", "16")}
    for stride in ("32", "16"):
        for part in ("rrb_d", "cab", "rrb_u", "terminal_module"):
            modules[f"dfn{stride}_{part}"] = getattr(net.decoder, part)[stride]
    for stride in ("16", "8", "4", "2", "1"):
        modules[f"scale{stride}_flow"] = net.refiners[stride]
        modules[f"refiner{stride}_in"] = net.refiners[stride].block1[0]
        modules[f"refiner{stride}_out"] = net.refiners[stride].out_conv
    with watched(modules) as calls:
        a, b = (net.encode(*images(golden, side)) for side in "AB")
        match = net.match(a, b, symmetric=symmetric)
    found = compared(golden, stages(net, calls, a, b, symmetric=symmetric), LIMITS) + list(results(golden, match))
    assert len(found) >= 38
    assert [each for each in found if each.is_too_large] == []


def images(golden: Mapping[str, np.ndarray], side: str) -> list[Tensor]:
    names = [f"im_{side}_{size}_u8" for size in ("coarse", "up")]
    return [normalise(255 * picture(golden, name)) for name in names if name in golden]


def stages(
    net: DKM, calls: Mapping[str, list[Tensor]], a: Mapping[str, Tensor], b: Mapping[str, Tensor], *, symmetric: bool
) -> dict[str, Tensor]:
    """The tensors under the golden files' names: c/ for the first pass, u/ for the second."""
    both = (lambda ours: torch.cat(ours)) if symmetric else (lambda ours: ours[0])
    found: dict[str, Tensor] = {}
    for stride in ("32", "16"):
        found[f"c/feat{stride}"] = torch.cat(calls[f"proj{stride}/in"])
        found[f"c/proj{stride}_f1"] = both([a[f"coarse_{stride}"], b[f"coarse_{stride}"]])
        found[f"c/proj{stride}_f2"] = both([b[f"coarse_{stride}"], a[f"coarse_{stride}"]][: 1 + symmetric])
        found[f"c/gp{stride}"] = calls[f"dfn{stride}_rrb_d/in"][0][:, 256:]
        found[f"c/dfn{stride}_feat_input_modules"] = both([a[f"embedded_{stride}"], b[f"embedded_{stride}"]])
        for part in ("rrb_d", "cab", "rrb_u"):
            found[f"c/dfn{stride}_{part}"] = calls[f"dfn{stride}_{part}/out"][0]
        found[f"c/dfn{stride}_out"] = calls[f"dfn{stride}_terminal_module/out"][0]
    for letter, name in (("c", "coarse"), ("u", "fine")):
        for stride in ("8", "4", "2"):
            if f"{name}_{stride}" in a:
                found[f"{letter}/feat{stride}"] = torch.cat([a[f"{name}_{stride}"], b[f"{name}_{stride}"]])
    for stride in ("16", "8", "4", "2", "1"):
        for end, key in (("refiner{}_in", "in"), ("refiner{}_out", "out"), ("scale{}_flow", "out")):
            name = end.format(stride)
            for letter, value in zip("cu", calls[f"{name}/{key}"], strict=False):
                found[f"{letter}/{name}"] = value
    return found


def results(golden: Mapping[str, np.ndarray], match: NetworkMatch) -> list[Difference]:
    """Differences of the only pair's warps and of its certainties, concatenated."""
    found = compared(golden, {"warp_A_to_B": match.warp_AB[0]}, LIMITS)
    certainty = match.certainty_AB[0]
    if match.warp_BA is not None and match.certainty_BA is not None:
        found += compared(golden, {"warp_B_to_A": match.warp_BA[0]}, LIMITS)
        certainty = torch.cat([certainty, match.certainty_BA[0]], dim=1)
    expected = golden["certainty"].reshape(certainty.shape)
    on_edge = (certainty.numpy() == 0) != (expected == 0)
    largest = float(np.abs(certainty.numpy() - expected)[~on_edge].max())
    return [
        *found,
        Difference("on the edge", float(on_edge.mean()), EDGE_SHARE),
        Difference("certainty", largest, CERTAINTY),
    ]


def test_folding_leaves_no_normalisation(net: DKM) -> None:
    assert not [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]


@torch.inference_mode()
def test_a_pair_in_two_stages_and_in_batches_is_the_same(net: DKM) -> None:
    generator = torch.Generator().manual_seed(0)
    small, large = torch.randn(2, 3, 64, 96, generator=generator), torch.randn(2, 3, 96, 128, generator=generator)
    a, b = net.encode(small, large), net.encode(small.flip(0), large.flip(0))
    whole = net.match(a, b)
    state = net.refine(net.start(a, b), a, b, down_to=8)
    staged = net.result(net.refine(state, a, b))
    torch.testing.assert_close(staged.warp_BA, whole.warp_BA)
    # Pair 1 is pair 0 in reverse order.
    torch.testing.assert_close(whole.warp_AB[0], whole.warp_BA[1], atol=1e-4, rtol=0)


def test_small_images_and_other_files_are_refused(net: DKM) -> None:
    with pytest.raises(ValueError, match="sides must be at least 32"):
        net.encode(torch.zeros(1, 3, 64, 31))
    with pytest.raises(WeightsError, match="those of RoMa, not of DKM"):
        DKM.from_checkpoint({"decoder.embedding_decoder.to_out.weight": torch.zeros(1)})
    with pytest.raises(WeightsError, match="do not fit DKM: 813 missing"):
        DKM.from_checkpoint({})


def test_slices_of_golden_names_are_read() -> None:
    assert sliced(torch.arange(12).view(3, 4), "x[::2,2:]").tolist() == [[2, 3], [10, 11]]
