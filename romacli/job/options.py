"""What a job is asked to do, as it is typed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, ClassVar

from romacli.colmap.options import CameraOptions, VerifyOptions
from romacli.images.options import ImageOptions, MaskOptions
from romacli.keypoints.options import AggregateOptions
from romacli.matchers.options import MatcherChoice, MatcherOptions
from romacli.options import Option, Panel
from romacli.pairing.options import PairingOptions
from romacli.refine.options import RefineOptions
from romacli.run.options import Changed, EngineOptions, MatchOptions, Shard, parse_shard

DEFAULT_OUTPUT = Path("romacli-out")
# A candidate costs a twentieth of a pair, so preselection may ask for more than what is worth refining once encoded.
PRESELECTED_FROM = 0.05

Output = Annotated[
    Path,
    Option("Folder of the job; made when missing, resumed when not.", metavar="OUT", short="o", panel=Panel.output),
]
# The folder of a job as an argument: one that `match` has finished, or any.
MatchedJob = Annotated[Path, Option("Folder of a job that `match` has made.", metavar="OUT", is_argument=True)]
AnyJob = Annotated[Path, Option("Folder of a job, finished or not.", metavar="OUT", is_argument=True)]
# The folder of its photographs where a command can do without.
SiftImages = Annotated[
    Path | None,
    Option(
        "Folder of the job's photographs, for --keypoints sift and to refine keypoints. Default: where they were "
        "matched.",
        metavar="DIR",
    ),
]
JobImages = Annotated[
    Path | None, Option("Folder of the job's photographs. Default: where they were matched.", metavar="DIR")
]
Replacing = Annotated[
    bool,
    Option(
        "Make all keypoints anew, also those that a database or a model in OUT refers to, which otherwise stay; both "
        "have to be made anew then. `reconstruct` does so by itself.",
        name="replace-keypoints",
        panel=Panel.keypoints,
    ),
]


@dataclass(frozen=True)
class KeypointOptions:
    """How keypoints are made of the warps, and which pixels count.

    keypoints: "sift" or a features file of hloc, whose keypoints are matched in place of new ones.
    typed: the fields that were typed, whatever their values; the others are as the job's keypoints were made last.
    """

    panel: ClassVar[Panel] = Panel.keypoints

    aggregate: AggregateOptions = AggregateOptions()
    keypoints: Annotated[
        str | None,
        Option(
            "Match these keypoints through the warps, kept as they are, instead of making new ones: SIFT's, or "
            "those of any detector in hloc's layout. A --method that is given makes new ones again. A matcher of "
            "keypoints describes photographs there, at the --top-k strongest of SIFT's.",
            metavar="sift|FILE.h5",
        ),
    ] = None
    refine: RefineOptions = RefineOptions()
    masks: MaskOptions = MaskOptions()
    replaces: Replacing = False
    typed: frozenset[str] = frozenset()

    @property
    def names_masks(self) -> bool:
        """Whether masks were typed, if only to drop those of before."""
        return not self.typed.isdisjoint(vars(self.masks))


@dataclass(frozen=True)
class ShardOptions:
    """Which piece of the pairs to match."""

    panel: ClassVar[Panel] = Panel.running

    shard: Annotated[
        Shard | None,
        Option(
            "Match only piece I of N, from 0, beside the other pieces on any machines that share OUT; then "
            "`romacli merge` or a run without it makes the keypoints.",
            metavar="I/N",
            parse=parse_shard,
        ),
    ] = None


@dataclass(frozen=True)
class JobOptions:
    """What a job is asked: photographs, pairs, matcher, and how keypoints are made of the warps.

    pairs: a pairs file, `-` for standard input; None for those that `pairing` chooses.
    overwrite: begin anew, whatever the output folder holds of an earlier job.
    shard: match only this piece of the pairs, and make no keypoints.
    skip_existing: what a job does anyway, for scripts written for hloc.
    """

    panel: ClassVar[Panel] = Panel.running

    images: ImageOptions
    output: Output = DEFAULT_OUTPUT
    pairs: Annotated[
        str | None,
        Option(
            "Pairs to match, two names a line, as hloc writes them; - reads standard input. Default: those of "
            "--pairing.",
            metavar="FILE",
            panel=Panel.pairs,
        ),
    ] = None
    pairing: PairingOptions = field(default_factory=PairingOptions)
    matcher: MatcherChoice = MatcherChoice()
    match: MatchOptions = MatchOptions()
    overwrite: Annotated[bool, Option("Begin anew: remove what an earlier job left in the output folder.")] = False
    changed: Annotated[
        Changed,
        Option(
            "Photographs whose size or time changed since they were matched: refuse to go on, rematch their "
            "pairs, or keep the results, as is right for copies."
        ),
    ] = Changed.refuse
    skip_existing: Annotated[bool, Option("", hidden=True)] = False
    keypoints: KeypointOptions = KeypointOptions()
    engine: EngineOptions = EngineOptions()
    shard: Shard | None = None

    @property
    def preselected_from(self) -> float | None:
        """The coarse overlap from which on `preselect` keeps a candidate, None where all are matched."""
        if not self.pairing.preselect:
            return None
        least = self.matcher.matcher.min_coarse_overlap
        return PRESELECTED_FROM if least is None else least

    @property
    def matcher_options(self) -> MatcherOptions:
        """How the matcher is built: pairs that were preselected pass no second coarse threshold."""
        chosen = self.matcher.matcher
        return replace(chosen, min_coarse_overlap=None) if self.pairing.preselect else chosen


@dataclass(frozen=True)
class ImportOptions:
    """How matches become a database.

    database: None for the one in the output folder.
    only: the images to import; None for all that were matched.
    known_poses: a COLMAP model, whose cameras are taken and of whose images alone there is any use.
    overwrite: replace a database that is somebody else's.
    """

    panel: ClassVar[Panel] = Panel.mapping

    database: Annotated[
        Path | None,
        Option("COLMAP database to write. Default: OUT/database.db.", metavar="FILE", short="d"),
    ] = None
    cameras: CameraOptions = CameraOptions()
    calibrate: Annotated[
        bool,
        Option(
            "Give cameras without a focal length in their EXIF data one from the verified pairs, where these tell "
            "it; the mapper starts from it. Given --camera-params are never touched.",
            negatable=True,
        ),
    ] = True
    verify: VerifyOptions = VerifyOptions()
    only: frozenset[str] | None = None
    known_poses: Path | None = None
    overwrite: bool = False
