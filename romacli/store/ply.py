"""Point clouds as PLY files, and visibility files and depth maps in the formats of COLMAP's fusion."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from romacli.disk import write_whole, written_whole
from romacli.errors import InputError

_POINT = np.dtype([("xyz", "<f4", 3), ("normal", "<f4", 3), ("rgb", "u1", 3)])
_NAMES = (
    *((name, "float") for name in ("x", "y", "z", "nx", "ny", "nz")),
    *((n, "uchar") for n in ("red", "green", "blue")),
)
_TYPES = {
    **{"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4", "float": "f4"},
    **{"int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4"},
    **{"double": "f8", "float32": "f4", "float64": "f8"},
}


def write_ply(path: Path, xyz: np.ndarray, normals: np.ndarray, colours: np.ndarray) -> None:
    """Write points (n, 3), unit normals (n, 3) and colours (n, 3) uint8 RGB as binary PLY.

    Raises:
        StoreError: the file cannot be written.
    """
    points = np.empty(len(xyz), _POINT)
    points["xyz"], points["normal"], points["rgb"] = xyz, normals, colours
    properties = "".join(f"property {kind} {name}\n" for name, kind in _NAMES)
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(xyz)}\n{properties}end_header\n"
    write_whole(path, header.encode() + points.tobytes())


def write_visibility(path: Path, visible: Sequence[np.ndarray]) -> None:
    """Write the images that see each point, as indices in ascending order of image id, as COLMAP's meshers read them.

    Source: COLMAP, fusion.cc, WritePointsVisibility.
    """
    rows = [np.uint64(len(visible)).astype("<u8").tobytes()]
    rows += [np.concatenate(([len(images)], images)).astype("<u4").tobytes() for images in visible]
    write_whole(path, b"".join(rows))


def write_depth_map(path: Path, depths: np.ndarray) -> None:
    """Write depths (h, w), 0 where unknown, in COLMAP's format of dense maps."""
    with written_whole(path) as temporary:
        header = f"{depths.shape[1]}&{depths.shape[0]}&1&".encode()
        temporary.write_bytes(header + np.ascontiguousarray(depths, "<f4").tobytes())


def read_depth_map(path: Path) -> np.ndarray:
    """Read depths (h, w) float32, 0 where unknown, as written by `write_depth_map`.

    Raises:
        InputError: the file is missing, truncated or not a depth map.
    """
    try:
        width, height, channels, body = path.read_bytes().split(b"&", 3)
        if int(channels) != 1:
            raise ValueError("it has several channels")
        return np.frombuffer(body, "<f4").reshape(int(height), int(width))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read as a depth map. Write it again with `romacli densify --depth-maps`."
        ) from error


def read_ply(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Read the points (n, 3) float64 of a PLY file, ASCII or binary, and its triangles (m, 3) if it has faces.

    Raises:
        InputError: the file is missing, or not a PLY file with x, y and z.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}. Give a PLY file.") from error
    head, separator, body = data.partition(b"end_header")
    newline = body.find(b"\n") + 1
    try:
        lines = head.decode("ascii").split("\n") if data.startswith(b"ply") and separator else []
        if not lines:
            raise ValueError("it has no PLY header")
        return _read_elements(lines, body[newline:])
    except (ValueError, KeyError, IndexError, UnicodeError) as error:
        raise InputError(f"{path} is not a PLY file of points with x, y and z: {error}. Export it again.") from error


def _read_elements(lines: Sequence[str], body: bytes) -> tuple[np.ndarray, np.ndarray | None]:
    (form,) = (line.split()[1] for line in lines if line.startswith("format"))
    order = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}[form]
    elements = re.findall(r"element (\w+) (\d+)\s((?:(?!element).)*)", "\n".join(lines), flags=re.DOTALL)
    words = body.split() if form == "ascii" else []
    xyz, triangles, at = None, None, 0
    for name, count, properties in elements:
        rows = [line.split() for line in properties.splitlines() if line.startswith("property")]
        if any(row[1] == "list" for row in rows):
            if name == "face":
                triangles = _faces(rows, int(count), words[at:] if words else body[at:], order)
            break
        if order:
            kind = np.dtype([(row[2], order + _TYPES[row[1]]) for row in rows])
            table = np.frombuffer(body, kind, int(count), at)
            at += kind.itemsize * int(count)
            columns = [table[axis].astype(np.float64) for axis in "xyz"] if name == "vertex" else []
        else:
            flat = np.array(words[at : at + len(rows) * int(count)], np.float64).reshape(int(count), len(rows))
            at += flat.size
            names = [row[2] for row in rows]
            columns = [flat[:, names.index(axis)] for axis in "xyz"] if name == "vertex" else []
        if columns:
            xyz = np.stack(columns, axis=1)
    if xyz is None:
        raise ValueError("it has no vertices")
    return xyz, triangles


def _faces(rows: Sequence[Sequence[str]], count: int, body: bytes | Sequence[bytes], order: str) -> np.ndarray:
    if len(rows) != 1:
        raise ValueError("its faces hold more than a list of vertices")
    if order:
        kind = np.dtype([("n", order + _TYPES[rows[0][2]]), ("v", order + _TYPES[rows[0][3]], 3)])
        assert isinstance(body, bytes)
        table = np.frombuffer(body, kind, count)
        sizes, corners = table["n"], table["v"]
    else:
        flat = np.array(body[: 4 * count], np.int64).reshape(count, 4)
        sizes, corners = flat[:, 0], flat[:, 1:]
    if (sizes != 3).any():
        raise ValueError("its faces are not all triangles")
    return corners.astype(np.int64)
