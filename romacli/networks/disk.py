"""DISK, read top-down: keypoints and descriptors at every pixel from a U-shaped network.

Source: Tyszkiewicz et al., DISK: Learning local features with policy gradient (arXiv 2006.13566). A keypoint is the
maximum of its 5x5 window, as in the authors' code; some later versions exclude pixels near the border.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .aliked import read
from .weights import load_strictly

MULTIPLE = 16
LEAST_SCORE = 0.0  # logits
NMS_SIDE = 5


class DISK(nn.Module):
    """Descriptors and keypoint scores at every pixel, of the published size."""

    def __init__(self, dim: int = 128) -> None:
        super().__init__()
        down, up = (16, 32, 64, 64, 64), (64, 64, 64, dim + 1)
        inputs = (3, *down)
        self.path_down = nn.ModuleList(
            nn.Sequential(nn.AvgPool2d(2) if level else nn.Identity(), layer(inputs[level], width, plain=level == 0))
            for level, width in enumerate(down)
        )
        beside = down[-2::-1]
        self.path_up = nn.ModuleList(
            Raised(below + side, width) for below, side, width in zip((down[-1], *up), beside, up, strict=False)
        )

    @classmethod
    def from_checkpoint(cls, state_dict: Mapping[str, Tensor]) -> DISK:
        """Build a network ready for inference, with the weights of a published file.

        Raises:
            WeightsError: a name is missing, unexpected or of another shape.
        """
        with torch.device("meta"):
            net = cls()
        load_strictly(net, state_dict, lambda name: f"unet.{name}", what="DISK")
        return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def maps(self, image: Tensor) -> Tensor:
        """Descriptors and (last) scores (B, dim + 1, H, W) of (B, 3, H, W) in [0, 1], sides multiples of 16."""
        levels = []
        x = image
        for block in self.path_down:
            x = block(x)
            levels.append(x)
        for block, beside in zip(self.path_up, levels[-2::-1], strict=True):
            x = block(x, beside)
        return x

    def detect(self, image: Tensor, count: int, places: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Keypoints of one image (1, 3, H, W), sides multiples of 16, or descriptors at points, as `ALIKED.detect`."""
        maps = self.maps(image)
        if places is None:
            heat = maps[0, -1]
            highest = F.max_pool2d(heat[None], NMS_SIDE, 1, NMS_SIDE // 2)[0]
            rows, columns = ((heat == highest) & (heat > LEAST_SCORE)).nonzero(as_tuple=True)
            best = heat[rows, columns].argsort(descending=True, stable=True)[:count]
            places = torch.stack([columns[best], rows[best]], dim=1).float()
        found = read(maps.float(), places)
        return places, found[:, -1], F.normalize(found[:, :-1], dim=1)


def layer(channels_in: int, channels_out: int, *, plain: bool = False) -> nn.Sequential:
    """A convolution preceded by instance normalisation and PReLU, unless plain."""
    before = (nn.Identity(), nn.Identity()) if plain else (nn.InstanceNorm2d(channels_in), nn.PReLU(channels_in))
    return nn.Sequential(*before, nn.Identity(), nn.Conv2d(channels_in, channels_out, 5, padding=2))


class Raised(nn.Module):
    """Upsamples coarser maps by two and merges them with the skip connection."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv = layer(channels_in, channels_out)

    def forward(self, below: Tensor, beside: Tensor) -> Tensor:
        raised = F.interpolate(below, scale_factor=2, mode="bilinear", align_corners=False)
        return self.conv(torch.cat([raised, beside], dim=1))
