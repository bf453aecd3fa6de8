"""Write the COLMAP database of a job: cameras, images, keypoints, matches and verified pairs, atomically.

pycolmap writes into a temporary file, which is then renamed. Databases of other programs are only read, by sqlite3,
because pycolmap migrates every database it opens.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from romacli.disk import followed, scratch_folder
from romacli.errors import StoreError
from romacli.types import Pair, canonical

from .access import require_closed
from .binding import load_pycolmap
from .calibration.calibrate import calibrate_database
from .calibration.findings import Calibration, Findings
from .cameras import CameraSpec, to_pycolmap
from .numbers import Numbers, continued, read_numbers, renumber
from .options import VerifyOptions
from .rigs import RigFile
from .verify import CALIBRATED, MAPPED_CONFIGS, VerifiedPair, verify_database, verify_pairs

# SQLite's application_id, "roma" in ASCII, marks our databases; COLMAP does not change it.
APPLICATION_ID = 0x726F6D61

NO_POINTS = np.zeros((0, 2), np.float32)
_FEWEST_SURE = 100


@dataclass(frozen=True)
class DatabaseSummary:
    """What a database holds: `pairs` with matches, of them `verified`, with `inliers` left of `matches`.

    pairs_per_keypoint: in how many pairs a matched keypoint occurs, on average. Close to 1, no point is seen
        by three images, and COLMAP registers little more than two.
    failed: a sentence for each pair that a library failed on; it is not verified.
    calibrated: the cameras that got their focal length from the pairs.
    separated: a sentence for each camera that lost photographs to cameras of their own, by their pairs.
    mixed: a sentence for each camera of which some photographs have another focal length than the others.
    odd: a sentence for each camera whose lens or centre is not what its model assumes.
    contradicted: a sentence for each camera whose EXIF data they contradict.
    """

    images: int
    cameras: int
    keypoints: int
    pairs: int
    matches: int
    verified: int
    inliers: int
    pairs_per_keypoint: float
    pose_priors: int = 0
    failed: tuple[str, ...] = ()
    calibrated: tuple[Calibration, ...] = ()
    separated: tuple[str, ...] = ()
    mixed: tuple[str, ...] = ()
    odd: tuple[str, ...] = ()
    contradicted: tuple[str, ...] = ()


def write_database(
    path: Path,
    *,
    cameras: Sequence[CameraSpec],
    camera_of: Mapping[str, int],
    keypoints: Mapping[str, np.ndarray],
    matches: Iterable[tuple[Pair, np.ndarray]],
    verify: VerifyOptions,
    gps: Mapping[str, tuple[float, float, float]] | None = None,
    rigs: RigFile | None = None,
    overwrite: bool = False,
    calibrate: bool = False,
    loose: Collection[str] = (),
    expected_bytes: int = 0,
    sure: Mapping[str, np.ndarray] | None = None,
    progress: Callable[[Pair], None] | None = None,
) -> DatabaseSummary:
    """Write a COLMAP database with verified matches and return a summary; a failure leaves no file.

    An existing database of romacli is replaced; its images, cameras, frames and rigs keep their ids.

    Args:
        cameras, camera_of: as `assign_cameras` returns them; new images are numbered in plain string order.
        keypoints: by image name, (K, 2) COLMAP px; an image that is absent here has none.
        matches: pairs of names, each once, with (M, 2) rows into the two images' keypoints; read once, in order.
        gps: by image name, (latitude, longitude, altitude) in degrees and m, for the table of pose priors.
        rigs: camera rigs, as validated by `check_rigs`.
        overwrite: replace a database that romacli did not make.
        calibrate: estimate guessed focal lengths from the verified pairs, where possible.
        loose: with `calibrate`, images that share a camera for want of EXIF data; those whose pairs show other focal
            lengths get cameras of their own.
        expected_bytes: maximum size, for which free space is checked first.
        sure: by image name, (K,) bool; geometries hold the matches between these alone, where a pair has enough.
        progress: called with every pair written.

    Raises:
        StoreError: `path` was not made by romacli or cannot be written, or matches do not fit the images or keypoints.
        BusyError: the database at `path` is open in another program.
    """
    check_replaceable(path, overwrite=overwrite)
    points = {name: _as_points(name, keypoints.get(name, NO_POINTS)) for name in sorted(camera_of)}
    former = read_numbers(path, camera_of)
    failed: list[str] = []
    used = {name: cameras[index] for name, index in camera_of.items()}
    pairs = _verified(_checked(matches, points), sure or {}, points, used, verify, failed)
    with scratch_folder(path, num_bytes=expected_bytes, option="--database") as scratch:
        unfinished = scratch / "database.db"
        writer = _write(unfinished, cameras, camera_of, former, points, pairs, gps or {}, progress)
        told = {**_finish(unfinished, rigs, verify, former, loose if calibrate else None), **_seal(unfinished, former)}
        os.replace(unfinished, followed(path))
    return DatabaseSummary(
        images=len(points),
        keypoints=sum(map(len, points.values())),
        pairs=writer.pairs,
        matches=writer.matches,
        pairs_per_keypoint=writer.pairs_per_keypoint,
        pose_priors=len(gps or {}),
        failed=tuple(failed),
        **told,
    )


def check_replaceable(path: Path, *, overwrite: bool = False) -> None:
    """Check that a database may be written to `path`: it does not exist, romacli made it, or `overwrite`.

    Raises:
        StoreError: the file was not made by romacli, or is a folder.
        BusyError: another program has it open, or died with it open.
    """
    if not path.exists():
        return
    if path.is_dir():
        raise StoreError(f"{path} is a folder. Name a file by --database.")
    if not overwrite and not is_ours(path):
        raise StoreError(
            f"{path} exists and was not made by romacli. Choose another --database, or move it away; "
            "`romacli colmap-import --overwrite` replaces it."
        )
    require_closed(path)


def is_ours(path: Path) -> bool:
    """Whether romacli wrote the database at `path`.

    Source: the database header in SQLite's file format, which has the application_id at byte 68.
    """
    with path.open("rb") as file:
        header = file.read(72)
    return header.startswith(b"SQLite format 3\0") and int.from_bytes(header[68:], "big") == APPLICATION_ID


def _as_points(name: str, xy: np.ndarray) -> np.ndarray:
    if xy.ndim != 2 or xy.shape[1] != 2:
        raise ValueError(f"the keypoints of {name} are {xy.shape}, expected (K, 2)")
    return np.ascontiguousarray(xy, np.float32)


def _checked(
    matches: Iterable[tuple[Pair, np.ndarray]], keypoints: Mapping[str, np.ndarray]
) -> Iterator[tuple[Pair, np.ndarray]]:
    """Pass on the pairs that have matches; raise StoreError for what fits no image, keypoint or earlier pair."""
    seen: set[Pair] = set()
    for pair, rows in matches:
        if pair[0] == pair[1] or canonical(pair) in seen:
            raise StoreError(f"the matches contain {pair[0]} and {pair[1]} twice, or an image with itself.")
        seen.add(canonical(pair))
        for side, name in enumerate(pair):
            if name not in keypoints:
                raise StoreError(
                    f"the matches name {name}, which is not among the images. Give the images that were matched."
                )
            if len(rows) and not 0 <= rows[:, side].min() <= rows[:, side].max() < len(keypoints[name]):
                raise StoreError(
                    f"the matches of {pair[0]} and {pair[1]} point outside the {len(keypoints[name])} keypoints of "
                    f"{name}. Features and matches are from different runs: use files of the same run."
                )
        if len(rows):
            yield pair, rows


def _verified(
    matches: Iterator[tuple[Pair, np.ndarray]],
    sure: Mapping[str, np.ndarray],
    keypoints: Mapping[str, np.ndarray],
    cameras: Mapping[str, CameraSpec],
    verify: VerifyOptions,
    failed: list[str],
) -> Iterator[tuple[Pair, np.ndarray, VerifiedPair | None]]:
    """The pairs with what verification leaves of them; COLMAP's own comes once all are in the database, on the sure."""
    if verify.method != "magsac":
        yield from ((pair, _sure_of(pair, rows, sure), None) for pair, rows in matches)
        return
    waiting: dict[Pair, np.ndarray] = {}

    def chosen() -> Iterator[tuple[Pair, np.ndarray]]:
        for pair, rows in matches:
            waiting[pair] = rows
            yield pair, _sure_of(pair, rows, sure)

    def fail(pair: Pair, error: Exception) -> None:
        failed.append(f"{' '.join(pair)}: {error}")

    done = verify_pairs(chosen(), keypoints=keypoints, cameras=cameras, options=verify, failed=fail)
    yield from ((pair, waiting.pop(pair), verified) for pair, _, verified in done)


def _sure_of(pair: Pair, rows: np.ndarray, sure: Mapping[str, np.ndarray]) -> np.ndarray:
    """Of matches (M, 2) those that are sure at both ends, where these are enough."""
    ends = [sure[name][rows[:, side]] for side, name in enumerate(pair) if name in sure]
    chosen = rows[np.all(ends, axis=0)] if ends else rows
    return chosen if len(chosen) >= _FEWEST_SURE else rows


class _Writer:
    """Fills one open database, images first, then pairs, and counts how often each keypoint is matched."""

    def __init__(self, database: Any, keypoints: Mapping[str, np.ndarray]) -> None:
        self._database, self._keypoints = database, keypoints
        self._image_ids: dict[str, int] = {}
        self._degrees = {name: np.zeros(len(xy), np.int32) for name, xy in keypoints.items()}
        self.pairs = self.matches = 0

    @property
    def pairs_per_keypoint(self) -> float:
        matched = sum(int(np.count_nonzero(degrees)) for degrees in self._degrees.values())
        return 2 * self.matches / matched if matched else 0.0

    def write_images(
        self,
        cameras: Sequence[CameraSpec],
        camera_of: Mapping[str, int],
        gps: Mapping[str, tuple[float, float, float]],
        former: Numbers,
    ) -> None:
        """Write a rig for each camera and a frame for each image, as COLMAP's own import does, and keypoints."""
        pycolmap = load_pycolmap()
        groups: list[list[str]] = [[] for _ in cameras]
        for name, place in camera_of.items():
            groups[place].append(name)
        numbered = zip(cameras, continued(groups, former.cameras), strict=True)
        sensors = [self._write_camera(pycolmap, camera, number) for camera, number in numbered]
        numbers = continued([[name] for name in self._keypoints], former.images)
        for (name, xy), number in zip(self._keypoints.items(), numbers, strict=True):
            camera_id, rig_id = sensors[camera_of[name]]
            image = pycolmap.Image(name=name, camera_id=camera_id, image_id=number)
            self._image_ids[name] = self._database.write_image(image, use_image_id=True)
            frame = pycolmap.Frame()
            frame.rig_id = rig_id
            frame.add_data_id(image.data_id)
            self._database.write_frame(frame)
            self._database.write_keypoints(image.image_id, xy)
            if name in gps:
                self._write_prior(pycolmap, image, gps[name])

    def _write_prior(self, pycolmap: Any, image: Any, position: tuple[float, float, float]) -> None:
        prior = pycolmap.PosePrior(
            position=np.array(position), coordinate_system=pycolmap.PosePriorCoordinateSystem.WGS84
        )
        prior.corr_data_id = image.data_id
        self._database.write_pose_prior(prior)

    def _write_camera(self, pycolmap: Any, camera: CameraSpec, number: int) -> tuple[int, int]:
        made = to_pycolmap(camera)
        made.camera_id = number
        self._database.write_camera(made, use_camera_id=True)
        rig = pycolmap.Rig()
        rig.add_ref_sensor(made.sensor_id)
        return made.camera_id, self._database.write_rig(rig)

    def write_pair(self, pair: Pair, rows: np.ndarray, verified: VerifiedPair | None) -> None:
        """Write the matches (M, 2) of a pair and, where it was verified, its geometry."""
        image_ids = [self._image_ids[name] for name in pair]
        self._database.write_matches(*image_ids, rows.astype(np.uint32))
        if verified:
            self._database.write_two_view_geometry(*image_ids, _two_view_geometry(verified))
        for side, name in enumerate(pair):
            self._degrees[name] += np.bincount(rows[:, side], minlength=len(self._degrees[name])).astype(np.int32)
        self.pairs += 1
        self.matches += len(rows)


def _two_view_geometry(verified: VerifiedPair) -> Any:
    pycolmap = load_pycolmap()
    geometry = pycolmap.TwoViewGeometry(inlier_matches=verified.inliers.astype(np.uint32))
    geometry.config = pycolmap.TwoViewGeometryConfiguration(verified.config)
    setattr(geometry, "E" if verified.config == CALIBRATED else "F", verified.matrix)
    return geometry


def _write(
    path: Path,
    cameras: Sequence[CameraSpec],
    camera_of: Mapping[str, int],
    former: Numbers,
    keypoints: Mapping[str, np.ndarray],
    pairs: Iterable[tuple[Pair, np.ndarray, VerifiedPair | None]],
    gps: Mapping[str, tuple[float, float, float]],
    progress: Callable[[Pair], None] | None,
) -> _Writer:
    """Write a new database at `path`, images and then pairs as they come."""
    pycolmap = load_pycolmap()
    with closing(pycolmap.Database.open(path)) as database, pycolmap.DatabaseTransaction(database):
        writer = _Writer(database, keypoints)
        writer.write_images(cameras, camera_of, gps, former)
        for pair, rows, verified in pairs:
            writer.write_pair(pair, rows, verified)
            if progress:
                progress(pair)
    return writer


def _finish(
    path: Path, rigs: RigFile | None, verify: VerifyOptions, former: Numbers, loose: Collection[str] | None
) -> dict[str, Any]:
    """Finish a written database: rigs, COLMAP's verification, focal lengths; returns messages on these.

    loose: see `write_database`; None where nothing is estimated.
    """
    if rigs is not None:
        _apply_rigs(path, rigs)
    by_colmap = partial(verify_database, path, verify) if verify.method == "colmap" else None
    if by_colmap:
        by_colmap()
    found = Findings() if loose is None else calibrate_database(path, loose, former, by_colmap)
    return {
        "calibrated": tuple(one for one in found.calibrations if not one.is_prior),
        "separated": tuple(map(str, found.separations)),
        "mixed": tuple(map(str, found.mixtures)),
        "odd": tuple(map(str, found.lenses)),
        "contradicted": tuple(str(one) for one in found.calibrations if one.is_prior),
    }


def _apply_rigs(path: Path, rigs: RigFile) -> None:
    """Let COLMAP join the images of a new database to the frames of its rigs."""
    pycolmap = load_pycolmap()
    with closing(pycolmap.Database.open(path)) as database:
        pycolmap.apply_rig_config(pycolmap.read_rig_config(rigs.path), database)


def _seal(path: Path, former: Numbers) -> dict[str, int]:
    """Make a finished database one self-contained, marked file; count its cameras, verified pairs and inliers.

    Frames and rigs get their previous ids.

    COLMAP keeps rejected pairs in its table with a configuration that its mappers skip; they are dropped, so that every
    two-view geometry in our file is verified.
    """
    with closing(sqlite3.connect(path)) as database:
        database.execute(f"DELETE FROM two_view_geometries WHERE rows = 0 OR config NOT IN {MAPPED_CONFIGS}")
        renumber(database, former)
        database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        database.commit()
        database.execute("PRAGMA journal_mode = DELETE")
        verified, inliers = database.execute("SELECT count(*), sum(rows) FROM two_view_geometries").fetchone()
        (cameras,) = database.execute("SELECT count(*) FROM cameras").fetchone()
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return {"cameras": cameras, "verified": verified, "inliers": inliers or 0}
