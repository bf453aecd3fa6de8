"""What refinement against the photographs makes of a job's tracks: a copy of the job, mapped before and after."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from dataclasses import fields
from functools import lru_cache
from pathlib import Path

import cv2
import h5py
import numpy as np

from romacli.geometry.warp import warp_fields
from romacli.keypoints.components import join_tracks
from romacli.refine.options import RefineOptions
from romacli.refine.photograph import Photograph
from romacli.refine.tracks import Links, RefinedTracks, refine_tracks
from romacli.store.hloc import FeaturesFile, MatchesFile
from romacli.store.journal import Journal
from romacli.store.layout import Layout
from romacli.store.manifest import fingerprint, read_manifest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("job", type=Path, help="folder that `romacli match` filled")
    parser.add_argument("images", type=Path)
    parser.add_argument("work", type=Path, help="folder for the copies, made anew")
    parser.add_argument("--camera-params", required=True, help="of a PINHOLE camera: FX,FY,CX,CY")
    parser.add_argument("--truth", type=Path, help="folder of NAME.camera files as in Strecha's sets")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--option", nargs=2, action="append", default=[], metavar=("NAME", "NUMBER"))
    parser.add_argument("--drop", action="store_true", help="drop the matches of what was not refined")
    args = parser.parse_args()
    kinds = {field.name: type(field.default) for field in fields(RefineOptions)}
    options = RefineOptions(**{name: kinds[name](value) for name, value in args.option})
    shutil.rmtree(args.work, ignore_errors=True)
    plain, refined = args.work / "plain", args.work / "refined"
    for copy in (plain, refined):
        shutil.copytree(args.job, copy, ignore=shutil.ignore_patterns("sparse", "*.db", "runs.jsonl"))
    names, ids, xy, result, seconds = refine_job(Layout(refined), args.images, options, args.threads)
    tell(names, ids, xy, result, seconds)
    write_back(Layout(refined).features, names, result)
    if args.drop:
        drop_unrefined(Layout(refined).matches, names, result)
    for copy in (plain, refined):
        for seed in args.seeds:
            print(f"{copy.name} seed {seed}:", judge(mapped(copy, args.images, args.camera_params, seed), args.truth))


def refine_job(
    layout: Layout, images: Path, options: RefineOptions, threads: int
) -> tuple[list[str], list[np.ndarray], list[np.ndarray], RefinedTracks, float]:
    """Refine the keypoints of a job; names, tracks and places before, the result, CPU seconds."""
    with FeaturesFile(layout.features) as features, MatchesFile(layout.matches) as file:
        names = features.names()
        xy = [features.keypoints(name).xy for name in names]
        matches = [(pair, file.matches(*pair).indices) for pair in file.pairs(names)]
    tracks = join_tracks({name: len(places) for name, places in zip(names, xy, strict=True)}, matches)
    number = {name: k for k, name in enumerate(names)}
    start = time.process_time()
    links = {}
    manifest = read_manifest(layout.manifest)
    assert manifest is not None
    with Journal.open(layout.journal, fingerprint(manifest)) as journal:
        for i, j, pair in sorted((*sorted((number[a], number[b])), (a, b)) for (a, b), _ in matches):
            pair = next((p for p in (pair, pair[::-1]) if p in journal and journal.kind(p) == "warp"), None)
            if pair is None:
                continue
            ways = warp_fields(journal.read(pair))
            there, back = ways if pair[0] == names[i] else ways[::-1]
            _, first, second = np.intersect1d(tracks[names[i]], tracks[names[j]], return_indices=True)
            links[i, j] = Links.of(first, second, (there, back), (xy[i][first], xy[j][second]))

    @lru_cache(maxsize=12)
    def read(image: int) -> Photograph:
        grey = cv2.imread(str(images / names[image]), cv2.IMREAD_GRAYSCALE)
        assert grey is not None
        return Photograph.prepare(grey, options.levels)

    ids = [tracks[name] for name in names]
    result = refine_tracks(ids, xy, links, read, options, threads=threads)
    return names, ids, xy, result, time.process_time() - start


def tell(names: list[str], ids: list[np.ndarray], xy: list[np.ndarray], result: RefinedTracks, seconds: float) -> None:
    count = sum(map(len, ids))
    print(f"{count} observations, {seconds:.1f} s of CPU, {1000 * seconds / count:.3f} ms each")
    for name, before, after, quality, cov in zip(names, xy, result.xy, result.quality, result.covariance, strict=True):
        good = quality > 0
        shift = np.linalg.norm(after - before, axis=1)[good]
        deviation = np.sqrt(np.median(np.trace(cov[good], axis1=1, axis2=2) / 2))
        print(
            f"{name}: {good.mean():.2f} refined, median shift {np.median(shift):.2f} px, deviation {deviation:.3f} px"
        )
    print(f"all: {np.concatenate(result.quality).astype(bool).mean():.3f} refined")


def write_back(features: Path, names: list[str], result: RefinedTracks) -> None:
    with h5py.File(features, "r+") as file:
        for name, xy in zip(names, result.xy, strict=True):
            file[name]["keypoints"][...] = xy - np.float32(0.5)


def drop_unrefined(matches: Path, names: list[str], result: RefinedTracks) -> None:
    good = {name.replace("/", "-"): quality > 0 for name, quality in zip(names, result.quality, strict=True)}
    with h5py.File(matches, "r+") as file:
        for key0, group in file.items():
            for key1, pair in group.items():
                rows = pair["matches0"][()]
                kept = good[key0] & (rows >= 0)
                kept[kept] = good[key1][rows[kept]]
                pair["matches0"][...] = np.where(kept, rows, -1)


def mapped(job: Path, images: Path, params: str, seed: int) -> Path:
    """The model of a copy; in a process of its own, since COLMAP may end it."""
    program = (
        "import sys\n"
        "import pycolmap\n"
        "database, images, output, seed = sys.argv[1:]\n"
        "options = pycolmap.IncrementalPipelineOptions(ba_refine_focal_length=False, ba_refine_principal_point=False,"
        " ba_refine_extra_params=False, random_seed=int(seed), num_threads=1, min_model_size=3)\n"
        "pycolmap.incremental_mapping(database, images, output, options)\n"
    )
    database, output = job / "database.db", job / f"sparse-{seed}"
    if not database.exists():
        subprocess.run(
            [
                sys.executable,
                "-m",
                "romacli",
                "colmap-import",
                str(images),
                "-o",
                str(job),
                "--camera-mode",
                "single",
                "--camera-model",
                "PINHOLE",
                "--camera-params",
                params,
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    output.mkdir()
    command = [sys.executable, "-c", program, str(database), str(images), str(output), str(seed)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return output


def judge(output: Path, truth: Path | None) -> str:
    """What a model holds and, where the truth is known, how far its cameras are off after a similarity."""
    import pycolmap

    models = [pycolmap.Reconstruction(str(folder)) for folder in output.iterdir()]
    model = max(models, key=lambda found: found.num_reg_images())
    said = (
        f"{model.num_reg_images()} images, {model.num_points3D()} points, "
        f"{model.compute_num_observations()} observations, track {model.compute_mean_track_length():.2f}, "
        f"reprojection {model.compute_mean_reprojection_error():.3f} px"
    )
    if truth is None:
        return said
    posed = [image for image in model.images.values() if image.has_pose]
    found = np.array([image.projection_center() for image in posed])
    centres = np.array([_centre(truth, image.name) for image in posed])
    shift = pycolmap.estimate_sim3d(found, centres)
    errors = np.linalg.norm(found @ (shift.scale * shift.rotation.matrix()).T + shift.translation - centres, axis=1)
    return f"{said}, position {1000 * errors.mean():.2f} mm"


def _centre(truth: Path, name: str) -> np.ndarray:
    """Of a camera, in m: the file holds K, three zeros, the rotation, then this."""
    return np.array((truth / f"{name}.camera").read_text().split()[21:24], float)


if __name__ == "__main__":
    main()
