"""LightGlue, read top-down: matches of two images' keypoints by attention, and its building blocks.

Source: Lindenberger et al., LightGlue: Local Feature Matching at Light Speed (arXiv 2306.13643). All layers run on all
keypoints: early stopping and pruning would give the pairs of a batch different sizes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .parts.attention import attention
from .parts.pointwise import Linear
from .weights import load_strictly

LEAST_SCORE = 0.1


@dataclass(frozen=True)
class LightGlueConfig:
    """Sizes; the defaults are those for ALIKED and DISK."""

    descriptors: int = 128
    width: int = 256
    layers: int = 9
    heads: int = 4


_UNREAD = re.compile(r"extractor\.|token_confidence\.|log_assignment\.(\d|r$)|confidence_thresholds$")
LIGHTER = LightGlueConfig(descriptors=64, width=96, layers=6, heads=1)  # LighterGlue, for XFeat


class LightGlue(nn.Module):
    """Scores of all matches between two images' keypoints, from their descriptors and positions."""

    def __init__(self, config: LightGlueConfig | None = None) -> None:
        super().__init__()
        config = config or LightGlueConfig()
        self.input_proj = Linear(config.descriptors, config.width)
        self.posenc = PositionEncoding(config.width // config.heads)
        self.transformers = nn.ModuleList(Layer(config.width, config.heads) for _ in range(config.layers))
        self.log_assignment = Assignment(config.width)

    @classmethod
    def from_checkpoint(cls, state_dict: Mapping[str, Tensor], *, config: LightGlueConfig | None = None) -> LightGlue:
        """Build a network ready for inference, with the weights of a published file, in its old or new names.

        Raises:
            WeightsError: a name is missing, unexpected or of another shape.
        """
        with torch.device("meta"):
            net = cls(config)
        last = len(net.transformers) - 1
        used = {}
        for name, tensor in state_dict.items():
            name = re.sub(r"^(self|cross)_attn\.(\d+)", r"transformers.\2.\1_attn", name.removeprefix("matcher."))
            # Only the assignment after the last layer is used, and nothing of an extractor in the same file.
            name = name.replace(f"log_assignment.{last}.", "log_assignment.")
            if not _UNREAD.match(name):
                used[name] = tensor
        load_strictly(net, used, str, what="LightGlue")
        return net

    def forward(self, descriptors: tuple[Tensor, Tensor], places: tuple[Tensor, Tensor]) -> Tensor:
        """Log scores (B, N, M) of all possible matches, of which each keypoint takes at most one.

        Args:
            descriptors: (B, N, D) and (B, M, D).
            places: (B, N, 2) and (B, M, 2), with the image's centre at 0 and half its long side as unit.
        """
        x, y = (self.input_proj(each) for each in descriptors)
        at_x, at_y = (self.posenc(each) for each in places)
        for layer in self.transformers:
            x, y = layer(x, y, at_x, at_y)
        return self.log_assignment(x, y)


def best_matches(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Mutual best matches by log scores (N, M): rows (M, 2), ascending by the first, and their scores (M,)."""
    best, partner = scores.max(dim=1)
    rows = torch.arange(len(scores), device=scores.device)
    kept = (scores.argmax(dim=0)[partner] == rows) & (best.exp() > LEAST_SCORE)
    return torch.stack([rows[kept], partner[kept]], dim=1), best[kept].exp()


class PositionEncoding(nn.Module):
    """Rotations with learned frequencies for a head's channels at each point."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.Wr = nn.Linear(2, width // 2, bias=False)

    def forward(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines (B, 1, N, width), each repeated for two channels."""
        angles = self.Wr(places)[:, None].repeat_interleave(2, dim=-1)
        return angles.cos(), angles.sin()


def rotated(x: Tensor, at: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate pairs of adjacent channels of (B, heads, N, D) by the angles of their positions."""
    even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
    return x * at[0] + torch.stack([-odd, even], dim=-1).flatten(-2) * at[1]


class Layer(nn.Module):
    """Attention within each image, then between the two."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.self_attn = SelfBlock(width, heads)
        self.cross_attn = CrossBlock(width, heads)

    def forward(
        self, x: Tensor, y: Tensor, at_x: tuple[Tensor, Tensor], at_y: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        x, y = self.cross_attn(self.self_attn(x, at_x), self.self_attn(y, at_y))
        return x, y


def mixing(width: int) -> nn.Sequential:
    """The MLP from tokens concatenated with their messages to the tokens' update."""
    return nn.Sequential(Linear(2 * width, 2 * width), nn.LayerNorm(2 * width), nn.GELU(), Linear(2 * width, width))


class SelfBlock(nn.Module):
    """Attention between keypoints of one image, with positions encoded by rotation."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.Wqkv = Linear(width, 3 * width)
        self.out_proj = Linear(width, width)
        self.ffn = mixing(width)

    def forward(self, x: Tensor, at: tuple[Tensor, Tensor]) -> Tensor:
        q, k, v = self.Wqkv(x).unflatten(-1, (self.heads, -1, 3)).transpose(1, 2).unbind(-1)  # (B, heads, N, D)
        message = attention(rotated(q, at), rotated(k, at), v.contiguous()).transpose(1, 2).flatten(-2)
        mixed: Tensor = self.ffn(torch.cat([x, self.out_proj(message)], dim=-1))
        return x + mixed


class CrossBlock(nn.Module):
    """Attention from keypoints to those of the other image; queries and keys share one projection."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_qk, self.to_v, self.to_out = (Linear(width, width) for _ in range(3))
        self.ffn = mixing(width)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        keys_x, keys_y = (self._split(self.to_qk(each)) for each in (x, y))
        values_x, values_y = (self._split(self.to_v(each)) for each in (x, y))
        to_x, to_y = attention(keys_x, keys_y, values_y), attention(keys_y, keys_x, values_x)
        return self._mixed(x, to_x), self._mixed(y, to_y)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _mixed(self, x: Tensor, message: Tensor) -> Tensor:
        mixed: Tensor = self.ffn(torch.cat([x, self.to_out(message.transpose(1, 2).flatten(-2))], dim=-1))
        return x + mixed


class Assignment(nn.Module):
    """Similarity of keypoints relative to all others in both images, combined with their matchability."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.matchability = nn.Linear(width, 1)
        self.final_proj = Linear(width, width)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        scale = x.shape[-1] ** -0.25
        similarity = (self.final_proj(x) * scale) @ (self.final_proj(y) * scale).transpose(1, 2)
        matchable = F.logsigmoid(self.matchability(x)) + F.logsigmoid(self.matchability(y)).transpose(1, 2)
        return similarity.log_softmax(dim=2) + similarity.log_softmax(dim=1) + matchable
