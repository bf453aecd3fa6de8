"""The man pages of section 1, generated from the commands' help: `python -m romacli.cli.manual FOLDER`.

Handles only roff and the command tree; commands are documented where they are defined.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import typer.main

from romacli import __version__
from romacli.cli.app import EPILOG, app, panels_of
from romacli.cli.options import PANELS

PROGRAM = "romacli"
EXAMPLE = "Example: "
EXIT_CODES = "Exit codes: "
FORMATS = f"{PROGRAM}-formats(7)"

OUTPUT_FILES = {
    "OUT/manifest.json": "The settings of the job. A run with other settings is refused.",
    "OUT/pairs.txt": "The pairs of the job, in hloc's format.",
    "OUT/journal/": "A record for each finished pair, from which the other files are derived.",
    "OUT/features.h5": "Keypoints of each image in hloc's layout.",
    "OUT/matches.h5": "Matches of each pair in hloc's layout.",
    "OUT/database.db": "COLMAP database with cameras, images, keypoints, matches and verified geometries.",
    "OUT/sparse/0": "The largest COLMAP model; smaller ones are next to it as 1, 2, ... and can replace OUT.",
    "OUT/dense/fused.ply": "The dense cloud; fused.ply.vis next to it lists the images that see each point.",
    "OUT/report.html": "The report; OUT/report.json next to it has the same figures.",
    "OUT/runs.jsonl": "What was run in the folder and how long it took, one line per task.",
}
WEIGHTS_FILES = {"$XDG_CACHE_HOME/romacli": "Downloaded checkpoints, unless ROMACLI_WEIGHTS_DIR is set."}
FILES = {
    PROGRAM: OUTPUT_FILES | WEIGHTS_FILES,
    "match": {path: OUTPUT_FILES[path] for path in list(OUTPUT_FILES)[:5]} | WEIGHTS_FILES,
    "check": {path: OUTPUT_FILES[path] for path in list(OUTPUT_FILES)[:6]},
    "merge": {path: OUTPUT_FILES[path] for path in list(OUTPUT_FILES)[:5]},
    "aggregate": {path: OUTPUT_FILES[path] for path in list(OUTPUT_FILES)[:5]},
    "colmap-import": {path: OUTPUT_FILES[path] for path in list(OUTPUT_FILES)[:6]},
    "reconstruct": OUTPUT_FILES | WEIGHTS_FILES,
    "register": OUTPUT_FILES | WEIGHTS_FILES,
    "densify": {path: OUTPUT_FILES[path] for path in ("OUT/dense/fused.ply", "OUT/runs.jsonl")},
    "report": {path: OUTPUT_FILES[path] for path in ("OUT/report.html", "OUT/runs.jsonl")},
    "localize": {
        "OUT/poses.txt": "NAME qw qx qy qz tx ty tz for each query with a pose, camera from world.",
        "OUT/localized.json": "Each query: pose, camera, inliers, covariance, map images, or why it has no pose.",
        "OUT/journal/": "A record for each matched pair, so that nothing is matched twice.",
    }
    | WEIGHTS_FILES,
    "models": WEIGHTS_FILES,
}
MODEL = {"ROMACLI_MODEL": "The matcher if --model is not given."}
WEIGHTS = {
    "ROMACLI_WEIGHTS_DIR": "Folder of downloaded checkpoints; they are also read from there without a network.",
    "XDG_CACHE_HOME": "The user's cache, ~/.cache by default; checkpoints are in its folder romacli.",
}
CPU = {
    "OMP_WAIT_POLICY": "PASSIVE unless set: on a CPU, idle threads sleep.",
    "MALLOC_MMAP_THRESHOLD_": "If this, MALLOC_TRIM_THRESHOLD_ or GLIBC_TUNABLES is set, the C library keeps freed "
    "memory accordingly; otherwise romacli makes it keep most, for speed on a CPU.",
}
ENVIRONMENT = {
    PROGRAM: MODEL | WEIGHTS | CPU,
    "match": MODEL | WEIGHTS,
    "reconstruct": MODEL | WEIGHTS,
    "localize": MODEL | WEIGHTS,
    "register": MODEL | WEIGHTS,
    "show": MODEL | WEIGHTS,
    "models": WEIGHTS,
}


def pages() -> dict[str, str]:
    """The man pages as roff, by file name: one for the program, and one for each command."""
    root = typer.main.get_command(app)
    context = root.make_context(PROGRAM, [], resilient_parsing=True)
    names = [PROGRAM, *(f"{PROGRAM}-{name}" for name in _subcommands(root))]
    written = {f"{PROGRAM}.1": "\n".join(_page(PROGRAM, root, context, names)) + "\n"}
    for name, command in _subcommands(root).items():
        inner = command.make_context(name, [], parent=context, resilient_parsing=True)
        written[f"{PROGRAM}-{name}.1"] = "\n".join(_page(name, command, inner, names)) + "\n"
    return written


def write_pages(folder: Path) -> None:
    """Write every page into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")


def _page(name: str, command: Any, context: Any, names: list[str]) -> Iterator[str]:
    page = PROGRAM if name == PROGRAM else f"{PROGRAM}-{name}"
    summary, *paragraphs = _paragraphs(command.help)
    parts = [] if name == PROGRAM else list(_parts(command, context))
    yield f'.TH {_roff(page.upper())} 1 "" "{PROGRAM} {__version__}" "{PROGRAM} manual"'
    yield from (".SH NAME", _roff(f"{page} - {summary[0].lower()}{summary[1:].rstrip('.')}"))
    yield ".SH SYNOPSIS"
    for part, inner in parts or [(command, context)]:
        yield from _usage(part, inner)
    yield from (".SH DESCRIPTION", _roff(summary))
    for paragraph in paragraphs:
        yield from (".PP", _roff(paragraph))
    if name == PROGRAM:
        yield ".SH COMMANDS"
        yield from _list(
            (f"{PROGRAM}-{name}(1)", _paragraphs(part.help)[0]) for name, part in _subcommands(command).items()
        )
    yield ".SH OPTIONS"
    yield from _options(command, context)
    for part, inner in parts if _subcommands(command) else []:
        yield from (f".SS {_roff(inner.command_path)}", *(_roff(text) for text in _paragraphs(part.help)))
        yield from _options(part, inner)
    yield from _table("FILES", FILES.get(name, {}))
    yield ".SH EXIT STATUS"
    yield from _list(_exit_codes())
    yield from _table("ENVIRONMENT", ENVIRONMENT.get(name, {}))
    yield ".SH EXAMPLES"
    yield from _code(_examples(command))
    others = [f"{other}(1)" for other in names if other != page]
    yield from (".SH SEE ALSO", _roff(", ".join([*others, FORMATS, "colmap(1)"])))


def _subcommands(command: Any) -> dict[str, Any]:
    return dict(getattr(command, "commands", {}))


def _parts(command: Any, context: Any) -> Iterator[tuple[Any, Any]]:
    """The commands documented on a page: a group's sub-commands, or the command itself."""
    subcommands = _subcommands(command)
    if not subcommands:
        yield command, context
    for name, part in subcommands.items():
        yield part, part.make_context(name, [], parent=context, resilient_parsing=True)


def _paragraphs(text: str) -> list[str]:
    return [" ".join(paragraph.split()) for paragraph in text.strip().split("\n\n")]


def _usage(command: Any, context: Any) -> Iterator[str]:
    pieces = " ".join(command.collect_usage_pieces(context))
    yield from (".PP", f".B {_roff(context.command_path)}", _roff(pieces))


def _options(command: Any, context: Any) -> Iterator[str]:
    panels = panels_of(command, context)
    for title, rows in panels:
        if len(panels) > 1 and title in PANELS[2:]:
            yield from (".PP", f".I {_roff(title)}")
        yield from _list(rows)


def _exit_codes() -> Iterator[tuple[str, str]]:
    for entry in EPILOG.removeprefix(EXIT_CODES).rstrip(".").split("; "):
        code, meaning = re.fullmatch(r"((?:\d+, )?\d+(?: or \d+)?) (.*)", entry).groups()  # type: ignore[union-attr]
        yield code, meaning


def _table(title: str, rows: dict[str, str]) -> Iterator[str]:
    if rows:
        yield f".SH {title}"
        yield from _list(rows.items())


def _list(rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    for term, meaning in rows:
        yield from (".TP", f".B {_roff(term)}", _roff(meaning))


def _examples(command: Any) -> Iterator[str]:
    subcommands = _subcommands(command)
    if not subcommands:
        yield command.epilog.removeprefix(EXAMPLE)
    for part in subcommands.values():
        yield from _examples(part)


def _code(lines: Iterable[str]) -> Iterator[str]:
    yield from (".nf", *(_roff(line) for line in lines), ".fi")


def _roff(text: str) -> str:
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped


if __name__ == "__main__":
    typer.run(write_pages)
