"""Options that choose and configure a matcher."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar

from romacli.matchers.resolution import parse_resolution
from romacli.options import Option, Panel
from romacli.types import Size

DEFAULT = "mini"
SIFT = "sift"

Model = Annotated[
    str, Option("Matcher; see `romacli models list`.", metavar="NAME", environment="ROMACLI_MODEL", panel=Panel.matcher)
]
Weights = Annotated[Path | None, Option("Checkpoint to use instead of the default one.", metavar="FILE")]
Device = Annotated[str, Option("auto, cpu, cuda, cuda:N or mps.")]


@dataclass(frozen=True)
class SparseOptions:
    """How a keypoint matcher matches descriptors."""

    panel: ClassVar[Panel] = Panel.matcher

    top_k: Annotated[
        int,
        Option(
            "Keypoint matchers: maximum keypoints per image, the strongest. More give more matches; time grows with "
            "the square.",
            min=1,
        ),
    ] = 2048
    ratio: Annotated[
        float | None,
        Option(
            "Keypoint matchers: maximum ratio of the descriptor distances to the nearest and second nearest "
            "neighbour. Default: no ratio test.",
            min=0,
            max=1,
        ),
    ] = None
    min_similarity: Annotated[
        float | None,
        Option("Keypoint matchers: minimum cosine of matching descriptors. Default: no minimum.", min=-1, max=1),
    ] = None
    diffusion: Annotated[
        Path | None,
        Option(
            "Folder of Stable Diffusion 2.1 in diffusers' layout, for matcha and dift; see romacli-matcha(7). "
            "Default: the one in the weights folder or the hub's cache.",
            metavar="DIR",
        ),
    ] = None
    ensemble: Annotated[
        int,
        Option(
            "Noise samples over which diffusion features are averaged, for matcha and dift. Fewer are faster and "
            "less precise.",
            min=1,
        ),
    ] = 8


@dataclass(frozen=True)
class MatcherOptions:
    """How a matcher is built; None means the matcher's own default. Resolutions are (width, height) in px.

    min_overlap: 0.02 kept every true pair of the studied captures and dropped the unrelated ones. 0 rejects no pair, at
        any stage.
    dtype: an option's word, or `EITHER_DTYPE`. keypoints: where a keypoint matcher describes images: "sift", an hloc
        features file, or None for its own.
    """

    panel: ClassVar[Panel] = Panel.matcher

    weights: Weights = None
    min_certainty: Annotated[
        float | None,
        Option(
            "Minimum certainty of the warp cells used. Higher gives fewer but more reliable matches. Default: the "
            "matcher's own, see `romacli models info`.",
            min=0,
            max=1,
        ),
    ] = None
    min_overlap: Annotated[
        float,
        Option(
            "Minimum fraction of usable warp cells; pairs below it are rejected. 0 keeps every pair. A quarter of it "
            "suffices for pairs that start from verified SIFT or given matches.",
            min=0,
            max=1,
        ),
    ] = 0.02
    min_coarse_overlap: Annotated[
        float | None,
        Option(
            "The same for the coarse stage; pairs below it are not refined. 0 refines every pair. Default: the "
            "matcher's own, see `romacli models info`, and at most --min-overlap. With --preselect, the minimum "
            "coarse overlap of the pairs kept, 0.05 by default.",
            min=0,
            max=1,
        ),
    ] = None
    preset: Annotated[
        str | None,
        Option(
            "Named preset for both resolutions below, if the matcher has any: turbo, fast, base or precise for roma-v2."
        ),
    ] = None
    coarse_resolution: Annotated[
        Size | None,
        Option(
            "Size in px that photographs are resized to for the first pass: one number or WIDTHxHEIGHT. Larger finds "
            "smaller overlaps; time grows with the area. Default: the matcher's own.",
            metavar="SIZE",
            parse=partial(parse_resolution, option="--coarse-resolution"),
        ),
    ] = None
    upsample_resolution: Annotated[
        Size | None,
        Option(
            "The same for the second pass, which refines. Larger is more precise and slower. "
            "Default: the matcher's own.",
            metavar="SIZE",
            parse=partial(parse_resolution, option="--upsample-resolution"),
        ),
    ] = None
    upsample: Annotated[
        bool,
        Option(
            "Refine in a second pass at higher resolution. --no-upsample is faster and less precise.", negatable=True
        ),
    ] = True
    device: Device = "auto"
    dtype: Annotated[
        str,
        Option(
            "Precision: auto, float32, float16 or bfloat16. auto is float16 on CUDA and float32 elsewhere, but "
            "bfloat16 for mini on CPUs that are faster in it."
        ),
    ] = "auto"
    sparse: SparseOptions = SparseOptions()
    keypoints: str | None = None

    @property
    def for_keypoints(self) -> list[str]:
        """The names of options that differ from their defaults and that dense matchers do not use."""
        usual = vars(SparseOptions())
        return [f"--{name.replace('_', '-')}" for name, value in vars(self.sparse).items() if value != usual[name]]

    @property
    def for_warps(self) -> list[str]:
        """The same for options that keypoint matchers do not use."""
        values = {
            "--min-certainty": self.min_certainty,
            "--min-coarse-overlap": self.min_coarse_overlap,
            "--preset": self.preset,
            "--upsample-resolution": self.upsample_resolution,
            "--no-upsample": None if self.upsample else False,
        }
        return [name for name, value in values.items() if value is not None]


@dataclass(frozen=True)
class MatcherChoice:
    """A matcher's name and options."""

    model: Model = DEFAULT
    matcher: MatcherOptions = MatcherOptions()
