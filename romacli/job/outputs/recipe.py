"""How a database of a job was made, recorded so that it can be rebuilt."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from romacli.colmap.calibration.findings import Calibration
from romacli.colmap.options import CameraOptions, VerifyOptions
from romacli.colmap.rigs import read_rigs
from romacli.job.options import ImportOptions
from romacli.job.outputs.origins import holds, made_with, noted_path
from romacli.store.layout import Layout
from romacli.store.manifest import read_manifest

_DATABASE = "database "


@dataclass(frozen=True)
class NotedImport:
    """How a database of a job was made: the folder of photographs, and the options."""

    images: Path
    options: ImportOptions

    def command(self, layout: Layout) -> str:
        """The command that rebuilds the database."""
        chosen, default = self.options, ImportOptions()
        words = ["romacli", "colmap-import", str(self.images), "-o", str(layout.root)]
        if chosen.known_poses is not None:
            words[1] = "reconstruct"
        rigs = chosen.cameras.rigs
        flags = {
            "--database": (chosen.database, layout.database.resolve()),
            "--known-poses": (chosen.known_poses, None),
            "--camera-mode": (chosen.cameras.mode, default.cameras.mode),
            "--camera-model": (chosen.cameras.model, default.cameras.model),
            "--camera-params": (chosen.cameras.params and ",".join(map(repr, chosen.cameras.params)), None),
            "--rig-config": (rigs and rigs.path, None),
            "--no-calibrate": (None if chosen.calibrate else "", None),
            "--verify": (chosen.verify.method, default.verify.method),
            "--max-error": (chosen.verify.max_error_px, default.verify.max_error_px),
            "--min-inliers": (chosen.verify.min_inliers, default.verify.min_inliers),
        }
        for flag, (value, usual) in flags.items():
            if value is not None and value != usual:
                words += [flag, str(value)] if value != "" else [flag]
        return shlex.join(words) + (" with the same --image-list" if chosen.only is not None else "")


def noted_databases(layout: Layout) -> list[Path]:
    """The databases made from a job, wherever they are, and the one in its folder."""
    manifest = read_manifest(layout.manifest)
    names = [name for name in (manifest.outputs if manifest else ()) if name.startswith(_DATABASE)]
    noted = [layout.root / name.removeprefix(_DATABASE) for name in names]
    return [layout.database, *(path for path in noted if path.resolve() != layout.database.resolve())]


def noted_import(layout: Layout, database: Path) -> NotedImport | None:
    """How a database was made; None if unknown.

    Raises:
        InputError: the file of rigs is gone or is no longer valid.
    """
    noted = json.loads(made_with(layout, database_output(layout, database)) or "null")
    if noted is None:
        return None
    cameras = dict(noted["cameras"])
    rigs, params = cameras.pop("rigs"), cameras.pop("params")
    return NotedImport(
        layout.root / noted["images"],
        ImportOptions(
            database=database.resolve(),
            only=None if noted["only"] is None else frozenset(noted["only"]),
            known_poses=noted["known_poses"] and layout.root / noted["known_poses"],
            cameras=CameraOptions(
                **cameras, params=params and tuple(params), rigs=rigs and read_rigs(layout.root / rigs)
            ),
            verify=VerifyOptions(**noted["verify"]),
            calibrate=noted.get("calibrate", True),
        ),
    )


def recipe(layout: Layout, images: Path, options: ImportOptions) -> str:
    """The options of an import as JSON, with paths that are valid from any working directory."""
    cameras, rigs = options.cameras, options.cameras.rigs
    return json.dumps(
        {
            "images": noted_path(layout, images),
            "only": None if options.only is None else sorted(options.only),
            "known_poses": options.known_poses and noted_path(layout, options.known_poses),
            "cameras": {
                "mode": cameras.mode,
                "model": cameras.model,
                "params": cameras.params,
                "rigs": rigs and noted_path(layout, rigs.path),
            },
            "verify": asdict(options.verify),
            "calibrate": options.calibrate,
        }
    )


def database_output(layout: Layout, database: Path) -> str:
    """The name of a database among the outputs of a job."""
    return _DATABASE + noted_path(layout, database)


def noted_calibrations(layout: Layout, database: Path) -> tuple[Calibration, ...]:
    """The cameras whose focal length was estimated from pairs when a database was made."""
    return calibrations(holds(read_manifest(layout.manifest), database_output(layout, database)))


def calibrations(held: Mapping[str, Any]) -> tuple[Calibration, ...]:
    """The calibrations in the recorded contents of a database; sentences, which older jobs recorded, are skipped."""
    return tuple(Calibration(**values) for values in held.get("calibrated", ()) if isinstance(values, Mapping))
