"""The dense cloud of the example scene compared with its surfaces: accuracy and completeness.

    romacli reconstruct examples/scene/images --pairing sequential --overlap 5 -o job && romacli densify job
    python tests/benchmarks/cloud.py job

Reference points are the 3D points of all pixel centres of the true views; those seen by three views count for
completeness. The model is aligned to the true cameras by a similarity. Distances are relative to the extent of the
scene: the diagonal of the bounding box of all reference points without the outermost percent on each side.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "examples"))

import render_scene  # noqa: E402

from romacli.eval.cloud import extent_of, nearest, read_cloud  # noqa: E402
from romacli.store.layout import Layout  # noqa: E402
from romacli.synthetic.scenes import render_view  # noqa: E402

DEPTH_TOLERANCE = 0.01


def surfaces() -> tuple[np.ndarray, np.ndarray]:
    """Points (n, 3) on all surfaces visible in a view, and the number of views that see each."""
    planes = render_scene.court(np.random.default_rng([render_scene.SEED, 0]))
    cameras = render_scene.cameras_on_arc(np.random.default_rng([render_scene.SEED, 1]))
    views = [render_view(planes, camera) for camera in cameras]
    points = []
    for camera, view in zip(cameras, views, strict=True):
        rows, columns = np.nonzero(view.inverse_depth > 0)
        pixels = np.column_stack((columns + 0.5, rows + 0.5, np.ones(len(rows))))
        seen = pixels @ np.linalg.inv(camera.K).T / view.inverse_depth[rows, columns, None]
        points.append((seen - camera.t) @ camera.R)
    xyz = np.concatenate(points)
    counts = np.zeros(len(xyz), int)
    for camera, view in zip(cameras, views, strict=True):
        seen = xyz @ camera.R.T + camera.t
        places = seen @ camera.K.T
        with np.errstate(divide="ignore", invalid="ignore"):
            columns, rows = np.floor(places[:, :2] / places[:, 2:]).T
        inside = (seen[:, 2] > 0) & (columns >= 0) & (rows >= 0) & (columns < camera.size[0]) & (rows < camera.size[1])
        depths = view.inverse_depth[rows[inside].astype(int), columns[inside].astype(int)]
        counts[inside] += np.abs(depths * seen[inside, 2] - 1) < DEPTH_TOLERANCE
    return xyz, counts


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("job", type=Path, help="a job of the example scene with a model and a dense cloud")
    layout = Layout(parser.parse_args().job)
    cloud = read_cloud(layout.cloud, layout.sparse / "0", REPOSITORY / "examples" / "scene" / "truth")
    xyz, counts = surfaces()
    extent = extent_of(xyz)
    rng = np.random.default_rng(0)
    of_three = rng.permutation(np.flatnonzero(counts >= 3))[:200_000]
    accuracy, completeness = nearest(cloud, xyz) / extent, nearest(xyz[of_three], cloud) / extent
    shares = (0.001, 0.002, 0.005, 0.01)
    print(
        json.dumps(
            {
                "points": len(cloud),
                "extent_m": round(extent, 2),
                "accuracy": {f"{share:.1%}": round(float((accuracy < share).mean()), 4) for share in shares},
                "completeness": {f"{share:.1%}": round(float((completeness < share).mean()), 4) for share in shares},
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
