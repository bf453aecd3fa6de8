"""XFeat with its heads: keypoints and descriptors from one small network.

Source: Potje et al., XFeat: Accelerated Features for Lightweight Image Matching (arXiv 2404.19174). Maps are sampled at
keypoints with an offset of a fraction of a pixel, as in the published training and code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .parts.folding import fold_batchnorm
from .parts.pointwise import PointwiseConv2d
from .tiny_roma import Layer, XFeat
from .weights import load_strictly

CELL = 8
LEAST_SCORE = 0.05
NMS_SIDE = 5


class XFeatDetector(XFeat):
    """The backbone with heads for keypoints and their reliability."""

    def __init__(self) -> None:
        super().__init__()
        self.heatmap_head = nn.Sequential(Layer(64, 64, size=1), Layer(64, 64, size=1), PointwiseConv2d(64, 1))
        self.keypoint_head = nn.Sequential(*(Layer(64, 64, size=1) for _ in range(3)), PointwiseConv2d(64, CELL**2 + 1))

    @classmethod
    def from_checkpoint(cls, state_dict: Mapping[str, Tensor]) -> XFeatDetector:
        """Build a network ready for inference, with the weights of a published file; its patch matcher is ignored.

        Raises:
            WeightsError: a name is missing, unexpected or of another shape.
        """
        with torch.device("meta"):
            net = cls()
        used = {name: tensor for name, tensor in state_dict.items() if not name.startswith("fine_matcher.")}
        load_strictly(net, used, str, what="XFeat")
        fold_batchnorm(net)
        return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def detect(self, image: Tensor, count: int, places: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Keypoints of one image, most reliable first, or descriptors at given points.

        Args:
            image: (1, 3, H, W) at any scale, sides multiples of 32.
            count: maximum number of keypoints.
            places: (N, 2) x, y in px, with (0, 0) the centre of the top-left pixel; None to detect keypoints.

        Returns:
            Points (N, 2), scores (N,) and unit descriptors (N, 64).
        """
        _, features = self(image)
        reliability = self.heatmap_head(features).sigmoid()
        gray = F.instance_norm(image.mean(dim=1, keepdim=True))
        cells = self.keypoint_head(F.pixel_unshuffle(gray, CELL)).softmax(dim=1)[:, :-1]
        heat = F.pixel_shuffle(cells, CELL)
        if places is None:
            peaks = (heat == F.max_pool2d(heat, NMS_SIDE, 1, NMS_SIDE // 2)) & (heat > LEAST_SCORE)
            places = peaks[0, 0].nonzero().flip(1)
        shape = image.shape[-2:]
        scores = read(heat, places, shape, "nearest")[:, 0] * read(reliability, places, shape, "bilinear")[:, 0]
        best = scores.argsort(descending=True, stable=True)[:count]
        descriptors = read(F.normalize(features, dim=1), places, shape, "bicubic")
        return places[best].float(), scores[best], F.normalize(descriptors[best], dim=1)


def read(maps: Tensor, places: Tensor, shape: Sequence[int], mode: str) -> Tensor:
    """Values (N, C) of maps (1, C, h, w) at points (N, 2) in px of an image of the given shape."""
    extent = places.new_tensor([shape[1] - 1, shape[0] - 1], dtype=maps.dtype)
    grid = 2 * places.to(maps.dtype) / extent - 1
    return F.grid_sample(maps, grid[None, None], mode=mode, align_corners=False)[0, :, 0].T
