"""Pool feature maps into a descriptor of the whole image."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def generalized_mean(maps: Tensor, power: float) -> Tensor:
    """Pool maps (B, C, H, W) over all pixels to (B, C) of unit length, float32.

    A power of 1 is the mean; larger powers give large values more weight. Signs are kept, for features that may be
    negative. Source: Radenovic et al., Fine-tuning CNN image retrieval with no human annotation, PAMI 2019, eq. 3.
    """
    values = maps.float().flatten(2)
    # Powers of values above 1 would overflow; the final normalisation removes the scale.
    scale = values.abs().amax(dim=(1, 2), keepdim=True).clamp(min=1e-12)
    mean = (values.sign() * (values.abs() / scale).pow(power)).mean(dim=2)
    return F.normalize(mean.sign() * mean.abs().pow(1 / power), dim=1)
