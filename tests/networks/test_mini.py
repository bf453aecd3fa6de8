from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from romacli.errors import WeightsError
from romacli.networks.mini import LAYOUT, Mini, halved, load_mini, swap_halves, weights_of, with_context
from romacli.networks.mini_coarse import decode_anchors, other_direction
from romacli.networks.mini_config import MiniConfig, config_from_json, config_to_json
from romacli.networks.parts.maps import cell_centres

TINY = MiniConfig(
    trunk_channels=(8, 8, 16, 16),
    trunk_blocks=(0, 1, 1, 1),
    fourier_channels=16,
    decoder_width=32,
    decoder_blocks=1,
    decoder_heads=2,
    context_blocks=1,
    crossings=1,
    exchanges=1,
    anchors_per_side=6,
    refiner_features=(8, 8, 8),
    refiner_descriptors=(8, 8, 0),
    refiner_width=(16, 16, 16),
    refiner_convolutions=(1, 1, 1),
)


@pytest.fixture(scope="module")
def network() -> Mini:
    torch.manual_seed(0)
    network = Mini(TINY)
    with torch.no_grad():  # zero at the start of training, which would hide the effect of the refiners
        for refiner in network.refiners.values():
            refiner.output.weight.normal_(std=0.1)
            refiner.output.bias.normal_(std=1.0)
    return network.eval()


@pytest.fixture(scope="module")
def images() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    fine = torch.randn(4, 3, 96, 96, generator=generator)
    return F.avg_pool2d(fine, 2), fine


def encode(network, images, rows):
    coarse, fine = images
    with torch.inference_mode():
        return network.encode(coarse[rows], fine[rows])


def test_match_has_the_promised_shapes_and_ranges(network, images):
    with torch.inference_mode():
        found = network.match(encode(network, images, [0, 1]), encode(network, images, [2, 3]))
    assert found.warp_AB.shape == found.warp_BA.shape == (2, 48, 48, 2)
    assert found.certainty_AB.shape == found.certainty_BA.shape == (2, 48, 48)
    for warp, certainty in ((found.warp_AB, found.certainty_AB), (found.warp_BA, found.certainty_BA)):
        assert warp.abs().max() <= 1
        assert certainty.min() >= 0
        assert certainty.max() <= 1


def test_one_pass_gives_half_the_coarse_side(network, images):
    with torch.inference_mode():
        encoded = network.encode(images[0])
        found = network.match(encoded, encoded)
    assert found.warp_AB.shape == found.warp_BA.shape == (4, 24, 24, 2)


def test_images_encoded_apart_match_as_if_encoded_together(network, images):
    together = encode(network, images, [0, 1, 2, 3])
    with torch.inference_mode():
        expected = network.match(
            {key: value[:2] for key, value in together.items()},
            {key: value[2:] for key, value in together.items()},
        )
        for row in range(2):
            alone = network.match(encode(network, images, [row]), encode(network, images, [row + 2]))
            torch.testing.assert_close(alone.warp_AB[0], expected.warp_AB[row], atol=1e-4, rtol=0)
            torch.testing.assert_close(alone.certainty_BA[0], expected.certainty_BA[row], atol=1e-4, rtol=0)


@pytest.mark.parametrize("down_to", [8, 4, 2])
def test_pairs_refined_in_two_goes_are_those_of_one_to_the_last_bit(network, images, down_to):
    encoded_A, encoded_B = encode(network, images, [0]), encode(network, images, [1])
    with torch.inference_mode():
        expected = network.match(encoded_A, encoded_B)
        state = network.refine(network.start(encoded_A, encoded_B), encoded_A, encoded_B, down_to=down_to)
        found = network.result(network.refine(state, encoded_A, encoded_B))
    for name, tensor in vars(expected).items():
        assert torch.equal(getattr(found, name), tensor)


def test_some_pairs_of_a_batch_can_be_refined_later(network, images):
    encoded_A, encoded_B = encode(network, images, [0, 1]), encode(network, images, [2, 3])
    with torch.inference_mode():
        expected = network.match(encoded_A, encoded_B)
        second = network.start(encoded_A, encoded_B).apart()[1]
        rest = ({key: value[1:] for key, value in encoded.items()} for encoded in (encoded_A, encoded_B))
        found = network.result(network.refine(second, *rest))
    for name, tensor in vars(expected).items():
        torch.testing.assert_close(getattr(found, name), tensor[1:], atol=1e-4, rtol=0)


def test_backward_warp_is_the_forward_warp_of_the_swapped_pair(network, images):
    encoded_A, encoded_B = encode(network, images, [0]), encode(network, images, [1])
    with torch.inference_mode():
        both = network.match(encoded_A, encoded_B)
        swapped = network.match(encoded_B, encoded_A)
    torch.testing.assert_close(both.warp_BA, swapped.warp_AB, atol=1e-4, rtol=0)
    torch.testing.assert_close(both.certainty_BA, swapped.certainty_AB, atol=1e-4, rtol=0)


def test_mirrored_images_start_where_the_images_do(network, images):
    images = tuple(image[..., : image.shape[-1] * 2 // 3] for image in images)  # grids that are not square
    mirrored = tuple(image.flip(-1) for image in images)
    alone = Mini(replace(TINY, ensemble=False)).eval()
    alone.load_state_dict(network.state_dict())
    plain, other = coarse_warp(network, images), coarse_warp(network, mirrored).flip(2) * torch.tensor([-1.0, 1.0])
    torch.testing.assert_close(other, plain, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(coarse_warp(alone, images), plain, atol=1e-3)


def coarse_warp(network, images):
    with torch.inference_mode():
        return network.start(encode(network, images, [0]), encode(network, images, [1])).tensors["warp"]


def test_training_does_not_look_at_mirrored_images(network, images):
    learner = deepcopy(network).train()
    assert not any("mirrored" in name for name in learner.encode(images[0]))
    assert any("mirrored" in name for name in network.encode(images[0]))


def test_the_other_direction_says_of_each_match_what_it_says_of_the_opposite_one():
    logits = torch.randn(4, 2, 3, 36)
    with torch.inference_mode():
        found = other_direction(logits, 6)
    assert found.shape == logits.shape
    # Of one token per image and its single anchor, the opposite match is the other's token and anchor.
    single = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(4, 1, 1, 1)
    assert other_direction(single, 1).flatten().tolist() == [3.0, 4.0, 1.0, 2.0]
    # A match that only the second image's token (1, 2) has, with the anchor at the first image's first cell.
    one_way = torch.zeros(2, 2, 2, 4)
    one_way[1, 0, 1, 0] = 1.0
    assert other_direction(one_way, 2).nonzero().tolist() == [[0, 0, 0, 1]]


def test_certainty_is_zero_where_the_warp_left_the_image(network, images):
    network = deepcopy(network)
    with torch.no_grad():
        network.refiners["2"].output.bias[0] = 12.0  # cells to the right
    encoded_A, encoded_B = encode(network, images, [0]), encode(network, images, [1])
    with torch.inference_mode():
        raw = network.trace({key: torch.cat((encoded_A[key], encoded_B[key])) for key in encoded_A}).stages[-1]
        found = network.match(encoded_A, encoded_B)
    left = (raw.warp[:1].abs() > 1).any(dim=-1)
    assert left.any()
    assert (found.certainty_AB[left] == 0).all()
    assert (found.certainty_AB[~left] > 0).all()


def test_posterior_of_an_image_matched_with_itself_finds_its_own_coordinates():
    torch.manual_seed(3)
    encoder = Mini(TINY).match_encoder
    with torch.no_grad():
        encoder.log_inverse_temperature.fill_(5.0)  # a kernel so narrow that tokens are nearly independent
    tokens = F.normalize(torch.randn(1, 20, 16), dim=-1)
    alpha = encoder.condition(tokens, 4, 5)
    posterior = encoder(tokens @ tokens.transpose(1, 2), alpha)
    torch.testing.assert_close(posterior[0] * 1.1, encoder.coordinates(4, 5), atol=1e-2, rtol=0)


def test_posterior_equals_a_plain_solve_of_the_normal_equations():
    torch.manual_seed(4)
    encoder = Mini(TINY).match_encoder
    source, target = (F.normalize(torch.randn(1, n, 16), dim=-1) for n in (6, 12))
    posterior = encoder(source @ target.transpose(1, 2), encoder.condition(target, 3, 4))
    kernel_target = torch.exp(5 * (target[0] @ target[0].T - 1)).double()
    kernel_cross = torch.exp(5 * (source[0] @ target[0].T - 1)).double()
    inverse = torch.linalg.inv(kernel_target + 0.1 * torch.eye(12, dtype=torch.float64))
    expected = kernel_cross @ inverse @ encoder.coordinates(3, 4).double()
    torch.testing.assert_close(posterior[0].double(), expected, atol=1e-4, rtol=1e-4)


def test_decoded_anchor_is_the_mean_of_its_neighbourhood_worked_by_hand():
    logits = torch.full((1, 16), -30.0)
    logits[0, [5, 6]] = 0.0  # row 1, columns 1 and 2
    logits[0, 15] = -0.5  # far away: not part of the mean
    torch.testing.assert_close(decode_anchors(logits, 4), torch.tensor([[0.0, -0.25]]))


def test_decoded_anchor_in_a_corner_does_not_wrap_round():
    logits = torch.zeros(1, 16)
    logits[0, 3] = 30.0  # top right
    logits[0, 4] = 25.0  # first of the next row
    torch.testing.assert_close(decode_anchors(logits, 4), torch.tensor([[0.75, -0.75]]), atol=1e-3, rtol=0)


def test_cell_centres_come_x_first():
    grid = cell_centres(2, 4)
    assert grid[0, 0].tolist() == [-0.75, -0.5]
    assert grid[1, 3].tolist() == [0.75, 0.5]


def test_swap_halves_exchanges_partners():
    assert swap_halves({"x": torch.arange(4)})["x"].tolist() == [2, 3, 0, 1]


def test_layers_of_single_pixels_use_the_library_that_is_fast_on_one_thread():
    layers = dict(Mini(TINY).named_modules())
    assert not [name for name, layer in layers.items() if type(layer) is nn.Conv2d and layer.kernel_size == (1, 1)]


def test_saved_weights_come_back(tmp_path, network, images):
    path = tmp_path / "tiny.safetensors"
    save_file(weights_of(network), str(path), {"layout": LAYOUT, "config": config_to_json(TINY)})
    loaded = load_mini(path)
    assert loaded.config == TINY
    assert not loaded.training
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in loaded.modules())
    with torch.inference_mode():
        found, expected = (
            each.match(encode(each, images, [0]), encode(each, images, [1])) for each in (loaded, network)
        )
    torch.testing.assert_close(found.warp_AB, expected.warp_AB, atol=1e-4, rtol=0)
    torch.testing.assert_close(found.certainty_AB, expected.certainty_AB, atol=1e-4, rtol=0)


def test_context_added_to_trained_weights_changes_nothing_until_it_is_trained(images):
    torch.manual_seed(3)
    plain = Mini(replace(TINY, context_blocks=0, crossings=0, exchanges=0, scales=1)).eval()
    grown = with_context(plain, TINY).eval()
    assert grown.config == TINY
    assert with_context(grown, MiniConfig()) is grown
    assert torch.equal(started(plain, images), started(grown, images))
    half_grown = with_context(plain, replace(TINY, exchanges=0)).eval()
    assert with_context(half_grown, TINY).config == TINY
    for changed in (
        "context.0.projection.weight",
        "decoder.crossings.0.projection.weight",
        "decoder.exchanges.0.crossing.projection.weight",
        "decoder.exchanges.0.block.projection.weight",
        "decoder.exchanges.0.block.mlp.3.weight",
        "decoder.across.weight",
    ):
        grown = with_context(plain, TINY).eval()
        nn.init.normal_(grown.get_parameter(changed))
        assert not torch.equal(started(plain, images), started(grown, images))


def started(network, images, name="certainty"):
    with torch.inference_mode():
        state = network.start(encode(network, images, [0]), encode(network, images, [1]))
    return state.tensors[name]


def test_weights_older_than_the_context_blocks_have_none():
    old = {
        key: value
        for key, value in json.loads(config_to_json(TINY)).items()
        if not key.startswith(("cont", "cros", "exch", "scal"))
    }
    without = replace(TINY, context_blocks=0, crossings=0, crossing_width=64, exchanges=0, scales=1)
    assert config_from_json(json.dumps(old)) == without


def test_each_direction_learns_from_the_other_by_exchanges(images):
    torch.manual_seed(4)
    network = Mini(TINY).eval()
    exchange = network.decoder.exchanges[0]
    nn.init.normal_(exchange.crossing.projection.weight)
    here, there, elsewhere = torch.randn(3, 1, 9, TINY.decoder_width).unbind()
    with torch.inference_mode():
        forward = exchange(torch.cat((here, there)))
        backward = exchange(torch.cat((there, here)))
        other = exchange(torch.cat((here, elsewhere)))
    torch.testing.assert_close(forward, torch.cat(backward.chunk(2)[::-1]))
    assert not torch.allclose(forward[:1], other[:1])


def test_products_of_both_directions_add_to_the_anchors(images):
    torch.manual_seed(5)
    network = Mini(TINY).eval()
    before = started(network, images, "warp")
    nn.init.normal_(network.decoder.mine.weight, std=5.0)
    assert not torch.allclose(before, started(network, images, "warp"))


def test_images_are_compared_with_halves_of_each_other(images):
    torch.manual_seed(6)
    network = Mini(TINY).eval()
    assert halved(torch.rand(1, 3, 256, 240)).shape == (1, 3, 128, 128)
    assert halved(torch.rand(1, 3, 16, 48)).shape == (1, 3, 16, 32)
    before = started(network, images, "warp")
    nn.init.normal_(network.decoder.gates.weight, std=5.0)
    assert not torch.allclose(before, started(network, images, "warp"))
    large = F.interpolate(images[0][:1], scale_factor=2.0, mode="nearest")
    with torch.inference_mode():
        half, whole = network.encode_coarse(large), network.encode_coarse(images[0][:1])
    torch.testing.assert_close(half["half_tokens"], whole["tokens"], atol=1e-4, rtol=0)
    torch.testing.assert_close(half["half_alpha"], whole["alpha"], atol=1e-4, rtol=0)


def test_halves_leave_the_statistics_of_whole_images_alone(images):
    network, alone = Mini(TINY).train(), Mini(replace(TINY, scales=1)).train()
    alone.load_state_dict(network.state_dict(), strict=False)
    for each in (network, alone):
        each.encode_coarse(images[0])
    for name, value in alone.trunk.state_dict().items():
        torch.testing.assert_close(network.trunk.state_dict()[name], value)
    assert all(module.training for module in network.modules())


@pytest.mark.parametrize("cosines", [True, False])
def test_files_older_than_the_ensemble_have_one_unless_they_are_of_a_setup(cosines):
    old = json.loads(config_to_json(replace(TINY, cosines=cosines)))
    assert "ensemble" not in old
    assert config_from_json(json.dumps(old)).ensemble == cosines


def test_missing_file_is_named(tmp_path):
    with pytest.raises(WeightsError, match=r"nowhere\.safetensors cannot be read"):
        load_mini(tmp_path / "nowhere.safetensors")


def test_truncated_file_is_named(tmp_path, network):
    path = tmp_path / "cut.safetensors"
    save_file(weights_of(network), str(path), {"layout": LAYOUT, "config": config_to_json(TINY)})
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightsError, match=r"cut\.safetensors cannot be read as weights"):
        load_mini(path)


def test_weights_of_another_network_are_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(1)}, str(path))
    with pytest.raises(WeightsError, match="contains weights of another network"):
        load_mini(path)


def test_tensors_that_do_not_fit_the_configuration_are_named(tmp_path, network):
    path = tmp_path / "wide.safetensors"
    config = json.loads(config_to_json(TINY)) | {"decoder_width": 64}
    save_file(weights_of(network), str(path), {"layout": LAYOUT, "config": json.dumps(config)})
    with pytest.raises(WeightsError, match=r"tensors are missing, extra or of another shape, first decoder\."):
        load_mini(path)
