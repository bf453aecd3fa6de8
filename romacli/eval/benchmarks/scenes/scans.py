"""ETH3D's laser scans: PLY files, with their poses in a MeshLab project."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from romacli.errors import InputError


def scans_of(project: Path) -> list[tuple[Path, np.ndarray]]:
    """The files of the scans and their poses (4, 4) in the common frame.

    Raises:
        InputError: there are none, a file is missing, or a pose is not a rigid motion.
    """
    try:
        meshes = ElementTree.fromstring(project.read_bytes()).iter("MLMesh")
        found = [(project.parent / Path(mesh.attrib["filename"]).name, _place(mesh)) for mesh in meshes]
    except (OSError, ElementTree.ParseError, KeyError, ValueError) as error:
        raise InputError(f"{project} cannot be read as a project of scans. Unpack the scans again.") from error
    if not found:
        raise InputError(f"{project} names no scans. Unpack the scans again.")
    if gone := [path for path, _ in found if not path.is_file()]:
        raise InputError(f"{project} names {gone[0].name}, which is not beside it. Unpack the scans again.")
    return found


def _place(mesh: ElementTree.Element) -> np.ndarray:
    matrix = np.array((mesh.findtext("MLMatrix44") or "").split(), np.float64).reshape(4, 4)
    if not np.allclose(matrix[:3, :3] @ matrix[:3, :3].T, np.eye(3), atol=1e-3):
        raise ValueError(f"{matrix} is no rigid motion")
    return matrix
