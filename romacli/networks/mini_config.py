"""The configuration of the small network included in the package."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

# Of weight files older than these fields.
WITHOUT_CONTEXT = {"context_blocks": 0, "crossings": 0, "exchanges": 0, "scales": 1}


@dataclass(frozen=True)
class MiniConfig:
    """Widths and depths; the three-tuples are for the refined strides 8, 4, 2.

    The defaults have 9.1 M parameters. Widths are multiples of 16, the block size of bfloat16 matrix units. The last
    five fields are varied in studies (see `romacli train --setup`).

    Attributes:
        context_blocks: blocks of attention among the tokens of one image, before images are compared.
        crossings: number of the decoder's blocks, the last ones, before which A's tokens attend to B's.
        crossing_width: channels in which the decoder compares its own features for the anchors, with B's tokens and
            with those of the other direction.
        exchanges: number of further blocks, before which tokens attend to those of the other direction.
        scales: sizes at which images are compared: 1, or 2 with each image at half its size, too.
        shared_trunk: one trunk for all strides; otherwise the refined strides have a second one.
        transformer: the coarse decoder's blocks attend to all tokens; otherwise they are convolutions of 3 x 3 tokens.
        classifies: the coarse decoder outputs anchor logits; otherwise coordinates.
        cosines: added to the anchors' logits.
        ensemble: when matching, anchor logits are the mean over the images and the images mirrored, plus a part of
            those of the other direction.
    """

    trunk_channels: tuple[int, ...] = (32, 64, 128, 256)
    trunk_blocks: tuple[int, ...] = (0, 1, 2, 2)
    fourier_channels: int = 128
    decoder_width: int = 192
    decoder_blocks: int = 3
    decoder_heads: int = 6
    context_blocks: int = 3
    crossings: int = 3
    crossing_width: int = 64
    exchanges: int = 2
    scales: int = 2
    anchors_per_side: int = 24
    refiner_features: tuple[int, ...] = (48, 32, 16)
    refiner_descriptors: tuple[int, ...] = (32, 32, 0)
    refiner_radius: tuple[int, ...] = (3, 2, 0)
    refiner_width: tuple[int, ...] = (96, 64, 32)
    refiner_convolutions: tuple[int, ...] = (3, 2, 2)
    shared_trunk: bool = True
    transformer: bool = True
    classifies: bool = True
    cosines: bool = True
    ensemble: bool = True


def config_to_json(config: MiniConfig) -> str:
    """Return the configuration as one line of JSON for weight files; study fields appear only if not the default."""
    plain = MiniConfig()
    values = {k: v for k, v in asdict(config).items() if not isinstance(v, bool) or v != getattr(plain, k)}
    return json.dumps(values)


def config_from_json(text: str) -> MiniConfig:
    """Return the configuration written by `config_to_json`.

    Networks of `romacli train --setup` alone have no cosines, and no ensemble, which older files of them do not say.
    """
    stored: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(text).items()}
    return MiniConfig(**(WITHOUT_CONTEXT | {"ensemble": stored.get("cosines", True)} | stored))
