"""Images placed right, wrong and not at all where parts of a scene look alike, with and without the pair filter.

    PYTHONPATH=. python tests/benchmarks/lookalikes.py --seeds 3
    PYTHONPATH=. python tests/benchmarks/lookalikes.py --scenes hall-2 houses --shares 0.1 --matcher mini

Whole jobs on rendered photographs, without refined keypoints; matches are simulated, and photographs then plain, unless
a matcher is named. An image is wrong if it is more than 3 degrees or 5 % of the cameras' extent from its true pose once
the model is aligned with the truth by the similarity that fits most of its images. A pair is true when most of its
matches lead to the true position.
"""

from __future__ import annotations

import argparse
import resource
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
from lookalike_scenes import SCENES, Scene, Simulated, make_scene, photograph

from romacli.cli.console import Console
from romacli.cli.options import TalkOptions
from romacli.colmap.options import CameraOptions
from romacli.colmap.poses import Pose, read_poses
from romacli.colmap.reading import read_inliers
from romacli.errors import NothingFoundError
from romacli.geometry.epipolar import rotation_angle_deg
from romacli.geometry.warp import warp_fields
from romacli.images.options import ImageOptions
from romacli.job.job import Job, open_job
from romacli.job.matching import run_job
from romacli.job.options import ImportOptions, JobOptions, KeypointOptions
from romacli.job.outputs.database import import_matches
from romacli.job.outputs.filter import filter_pairs, make_filtered_model
from romacli.job.outputs.folded import look_after
from romacli.mapping.options import MapperOptions
from romacli.matchers.options import MatcherChoice
from romacli.progress import Silent
from romacli.refine.options import RefineOptions
from romacli.stop import StopRequest
from romacli.store.journal import JournalWriter
from romacli.types import CompactWarp, Pair

MOST_DEG, MOST_OF_EXTENT = 3.0, 0.05


@dataclass
class Score:
    """Images of one or more runs; pairs passed to the mapper, the true ones among them, and all true ones."""

    images: int = 0
    right: int = 0
    wrong: int = 0
    models: int = 0
    seen: int = 0
    true_seen: int = 0
    true: int = 0
    ambiguous: int = 0
    cpu_s: float = 0.0

    def __add__(self, other: Score) -> Score:
        return Score(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(self)))

    def row(self) -> str:
        precision, recall = self.true_seen / max(1, self.seen), self.true_seen / max(1, self.true)
        left = self.images - self.right - self.wrong
        return (
            f"{self.right} | {self.wrong} | {left} | {self.models} | {precision:.2f} | {recall:.2f} | "
            f"{self.ambiguous} | {self.cpu_s:.0f}"
        )


def name_of(k: int) -> str:
    return f"{k:03}.jpg"


def write_photographs(scene: Scene, folder: Path, seed: int, *, is_plain: bool) -> None:
    """Photographs of a scene; plain ones where nobody looks at them, as rendering takes longer than all else."""
    if folder.exists():
        return
    rng = np.random.default_rng([seed, 5])
    folder.mkdir()
    for k, camera in enumerate(scene.cameras):
        width, height = camera.size
        picture = np.full((height, width, 3), 128, np.uint8) if is_plain else photograph(scene, k, rng)
        cv2.imwrite(str(folder / name_of(k)), picture[:, :, ::-1])


def matched(scene: Scene, folder: Path, seed: int, matcher: str) -> tuple[Job, set[Pair]]:
    """A job with all its pairs, and which of them are true."""
    simulated = Simulated(scene, seed)
    is_simulated = matcher == "simulated"
    write_photographs(scene, folder / "photographs", seed, is_plain=is_simulated)
    options = JobOptions(
        ImageOptions(folder / "photographs"),
        folder / "job",
        matcher=MatcherChoice() if is_simulated else MatcherChoice(model=matcher),
        keypoints=KeypointOptions(refine=RefineOptions(refine=False)),
    )
    with Console(TalkOptions(quiet=True)) as console:
        job = open_job(options, console)
    if is_simulated:
        with JournalWriter(job.layout.journal, job.fingerprint, stamps=job.photographs.stamps) as writer:
            for pair in job.remaining().pairs:
                writer.append([(pair, simulated.match(*sorted(map(number_of, pair))))])
    run_job(job, Silent(), StopRequest())
    with job.journal() as journal:
        records = {pair: journal.read(pair) for pair in job.pairs.pairs if pair in journal}
    true = {
        pair for pair, record in records.items() if isinstance(record, CompactWarp) and is_true(simulated, pair, record)
    }
    return job, true


def number_of(name: str) -> int:
    return int(Path(name).stem)


def is_true(simulated: Simulated, pair: Pair, record: CompactWarp) -> bool:
    forward, _ = warp_fields(record)
    places = forward.scatter(500, np.random.default_rng(0))
    right = simulated.is_right(*map(number_of, pair), forward.at(places).targets, places)
    return len(places) > 0 and bool(right.mean() > 0.5)


def judge_models(sparse: Path, truth: Mapping[str, Pose]) -> tuple[int, int]:
    """Images placed right and wrong in all models; an image in several counts by its best."""
    centres = np.array([pose.centre for pose in truth.values()])
    extent = float(np.linalg.norm(np.ptp(centres, axis=0)))
    right, placed = set[str](), set[str]()
    for folder in sorted(sparse.iterdir()):
        poses = read_poses(folder)
        placed |= poses.keys()
        right |= right_ones(poses, truth, extent)
    return len(right), len(placed - right)


def right_ones(poses: Mapping[str, Pose], truth: Mapping[str, Pose], extent: float) -> set[str]:
    """The largest set of images that one similarity aligns with their true poses."""
    names = sorted(poses)
    mine, theirs = (np.array([one[name].centre for name in names]) for one in (poses, truth))
    best: set[str] = set()
    for k, first in enumerate(names):
        turn = truth[first].rotation.T @ poses[first].rotation
        for m in range(len(names)):
            length = np.linalg.norm(mine[m] - mine[k])
            if m == k or length == 0:
                continue
            scale = np.linalg.norm(theirs[m] - theirs[k]) / length
            moved = scale * (mine - mine[k]) @ turn.T + theirs[k]
            near = np.linalg.norm(moved - theirs, axis=1) < MOST_OF_EXTENT * extent
            angles = [
                rotation_angle_deg(poses[name].rotation @ turn.T @ truth[name].rotation.T) if is_near else 180.0
                for name, is_near in zip(names, near, strict=True)
            ]
            found = {name for name, angle in zip(names, angles, strict=True) if angle < MOST_DEG}
            best = max(best, found, key=len)
    return best if len(best) > 2 or len(best) == len(names) else set()


def run(job: Job, scene: Scene, true: set[Pair], *, is_filtered: bool) -> Score:
    start = cpu_s()
    score = Score(images=len(scene.cameras), true=len(true))
    importing, database = ImportOptions(cameras=CameraOptions(mode="single")), job.layout.database
    import_matches(job.images.root, job.layout, importing, Silent(), StopRequest())
    filtered = filter_pairs(job.layout, Silent(), StopRequest(), database=database) if is_filtered else None
    score.seen, score.true_seen = count(read_inliers(database).keys() - (filtered.without if filtered else set()), true)
    try:
        options, talk = MapperOptions(num_threads=1), (Silent(), StopRequest())
        made = make_filtered_model(job.images.root, job.layout, database, options, filtered, *talk)
        if filtered is not None:
            made, look = look_after(job.layout, made, Silent(), StopRequest())
            score.ambiguous = int(filtered.is_ambiguous or bool(look.seams))
    except NothingFoundError:
        return score
    truth = {name_of(k): Pose(camera.R, camera.t) for k, camera in enumerate(scene.cameras)}
    score.right, score.wrong = judge_models(job.layout.sparse, truth)
    score.models, score.cpu_s = made.models, cpu_s() - start
    return score


def count(pairs: Collection[Pair], true: set[Pair]) -> tuple[int, int]:
    return len(pairs), sum(pair in true or pair[::-1] in true for pair in pairs)


def cpu_s() -> float:
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(used.ru_utime + used.ru_stime for used in both)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", nargs="+", choices=SCENES, default=list(SCENES))
    parser.add_argument(
        "--shares",
        nargs="+",
        type=float,
        default=[-1, 0, 0.05, 0.1, 0.2],
        help="shares of unique detail; -1: all walls different",
    )
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--matcher", default="simulated")
    parser.add_argument("--filter", nargs="+", choices=("no", "yes"), default=["no", "yes"])
    parser.add_argument("--keep", type=Path, help="folder for the jobs, which are reused")
    options = parser.parse_args()
    print("| scene | detail | filter | right | wrong | left out | models | precision | recall | ambiguous | CPU s |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for share in options.shares:
        for name in options.scenes:
            if name == "court" and share >= 0:
                continue
            scores = {told: Score() for told in options.filter}
            for seed in range(options.first_seed, options.first_seed + options.seeds):
                scene = make_scene(name, None if share < 0 else share, seed)
                with TemporaryDirectory() as temporary:
                    jobs = options.keep or Path(temporary)
                    folder = jobs / f"{options.matcher}-{name}-{share}-{seed}"
                    folder.mkdir(parents=True, exist_ok=True)
                    job, true = matched(scene, folder, seed, options.matcher)
                    for told in scores:
                        scores[told] += run(job, scene, true, is_filtered=told == "yes")
            detail = "all differs" if share < 0 else f"{share:.0%}"
            for told, score in scores.items():
                print(f"| {name} | {detail} | {told} | {score.row()} |", flush=True)


if __name__ == "__main__":
    main()
