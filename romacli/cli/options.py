"""Every option once: its name, help and default, in groups that commands take whole.

Underscores are read as hyphens, and the words of hloc and COLMAP as ours.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, ClassVar, get_args, get_type_hints

import typer
from typer.models import OptionInfo

from romacli.errors import UsageError
from romacli.keypoints.options import AggregateOptions
from romacli.options import Option

ALIASES = {
    "export-dir": "output",
    "output-path": "output",
    "image-list-path": "image-list",
    "database-path": "database",
    "match-list-path": "pairs",
    "min-match-score": "min-certainty",
    "image-path": "image-dir",
    "mask-path": "mask-dir",
    "camera-mask-path": "camera-mask",
    "max-num-features": "max-keypoints",
    "quadratic-overlap": "quadratic",
    "loop-detection": "loop-closure",
    "loop-detection-period": "loop-period",
}


def normalise(word: str) -> str:
    """Our spelling of an option's or a command's name."""
    word = word.replace("_", "-")
    return ALIASES.get(word, word)


def takes(*groups: type) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of whole groups; it is called with one filled-in dataclass for each."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        of_groups = {group: list(_parameters(group)) for group in groups}
        names = {group: [parameter.name for parameter in parameters] for group, parameters in of_groups.items()}

        @wraps(command)
        def run(context: typer.Context, **values: Any) -> None:
            given = {name for name in values if getattr(context.get_parameter_source(name), "name", "") != "DEFAULT"}
            command(*(_filled(group, {name: values[name] for name in names[group]}, given) for group in groups))

        parameters = [parameter for group in groups for parameter in of_groups[group]]
        keyword = inspect.Parameter.KEYWORD_ONLY
        parameters.append(inspect.Parameter("context", keyword, annotation=typer.Context))
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


# Where options stand in `--help`, in this order; a group names its own, an option may name another.
PHOTOGRAPHS, PAIRS, MATCHER, KEYPOINTS = "Photographs", "Pairs", "Matcher", "Keypoints"
MAPPING, RUNNING, OUTPUT = "Camera and mapping", "Running", "Output"
PANELS = ("Arguments", "Options", PHOTOGRAPHS, PAIRS, MATCHER, KEYPOINTS, MAPPING, RUNNING, OUTPUT)


# What values are called where an option gives them no name of its own.
_VALUES = {str: "TEXT", int: "N", float: "NUMBER", Path: "PATH"}


def _filled(group: type, values: Mapping[str, Any], given: set[str]) -> Any:
    """A group of its values; one with a field `given` is told which of them were typed."""
    if "given" in {part.name for part in fields(group)}:
        return group(**values, given=frozenset(given & values.keys()))
    return group(**values)


def _parameters(group: type) -> Iterator[inspect.Parameter]:
    """A parameter for each field of a group that is declared as an option, by Typer's means or by `Option`."""
    hints = get_type_hints(group, include_extras=True)
    for part in fields(group):
        kind, *notes = get_args(hints[part.name]) or (None,)
        owner = next(owner for owner in group.__mro__ if part.name in vars(owner).get("__annotations__", ()))
        for note in notes:
            info = _typer_option(part.name, kind, note) if isinstance(note, Option) else note
            if isinstance(info, OptionInfo):
                info.metavar = info.metavar or _VALUES.get(_inner(kind))
                info.rich_help_panel = info.rich_help_panel or vars(owner).get("panel")
            yield inspect.Parameter(
                part.name, inspect.Parameter.KEYWORD_ONLY, default=_default(part), annotation=Annotated[kind, info]
            )


def _typer_option(field: str, kind: Any, option: Option) -> OptionInfo:
    flag = option.flag(field)
    names = (f"{flag}/--no-{flag[2:]}",) if option.negatable else (flag,)
    made: OptionInfo = typer.Option(
        *names,
        help=option.help,
        metavar=option.metavar,
        min=option.min,
        max=option.max,
        show_default=option.has_default,
    )
    return made


def _inner(kind: Any) -> Any:
    """X of X and of X | None."""
    return next(iter(get_args(kind)), kind)


def _default(field: Field[Any]) -> Any:
    if field.default_factory is not MISSING:
        return field.default_factory()
    return inspect.Parameter.empty if field.default is MISSING else field.default


def model_names(incomplete: str) -> list[str]:
    """The matchers whose names begin so, for the shell to complete."""
    from romacli.matchers.registry import matchers

    return [name for name in matchers() if name.startswith(incomplete)]


def images_folder(positional: Path | None, option: Path | None) -> Path:
    """The folder of photographs, however it was given."""
    folder = positional or option
    if folder is None:
        raise UsageError("IMAGES is missing: name the folder of photographs.")
    return folder


class Method(StrEnum):
    tracks = "tracks"
    cells = "cells"


class Changed(StrEnum):
    refuse = "refuse"
    rematch = "rematch"
    keep = "keep"


class TryRotations(StrEnum):
    auto = "auto"
    always = "always"
    never = "never"


class Engine(StrEnum):
    local = "local"
    ray = "ray"


class CameraMode(StrEnum):
    auto = "auto"
    single = "single"
    per_folder = "per-folder"
    per_image = "per-image"


class Verifier(StrEnum):
    magsac = "magsac"
    colmap = "colmap"


class Mapper(StrEnum):
    incremental = "incremental"
    global_ = "global"
    hierarchical = "hierarchical"


@dataclass(frozen=True)
class ImageFlags:
    panel: ClassVar[str] = PHOTOGRAPHS

    images: Annotated[
        Path | None,
        typer.Argument(
            metavar="IMAGES", help="Folder of photographs, walked with its sub-folders.", show_default=False
        ),
    ] = None
    image_dir: Annotated[Path | None, typer.Option(hidden=True)] = None
    image_list: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Use only the names in FILE, one a line, instead of the whole folder."),
    ] = None

    @property
    def folder(self) -> Path:
        return images_folder(self.images, self.image_dir)


@dataclass(frozen=True)
class MaskFlags:
    panel: ClassVar[str] = PHOTOGRAPHS

    mask_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR|none",
            help="Folder of masks, PNG files of the photographs' sizes: pixels that are black or transparent there "
            "neither give nor receive matches. That of a/1.jpg is a/1.jpg.png, COLMAP's rule, or a/1.png. Masks may "
            "change from run to run; nothing is matched again. Default: those of the run before; none drops them.",
            show_default=False,
        ),
    ] = None
    camera_mask: Annotated[
        Path | None, typer.Option(metavar="FILE", help="One mask for all photographs, beside those of --mask-dir.")
    ] = None
    given: frozenset[str] = frozenset()


@dataclass(frozen=True)
class OutputFlags:
    panel: ClassVar[str] = OUTPUT

    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="OUT", help="Folder of the job; made when missing, resumed when not."),
    ] = Path("romacli-out")


@dataclass(frozen=True)
class TalkFlags:
    panel: ClassVar[str] = OUTPUT

    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object with the result on stdout.")] = False
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but warnings and errors.")] = False
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more, and show COLMAP's own messages.")] = False


@dataclass(frozen=True)
class MatcherFlags:
    """Which matcher, and how it is built."""

    panel: ClassVar[str] = MATCHER

    model: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            envvar="ROMACLI_MODEL",
            autocompletion=model_names,
            help="Matcher: mini, roma-outdoor or roma-indoor; see `romacli models list`.",
        ),
    ] = "mini"
    weights: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Checkpoint to use in place of the located one.")
    ] = None
    min_certainty: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Certainty below which a place in a warp is not used. Higher keeps less, with fewer wrong. "
            "Default: the matcher's own (mini 0.5, RoMa 0.2).",
            show_default=False,
        ),
    ] = None
    min_overlap: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Share of usable places below which a pair is rejected; 0 refines and keeps every pair.",
        ),
    ] = 0.02
    min_coarse_overlap: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="The same by the coarse stage alone, before a pair is refined; 0 refines every pair. "
            "Default: mini 0.005, but no more than --min-overlap; RoMa 0, since it was not measured with its weights; "
            "see romacli-mini(7). With --preselect it says which pairs are kept, 0.05 and above by default.",
            show_default=False,
        ),
    ] = None
    coarse_resolution: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Size in px photographs are resized to for the first pass: one number or WIDTHxHEIGHT. "
            "Larger finds smaller overlaps at a cost that grows with the area. Default: mini 256, RoMa 560.",
            show_default=False,
        ),
    ] = None
    upsample_resolution: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="The same for the second pass, which refines. Larger is more precise and slower. "
            "Default: mini 640, RoMa 864.",
            show_default=False,
        ),
    ] = None
    upsample: Annotated[
        bool, typer.Option(help="Refine in a second pass. Without it matching is faster and less precise.")
    ] = True
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto"
    dtype: Annotated[
        str,
        typer.Option(help="Number type: auto (float16 on CUDA, float32 elsewhere), float32, float16 or bfloat16."),
    ] = "auto"


@dataclass(frozen=True)
class MatchFlags(MatcherFlags):
    panel: ClassVar[str] = RUNNING

    pairs: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            rich_help_panel=PAIRS,
            help="Pairs to match, two names a line, as hloc writes them; - reads standard input. Default: those of "
            "--pairing.",
        ),
    ] = None
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Pairs matched at once; more need more memory. Default: 4 on a GPU, 1 on a CPU.",
            show_default=False,
        ),
    ] = None
    cache_gb: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Memory in GB for what is computed once an image. Less than the job needs computes it again: see "
            "encodes in --dry-run. Default: what the device has free.",
            show_default=False,
        ),
    ] = None
    num_workers: Annotated[int, typer.Option(min=1, help="Threads that read photographs ahead.")] = 2
    seed: Annotated[int, typer.Option(min=0, help="Seed of every random choice.")] = 0
    try_rotations: Annotated[
        TryRotations,
        typer.Option(
            help="Try photographs turned by 90, 180 and 270 degrees: auto, those that hardly match anything, at the "
            "coarse stage and against few partners; always, the second of each pair that is rejected or overlaps by "
            "less than 10 %, which takes up to four times as long; never. What EXIF says is followed anyway.",
        ),
    ] = TryRotations.auto
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at the first photograph that cannot be read, instead of going on.")
    ] = False
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Begin anew: remove what an earlier job left in the output folder.")
    ] = False
    changed: Annotated[
        Changed,
        typer.Option(
            help="Photographs whose size or time changed since they were matched: refuse to go on, rematch their "
            "pairs, or keep the results, as is right for copies."
        ),
    ] = Changed.refuse
    skip_existing: Annotated[bool, typer.Option("--skip-existing", hidden=True)] = False


@dataclass(frozen=True)
class EngineFlags:
    panel: ClassVar[str] = RUNNING

    engine: Annotated[
        Engine | None,
        typer.Option(
            help="Match in several processes: local, one on each GPU of this machine; ray, on a Ray cluster "
            "(pip install 'romacli[ray]'). Default: in this process alone.",
            show_default=False,
        ),
    ] = None
    num_processes: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Processes of --engine, local where none is named. Each holds the model. Default: one a GPU.",
            show_default=False,
        ),
    ] = None


@dataclass(frozen=True)
class ShardFlags:
    panel: ClassVar[str] = RUNNING

    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            help="Match only piece I of N, from 0, beside the other pieces on any machines that share OUT; then "
            "`romacli merge` or a run without it makes the keypoints.",
            show_default=False,
        ),
    ] = None


@dataclass(frozen=True)
class KeypointFlags:
    """Lengths are px at a long side of 1600. given: the options that were given, whatever their values."""

    panel: ClassVar[str] = KEYPOINTS

    method: Annotated[
        Method,
        typer.Option(
            help="How keypoints are made of warps. tracks: points carried from image to image, the longest and most "
            "precise. cells: hloc's quantise and vote, for comparison and compatibility."
        ),
    ] = Method.tracks
    keypoints: Annotated[
        str | None,
        typer.Option(
            metavar="sift|FILE.h5",
            help="Match these keypoints through the warps, kept as they are, instead of making new ones: SIFT's, or "
            "those of any detector in hloc's layout. A --method that is given makes new ones again.",
            show_default=False,
        ),
    ] = None
    max_keypoints: Annotated[
        int, typer.Option(min=1, help="Keypoints an image may have. More cost time in verification and mapping.")
    ] = AggregateOptions.max_keypoints
    max_distance: Annotated[
        float,
        typer.Option(
            min=0.1,
            help="How far from where a warp leads the match of a given keypoint may lie, in px at a long side of "
            "1600. Larger matches more, less precisely.",
        ),
    ] = AggregateOptions.max_distance
    spacing: Annotated[
        float,
        typer.Option(
            min=1,
            help="Px between the places where tracks start, at a long side of 1600. Smaller gives more tracks and "
            "takes longer.",
        ),
    ] = AggregateOptions.spacing
    nms_radius: Annotated[
        float,
        typer.Option(min=0.1, help="No two keypoints of an image are nearer, in the same px. Larger thins them out."),
    ] = AggregateOptions.nms_radius
    tolerance: Annotated[
        float,
        typer.Option(
            min=0.1, help="How far warps may differ about a place, in the same px. Larger joins more, less precisely."
        ),
    ] = AggregateOptions.tolerance
    match_tolerance: Annotated[
        float,
        typer.Option(
            min=0.1,
            help="How near a pair's own warp must lead to the other keypoint, in the same px. Larger keeps more "
            "matches, with more wrong ones.",
        ),
    ] = AggregateOptions.match_tolerance
    min_track_length: Annotated[
        int, typer.Option(min=2, help="Images a track must be seen in. More leaves fewer and surer points.")
    ] = AggregateOptions.min_track_length
    given: frozenset[str] = frozenset()


@dataclass(frozen=True)
class DryRunFlags:
    panel: ClassVar[str] = RUNNING

    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything and say what there is to do, then stop.")
    ] = False


@dataclass(frozen=True)
class ImportFlags:
    panel: ClassVar[str] = MAPPING

    database: Annotated[
        Path | None,
        typer.Option(
            "--database",
            "-d",
            metavar="FILE",
            help="COLMAP database to write. Default: OUT/database.db.",
            show_default=False,
        ),
    ] = None
    camera_mode: Annotated[
        CameraMode,
        typer.Option(
            help="Which photographs share a camera. auto: those of a folder with the same size whose EXIF data tell "
            "the same maker, model, lens and focal length, or nothing."
        ),
    ] = CameraMode.auto
    camera_model: Annotated[str, typer.Option(help="COLMAP camera model.")] = "SIMPLE_RADIAL"
    camera_params: Annotated[
        str | None,
        typer.Option(
            metavar="P1,P2,...",
            help="Known intrinsics in the model's order; the mapper keeps them fixed.",
        ),
    ] = None
    calibrate: Annotated[
        bool,
        typer.Option(
            help="Give cameras without a focal length in their EXIF data one from the verified pairs, where these tell "
            "it; the mapper starts from it. Given --camera-params are never touched."
        ),
    ] = True
    rig_config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Cameras that move together, in COLMAP's JSON: images whose names agree behind their cameras' "
            "prefixes were taken at one time. Poses within the rig may be missing for --mapper global alone.",
        ),
    ] = None
    verify: Annotated[
        Verifier,
        typer.Option(help="Geometric verification: magsac (OpenCV, several times faster) or colmap (COLMAP's own)."),
    ] = Verifier.magsac
    max_error: Annotated[
        float, typer.Option(min=0, help="Distance in px from the epipolar line that an inlier may have.")
    ] = 4.0
    min_inliers: Annotated[
        int, typer.Option(min=1, help="Inliers below which a pair is not used. Higher drops weak pairs.")
    ] = 15


@dataclass(frozen=True)
class MapperFlags:
    panel: ClassVar[str] = MAPPING

    mapper: Annotated[
        Mapper,
        typer.Option(
            help="incremental (robust), global (faster on many images) or hierarchical (incremental on parts of a "
            "large scene, then merged)."
        ),
    ] = Mapper.incremental
    known_poses: Annotated[
        Path | None,
        typer.Option(
            metavar="MODEL",
            help="Folder of a COLMAP model: keep its cameras and poses and triangulate points, instead of mapping. "
            "Photographs without a pose are left out.",
            show_default=False,
        ),
    ] = None
    georeference: Annotated[
        bool,
        typer.Option(
            "--georeference",
            help="Move the model to the photographs' GPS positions: metres east, north and up of an origin that "
            "OUT/sparse/0/georeference.json names.",
        ),
    ] = False
    mapper_option: Annotated[
        list[str],
        typer.Option(
            metavar="KEY=VALUE",
            help="An option of COLMAP's mapper by its name in pycolmap, such as init_min_tri_angle=4 or "
            "triangulation.min_angle=1; may be given several times. Values are literals, text in quotes.",
            show_default=False,
        ),
    ] = field(default_factory=list)
    refine_intrinsics: Annotated[
        bool | None,
        typer.Option(
            help="Let the mapper change focal length and distortion. Default: yes, unless --camera-params or "
            "--known-poses is given.",
            show_default=False,
        ),
    ] = None
