"""`romacli models`: the matchers and their weights."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from romacli.cli.console import Console, print_report
from romacli.cli.options import TalkOptions, takes
from romacli.options import Option

if TYPE_CHECKING:
    from romacli.types import Defaults, Size, WeightsEntry

app = typer.Typer(help="List matchers, locate their weights, and download them.", no_args_is_help=True)


@dataclass(frozen=True)
class NameOption:
    name: Annotated[str, Option("A matcher from `romacli models list`.", metavar="NAME", is_argument=True)]


@dataclass(frozen=True)
class ExportOptions:
    onnx: Annotated[Path, Option("Writes FILE-encode.onnx and FILE-match.onnx. Needs romacli[onnx].")]


@app.command("list", epilog="Example: romacli models list")
@takes(TalkOptions)
def list_models(talk: TalkOptions) -> None:
    """List the matchers and whether their weights are on this machine."""
    from romacli.matchers.registry import matchers

    rows = [_row(spec.name) for spec in matchers().values()]
    states = ("ready" if row["ready"] else "to install" if row["install"] else "to download" for row in rows)
    lines = (f"{row['name']:14} {state:12} {row['summary']}" for row, state in zip(rows, states, strict=True))
    print_report({"models": rows}, "\n".join(lines), talk)


@app.command(epilog="Example: romacli models info roma-outdoor")
@takes(NameOption, TalkOptions)
def info(name: NameOption, talk: TalkOptions) -> None:
    """Show a matcher's licence and defaults, and the URL, size and local path of each checkpoint."""
    row = _row(name.name)
    lines = [f"{row['name']}: {row['summary']}", f"licence: {row['licence']}"]
    lines += [f"{word}: {value}" for word, value in row["defaults"].items()]
    lines += [text for text in (row["note"], row["install"]) if text]
    for file in row["files"]:
        size = f"about {file['bytes'] / 1e6:.0f} MB" if file["bytes"] else "of unknown size"
        state = f"{file['bytes'] / 1e6:.1f} MB" if file["ready"] else f"not downloaded, {size}"
        lines += [f"{file['file']} ({file['licence']}): {state}", f"  path: {file['path']}", f"  url: {file['url']}"]
        if file["sha256"]:
            lines.append(f"  sha256: {file['sha256']} (recorded on first use)")
    print_report(row, "\n".join(lines), talk)


@app.command(epilog="Example: romacli models download roma-outdoor")
@takes(NameOption, TalkOptions)
def download(name: NameOption, talk: TalkOptions) -> None:
    """Download a matcher's checkpoints. An interrupted download is resumed."""
    from romacli.matchers.registry import matcher_named
    from romacli.networks.weights import download, locate

    paths = []
    with Console(talk) as console:
        for entry in matcher_named(name.name).weights:
            if entry.url is not None and locate(entry) is None:
                console.say(f"downloading {entry.url} ({entry.licence})")
            paths.append(str(download(entry, progress=_Bytes(console, entry.file_name))))
        console.result({"files": paths}, "ready: " + ", ".join(paths))


@app.command(epilog="Example: romacli models export mini --onnx mini.onnx")
@takes(NameOption, ExportOptions, TalkOptions)
def export(name: NameOption, files: ExportOptions, talk: TalkOptions) -> None:
    """Export a matcher as two ONNX graphs, encode (per image) and match (per pair), and compare them with it.

    Resolutions are the matcher's own; encode takes RGB in [0, 1]. Warps are normalised to [-1, 1] between borders.
    """
    from romacli.matchers.onnx import export as write

    with Console(talk) as console:
        done = write(name.name, files.onnx)
        sizes = " and ".join(f"{width}x{height}" for width, height in done.sizes)
        console.result(
            {
                "encode": str(done.encode),
                "match": str(done.match),
                "sizes": done.sizes,
                "largest_error_px": done.largest_error_px,
            },
            f"{done.encode} and {done.match}, for images of {sizes} px; in onnxruntime their warps differ from "
            f"{name.name}'s by at most {done.largest_error_px:.1g} px where certain",
        )


class _Bytes:
    """Shows a download's progress in megabytes."""

    def __init__(self, console: Console, title: str) -> None:
        self._console = console
        self._title = title
        self._shown = -1

    def __call__(self, held: int, total: int) -> None:
        if self._shown < 0:
            self._console.begin(f"{self._title} (MB)", total >> 20)
            self._shown = 0
        self._console.advance((held >> 20) - self._shown)
        self._shown = held >> 20


def _row(name: str) -> dict[str, Any]:
    from romacli.matchers.registry import matcher_named

    spec = matcher_named(name)
    installed = all(find_spec(package) for package in spec.packages)
    files = [_file(entry) for entry in spec.weights]
    return {
        "name": spec.name,
        "summary": spec.summary,
        "licence": spec.licence,
        "ready": all(file["ready"] for file in files) and installed,
        "install": None if installed else f"pip install 'romacli[{spec.extra}]'",
        "files": files,
        "defaults": _defaults(spec.defaults) if spec.defaults else {},
        "note": spec.note,
    }


def _defaults(defaults: Defaults) -> dict[str, Any]:
    """A matcher's defaults by option."""

    def sizes(pair: tuple[Size, Size | None]) -> str:
        return " and ".join(f"{size[0]}x{size[1]}" for size in pair if size)

    values = {"sizes": sizes((defaults.coarse, defaults.upsample))}
    if defaults.presets:
        values["presets"] = ", ".join(f"{word} {sizes(pair)}" for word, pair in defaults.presets.items())
    return {**values, "min-certainty": defaults.min_certainty, "min-coarse-overlap": defaults.min_coarse_overlap}


def _file(entry: WeightsEntry) -> dict[str, Any]:
    from romacli.networks.weights import expected_path, locate, recorded_sha256

    path = locate(entry)
    return {
        "file": entry.file_name,
        "licence": entry.licence,
        "url": entry.url or "in the package",
        "path": str(expected_path(entry)),
        "ready": path is not None,
        "bytes": path.stat().st_size if path else entry.tensor_bytes,
        "sha256": recorded_sha256(path) if path else None,
    }
