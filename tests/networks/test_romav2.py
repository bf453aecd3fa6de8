"""RoMa v2 against arrays of the authors' code, and on its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from support.golden import GOLDEN, PARITY, Difference, compared, meta, picture, sliced, watched
from support.seeded_relatives import digest
from support.small_romav2 import SMALL, small_checkpoint, small_romav2
from torch import Tensor

from romacli.errors import WeightsError
from romacli.networks.parts.local_correlation import local_correlation
from romacli.networks.parts.output import PreciseMatch
from romacli.networks.parts.rotary import rotation
from romacli.networks.romav2 import PUBLISHED, RoMaV2, increments, resize

CASES = sorted(GOLDEN.glob("golden_romav2_s*.npz")) + sorted((PARITY / "romav2").glob("golden_romav2_t*.npz"))
UNITS = sorted(GOLDEN.glob("golden_romav2_units.npz"))
# In standard deviations of the golden tensor, negative ones absolute. Differences at the refiners have grown along the
# flow; a bfloat16 rotation rounds differently from case to case, so everything after it differs more.
FLOAT32 = (
    ("dino|mv_projector|vgg|^im_", 2e-4),
    ("mv_|pos_emb|match_emb", 2e-4),
    ("attn_logits|head", 3e-4),
    ("refiner\\d_.._in", 5e-3),
    ("_raw", 1e-2),
    ("warp", -1e-4),
    ("overlap", -5e-4),
    ("conf|precision", 5e-3),
)
BFLOAT16 = (
    ("dino|mv_projector|vgg|^im_|pos_emb", 2e-4),
    ("mv_|match_emb|attn_logits|head", 3e-3),
    ("_in|_raw", 2e-2),
    ("warp", -1e-3),
    ("overlap", -3e-3),
    ("conf|precision", 2e-2),
)


@pytest.fixture(scope="module")
def checkpoint() -> dict[str, Tensor]:
    state = small_checkpoint(PUBLISHED)
    assert digest(state, absolute=True) == "cd3cc38397e3b407"
    return state


@pytest.fixture(scope="module")
def net(checkpoint: Mapping[str, Tensor]) -> RoMaV2:
    return RoMaV2.from_checkpoint(checkpoint, release="2.0.1")


@pytest.mark.parametrize("path", CASES, ids=lambda path: f"{path.parent.name}-{path.stem}")
@torch.inference_mode()
def test_every_stage_agrees_with_the_authors_code(path: Path, net: RoMaV2, monkeypatch: pytest.MonkeyPatch) -> None:
    golden = np.load(path)
    case = meta(golden)["case"]
    limits = FLOAT32 if case["rope32"] else BFLOAT16
    monkeypatch.setattr(net.transformer, "rope_dtype", torch.float32 if case["rope32"] else torch.bfloat16)
    low = {side: resize(picture(golden, f"im_{side}_u8"), tuple(case["lr"])) for side in "AB"}
    high = {side: resize(picture(golden, f"im_{side}_u8"), tuple(case["hr"])) for side in "AB"} if case["hr"] else {}
    with watched(modules(net)) as calls:
        a, b = (net.encode(low[side], high.get(side)) for side in "AB")
        match = net.match(a, b, symmetric=case["bidirectional"])
    found = compared(golden, stages(net, calls, low, symmetric=case["bidirectional"]), limits)
    found += results(golden, match, limits, threshold=case["threshold"])
    assert len(found) >= 38
    assert [each for each in found if each.is_too_large] == []


@pytest.mark.parametrize("path", CASES[1:], ids=lambda path: f"{path.parent.name}-{path.stem}")
@torch.inference_mode()
def test_the_shipped_rotation_agrees_within_its_rounding(path: Path, net: RoMaV2) -> None:
    golden = np.load(path)
    case = meta(golden)["case"]
    shipped = {name.removeprefix("rope_bf16/"): golden[name] for name in golden if name.startswith("rope_bf16/")}
    sizes = [tuple(size) for size in (case["lr"], case["hr"]) if size]
    a, b = (net.encode(*(resize(picture(golden, f"im_{side}_u8"), size) for size in sizes)) for side in "AB")
    match = net.match(a, b, symmetric=case["bidirectional"])
    found = results(shipped, match, BFLOAT16, threshold=case["threshold"])
    assert found
    assert [each for each in found if each.is_too_large] == []


def modules(net: RoMaV2) -> dict[str, torch.nn.Module]:
    watched_modules = {
        "dino_patch_embed": net.dinov3.patch_embed,
        "dino_block0": net.dinov3.blocks[0],
        "norm": net.dinov3.norm,
        "mv_projector": net.transformer.projector,
        **{f"mv_block{i}": net.transformer.blocks[i] for i in (0, 1, 11)},
        "mv_out": net.transformer.output_projector,
        **{f"head_refinenet{i}": getattr(net.head, f"refinenet{i}") for i in (1, 2, 3, 4)},
        "head_output_conv1": net.head.output_conv1,
        "head_out": net.head.output_conv2,
    }
    for stride in ("4", "2", "1"):
        refiner = net.refiners[stride]
        watched_modules |= {
            f"vgg{stride}": refiner.proj,
            f"refiner{stride}_in": refiner.block1[0],
            f"refiner{stride}_warp_raw": refiner.warp_head,
            f"refiner{stride}_conf_raw": refiner.confidence_head,
            f"refiner{stride}_warp": refiner,
        }
    return watched_modules


def stages(
    net: RoMaV2, calls: Mapping[str, list[Tensor]], low: Mapping[str, Tensor], *, symmetric: bool
) -> dict[str, Tensor]:
    """The tensors under the golden files' names."""
    out = {name.removesuffix("/out"): values for name, values in calls.items() if name.endswith("/out")}
    found = {name: out[name][0] for name in ("mv_block0", "mv_block1", "mv_block11", "mv_out")}
    found["mv_projector"] = torch.cat(out["mv_projector"], dim=1)
    grid = tuple(side // 16 for side in low["A"].shape[-2:])
    seen = out["mv_out"][0].chunk(2, dim=1)
    logits = net.logits(*seen)
    places = net.position_table(low["A"][:, :, ::16, ::16])
    found["pos_emb_grid"] = places.unflatten(1, grid)
    for index, side in enumerate("AB"):
        found[f"im_{side}_lr"] = low[side]
        found[f"dino_patch_embed_{side}"] = out["dino_patch_embed"][index].unflatten(1, grid)
        found[f"dino_block0_{side}"] = out["dino_block0"][index]
        for layer, name in enumerate(("dino11", "dino17")):
            found[f"{name}_{side}"] = out["norm"][2 * index + layer][:, 5:].unflatten(1, grid)
    for index, direction in enumerate(("AB", "BA")[: 1 + symmetric]):
        rows = slice(index, index + 1)
        their_logits = logits.transpose(1, 2) if index else logits
        found[f"attn_logits_{direction}"] = their_logits.unflatten(2, grid).unflatten(1, grid)
        found[f"match_emb_{direction}"] = (their_logits.softmax(dim=2) @ places).unflatten(1, grid)
        for name in ("refinenet1", "refinenet2", "refinenet3", "refinenet4", "output_conv1"):
            found[f"head_{name}_{direction}"] = out[f"head_{name}"][0][rows]
        found[f"head_out_{direction}"] = out["head_out"][0][rows].permute(0, 2, 3, 1)
        for stride in "421":
            for end in ("in", "warp_raw", "conf_raw", "warp"):
                name = f"refiner{stride}_{end}"
                values = calls[f"{name}/in"] if end == "in" else out[name]
                for pass_name, value in zip(("lr", "hr"), values, strict=False):
                    value = value[rows].permute(0, 2, 3, 1) if end == "warp" else value[rows]
                    found[f"{pass_name}/refiner{stride}_{direction}_{end}"] = value
    for stride in "421":
        names = ("lr/{}_A", "hr/{}_A", "lr/{}_B", "hr/{}_B")
        names = names if len(calls[f"vgg{stride}/in"]) == 4 else names[::2]
        for name, value in zip(names, calls[f"vgg{stride}/in"], strict=True):
            found[name.format(f"vgg{stride}")] = value
    return found


def results(
    golden: Mapping[str, np.ndarray],
    match: PreciseMatch,
    limits: tuple[tuple[str, float], ...],
    *,
    threshold: float | None,
) -> list[Difference]:
    """Differences of warps, overlaps and precisions; the authors count overlaps above their threshold as 1."""
    found = {"warp_AB": match.warp_AB, "overlap_AB": match.certainty_AB[..., None]}
    if match.precision_AB is not None:
        found["precision_AB"] = match.precision_AB
    if match.warp_BA is not None and match.certainty_BA is not None and match.precision_BA is not None:
        found |= {"warp_BA": match.warp_BA, "overlap_BA": match.certainty_BA[..., None]}
        found["precision_BA"] = match.precision_BA
    if threshold is not None:
        for name in ("overlap_AB", "overlap_BA"):
            overlap = found.pop(name)
            found[name] = torch.where(overlap > threshold, 1.0, overlap)
    differences = compared(golden, found, limits)
    if threshold is None:
        return differences
    return [each for each in differences if not each.name.startswith("overlap")] + thresholded(golden, match, threshold)


def thresholded(golden: Mapping[str, np.ndarray], match: PreciseMatch, threshold: float) -> list[Difference]:
    """How many overlaps that are clear of the threshold are on the wrong side of it."""
    differences = []
    for name in golden:
        if name.startswith("overlap"):
            overlap = match.certainty_AB if name.startswith("overlap_AB") else match.certainty_BA
            ours = sliced(overlap[..., None], name)
            clear = np.abs(ours - threshold) > 3e-3
            differences.append(Difference(name, float(((ours > threshold) != (golden[name] == 1))[clear].sum()), 0))
    return differences


@pytest.fixture(params=UNITS, ids=lambda path: path.parent.name)
def units(request: pytest.FixtureRequest) -> Mapping[str, np.ndarray]:
    return np.load(request.param)


@pytest.mark.parametrize(("word", "dtype"), [("bf16", torch.bfloat16), ("f32", torch.float32)])
def test_rotations_are_those_of_the_authors_code(
    units: Mapping[str, np.ndarray], word: str, dtype: torch.dtype
) -> None:
    periods = (100.0 ** (torch.arange(16) / 16)).bfloat16()
    for rows, cols, step in ((5, 7, ""), (20, 20, "[::7,:]"), (50, 50, "[::41,:]")):
        turned = rotation(periods, rows, cols, dtype=dtype)
        for name in ("sin", "cos"):
            found = getattr(turned, name)[:: int(step[3:-3] or 1) if step else 1].float()
            golden = units[f"rope_{word}/{name}_{rows}x{cols}{step}"]
            np.testing.assert_allclose(found.numpy(), golden, atol=1e-6 if word == "f32" else 0)


def test_images_resize_as_in_the_authors_code(units: Mapping[str, np.ndarray]) -> None:
    image = picture(units, "resize/in_u8")
    for shape in ((16, 16), (64, 48)):
        golden = units[f"resize/out_{shape[0]}x{shape[1]}"]
        np.testing.assert_allclose(resize(image, shape).numpy(), golden, atol=1e-6)


def test_raw_outputs_become_precisions(units: Mapping[str, np.ndarray]) -> None:
    found = increments(torch.from_numpy(units["precinc/raw"])).permute(0, 2, 3, 1)
    np.testing.assert_allclose(found.numpy(), units["precinc/out"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("radius", [3, 1])
def test_local_correlation_agrees_with_the_authors_code(units: Mapping[str, np.ndarray], radius: int) -> None:
    x, y, warp = (torch.from_numpy(units[f"lc{radius}/{name}"]) for name in ("x", "y", "warp"))
    found = local_correlation(x, y, warp.permute(0, 3, 1, 2), radius)
    np.testing.assert_allclose(found.numpy(), units[f"lc{radius}/out"], atol=2e-5)


@torch.inference_mode()
def test_the_releases_differ_and_none_is_guessed() -> None:
    images = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    warps = []
    for release in ("2.0.0", "2.0.1"):
        net = small_romav2(release)
        warps.append(net.match(*(net.encode(image[None]) for image in images)).warp_AB)
    assert float((warps[0] - warps[1]).abs().max()) > 1e-5
    with pytest.raises(ValueError, match=r"release 2\.0 of RoMa v2 is not known"):
        small_romav2("2.0")


@torch.inference_mode()
def test_a_pair_in_two_stages_and_in_batches_is_the_same() -> None:
    net, generator = small_romav2(), torch.Generator().manual_seed(0)
    low, high = torch.rand(2, 3, 32, 48, generator=generator), torch.rand(2, 3, 64, 80, generator=generator)
    a, b = net.encode(low, high), net.encode(low.flip(0), high.flip(0))
    whole = net.match(a, b)
    staged = net.result(net.refine(net.refine(net.start(a, b), a, b, down_to=4), a, b))
    # Pair 1 is pair 0 in reverse order.
    for name in ("warp", "certainty", "precision"):
        forward, backward = getattr(whole, f"{name}_AB"), getattr(whole, f"{name}_BA")
        torch.testing.assert_close(getattr(staged, f"{name}_BA"), backward)
        torch.testing.assert_close(forward[0], backward[1], atol=1e-3, rtol=1e-3)
    one_way = net.match(a, b, symmetric=False)
    torch.testing.assert_close(one_way.warp_AB, whole.warp_AB)
    assert one_way.precision_BA is None


@torch.inference_mode()
def test_folding_changes_nothing() -> None:
    images = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    nets = [small_romav2(fold=fold) for fold in (True, False)]
    warps = [net.match(*(net.encode(image[None]) for image in images)).warp_AB for net in nets]
    torch.testing.assert_close(*warps, atol=1e-4, rtol=0)


def test_sizes_and_files_that_do_not_fit_are_refused() -> None:
    net, checkpoint = small_romav2(), small_checkpoint()
    for shape in ((40, 48), (0, 48), (8, 8)):
        with pytest.raises(ValueError, match="multiples of 16"):
            net.encode(torch.zeros(1, 3, *shape))
    with pytest.raises(ValueError, match="multiples of 4"):
        net.encode(torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 22, 24))
    with pytest.raises(WeightsError, match="those of DKM, not of RoMa v2"):
        RoMaV2.from_checkpoint({"decoder.embedding_decoder.cab.16.conv1.weight": torch.zeros(1)}, release="2.0.1")
    half = {name: checkpoint[name] for name in list(checkpoint)[: len(checkpoint) // 2]}
    with pytest.raises(WeightsError, match=r"do not fit RoMa v2: \d+ missing"):
        RoMaV2.from_checkpoint(half, release="2.0.1", config=SMALL)


def test_a_checkpoint_is_left_as_it_was() -> None:
    checkpoint = small_checkpoint()
    before = {name: tensor.clone() for name, tensor in checkpoint.items()}
    RoMaV2.from_checkpoint(checkpoint, release="2.0.1", config=SMALL)
    assert all(torch.equal(checkpoint[name], tensor) for name, tensor in before.items())
