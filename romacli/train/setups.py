"""The rows of RoMa's table 2, the ablations: each changes one component of the row before."""

from __future__ import annotations

from dataclasses import dataclass, replace

from romacli.errors import UsageError
from romacli.networks.mini_config import MiniConfig
from romacli.networks.roma import RoMaConfig


@dataclass(frozen=True)
class Setup:
    """One row.

    Attributes:
        coarse: encoder of the coarse features: resnet50 or dinov2, which stays frozen.
        fine: encoder of the fine features: shared (the coarse one), resnet50 (a separate one) or vgg19.
        transformer: the coarse decoder attends to the whole image; otherwise it is convolutional.
        classifies: it outputs anchor logits, see section 3.3; otherwise coordinates, like DKM's.
        robust: refiners are trained with generalised Charbonnier loss; otherwise with the mean distance, as in DKM.
    """

    coarse: str
    fine: str
    transformer: bool
    classifies: bool
    robust: bool


SETUPS = {
    "I": Setup("resnet50", "shared", transformer=False, classifies=False, robust=False),
    "II": Setup("resnet50", "resnet50", transformer=False, classifies=False, robust=False),
    "III": Setup("resnet50", "vgg19", transformer=False, classifies=False, robust=False),
    "IV": Setup("resnet50", "vgg19", transformer=True, classifies=False, robust=False),
    "V": Setup("dinov2", "vgg19", transformer=True, classifies=False, robust=False),
    "VI": Setup("dinov2", "vgg19", transformer=True, classifies=True, robust=False),
    "VII": Setup("dinov2", "vgg19", transformer=True, classifies=True, robust=True),
    "VIII": Setup("dinov2", "vgg19", transformer=False, classifies=True, robust=True),
}
BORROWED = {"III": "VGG19", "V": "DINOv2"}  # encoders without a counterpart in mini


def chosen(name: str | None) -> Setup | None:
    """Return the row with this name; None for None.

    Raises:
        UsageError: there is no such row.
    """
    if name is None:
        return None
    if name not in SETUPS:
        raise UsageError(f"--setup {name} is not known. Known: {', '.join(SETUPS)}.")
    return SETUPS[name]


def mini_config(name: str, base: MiniConfig) -> MiniConfig:
    """Return mini's counterpart of a row, without what mini adds to RoMa's design: cosines, attention, ensemble.

    Raises:
        UsageError: the row changes nothing in mini, or does not exist.
    """
    setup = chosen(name)
    assert setup is not None
    if name in BORROWED:
        raise UsageError(
            f"--setup {name} adds {BORROWED[name]}, but mini has its own trunks: it would equal the row before. "
            "Give --model roma, or another row."
        )
    return replace(
        base,
        shared_trunk=setup.fine == "shared",
        transformer=setup.transformer,
        classifies=setup.classifies,
        cosines=False,
        ensemble=False,
        context_blocks=0,
        crossings=0,
        exchanges=0,
        scales=1,
    )


def roma_config(setup: Setup, base: RoMaConfig) -> RoMaConfig:
    """Return RoMa with the components of a row, at the sizes of `base`."""
    return base.varied(
        coarse_encoder=setup.coarse,
        fine_encoder=setup.fine,
        transformer=setup.transformer,
        classifies=setup.classifies,
    )
