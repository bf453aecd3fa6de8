"""VGG19 with batch normalisation up to stride 8: the fine features of RoMa and RoMa v2."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor, nn

CONVS_PER_STAGE = (2, 2, 4, 4)


class VGG19(nn.Module):
    """The first stages of VGG19-BN, one for each of `channels`, each half the size of the previous one.

    Source: Simonyan and Zisserman (arXiv 1409.1556), configuration E; indices of `layers` as in torchvision.
    The unused pool after the last stage is left out.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = 3
        for stage, (stage_channels, convs) in enumerate(zip(channels, CONVS_PER_STAGE, strict=False)):
            if stage > 0:
                layers.append(nn.MaxPool2d(2))
            for _ in range(convs):
                layers += [
                    nn.Conv2d(width, stage_channels, kernel_size=3, padding=1),
                    nn.BatchNorm2d(stage_channels),
                    nn.ReLU(inplace=True),
                ]
                width = stage_channels
        self.layers = nn.Sequential(*layers)

    def forward(self, image: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Yield (stride, features) from stride 1 up, so that a caller can drop each map before the next.

        Args:
            image: (B, 3, H, W) ImageNet-normalised, in the dtype of the weights.

        Yields:
            stride and (B, channels, floor(H / stride), floor(W / stride)).
        """
        stride, x = 1, image
        for layer in self.layers:
            if isinstance(layer, nn.MaxPool2d):
                yield stride, x
                stride *= 2
            x = layer(x)
        yield stride, x
