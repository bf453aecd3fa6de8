"""Flags become the options of a job; torch is not imported before there is work for it."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from romacli.cli.options import (
    EngineFlags,
    ImageFlags,
    ImportFlags,
    KeypointFlags,
    MapperFlags,
    MaskFlags,
    MatcherFlags,
    MatchFlags,
    OutputFlags,
    ShardFlags,
    TalkFlags,
)
from romacli.cli.pairing import pairing_options
from romacli.errors import UsageError

if TYPE_CHECKING:
    from romacli.colmap.mappers import MapperOptions
    from romacli.images.masks import MaskOptions
    from romacli.job.aggregate import ReaggregateOptions
    from romacli.job.colmap import ImportOptions
    from romacli.job.job import JobOptions
    from romacli.keypoints.options import AggregateOptions
    from romacli.matchers.matcher import MatcherOptions
    from romacli.run.engine import EngineOptions

# A candidate costs a twentieth of a pair, so preselection may ask for more than what is worth refining once encoded.
PRESELECTED_FROM = 0.05


def job_options(
    images: ImageFlags,
    output: OutputFlags,
    flags: MatchFlags,
    pairing: Any,
    keypoints: KeypointFlags,
    masks: MaskFlags,
    engine: EngineFlags,
    shard: ShardFlags | None = None,
) -> JobOptions:
    """Everything `match` and `reconstruct` ask of a job."""
    from romacli.job.job import JobOptions
    from romacli.run.match import MatchOptions
    from romacli.run.shard import parse_shard

    chosen = remembered_options(keypoints, masks, None if flags.overwrite else output.output)
    return JobOptions(
        images=images.folder,
        image_list=images.image_list,
        output=output.output,
        pairs=flags.pairs,
        pairing=_pairing(flags.pairs, pairing),
        preselect=_preselect(flags, pairing),
        descriptors=pairing.descriptors,
        model=flags.model,
        matcher=matcher_options(replace(flags, min_coarse_overlap=None) if pairing.preselect else flags),
        match=MatchOptions(
            batch_size=flags.batch_size,
            cache_bytes=None if flags.cache_gb is None else round(flags.cache_gb * 1e9),
            num_workers=flags.num_workers,
            seed=flags.seed,
            strict=flags.strict,
            try_rotations=flags.try_rotations == "always",
        ),
        aggregate=replace(chosen.aggregate, seed=flags.seed),
        masks=chosen.masks or mask_options(MaskFlags()),
        keypoints=chosen.given.source if chosen.given else None,
        try_turned=flags.try_rotations == "auto",
        overwrite=flags.overwrite,
        changed=flags.changed.value,
        shard=parse_shard(shard.shard) if shard and shard.shard else None,
        engine=engine_options(engine),
    )


def mask_options(flags: MaskFlags) -> MaskOptions:
    """Which pixels count."""
    from romacli.images.masks import MaskOptions

    return MaskOptions(None if flags.mask_dir == Path("none") else flags.mask_dir, flags.camera_mask)


def engine_options(flags: EngineFlags) -> EngineOptions | None:
    """Where to match, None for this process."""
    from romacli.run.engine import EngineName, EngineOptions

    if flags.engine is None and flags.num_processes is None:
        return None
    return EngineOptions(EngineName(flags.engine.value if flags.engine else "local"), flags.num_processes)


def matcher_options(flags: MatcherFlags) -> MatcherOptions:
    """How the matcher of a command is built."""
    from romacli.matchers.matcher import MatcherOptions
    from romacli.matchers.resolution import parse_resolution

    return MatcherOptions(
        weights=flags.weights,
        coarse_resolution=parse_resolution(flags.coarse_resolution, "--coarse-resolution"),
        upsample_resolution=parse_resolution(flags.upsample_resolution, "--upsample-resolution"),
        upsample=flags.upsample,
        min_certainty=flags.min_certainty,
        min_overlap=flags.min_overlap,
        min_coarse_overlap=flags.min_coarse_overlap,
        device=flags.device,
        dtype=flags.dtype,
    )


def _preselect(flags: MatchFlags, pairing: Any) -> float | None:
    """From which coarse overlap on candidates are kept; they pass no second threshold when they are matched."""
    if not pairing.preselect:
        return None
    return PRESELECTED_FROM if flags.min_coarse_overlap is None else flags.min_coarse_overlap


def _pairing(pairs: str | None, flags: Any) -> Any:
    """How pairs are chosen where no file lists them."""
    if pairs is not None and flags.pairing is not None:
        raise UsageError(f"--pairs {pairs} lists the pairs that --pairing would choose. Leave one of them out.")
    return pairing_options(flags)


def aggregate_options(flags: KeypointFlags) -> AggregateOptions:
    """How keypoints are made."""
    from romacli.keypoints.options import AggregateOptions

    return AggregateOptions(
        method=flags.method.value,
        max_keypoints=flags.max_keypoints,
        spacing=flags.spacing,
        nms_radius=flags.nms_radius,
        tolerance=flags.tolerance,
        match_tolerance=flags.match_tolerance,
        min_track_length=flags.min_track_length,
        max_distance=flags.max_distance,
    )


def remembered_options(
    flags: KeypointFlags, masks: MaskFlags, job: Path | None, *, images: Path | None = None
) -> ReaggregateOptions:
    """How keypoints are made: as is given, and for the rest as those of the job were made last.

    job: None begins anew. images: the folder of photographs, for SIFT.
    """
    from romacli.job.aggregate import ReaggregateOptions, noted_options
    from romacli.job.given import GivenKeypoints
    from romacli.store.layout import Layout

    before = ReaggregateOptions() if job is None else noted_options(Layout(job))
    source = flags.keypoints
    if source is None and before.given and "method" not in flags.given:
        source = before.given.source
    wanted = asdict(aggregate_options(flags))
    changed = {name: value for name, value in wanted.items() if name in flags.given}
    if source is not None:
        changed["method"] = wanted["method"]
    return ReaggregateOptions(
        replace(before.aggregate, **changed),
        GivenKeypoints(source, images) if source else None,
        mask_options(masks) if masks.given else before.masks,
    )


def import_options(
    flags: ImportFlags,
    *,
    only: frozenset[str] | None = None,
    known_poses: Path | None = None,
    overwrite: bool = False,
) -> ImportOptions:
    """What `colmap-import` and `reconstruct` ask of the database."""
    from romacli.colmap.cameras import CameraOptions, parse_camera_params
    from romacli.colmap.rigs import read_rigs
    from romacli.colmap.verify import VerifyOptions
    from romacli.job.colmap import ImportOptions

    return ImportOptions(
        database=flags.database,
        only=only,
        known_poses=known_poses,
        cameras=CameraOptions(
            mode=flags.camera_mode.value,
            model=flags.camera_model,
            params=parse_camera_params(flags.camera_params) if flags.camera_params else None,
            rigs=read_rigs(flags.rig_config) if flags.rig_config else None,
        ),
        verify=VerifyOptions(method=flags.verify.value, max_error_px=flags.max_error, min_inliers=flags.min_inliers),
        calibrate=flags.calibrate,
        overwrite=overwrite,
    )


def mapper_options(flags: MapperFlags, imported: ImportFlags, talk: TalkFlags, *, seed: int) -> MapperOptions:
    """What `reconstruct` asks of the mapper; given intrinsics stay as they are unless asked otherwise.

    Raises:
        UsageError: the options contradict each other.
    """
    from romacli.colmap.mappers import MapperOptions
    from romacli.colmap.settings import parse_settings

    is_known = flags.known_poses is not None
    for option, is_given in (
        ("--mapper", flags.mapper is not MapperFlags.mapper),
        ("--rig-config", imported.rig_config is not None),
        ("--camera-params", imported.camera_params is not None),
    ):
        if is_known and is_given:
            raise UsageError(f"--known-poses takes cameras and poses from the model; leave out {option}.")
    if is_known and flags.georeference:
        raise UsageError("--known-poses keeps the poses it is given, --georeference moves them. Leave one of them out.")
    refine = flags.refine_intrinsics
    return MapperOptions(
        mapper=flags.mapper.value,
        refine_intrinsics=not (imported.camera_params or is_known) if refine is None else refine,
        known_poses=flags.known_poses,
        settings=parse_settings(flags.mapper_option),
        seed=seed,
        verbose=talk.verbose,
    )
