"""The photographs in a report: thumbnails, and drawings of the best, median and worst pairs."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from romacli.errors import ImageError, RomacliError
from romacli.filter.missing import count_witnesses, find_missing
from romacli.images.decode import read_image
from romacli.job.outputs.filter import noted_filter, read_views
from romacli.progress import Progress
from romacli.show.folder import JobFolder
from romacli.show.picture import draw_matches
from romacli.show.view import view_of_job
from romacli.types import Pair
from romacli.words import counted

from .summary import PairRow, Summary

_THUMBNAIL_PX = 96
_MOST_THUMBNAILS = 300
_QUALITY = 65
_PAIRS_OF_EACH = 2
_PAIR_WIDTH_PX = 1100
_DOUBTED_SHOWN = 4
# Texture is measured at this long side, in square blocks; blocks with a smaller spread of grey levels are blank.
_JUDGED_PX = 512
_BLOCK_PX = 16
_BLANK_LEVELS = 2.5
_MOST_THREADS = 4


@dataclass(frozen=True)
class PairPicture:
    """A drawn pair. rank: "best", "median", "worst", "rejected" or "doubted"; data: a JPEG as data URL."""

    rank: str
    names: Pair
    caption: str
    data: str


@dataclass(frozen=True)
class Thumbnails:
    """folder: of the photographs, None if missing; by_name: data URLs; blank: the share of each photograph without
    texture; missing: sentences."""

    by_name: dict[str, str] = field(default_factory=dict)
    blank: dict[str, float] = field(default_factory=dict)
    pairs: list[PairPicture] = field(default_factory=list)
    doubted: list[PairPicture] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    folder: Path | None = None


def read_thumbnails(job: JobFolder, summary: Summary, images: Path | None, progress: Progress) -> Thumbnails:
    """Read the photographs that exist; `missing` names the others. Pairs are not drawn yet."""
    if images is None:
        text = f"{job.layout.root} does not record where its photographs are. Give their folder with --images DIR."
        return Thumbnails(missing=[text])
    if not images.is_dir():
        text = f"The photographs are missing: {images} is not a folder. Give their folder with --images DIR."
        return Thumbnails(missing=[text])
    thumbnails = Thumbnails(folder=images)
    names = [image.name for image in summary.images]
    progress.begin("reading photographs", len(names))
    failures = []

    def look(name: str) -> tuple[str, float] | ImageError:
        try:
            return _look_at(images / name)
        except ImageError as error:
            return error

    with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as pool:
        for name, seen in zip(names, pool.map(look, names), strict=True):
            progress.advance()
            if isinstance(seen, ImageError):
                failures.append(str(seen))
            else:
                thumbnails.by_name[name], thumbnails.blank[name] = seen
    if len(names) > _MOST_THUMBNAILS:
        thumbnails.by_name.clear()
    if failures:
        of_all = f"{len(failures)} of {counted(len(names), 'photograph')}"
        thumbnails.missing.append(f"{of_all} cannot be read. {failures[0]}")
    return thumbnails


def chosen_pairs(pairs: Sequence[PairRow]) -> list[tuple[str, PairRow]]:
    """The best, median and worst pairs with a warp, each once; if there are none, rejected pairs."""
    ranked = sorted(
        (pair for pair in pairs if pair.state in ("matched", "verified")),
        key=lambda pair: (pair.inliers or 0, pair.matches, pair.overlap or 0),
        reverse=True,
    )
    if not ranked:
        rejected = sorted((pair for pair in pairs if pair.state == "rejected"), key=lambda pair: -(pair.overlap or 0))
        return [("rejected", pair) for pair in rejected[:_PAIRS_OF_EACH]]
    last = len(ranked) - _PAIRS_OF_EACH
    ranks: dict[int, str] = {}
    for rank, start in (("best", 0), ("median", max(0, last // 2)), ("worst", last)):
        for index in range(max(0, start), min(start + _PAIRS_OF_EACH, len(ranked))):
            ranks.setdefault(index, rank)
    return [(rank, ranked[index]) for index, rank in ranks.items()]


def draw_pairs(
    thumbnails: Thumbnails, job: JobFolder, summary: Summary, chosen: Sequence[tuple[str, PairRow]], progress: Progress
) -> list[str]:
    """Draw the chosen pairs into the thumbnails. Returns a sentence for each that cannot be drawn."""
    undrawn: list[str] = []
    if not chosen or thumbnails.folder is None:
        return undrawn
    progress.begin("drawing pairs", len(chosen))
    with job.journal() as journal:
        for rank, pair in chosen:
            names = summary.names_of(pair)
            try:
                view = view_of_job(job.layout, journal, names, thumbnails.folder)
            except RomacliError as error:
                undrawn.append(f"The pair {names[0]} {names[1]} is not drawn: {error}")
                continue
            file = io.BytesIO()
            figure = draw_matches(view, num_lines=100)
            figure.savefig(
                file, format="jpeg", dpi=_PAIR_WIDTH_PX / figure.get_figwidth(), pil_kwargs={"quality": _QUALITY}
            )
            thumbnails.pairs.append(PairPicture(rank, names, _caption(summary, pair), _data_url(file.getvalue())))
            progress.advance()
    return undrawn


def draw_doubted(thumbnails: Thumbnails, job: JobFolder) -> list[str]:
    """Draw the missing matches of the first pairs dropped by the filter. Returns a sentence if this fails."""
    filtered = noted_filter(job.manifest)
    if filtered is None or not filtered.dropped or thumbnails.folder is None:
        return []
    try:
        views = read_views(job.layout, with_photographs=True)
        witnesses, number = count_witnesses(views), {name: k for k, name in enumerate(views.names)}
        for pair in filtered.dropped[:_DOUBTED_SHOWN]:
            names, edge = (pair.one, pair.other), (number[pair.one], number[pair.other])
            holes = find_missing(views, edge, witnesses).holes
            matched = views.flow(*edge).matched, views.flow(*edge[::-1]).matched
            lattices = [views.lattices[image] for image in edge]
            sides = [
                tinted(read_image(thumbnails.folder / name), *(one.reshape(lattice.rows, -1) for one in seen))
                for name, lattice, *seen in zip(names, lattices, matched, holes, strict=True)
            ]
            height = min(len(side) for side in sides)
            drawn = np.hstack([side[:height] for side in sides])
            _, jpeg = cv2.imencode(".jpg", drawn[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
            thumbnails.doubted.append(PairPicture("doubted", names, pair.reason, _data_url(jpeg.tobytes())))
    except (RomacliError, KeyError) as error:
        return [f"Pairs that `romacli filter` drops are not drawn: {error}"]
    return []


def tinted(image: np.ndarray, matched: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """A small copy of an RGB image (H, W, 3): green where cells (rows, columns) are matched, red where missing."""
    small = _fitted(image, _PAIR_WIDTH_PX // 2)
    size = small.shape[1], small.shape[0]
    for cells, colour, strength in ((matched, (40, 180, 80), 0.25), (missing, (230, 20, 20), 0.6)):
        opacity = strength * cv2.resize(cells.astype(np.float32), size, interpolation=cv2.INTER_NEAREST)[..., None]
        small = (small * (1 - opacity) + np.array(colour) * opacity).astype(np.uint8)
    return small


def _caption(summary: Summary, pair: PairRow) -> str:
    if summary.tracks is None:
        return "" if pair.overlap is None else f"overlap {pair.overlap:.1%}"
    inliers = (
        "" if pair.inliers is None else f", {counted(pair.inliers, 'inlier')}" if pair.inliers else ", not verified"
    )
    overlap = "" if pair.overlap is None else f"overlap {pair.overlap:.0%}, "
    return f"{overlap}{counted(pair.matches, 'match', 'matches')}{inliers}"


def _look_at(path: Path) -> tuple[str, float]:
    """A thumbnail of a photograph as data URL, and the fraction of its area without texture."""
    image = _fitted(read_image(path), _JUDGED_PX)
    small = _fitted(image, _THUMBNAIL_PX)
    _, jpeg = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return _data_url(jpeg.tobytes()), blank_share(image)


def blank_share(image: np.ndarray) -> float:
    """The fraction of an RGB image's (H, W, 3) blocks with hardly any contrast."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    rows, columns = grey.shape[0] // _BLOCK_PX, grey.shape[1] // _BLOCK_PX
    if not rows or not columns:
        return 0.0
    blocks = grey[: rows * _BLOCK_PX, : columns * _BLOCK_PX].reshape(rows, _BLOCK_PX, columns, _BLOCK_PX)
    return float((blocks.std(axis=(1, 3)) < _BLANK_LEVELS).mean())


def _fitted(image: np.ndarray, long_side: int) -> np.ndarray:
    scale = long_side / max(image.shape[:2])
    if scale >= 1:
        return image
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _data_url(jpeg: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()
