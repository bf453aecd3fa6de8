"""The rows of RoMa's table 2: what its parts are worth, each a change of the row before it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from romacli.errors import UsageError
from romacli.networks.mini import MiniConfig
from romacli.networks.roma import RoMaConfig


@dataclass(frozen=True)
class Setup:
    """One row.

    Attributes:
        coarse: encoder of the coarse features: resnet50 or dinov2, which stays frozen.
        fine: encoder of the fine features: that of the coarse ones, resnet50 (one of its own) or vgg19.
        transformer: the coarse decoder attends to the whole picture; otherwise it is of convolutions.
        classifies: it answers with anchors, by section 3.3; otherwise with coordinates, as DKM's.
        robust: refiners are trained with the generalised Charbonnier loss; otherwise with the mean distance, as DKM's.
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
BORROWED = {"III": "VGG19", "V": "DINOv2"}  # what mini has nothing for


def chosen(name: str | None) -> Setup | None:
    """Return the row of a name; None for none.

    Raises:
        UsageError: there is no such row.
    """
    if name is None:
        return None
    if name not in SETUPS:
        raise UsageError(f"--setup {name} is not known. Known: {', '.join(SETUPS)}.")
    return SETUPS[name]


def mini_config(name: str, base: MiniConfig) -> MiniConfig:
    """Return mini's counterpart of a row: without the cosines that it adds to logits, which RoMa does not.

    Raises:
        UsageError: the row changes nothing that mini has, or is none.
    """
    setup = chosen(name)
    assert setup is not None
    if name in BORROWED:
        raise UsageError(
            f"--setup {name} brings in {BORROWED[name]}, and mini has trunks of its own: it would be the row before. "
            "Give --model roma, or another row."
        )
    return replace(
        base,
        shared_trunk=setup.fine == "shared",
        transformer=setup.transformer,
        classifies=setup.classifies,
        cosines=False,
    )


def roma_config(setup: Setup, base: RoMaConfig) -> RoMaConfig:
    """Return RoMa with the parts of a row, at the sizes of `base`."""
    return base.varied(
        coarse_encoder=setup.coarse,
        fine_encoder=setup.fine,
        transformer=setup.transformer,
        classifies=setup.classifies,
    )
