"""The table of formats: for each a row and a function that writes a folder."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from romacli.colmap.binding import load_pycolmap
from romacli.colmap.options import PANORAMA
from romacli.errors import InputError, UsageError
from romacli.pairs.listfile import read_own_pairs
from romacli.store.layout import Layout
from romacli.words import counted, first_few

# From COLMAP's camera axes (x right, y down, z forward) to OpenGL's (x right, y up, z backward).
_TO_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])
# COLMAP's camera models whose parameters are all among those of nerfstudio's OPENCV.
_OPENCV = ("SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV")
# OpenMVG's counterparts of COLMAP's camera models: type, field of the distortion and order of its parameters.
_FISHEYE = ("fisheye", "fisheye", ("k1", "k2", "k3", "k4"))
_OPENMVG: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "SIMPLE_PINHOLE": ("pinhole", "", ()),
    "PINHOLE": ("pinhole", "", ()),
    "SIMPLE_RADIAL": ("pinhole_radial_k1", "disto_k1", ("k1",)),
    "RADIAL": ("pinhole_radial_k3", "disto_k3", ("k1", "k2", "k3")),
    "OPENCV": ("pinhole_brown_t2", "disto_t2", ("k1", "k2", "k3", "p1", "p2")),
    "SIMPLE_RADIAL_FISHEYE": _FISHEYE,
    "RADIAL_FISHEYE": _FISHEYE,
    "OPENCV_FISHEYE": _FISHEYE,
}
_FOR_PANORAMAS = "Export `text` or `ply`, or cut the panoramas into ordinary views and match those."
# Types whose pinhole parameters OpenMVG reads from a nested object.
_NESTED = ("pinhole_brown_t2", "fisheye")
# cereal's flags: for the first occurrence of a name or pointer, and for a pointer of exactly the declared type.
_NEW, _PLAIN = 1 << 31, 1 << 30
# Focal lengths in x and y with a smaller relative difference are treated as equal.
_ONE_FOCAL = 1e-3
# Rays at depth 1 with a smaller difference are the same; a distortion that COLMAP does not take for none.
_SAME_RAY, _NO_DISTORTION = 1e-9, 1e-6
_OFF_AXIS = np.array([0.3, 0.3])  # a ray at which a fisheye differs from a pinhole camera
# What a format cannot say about a camera may move points by this share of the image's longer side.
_MOST_UNSAID = 1e-3


@dataclass(frozen=True)
class Source:
    """A job, the model to export and the folder of its photographs, or None if unknown."""

    layout: Layout
    model: Path
    photographs: Path | None

    def images(self) -> Path:
        """The folder of the photographs.

        Raises:
            InputError: it is unknown, or lacks some of the model's photographs.
        """
        if self.photographs is None:
            raise InputError(f"{self.layout.root} does not record where its photographs are. Give --images DIR.")
        names = [image.name for image in _model(self.model).images.values() if image.has_pose]
        gone = sorted(name for name in names if not (self.photographs / name).is_file())
        if gone:
            raise InputError(
                f"{self.photographs} lacks {len(gone)} of the model's {len(names)} photographs, {gone[0]} first. Put "
                "them back, or give their folder with --images."
            )
        return self.photographs


@dataclass(frozen=True)
class Format:
    """A row of the table. write: fills an empty folder from a source; room: the bytes that are asked for before."""

    name: str
    summary: str
    write: Callable[[Source, Path], None]
    room: Callable[[Source], int] = lambda _: 0


def write_undistorted(source: Source, folder: Path) -> None:
    """Undistorted photographs in images/, PINHOLE cameras in sparse/0: the input of Gaussian splatting.

    Raises:
        UsageError: there are spherical panoramas.
        InputError: COLMAP cannot read a photograph.
    """
    model, distorted = _model(source.model), folder / "distorted"
    if any(camera.model.name == PANORAMA for camera in model.cameras.values()):
        raise UsageError(f"no PINHOLE camera can show a spherical panorama ({PANORAMA}). {_FOR_PANORAMAS}")
    for camera in model.cameras.values():
        _make_undistortable(camera)
    distorted.mkdir()
    model.write(distorted)
    load_pycolmap().undistort_images(folder, distorted, source.images())
    _require_written(folder / "images", [image.name for image in _posed(model)])
    shutil.rmtree(distorted)
    plain = folder / "sparse"
    for path in plain.glob("*.bin"):
        (plain / "0").mkdir(exist_ok=True)
        path.rename(plain / "0" / path.name)
    shutil.rmtree(folder / "stereo", ignore_errors=True)
    for script in folder.glob("run-colmap-*.sh"):
        script.unlink()


def _require_written(folder: Path, names: Sequence[str]) -> None:
    """Check that all photographs were undistorted: COLMAP skips those that it cannot read."""
    skipped = sorted(name for name in names if not (folder / name).is_file())
    if skipped:
        raise InputError(
            f"COLMAP cannot read {len(skipped)} of the model's {counted(len(names), 'photograph')}: "
            f"{first_few(skipped)}. Convert them to JPEG or PNG and reconstruct these, or export `nerfstudio`, "
            "which keeps the photographs as they are."
        )


def _make_undistortable(camera: Any) -> None:
    """Change a camera so that COLMAP's undistortion makes a PINHOLE one of it.

    COLMAP leaves cameras without distortion as they are, whatever their model: one like SIMPLE_RADIAL becomes a PINHOLE
    with the same rays, a fisheye gets a distortion that moves nothing.
    """
    if not camera.is_undistorted():
        return
    focal = np.array([camera.params[camera.focal_length_idxs()[side]] for side in (0, -1)])
    centre = np.array([camera.principal_point_x, camera.principal_point_y])
    if np.allclose(camera.cam_from_img(centre + _OFF_AXIS * focal), _OFF_AXIS, rtol=0, atol=_SAME_RAY):
        camera.model, camera.params = load_pycolmap().CameraModelId.PINHOLE, [*focal, *centre]
    else:
        fisheye = load_pycolmap().CameraModelId.OPENCV_FISHEYE
        camera.model, camera.params = fisheye, [*focal, *centre, _NO_DISTORTION, 0, 0, 0]


def room_for_photographs(source: Source) -> int:
    """Twice what photographs and model take: the library that writes them ends the process on a full disk."""
    folder = source.images()
    files = [*source.model.iterdir(), *(folder / image.name for image in _posed(_model(source.model)))]
    return 2 * sum(file.stat().st_size for file in files)


def write_nerfstudio(source: Source, folder: Path) -> None:
    """transforms.json with cameras for the photographs as they are, and the points as sparse_pc.ply."""
    model, images = _model(source.model), source.images()
    frames = []
    for image in _posed(model):
        camera = model.cameras[image.camera_id]
        matrix = np.vstack((image.cam_from_world().inverse().matrix(), [0, 0, 0, 1])) @ _TO_OPENGL
        frames.append(
            {
                "file_path": (images / image.name).resolve().as_posix(),
                "transform_matrix": matrix.tolist(),
                "w": camera.width,
                "h": camera.height,
                **_words(camera, _OPENCV),
            }
        )
    model.export_PLY(folder / "sparse_pc.ply")
    content = {"camera_model": "OPENCV", "ply_file_path": "sparse_pc.ply", "frames": frames}
    (folder / "transforms.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def write_text(source: Source, folder: Path) -> None:
    """COLMAP's model as text.

    Raises:
        UsageError: an image's name begins or ends with a space, which readers of the format take for a separator.
    """
    model = _model(source.model)
    for image in _posed(model):
        if image.name != image.name.strip():
            raise UsageError(
                f"COLMAP's text format cannot hold the name {image.name!r}, which begins or ends with a space. Rename "
                f"the photograph, or use the model {source.model} as it is."
            )
    model.write_text(folder)


def write_ply(source: Source, folder: Path) -> None:
    """The model's coloured points as points.ply."""
    _model(source.model).export_PLY(folder / "points.ply")


def write_bundler(source: Source, folder: Path) -> None:
    """bundle.out and list.txt in Bundler's format.

    Raises:
        UsageError: a camera has what the format lacks: two focal lengths, a principal point beside the image's centre
            or tangential distortion.

    Source: Bundler's user manual, version 0.4: cameras look along -z; pixels are relative to the image centre, y up.
    """
    model = _model(source.model)
    images = _posed(model)
    number = {image.image_id: index for index, image in enumerate(images)}
    points = [point for point in model.points3D.values() if point.track.length()]
    lines = ["# Bundle file v0.3", f"{len(images)} {len(points)}"]
    for image in images:
        camera = model.cameras[image.camera_id]
        values, focal = _words(camera, _OPENCV), _one_focal(camera)
        _require_centred(camera, values)
        k1, k2 = values.get("k1", 0.0), values.get("k2", 0.0)
        pose = _TO_OPENGL[:3, :3] @ image.cam_from_world().matrix()
        lines += [_row([focal, k1, k2]), *map(_row, pose[:, :3]), _row(pose[:, 3])]
    for point in points:
        views = [_bundler_view(model, number, element) for element in point.track.elements]
        lines += [_row(point.xyz), " ".join(map(str, point.color)), f"{len(views)} {' '.join(views)}"]
    (folder / "bundle.out").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "list.txt").write_text("".join(f"{image.name}\n" for image in images), encoding="utf-8")


def write_openmvg(source: Source, folder: Path) -> None:
    """OpenMVG's sfm_data.json: views, intrinsics, extrinsics and structure.

    Its pixel origin is the centre of the top-left pixel, half a pixel from COLMAP's. Ids of views and poses are those
    of COLMAP's images, ids of intrinsics those of its cameras, ids of features the rows of keypoints.
    Source: the serialization of SfM_Data in OpenMVG, version 0.3, by cereal.
    """
    model, photographs = _model(source.model), source.images()
    images = _posed(model)
    pointers = iter(range(_NEW + 1, _NEW + 1 + len(images) + len(model.cameras)))
    views, extrinsics = [], []
    for image in images:
        path, camera = PurePosixPath(image.name), model.cameras[image.camera_id]
        data = {
            "local_path": "" if path.parent == PurePosixPath() else path.parent.as_posix(),
            "filename": path.name,
            "width": camera.width,
            "height": camera.height,
            "id_view": image.image_id,
            "id_intrinsic": image.camera_id,
            "id_pose": image.image_id,
        }
        value = {"polymorphic_id": _PLAIN, "ptr_wrapper": {"id": next(pointers), "data": data}}
        views.append({"key": image.image_id, "value": value})
        pose = {
            "rotation": image.cam_from_world().rotation.matrix().tolist(),
            "center": image.projection_center().tolist(),
        }
        extrinsics.append({"key": image.image_id, "value": pose})
    content = {
        "sfm_data_version": "0.3",
        "root_path": photographs.resolve().as_posix(),
        "views": views,
        "intrinsics": _openmvg_intrinsics([model.cameras[key] for key in sorted(model.cameras)], pointers),
        "extrinsics": extrinsics,
        "structure": _openmvg_structure(model),
        "control_points": [],
    }
    (folder / "sfm_data.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _openmvg_intrinsics(cameras: Sequence[Any], pointers: Iterator[int]) -> list[dict[str, Any]]:
    types: dict[str, int] = {}
    found = []
    for camera in cameras:
        values = _words(camera, _OPENMVG)
        kind, place, order = _OPENMVG[camera.model.name]
        named: dict[str, Any] = {"polymorphic_id": types[kind]} if kind in types else {}
        if not named:
            types[kind] = len(types) + 1
            named = {"polymorphic_id": _NEW + types[kind], "polymorphic_name": kind}
        data: dict[str, Any] = {
            "width": camera.width,
            "height": camera.height,
            "focal_length": _one_focal(camera),
            "principal_point": [values["cx"] - 0.5, values["cy"] - 0.5],
        }
        if kind in _NESTED:
            data = {"value0": data}
        if place:
            data[place] = [values.get(name, 0.0) for name in order]
        value = {**named, "ptr_wrapper": {"id": next(pointers), "data": data}}
        found.append({"key": camera.camera_id, "value": value})
    return found


def _openmvg_structure(model: Any) -> list[dict[str, Any]]:
    found = []
    for number, point in sorted(model.points3D.items()):
        observations = []
        for element in point.track.elements:
            place = model.images[element.image_id].points2D[element.point2D_idx].xy - 0.5
            value = {"id_feat": element.point2D_idx, "x": place.tolist()}
            observations.append({"key": element.image_id, "value": value})
        found.append({"key": number, "value": {"X": point.xyz.tolist(), "observations": observations}})
    return found


def write_matches(source: Source, folder: Path) -> None:
    """matches.txt: for each pair a line with two names, a line of two keypoint indices per match, and a blank line."""
    if not source.layout.matches.exists():
        raise InputError(f"{source.layout.root} contains no matches.h5. Run `romacli match` with this --output first.")
    from romacli.store.hloc import MatchesFile

    listed = read_own_pairs(source.layout.pairs).pairs
    names = {name for pair in listed for name in pair}
    if blank := next((name for name in sorted(names) if len(name.split()) > 1), None):
        raise InputError(f"{blank} has a blank in its name, which ends a name in this format. Rename the photographs.")
    with MatchesFile(source.layout.matches) as file, (folder / "matches.txt").open("w", encoding="utf-8") as text:
        for pair in file.pairs(names):
            rows = "".join(f"{one} {other}\n" for one, other in file.matches(*pair).indices)
            text.write(f"{' '.join(pair)}\n{rows}\n")


FORMATS = {
    row.name: row
    for row in (
        Format(
            "undistorted",
            "photographs without distortion and PINHOLE cameras, for splats",
            write_undistorted,
            room_for_photographs,
        ),
        Format("nerfstudio", "transforms.json and sparse_pc.ply", write_nerfstudio),
        Format("text", "COLMAP's model as text", write_text),
        Format("ply", "the model's points as points.ply", write_ply),
        Format("bundler", "bundle.out and list.txt", write_bundler),
        Format("openmvg", "sfm_data.json", write_openmvg),
        Format("matches", "matches.txt, as colmap matches_importer reads it", write_matches),
    )
}


def _model(folder: Path) -> Any:
    from romacli.colmap.poses import load_model  # not at the top: `--help` lists the formats and must be fast

    return load_model(folder)


def _posed(model: Any) -> list[Any]:
    return sorted((image for image in model.images.values() if image.has_pose), key=lambda image: image.image_id)


def _words(camera: Any, models: Collection[str]) -> dict[str, float]:
    """The parameters of a camera of one of `models` under nerfstudio's names: fl_x, fl_y, cx, cy, its distortion."""
    if camera.model.name not in models:
        instead = _FOR_PANORAMAS if camera.model.name == PANORAMA else "Export `undistorted` instead."
        raise UsageError(f"this format has no {camera.model.name} camera, only {', '.join(models)}. {instead}")
    names = {"fx": "fl_x", "fy": "fl_y", "k": "k1"}
    given = camera.params_info.split(", ")
    values = {names.get(name, name): float(value) for name, value in zip(given, camera.params, strict=True)}
    if "f" in values:
        focal = values.pop("f")
        values = {"fl_x": focal, "fl_y": focal, **values}
    return values


def _one_focal(camera: Any) -> float:
    """The single focal length of a camera; raises UsageError if those in x and y differ."""
    across, *down = (float(camera.params[index]) for index in camera.focal_length_idxs())
    if any(abs(each / across - 1) > _ONE_FOCAL for each in down):
        raise UsageError(
            f"this format has one focal length per camera, but camera {camera.camera_id} has {across:g} px in x and "
            f"{down[0]:g} px in y. Build the model with a --camera-model that has one, such as SIMPLE_RADIAL."
        )
    return (across + sum(down)) / (1 + len(down))


def _require_centred(camera: Any, values: Mapping[str, float]) -> None:
    """Check that a camera's principal point is its image's centre, and that it has no tangential distortion.

    Raises:
        UsageError: it differs by more than a point may move.
    """
    most = _MOST_UNSAID * max(camera.width, camera.height)
    instead = "Export `nerfstudio` or `openmvg` instead, or export `undistorted` and use its model in sparse/0."
    across, down = values["cx"] - camera.width / 2, values["cy"] - camera.height / 2
    if math.hypot(across, down) > most:
        raise UsageError(
            f"this format has the principal point in the image's centre, but that of camera {camera.camera_id} is "
            f"{across:+.1f}, {down:+.1f} px from it. {instead}"
        )
    corner = math.hypot(camera.width, camera.height) / 2 / values["fl_x"]
    if 3 * math.hypot(values.get("p1", 0.0), values.get("p2", 0.0)) * corner**2 * values["fl_x"] > most:
        raise UsageError(
            f"this format has no tangential distortion, but camera {camera.camera_id} has p1 {values['p1']:g} and p2 "
            f"{values['p2']:g}. {instead}"
        )


def _bundler_view(model: Any, number: dict[int, int], element: Any) -> str:
    image = model.images[element.image_id]
    camera = model.cameras[image.camera_id]
    x, y = image.points2D[element.point2D_idx].xy
    return f"{number[element.image_id]} {element.point2D_idx} {x - camera.width / 2:.4f} {camera.height / 2 - y:.4f}"


def _row(values: Any) -> str:
    return " ".join(f"{value:.10g}" for value in values)
