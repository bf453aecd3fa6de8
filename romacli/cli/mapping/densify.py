"""`romacli densify`: a dense point cloud from a finished job."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from romacli.cli.console import Console, stopping
from romacli.cli.options import TalkOptions, takes
from romacli.densify.options import DensifyOptions
from romacli.job.options import DEFAULT_OUTPUT, JobImages, ModelJob
from romacli.options import Option
from romacli.words import counted


@dataclass(frozen=True)
class CloudOptions:
    job: ModelJob = DEFAULT_OUTPUT
    images: JobImages = None
    output: Annotated[
        Path | None,
        Option(
            "PLY file to write; FILE.vis next to it holds visibility. Default: OUT/dense/fused.ply, or "
            "OUT/dense/1/fused.ply of OUT/sparse/1.",
            metavar="FILE",
            short="o",
        ),
    ] = None
    depth_maps: Annotated[
        bool, Option("Also write a depth map per image, at the resolution of its warps, to depth_maps in OUT/dense.")
    ] = False


@takes(CloudOptions, DensifyOptions, TalkOptions, example="romacli densify job")
def densify(wanted: CloudOptions, options: DensifyOptions, talk: TalkOptions) -> None:
    """Build a dense, coloured point cloud of a reconstructed job from its stored warps, without matching again.

    A point is kept if at least --min-views images agree on its position and depth. The cloud has normals; a .vis file
    lists the images that see each point, as from COLMAP's `stereo_fusion`.
    """
    from romacli.densify.densify import densify as make_cloud
    from romacli.store.layout import about_other_models, layout_of

    layout = layout_of(wanted.job)
    cloud = wanted.output or layout.cloud
    with stopping() as stop, Console(talk) as console:
        if others := about_other_models(layout):
            console.say(others)
        summary = make_cloud(layout, wanted.images, cloud, options, console, stop, depth_maps=wanted.depth_maps)
        console.result(
            {**asdict(summary), "cloud": str(cloud)},
            f"{counted(summary.points, 'point')} from {counted(summary.images, 'image')} and "
            f"{counted(summary.pairs, 'pair')}, each seen by {summary.mean_views:.1f} images; see {cloud}",
        )
