from __future__ import annotations

import pytest
import torch
from support.small_roma import SMALL, random_images, small_checkpoints, small_roma
from torch import Tensor, nn

from romacli.errors import WeightsError
from romacli.networks.parts import maps as shared_maps
from romacli.networks.parts.gaussian_process import GaussianProcess
from romacli.networks.parts.maps import pixel_grid
from romacli.networks.parts.output import together
from romacli.networks.parts.pyramid import FeatureMaps, finish
from romacli.networks.roma import RoMa, checkpoint_layouts, decode_anchors

COARSE, FINE = (28, 42), (40, 56)


@pytest.fixture(scope="module")
def net() -> RoMa:
    return small_roma()


@pytest.fixture(scope="module")
def encoded(net: RoMa) -> FeatureMaps:
    """Six images."""
    return net.encode(random_images(6, COARSE), random_images(6, FINE, seed=2))


def rows(features: FeatureMaps, *indices: int) -> FeatureMaps:
    return {key: value[list(indices)] for key, value in features.items()}


def close(a: Tensor, b: Tensor, tolerance: float = 1e-4) -> None:
    torch.testing.assert_close(a, b, atol=tolerance, rtol=0)


# Loading


def test_published_layouts_have_the_known_numbers_of_tensors_and_values() -> None:
    with torch.device("meta"):
        roma, dinov2 = checkpoint_layouts(RoMa())
    floats = {name: shape for name, shape in roma.items() if not name.endswith("num_batches_tracked")}
    assert (len(roma), len(floats), len(dinov2)) == (603, 541, 343)
    assert sum(torch.Size(shape).numel() for shape in floats.values()) == 111_356_472
    assert sum(torch.Size(shape).numel() for shape in dinov2.values()) == 304_368_640
    assert roma["decoder.conv_refiner.16.hidden_blocks.7.0.weight"] == (1377, 1, 5, 5)
    assert roma["decoder.embedding_decoder.to_out.weight"] == (4097, 1024)


def test_loading_names_missing_unexpected_and_reshaped_tensors() -> None:
    roma, dinov2 = small_checkpoints()
    bias = roma.pop("decoder.gps.16.pos_conv.bias")
    roma["decoder.gps.8.pos_conv.bias"] = bias
    roma["decoder.proj.1.0.bias"] = torch.zeros(5)
    with pytest.raises(WeightsError) as error:
        RoMa.from_checkpoints(roma, dinov2, config=SMALL)
    assert str(error.value) == (
        "The weights do not fit RoMa: 1 missing (decoder.gps.16.pos_conv.bias); 1 unexpected "
        "(decoder.gps.8.pos_conv.bias); 1 of another shape (decoder.proj.1.0.bias (5,) instead of (4,)). "
        "Give the file made for this network."
    )


def test_loading_tells_which_of_the_two_files_is_wrong() -> None:
    roma, dinov2 = small_checkpoints()
    with pytest.raises(WeightsError, match="do not fit DINOv2: 1 missing .cls_token."):
        RoMa.from_checkpoints(roma, {k: v for k, v in dinov2.items() if k != "cls_token"}, config=SMALL)


def test_half_precision_checkpoints_are_used_as_float32() -> None:
    roma, dinov2 = small_checkpoints()
    half = [{k: v.half() if v.is_floating_point() else v for k, v in state.items()} for state in (roma, dinov2)]
    net = RoMa.from_checkpoints(*half, config=SMALL)
    assert {parameter.dtype for parameter in net.parameters()} == {torch.float32}


def test_folding_leaves_the_callers_tensors_alone_and_the_output_equal() -> None:
    roma, dinov2 = small_checkpoints()
    before = {name: tensor.clone() for name, tensor in roma.items()}
    folded, plain = (RoMa.from_checkpoints(roma, dinov2, config=SMALL, fold=fold) for fold in (True, False))
    assert all(torch.equal(before[name], roma[name]) for name in before)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    for key, expected in plain.encode(random_images(2, COARSE)).items():
        close(folded.encode(random_images(2, COARSE))[key], expected, 1e-5 * float(expected.abs().max()))


# Encoding and matching


def test_features_have_the_documented_keys_shapes_and_dtypes(encoded: FeatureMaps) -> None:
    shapes = {key: tuple(value.shape) for key, value in encoded.items()}
    assert shapes == {
        "coarse_16": (6, 12, 2, 3),
        "alpha": (6, 6, 12),
        "coarse_8": (6, 10, 3, 5),
        "coarse_4": (6, 8, 7, 10),
        "coarse_2": (6, 6, 14, 21),
        "coarse_1": (6, 4, 28, 42),
        "fine_8": (6, 10, 5, 7),
        "fine_4": (6, 8, 10, 14),
        "fine_2": (6, 6, 20, 28),
        "fine_1": (6, 4, 40, 56),
    }
    assert {value.dtype for value in encoded.values()} == {torch.float32}


def test_an_image_is_encoded_alike_alone_and_in_a_batch(net: RoMa, encoded: FeatureMaps) -> None:
    alone = net.encode(random_images(6, COARSE)[4:5], random_images(6, FINE, seed=2)[4:5])
    for key, value in alone.items():
        close(value, encoded[key][4:5], 1e-5 * float(value.abs().max()))


def test_a_pair_is_matched_alike_alone_and_in_a_batch(net: RoMa, encoded: FeatureMaps) -> None:
    batch = net.match(rows(encoded, 0, 1, 2), rows(encoded, 3, 4, 5))
    alone = net.match(rows(encoded, 1), rows(encoded, 4))
    for name in ("warp_AB", "certainty_AB", "warp_BA", "certainty_BA"):
        close(getattr(alone, name)[0], getattr(batch, name)[1])


@pytest.mark.parametrize("symmetric", [True, False])
def test_maps_refined_one_by_one_are_those_refined_together(
    net: RoMa, encoded: FeatureMaps, symmetric: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    maps = []
    hook = net.refiners["1"].register_forward_hook(lambda _, given, __: maps.append(len(given[0])))
    pairs = rows(encoded, 0, 1, 2), rows(encoded, 1, 2, 0)
    whole = net.match(*pairs, symmetric=symmetric)
    monkeypatch.setattr(shared_maps, "VALUES_AT_ONCE", 0)
    apart = net.match(*pairs, symmetric=symmetric)
    hook.remove()
    assert set(maps) == {6 if symmetric else 3, 1}
    for name, value in vars(whole).items():
        if value is not None:
            close(getattr(apart, name), value)


def test_swapping_the_images_swaps_the_two_directions(net: RoMa, encoded: FeatureMaps) -> None:
    forward = net.match(rows(encoded, 0), rows(encoded, 1))
    backward = net.match(rows(encoded, 1), rows(encoded, 0))
    assert forward.warp_BA is not None
    assert forward.certainty_BA is not None
    close(forward.warp_BA, backward.warp_AB)
    close(forward.certainty_BA, backward.certainty_AB)


def test_one_direction_is_the_first_of_two_and_leaves_the_other_out(net: RoMa, encoded: FeatureMaps) -> None:
    both = net.match(rows(encoded, 0), rows(encoded, 1))
    one = net.match(rows(encoded, 0), rows(encoded, 1), symmetric=False)
    assert one.warp_BA is None
    assert one.certainty_BA is None
    close(one.warp_AB, both.warp_AB)
    close(one.certainty_AB, both.certainty_AB)


def test_output_has_the_size_of_the_last_pass_and_stays_in_range(net: RoMa, encoded: FeatureMaps) -> None:
    features = [rows(encoded, 0, 2), rows(encoded, 1, 3)]
    without_fine = [{k: v for k, v in f.items() if not k.startswith("fine")} for f in features]
    for pair, shape in ((features, FINE), (without_fine, COARSE)):
        match = net.match(*pair)
        assert match.warp_AB.shape == (2, *shape, 2)
        assert match.certainty_AB.shape == (2, *shape)
        assert match.warp_AB.abs().max() <= 1
        assert 0 <= match.certainty_AB.min() <= match.certainty_AB.max() <= 1


@pytest.mark.parametrize("down_to", [None, 16, 8, 1])
def test_some_pairs_of_a_batch_can_be_refined_later(net: RoMa, encoded: FeatureMaps, down_to: int | None) -> None:
    A, B = rows(encoded, 0, 1, 2), rows(encoded, 3, 4, 5)
    whole, state = net.match(A, B), net.start(A, B)
    if down_to is not None:
        state = net.refine(state, A, B, down_to=down_to)
    kept = together(state.apart()[1:])
    some = net.result(net.refine(kept, rows(A, 1, 2), rows(B, 1, 2)))
    close(some.warp_AB, whole.warp_AB[1:])
    close(some.certainty_AB, whole.certainty_AB[1:])
    close(some.warp_BA, whole.warp_BA[1:])


@pytest.mark.parametrize("symmetric", [True, False])
def test_pairs_refined_in_two_goes_are_those_of_one_to_the_last_bit(
    net: RoMa, encoded: FeatureMaps, symmetric: bool
) -> None:
    A, B = rows(encoded, 0), rows(encoded, 3)
    state = net.refine(net.start(A, B, symmetric=symmetric), A, B, down_to=8)
    found, expected = net.result(net.refine(state, A, B)), net.match(A, B, symmetric=symmetric)
    assert torch.equal(found.warp_AB, expected.warp_AB)
    assert torch.equal(found.certainty_AB, expected.certainty_AB)


def test_sides_that_are_no_multiples_of_the_patch_are_refused(net: RoMa) -> None:
    with pytest.raises(ValueError, match=r"coarse is \(1, 3, 28, 30\), its sides must be multiples of 14"):
        net.encode(random_images(1, (28, 30)))


def test_images_encoded_at_different_sizes_are_refused(net: RoMa, encoded: FeatureMaps) -> None:
    with pytest.raises(ValueError, match="encoded at different sizes"):
        net.match(rows(encoded, 0), net.encode(random_images(1, (42, 28))))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_reduced_precision_keeps_coordinates_and_the_gaussian_process_in_float32(dtype: torch.dtype) -> None:
    net = small_roma().to(dtype)
    features = net.encode(random_images(2, COARSE), random_images(2, FINE))
    assert features["alpha"].dtype == features["coarse_16"].dtype == torch.float32
    assert features["coarse_8"].dtype == features["fine_1"].dtype == dtype
    kept = {name for name, parameter in net.named_parameters() if parameter.dtype == torch.float32}
    assert {name.rpartition(".")[0] for name in kept} == {
        "gaussian_process.pos_conv",
        "projections.16.0",
        "decoder.to_out",
        *(f"refiners.{s}.{part}" for s in (16, 8, 4, 2, 1) for part in ("out_conv", "disp_emb")),
    }
    match = net.match(rows(features, 0), rows(features, 1))
    assert match.warp_AB.dtype == match.certainty_AB.dtype == torch.float32
    assert match.warp_AB.isfinite().all()


# Parts


def test_posterior_equals_a_plain_gaussian_process_regression() -> None:
    process = GaussianProcess(basis_channels=7).requires_grad_(False)
    x, y = random_images(1, (3, 5)), random_images(1, (4, 2), seed=5)
    u, v = (maps[0].double().flatten(1).T for maps in (x, y))
    grid = pixel_grid(y)[0].double().flatten(1).T
    weight, bias = process.pos_conv.weight.double()[:, :, 0, 0], process.pos_conv.bias.double()
    basis = torch.cos(8 * torch.pi * (grid @ weight.T + bias))

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return torch.exp((torch.cosine_similarity(a[:, None], b[None], dim=2) - 1) / 0.2)

    expected = kernel(u, v) @ torch.linalg.inv(kernel(v, v) + 0.1 * torch.eye(len(v))) @ basis
    found = process.kernel(x.flatten(2).transpose(1, 2), y.flatten(2).transpose(1, 2)) @ process.alpha(y)
    close(found[0].double(), expected)


def plain_decode(logits: Tensor, side: int) -> tuple[float, float]:
    """Five anchors around the best one in the flat index, averaged by probability; one pixel."""
    probabilities = logits.double().softmax(0)
    best, total, x, y = int(logits.argmax()), 0.0, 0.0, 0.0
    for offset in (-1, 0, 1, -side, side):
        index = min(max(best + offset, 0), side * side - 1)
        weight = float(probabilities[index])
        total += weight
        x += weight * (-1 + (2 * (index % side) + 1) / side)
        y += weight * (-1 + (2 * (index // side) + 1) / side)
    return x / total, y / total


@pytest.mark.parametrize("best", [0, 3, 4, 5, 7, 9, 12, 15])
def test_anchors_decode_as_a_plain_loop(best: int) -> None:
    logits = torch.randn(16, generator=torch.Generator().manual_seed(best))
    logits[best] += 4
    found = decode_anchors(logits[None, :, None, None]).flatten()
    close(found.double(), torch.tensor(plain_decode(logits, side=4), dtype=torch.float64))


def test_targets_outside_lose_their_certainty_and_move_to_the_edge() -> None:
    flow = torch.tensor([[0.5, 1.2, -0.3], [1.0, 0.0, -1.01]]).view(1, 2, 1, 3)
    warp, probability = finish(flow, torch.zeros(1, 1, 1, 3), torch.ones(1, 1, 1, 3))
    assert warp[0, 0].tolist() == [[0.5, 1.0], [1.0, 0.0], [pytest.approx(-0.3), -1.0]]
    assert probability[0, 0].tolist() == [0.5, 0, 0]


def test_half_of_coarse_doubt_is_taken_off_and_coarse_trust_is_ignored() -> None:
    certainty, coarsest = torch.full((1, 1, 1, 2), -1.0), torch.tensor([-4.0, 4.0]).view(1, 1, 1, 2)
    _, probability = finish(torch.zeros(1, 2, 1, 2), certainty, coarsest)
    close(probability[0, 0], torch.tensor([1.0, -1.0]).sigmoid())
