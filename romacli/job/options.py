"""The options of a job."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, ClassVar

from romacli.colmap.options import CameraOptions, VerifyOptions
from romacli.images.options import ImageOptions, MaskOptions
from romacli.keypoints.options import AggregateOptions
from romacli.matchers.options import MatcherChoice, MatcherOptions
from romacli.options import Option, Panel, Typed, flags
from romacli.pairing.options import PairingOptions
from romacli.refine.options import RefineOptions
from romacli.run.options import Changed, EngineOptions, MatchOptions, Shard, parse_shard

DEFAULT_OUTPUT = Path("romacli-out")
# A candidate costs a tenth of a pair, so preselection can demand more overlap than refinement does.
PRESELECTED_FROM = 0.05

Output = Annotated[
    Path, Option("Job folder; created if missing, resumed if it exists.", metavar="OUT", short="o", panel=Panel.output)
]
# A job folder as an argument: one with the results of `match`, with a model, or any.
MatchedJob = Annotated[Path, Option("Folder of a matched job.", metavar="OUT", is_argument=True)]
ModelJob = Annotated[
    Path,
    Option(
        "Folder of a job, for its largest model, or of one of its models, such as OUT/sparse/1.",
        metavar="OUT",
        is_argument=True,
    ),
]
AnyJob = Annotated[Path, Option("Folder of a job, finished or not.", metavar="OUT", is_argument=True)]
# The folder of its photographs, where a command can do without them.
SiftImages = Annotated[
    Path | None,
    Option(
        "Folder of the job's photographs, for --keypoints sift and for refinement. Default: the folder they were "
        "matched in.",
        metavar="DIR",
    ),
]
JobImages = Annotated[
    Path | None, Option("Folder of the job's photographs. Default: the folder they were matched in.", metavar="DIR")
]
Replacing = Annotated[
    bool,
    Option(
        "Replace all keypoints, even those used by a database or model in OUT, which must then be rebuilt. Without "
        "it these are kept. `reconstruct` always replaces them.",
        name="replace-keypoints",
        panel=Panel.keypoints,
    ),
]


@dataclass(frozen=True)
class KeypointOptions:
    """How keypoints are made from the warps, and which pixels count.

    keypoints: "sift" or an hloc features file, whose keypoints are matched instead of new ones.
    typed: the fields given on the command line, whatever their values; the others keep the job's last settings.
    """

    panel: ClassVar[Panel] = Panel.keypoints

    aggregate: AggregateOptions = AggregateOptions()
    keypoints: Annotated[
        str | None,
        Option(
            "Match these keypoints through the warps, unmoved, instead of making new ones: SIFT's, or those of any "
            "detector in hloc's layout. --method switches back to new ones. Matchers of keypoints compute their "
            "descriptors at them, at the --top-k strongest of SIFT's.",
            metavar="sift|FILE.h5",
        ),
    ] = None
    refine: RefineOptions = RefineOptions()
    masks: MaskOptions = MaskOptions()
    replaces: Replacing = False
    typed: frozenset[str] = frozenset()

    @property
    def names_masks(self) -> bool:
        """Whether masks were given, if only to drop the previous ones."""
        return not self.typed.isdisjoint(vars(self.masks))


@dataclass(frozen=True)
class ShardOptions:
    """Which shard of the pairs to match."""

    panel: ClassVar[Panel] = Panel.running

    shard: Annotated[
        Shard | None,
        Option(
            "Match only shard I of N, counted from 0; the other shards may run in parallel on machines that share "
            "OUT. Then `romacli merge`, or a run without --shard, makes the keypoints.",
            metavar="I/N",
            parse=parse_shard,
        ),
    ] = None


@dataclass(frozen=True)
class JobOptions:
    """A job: photographs, pairs, matcher, and how keypoints are made from the warps.

    pairs: a pairs file, `-` for standard input; None for the pairs that `pairing` chooses.
    overwrite: start over, whatever an earlier job left in the output folder.
    shard: match only this shard of the pairs, and make no keypoints.
    skip_existing: accepted for scripts written for hloc; a job always does so.
    words: the command line, if there is one.
    """

    panel: ClassVar[Panel] = Panel.running

    images: ImageOptions
    output: Output = DEFAULT_OUTPUT
    pairs: Annotated[
        str | None,
        Option(
            "Pairs to match, two names per line as in hloc; - reads standard input. Default: chosen by --pairing.",
            metavar="FILE",
            panel=Panel.pairs,
        ),
    ] = None
    pairing: PairingOptions = field(default_factory=PairingOptions)
    matcher: MatcherChoice = MatcherChoice()
    match: MatchOptions = MatchOptions()
    overwrite: Annotated[bool, Option("Start over: remove what an earlier job left in the output folder.")] = False
    changed: Annotated[
        Changed,
        Option(
            "If photographs changed since they were matched: refuse to continue, rematch their pairs, or keep the "
            "results, as after editing metadata. Copies are not changed."
        ),
    ] = Changed.refuse
    skip_existing: Annotated[bool, Option("", hidden=True)] = False
    keypoints: KeypointOptions = KeypointOptions()
    engine: EngineOptions = EngineOptions()
    shard: Shard | None = None
    words: Typed = Typed()

    @property
    def preselected_from(self) -> float | None:
        """The minimum coarse overlap of candidates that `preselect` keeps; None if all pairs are matched."""
        if not self.pairing.preselect:
            return None
        least = self.matcher.matcher.min_coarse_overlap
        return PRESELECTED_FROM if least is None else least

    @property
    def matcher_options(self) -> MatcherOptions:
        """How the matcher is built: preselected pairs are not tested against a coarse threshold again."""
        chosen = self.matcher.matcher
        return replace(chosen, min_coarse_overlap=None) if self.pairing.preselect else chosen

    @property
    def lasting(self) -> Typed:
        """The words that a run which goes on with the job needs, too, apart from its photographs, folder and pairs."""
        once = {*_ONCE, *flags(PairingOptions), *(("--min-coarse-overlap",) if self.pairing.preselect else ())}
        options = {flag: words for flag, words in self.words.options.items() if flag not in once}
        return replace(self.words, options=options)


# Options of one run, which one that goes on with it does not need.
_ONCE = frozenset(
    ("--output", "--pairs", "--shard", "--overwrite", "--changed", "--skip-existing", "--image-dir")
    + ("--dry-run", "--json", "--quiet", "--verbose")
)


@dataclass(frozen=True)
class ImportOptions:
    """How matches become a database.

    database: None for the one in the output folder.
    only: the images to import; None for all matched ones.
    known_poses: a COLMAP model whose cameras are used; only its images are imported.
    overwrite: replace a database that romacli did not make.
    """

    panel: ClassVar[Panel] = Panel.mapping

    database: Annotated[
        Path | None, Option("COLMAP database to write. Default: OUT/database.db.", metavar="FILE", short="d")
    ] = None
    cameras: CameraOptions = CameraOptions()
    calibrate: Annotated[
        bool,
        Option(
            "Estimate the focal length of cameras without one in their EXIF data from the verified pairs, where "
            "possible, as the mapper's starting value. --camera-params are never changed.",
            negatable=True,
        ),
    ] = True
    verify: VerifyOptions = VerifyOptions()
    only: frozenset[str] | None = None
    known_poses: Path | None = None
    overwrite: bool = False
