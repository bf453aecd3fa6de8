"""The cost of a query against a map of a thousand images, in encodes of a photograph; as one JSON object.

    python tests/benchmarks/localize_scale.py JOB QUERIES WORK --images 1000

JOB is a reconstructed job, QUERIES a folder of photographs not in it. The map consists of copies of the job's model,
each with its own names and points at the same positions, and links to the same photographs; descriptors of copies are
those of the photographs with some noise, and are precomputed, as in a map used before. Features of map images stay in
memory during a run, so two runs are made to measure the cost of a further query: one with a single query, and one with
five, the same photograph made lighter and darker. CPU time of one process with one thread, after loading the weights.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from romacli.colmap.binding import load_pycolmap
from romacli.colmap.poses import load_model
from romacli.images.decode import read_image
from romacli.localize.localize import Localized, Localizer
from romacli.localize.map import Map, open_map
from romacli.localize.options import LocalizeOptions
from romacli.matchers.matcher import Matcher
from romacli.matchers.options import DEFAULT, MatcherOptions
from romacli.matchers.registry import load_matcher
from romacli.pairing.describe import Describer
from romacli.progress import Silent
from romacli.run.options import MatchOptions
from romacli.run.photographs import look_at
from romacli.stop import StopRequest
from romacli.store.global_features import GlobalFeature, GlobalFeaturesFile, write_global_features
from romacli.store.history import photographs_of
from romacli.store.layout import Layout
from romacli.types import ImageList

NOISE = 0.05  # relative to a descriptor's length
MORE = 5  # number of queries in the second run


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("job", type=Path)
    parser.add_argument("queries", type=Path)
    parser.add_argument("work", type=Path, help="working folder, recreated")
    parser.add_argument("--images", type=int, default=1000, help="minimum number of map images")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    shutil.rmtree(asked.work, ignore_errors=True)
    layout = Layout(asked.job)
    photographs = photographs_of(layout)
    assert photographs is not None
    names = sorted(image.name for image in load_model(layout.sparse / "0").images.values())
    copies = -(-asked.images // len(names))
    images, model = asked.work / "images", asked.work / "model"
    for copy in range(copies):
        for name in names:
            path = images / f"{copy:03}" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            os.link(shutil.copy2(photographs / name, asked.work / name) if not copy else images / "000" / name, path)
    repeated(layout.sparse / "0", model, copies)
    matcher = load_matcher(DEFAULT, MatcherOptions())
    encode_s = statistics.median(cpu(lambda name=name: encoded(matcher, photographs / name)) for name in names)
    query = sorted(asked.queries.iterdir())[0]
    run_of(asked.work / "first", query, 1, matcher, photographs, model, images)  # includes the warm-up
    one, more = (
        run_of(asked.work / f"of-{count}", query, count, matcher, photographs, model, images) for count in (1, MORE)
    )
    again_s = statistics.median(cpu(lambda name=name: encoded(matcher, photographs / name)) for name in names)
    encode_s = (encode_s + again_s) / 2
    a_query = (more["localizing"] - one["localizing"]) / (MORE - 1)
    print(
        json.dumps(
            {
                "map images": copies * len(names),
                "observations": one["observations"],
                "encode_s": round(encode_s, 3),
                "a query, features held": round(a_query / encode_s, 1),
                "a query alone": round(one["localizing"] / encode_s, 1),
                "reading the model": round(one["reading"] / encode_s, 1),
            },
            indent=1,
        )
    )


def run_of(
    work: Path, query: Path, count: int, matcher: Matcher, photographs: Path, model: Path, images: Path
) -> dict[str, float]:
    """CPU seconds of reading the map and of localizing a query in several exposures."""
    folder, output = work / "queries", work / "out"
    folder.mkdir(parents=True)
    picture = cv2.imread(str(query)).astype(float)
    for number in range(count):
        cv2.imwrite(str(folder / f"{number}.png"), np.clip(picture * (1 + 0.04 * number), 0, 255).astype(np.uint8))
    describe(matcher, photographs, images, output, work)
    opened: list[Map] = []
    reading = cpu(lambda: opened.append(open_map(model, images, Silent())))
    localizer = Localizer(opened[0], output, matcher, LocalizeOptions(), MatchOptions(), Silent(), StopRequest())
    found: list[Localized] = []
    localizing = cpu(lambda: found.extend(localizer.localize(folder)))
    assert all(each.pose is not None for each in found)
    seen = sum(image.num_points3D for image in opened[0].model.images.values()) if opened[0].model else 0
    return {"reading": reading, "localizing": localizing, "observations": seen}


def repeated(source: Path, target: Path, copies: int) -> None:
    """Copies of the model, written as COLMAP text and converted to binary."""
    model = load_model(source)
    target.mkdir(parents=True)
    (target / "cameras.txt").write_text(
        "".join(f"{line}\n" for line in text_of(model, target, "cameras")), encoding="utf-8"
    )
    images, points = text_of(model, target, "images"), text_of(model, target, "points3D")
    step_image, step_point = max(model.images) + 1, max(model.points3D) + 1
    poses = [line.split() for line in images[::2]]
    seen = [line.split() for line in images[1::2]]
    rows = [line.split() for line in points]
    with (
        (target / "images.txt").open("w", encoding="utf-8") as file,
        (target / "points3D.txt").open("w", encoding="utf-8") as points_file,
    ):
        for copy in range(copies):
            for (number, *pose, name), fields in zip(poses, seen, strict=True):
                file.write(f"{int(number) + copy * step_image} {' '.join(pose)} {copy:03}/{name}\n")
                ids = [each if each == "-1" else str(int(each) + copy * step_point) for each in fields[2::3]]
                file.write(
                    " ".join(f"{x} {y} {p}" for x, y, p in zip(fields[::3], fields[1::3], ids, strict=True)) + "\n"
                )
            for number, *point in rows:
                track = [
                    f"{int(image) + copy * step_image} {row}"
                    for image, row in zip(point[7::2], point[8::2], strict=True)
                ]
                points_file.write(f"{int(number) + copy * step_point} {' '.join((*point[:7], *track))}\n")
    for name in ("rigs", "frames"):
        (target / f"{name}.txt").unlink(missing_ok=True)
    load_pycolmap().Reconstruction(target).write_binary(target)
    for path in target.glob("*.txt"):
        path.unlink()


def text_of(model: Any, folder: Path, name: str) -> list[str]:
    """The lines of one of COLMAP's text files."""
    model.write_text(folder)
    return [
        line
        for line in (folder / f"{name}.txt").read_text(encoding="utf-8").split("\n")[:-1]
        if not line.startswith("#")
    ]


def describe(matcher: Matcher, photographs: Path, images: Path, output: Path, work: Path) -> None:
    """Store the descriptors of all map images where localize expects them."""
    files = sorted(path.relative_to(images) for path in images.rglob("*") if path.is_file())
    names = tuple(sorted({path.name for path in files}))
    described = Describer(matcher, work / "described.h5", Silent())(ImageList(photographs, names))
    with GlobalFeaturesFile(work / "described.h5") as file:
        provenance = file.provenance()
    root = Path(os.path.commonpath([images.resolve(), (work / "queries").resolve()]))
    prefix = images.resolve().relative_to(root)
    together = tuple(sorted((prefix / path).as_posix() for path in files))
    stamps = look_at(ImageList(root, together), {}).stamps
    rng, width = np.random.default_rng(0), described.descriptors.shape[1]
    rows = dict(zip(described.names, described.descriptors, strict=True))
    kept = {}
    for file in together:
        noisy = rows[Path(file).name] + rng.normal(0, NOISE / np.sqrt(width), width)
        kept[file] = GlobalFeature(noisy.astype(np.float32), stamps[file])
    output.mkdir(parents=True)
    write_global_features(output / "global-features.h5", kept, provenance=provenance)


def encoded(matcher: Matcher, path: Path) -> None:
    """Encode one photograph."""
    matcher.encode([matcher.prepare(read_image(path))])


def cpu(work: Callable[[], Any]) -> float:
    """CPU seconds of a call."""
    start = time.process_time()
    work()
    return time.process_time() - start


if __name__ == "__main__":
    main()
