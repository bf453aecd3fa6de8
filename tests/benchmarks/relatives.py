"""Speed of RoMa v2 and Tiny RoMa on all pairs of 8 images, compared with their authors' packages, on a CPU.

    PYTHONPATH=tests:PACKAGES python tests/benchmarks/relatives.py tiny-roma|roma-v2

PACKAGES is a folder with romav2 2.0.1 or romatch and einops. Both run in this process with the same seeded weights in
float32, once their warps are found equal, taking turns pair by pair; the measure is CPU time, which other work on the
machine disturbs least. For RoMa v2 some pairs are timed, and the time of 28 is extrapolated. The authors download
DINOv3's code at run time: romacli's DINOv3, with all 24 blocks that they compute, replaces it.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import sys
import time
import types
from collections.abc import Callable
from typing import Any

import torch
from support.seeded_relatives import seeded_relative
from support.small_romav2 import small_checkpoint
from torch import Tensor, nn

from romacli.networks.backbones.dinov3 import DINOv3, DINOv3Config
from romacli.networks.parts.maps import resized
from romacli.networks.parts.rotary import rotation
from romacli.networks.romav2 import PUBLISHED, RoMaV2, resize
from romacli.networks.tiny_roma import TinyRoMa, checkpoint_name

IMAGES = 8
PAIRS = IMAGES * (IMAGES - 1) // 2


def pictures(count: int, shape: tuple[int, int]) -> list[Tensor]:
    """Smooth random images (1, 3, H, W) in [0, 1]."""
    generator = torch.Generator().manual_seed(0)
    return [resized(torch.rand(1, 3, 12, 16, generator=generator), shape) for _ in range(count)]


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of this process, and the result of the work."""
    began = time.process_time()
    found = work()
    return time.process_time() - began, found


def no_autocast() -> None:
    """Make both sides compute in float32 where they ask for less."""
    torch.autocast = lambda *_, **__: contextlib.nullcontext()  # type: ignore[misc, assignment]


def stand_in_for_torchvision() -> None:
    """The layers of VGG19-BN and the image conversion, all that the packages use of torchvision."""
    vision, models, transforms = (types.ModuleType(f"torchvision{name}") for name in ("", ".models", ".transforms"))

    def vgg19_bn(weights: Any = None) -> Any:
        layers: list[nn.Module] = []
        width = 3
        for channels, convolutions in ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4)):
            for _ in range(convolutions):
                layers += [nn.Conv2d(width, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
                width = channels
            layers.append(nn.MaxPool2d(2))
        return types.SimpleNamespace(features=nn.Sequential(*layers))

    models.vgg19_bn, transforms.ToTensor = vgg19_bn, object  # type: ignore[attr-defined]
    vision.models, vision.transforms = models, transforms  # type: ignore[attr-defined]
    sys.modules |= {"torchvision": vision, "torchvision.models": models, "torchvision.transforms": transforms}


class Descriptor(DINOv3):
    """DINOv3 as the authors' package runs it, including the blocks whose results they drop."""

    def get_intermediate_layers(self, image: Tensor, n: list[int]) -> list[Tensor]:
        x = self.patch_embed(image)
        x = torch.cat([token.expand(len(x), -1, -1) for token in (self.cls_token, self.storage_tokens)] + [x], dim=1)
        grid = [side // self.config.patch for side in image.shape[-2:]]
        turned = rotation(self.rope_embed.periods, *grid, dtype=torch.float32, skipped=5)
        layers = []
        for index, block in enumerate(self.blocks):
            x = block(x, turned)
            if index in n:
                layers.append(self.norm(x)[:, 5:])
        return layers


def authors_romav2(state: dict[str, Tensor], shape: tuple[int, int]) -> Any:
    stand_in_for_torchvision()
    net = Descriptor(DINOv3Config(read=(11, 23)))
    net.load_state_dict({name: state[f"f.{name}"] for name in net.state_dict()})
    net.as_shipped({n.removesuffix("_mask"): state[f"f.{n}"] for n in DINOv3(DINOv3Config()).unread() if "mask" in n})
    torch.hub.load = lambda *_, **__: net
    torch.hub.load_state_dict_from_url = lambda *_, **__: state
    import romav2

    load = romav2.RoMaV2.load_state_dict
    romav2.RoMaV2.load_state_dict = lambda self, found: load(
        self, {name: value for name, value in found.items() if not name.startswith("f.")}, strict=False
    )
    model = romav2.RoMaV2()
    (model.H_lr, model.W_lr), model.H_hr, model.W_hr, model.bidirectional = shape, None, None, True
    return model.float()


def romav2(args: argparse.Namespace) -> dict[str, Any]:
    shape = (args.side, args.side)
    state = small_checkpoint(PUBLISHED)
    theirs, ours = authors_romav2(state, shape), RoMaV2.from_checkpoint(state, release="2.0.1")
    del state
    images = [image[0].mul(255).byte().permute(1, 2, 0).numpy() for image in pictures(args.pairs + 1, shape)]
    tensors = [torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255 for image in images]
    encode_s, features = zip(*(timed(lambda t=t: ours.encode(resize(t, shape))) for t in tensors), strict=True)
    spent: dict[str, list[float]] = {"theirs": [], "ours": []}
    for index in range(args.pairs):
        seconds, expected = timed(lambda i=index: theirs.match(images[i], images[i + 1]))
        spent["theirs"].append(seconds)
        seconds, found = timed(lambda i=index: ours.match(features[i], features[i + 1]))
        spent["ours"].append(seconds)
        torch.testing.assert_close(found.warp_AB, expected["warp_AB"], atol=5e-3, rtol=0)
    theirs_s, pair_s, image_s = min(spent["theirs"]), min(spent["ours"]), min(encode_s)
    return result(PAIRS * theirs_s, IMAGES * image_s + PAIRS * pair_s, image_s, pair_s, shape)


def tiny_roma(args: argparse.Namespace) -> dict[str, Any]:
    stand_in_for_torchvision()
    package = types.ModuleType("romatch")
    package.__path__ = [next(p for p in (os.path.join(folder, "romatch") for folder in sys.path) if os.path.isdir(p))]
    for name in ("romatch", "romatch.models", "romatch.utils"):
        module = types.ModuleType(name)
        module.__path__ = [os.path.join(package.__path__[0], *name.split(".")[1:])]
        sys.modules[name] = module
    from romatch.models.tiny import TinyRoMa as Theirs

    from romacli.networks.tiny_roma import XFeat

    with torch.device("meta"):
        layout = {checkpoint_name(name): tuple(value.shape) for name, value in TinyRoMa().state_dict().items()}
    state = seeded_relative(layout, group="tiny")
    backbone = XFeat()
    backbone.norm = nn.InstanceNorm2d(1)
    backbone.heatmap_head = backbone.keypoint_head = backbone.fine_matcher = nn.Identity()  # dropped by the authors
    theirs = Theirs(xfeat=backbone, freeze_xfeat=False)
    theirs.load_state_dict(state, strict=False)
    theirs.eval()
    ours = TinyRoMa.from_checkpoint(state)
    shape = (480, 640)
    images = pictures(IMAGES, shape)
    spent = {"theirs": 0.0, "ours": 0.0}
    encoded = [timed(lambda image=image: ours.encode(image)) for image in images]
    for i, j in itertools.combinations(range(IMAGES), 2):
        seconds, (warp, _) = timed(lambda i=i, j=j: theirs.match(images[i], images[j]))
        spent["theirs"] += seconds
        seconds, found = timed(lambda i=i, j=j: ours.match(encoded[i][1], encoded[j][1]))
        spent["ours"] += seconds
        # Where two positions are equally good, rounding decides.
        assert float(((found.warp_AB - warp[..., 2:]).abs() < 1e-3).float().mean()) > 0.95
    image_s = sum(seconds for seconds, _ in encoded)
    return result(spent["theirs"], image_s + spent["ours"], image_s / IMAGES, spent["ours"] / PAIRS, shape)


def result(theirs_s: float, ours_s: float, image_s: float, pair_s: float, shape: tuple[int, int]) -> dict[str, Any]:
    """Figures for 8 images; the bound is the speed-up if pairs cost the same but every pair encoded its images."""
    return {
        "size": f"{shape[1]}x{shape[0]}",
        "theirs_cpu_s": round(theirs_s, 2),
        "ours_cpu_s": round(ours_s, 2),
        "ratio": round(theirs_s / ours_s, 2),
        "image_s": round(image_s, 3),
        "pair_s": round(pair_s, 3),
        "share_of_a_pair_that_is_cached": round(2 * image_s / (2 * image_s + pair_s), 3),
        "bound_by_cache": round(PAIRS * (2 * image_s + pair_s) / (IMAGES * image_s + PAIRS * pair_s), 2),
        "load": os.getloadavg(),
        "threads": torch.get_num_threads(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=["roma-v2", "tiny-roma"])
    parser.add_argument("--side", type=int, default=320, help="image side for RoMa v2")
    parser.add_argument("--pairs", type=int, default=3, help="number of RoMa v2 pairs that are timed")
    args = parser.parse_args()
    no_autocast()
    with torch.inference_mode():
        print(json.dumps({"roma-v2": romav2, "tiny-roma": tiny_roma}[args.model](args)))


if __name__ == "__main__":
    main()
