"""Which matcher, and how it is built."""

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
    str,
    Option(
        "Matcher; `romacli models list` names them all.",
        metavar="NAME",
        environment="ROMACLI_MODEL",
        panel=Panel.matcher,
    ),
]
Weights = Annotated[Path | None, Option("Checkpoint to use in place of the located one.", metavar="FILE")]
Device = Annotated[str, Option("auto, cpu, cuda, cuda:N or mps.")]


@dataclass(frozen=True)
class SparseOptions:
    """How a matcher of keypoints pairs their descriptors.

    top_k: keypoints an image is described at, the strongest.
    diffusion, ensemble: of those that read Stable Diffusion's features.
    ratio: a match's distance is at most so much of the next one's; min_similarity: the least cosine of a match.
    """

    panel: ClassVar[Panel] = Panel.matcher

    top_k: Annotated[
        int,
        Option(
            "Of a matcher that describes keypoints: the most of an image, the strongest. More match more and cost "
            "their square.",
            min=1,
        ),
    ] = 2048
    ratio: Annotated[
        float | None,
        Option(
            "Of the same: keep a match only if its descriptors' distance is at most so much of the next best one's. "
            "Default: none is dropped so.",
            min=0,
            max=1,
        ),
    ] = None
    min_similarity: Annotated[
        float | None, Option("Of the same: the least cosine of two matching descriptors. Default: any.", min=-1, max=1)
    ] = None
    diffusion: Annotated[
        Path | None,
        Option(
            "Folder of Stable Diffusion 2.1 in diffusers' layout, for matcha and dift; see romacli-matcha(7). Default: "
            "that of the weights folder or of the hub's cache.",
            metavar="DIR",
        ),
    ] = None
    ensemble: Annotated[
        int, Option("Of the same: noises whose features are averaged. Fewer are faster and noisier.", min=1)
    ] = 8


@dataclass(frozen=True)
class MatcherOptions:
    """How a matcher is built; None leaves a value to the matcher's own default.

    weights: a checkpoint in place of the located one.
    min_certainty: a cell of a warp below it is not used; in [0, 1].
    min_overlap: a pair whose usable share of cells is below it is recorded as rejected; in [0, 1]. 0.02 kept
        every true pair of the studied captures and dropped the unrelated ones. With 0 no pair is, at any stage.
    min_coarse_overlap: the same for the share by the coarse stage alone; such a pair is not refined.
    preset: a word for both sizes, of those the matcher has; sizes that are given count more.
    coarse_resolution, upsample_resolution: (width, height) in px that every photograph is resized to, for the
        first and the second pass.
    upsample: whether the second pass runs at all.
    device: auto, cpu, cuda, cuda:N or mps.
    dtype: auto, float32, float16 or bfloat16.
    keypoints: where a matcher of keypoints describes images: "sift", a features file of hloc, None for its own.
    """

    panel: ClassVar[Panel] = Panel.matcher

    weights: Weights = None
    min_certainty: Annotated[
        float | None,
        Option(
            "Certainty below which a place in a warp is not used. Higher keeps less, with fewer wrong. "
            "Default: the matcher's own, see `romacli models info`.",
            min=0,
            max=1,
        ),
    ] = None
    min_overlap: Annotated[
        float,
        Option("Share of usable places below which a pair is rejected; 0 refines and keeps every pair.", min=0, max=1),
    ] = 0.02
    min_coarse_overlap: Annotated[
        float | None,
        Option(
            "The same by the coarse stage alone, before a pair is refined; 0 refines every pair. "
            "Default: mini 0.005, but no more than --min-overlap; 0 for the others, as it was not measured with their "
            "weights; see romacli-mini(7). With --preselect it says which pairs are kept, 0.05 and above by default.",
            min=0,
            max=1,
        ),
    ] = None
    preset: Annotated[
        str | None,
        Option("Both sizes below by a word, for matchers that have such: turbo, fast, base or precise of roma-v2."),
    ] = None
    coarse_resolution: Annotated[
        Size | None,
        Option(
            "Size in px photographs are resized to for the first pass: one number or WIDTHxHEIGHT. "
            "Larger finds smaller overlaps at a cost that grows with the area. Default: the matcher's own.",
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
        bool, Option("Refine in a second pass. Without it matching is faster and less precise.", negatable=True)
    ] = True
    device: Device = "auto"
    dtype: Annotated[
        str, Option("Number type: auto (float16 on CUDA, float32 elsewhere), float32, float16 or bfloat16.")
    ] = "auto"
    sparse: SparseOptions = SparseOptions()
    keypoints: str | None = None

    @property
    def for_keypoints(self) -> list[str]:
        """The options that differ from their defaults and that no dense matcher reads, as they are typed."""
        usual = vars(SparseOptions())
        return [f"--{name.replace('_', '-')}" for name, value in vars(self.sparse).items() if value != usual[name]]

    @property
    def for_warps(self) -> list[str]:
        """The same of those that no matcher of keypoints reads."""
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
    """A matcher by name, and how it is built."""

    model: Model = DEFAULT
    matcher: MatcherOptions = MatcherOptions()
