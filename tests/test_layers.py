"""The floors of the package: a room imports only from lower floors, and some libraries belong to one room."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "romacli"
FLOORS = (
    {"errors", "forest", "names", "options", "progress", "stop", "words"},
    {"disk", "types"},
    {"geometry"},
    {"synthetic", "images", "pairs", "networks", "keypoints", "refine", "filter", "store", "colmap"},
    {"matchers", "mapping"},
    {"run", "two_view", "follow"},
    {"pairing", "describe", "show"},
    {"job"},
    {"report", "train", "densify", "localize", "export"},
    {"eval"},
    {"cli"},
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
OWNERS = {"pycolmap": {"colmap"}, "typer": {"cli"}, "rich": {"cli"}}
FRONT_DOORS = {"__init__", "__main__"}
FILES = sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and absolute dotted name of everything a file imports, inside functions too."""
    package = ("romacli", *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            origin = ".".join((*start, *filter(None, [node.module])))
            yield from ((node.lineno, f"{origin}.{alias.name}") for alias in node.names)


def may_import(room: str, name: str) -> bool:
    library, _, rest = name.partition(".")
    if library != "romacli":
        return room in OWNERS.get(library, {room})
    other = rest.partition(".")[0]
    return other not in FLOOR_OF or other == room or FLOOR_OF[other] < FLOOR_OF[room]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_room_imports_only_from_lower_floors(path: Path) -> None:
    room = room_of(path)
    if room in FRONT_DOORS:
        return
    assert room in FLOOR_OF, f"{path}: {room} has no floor; give it one in FLOORS"
    wrong = [f"{path}:{line} imports {name}" for line, name in imports(path) if not may_import(room, name)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("room", "name", "allowed"),
    [
        ("store", "romacli.geometry.coordinates", True),
        ("store", "romacli.images.listing", False),
        ("geometry", "romacli.matchers.compact", False),
        ("run", "romacli.job.job", False),
        ("job", "typer.Option", False),
        ("colmap", "pycolmap", True),
        ("matchers", "romacli.__version__", True),
    ],
)
def test_the_rule_tells_upward_from_downward(room: str, name: str, allowed: bool) -> None:
    assert may_import(room, name) is allowed


def test_relative_imports_are_seen_with_their_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.PACKAGE", tmp_path)
    file = tmp_path / "store" / "hloc.py"
    file.parent.mkdir()
    file.write_text("import numpy\nif numpy:\n    from ..images import listing\nfrom .layout import x\n")
    assert sorted(imports(file)) == [
        (1, "numpy"),
        (3, "romacli.images.listing"),
        (4, "romacli.store.layout.x"),
    ]


def module_of(path: Path) -> str:
    return ".".join(("romacli", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")


def test_no_file_imports_itself_by_way_of_others() -> None:
    modules = {module_of(path) for path in FILES}
    graph = {}
    for path in FILES:
        names = {name for _, name in imports(path)}
        names |= {name.rpartition(".")[0] for name in names}
        graph[module_of(path)] = names & modules - {module_of(path)}
    while leaves := {module for module, needed in graph.items() if not needed & graph.keys()}:
        for module in leaves:
            del graph[module]
    assert not graph, f"in or above a circle: {sorted(graph)}"


@pytest.mark.parametrize("folder", sorted({path.parent for path in FILES}), ids=lambda path: path.name)
def test_no_folder_is_a_drawer(folder: Path) -> None:
    assert len([path for path in folder.glob("*.py") if path.name != "__init__.py"]) <= 14


def functions(path: Path) -> Iterator[tuple[str, int, int]]:
    """Name, lines and branches of every function of a file."""
    branching = (ast.If, ast.For, ast.While, ast.ExceptHandler, ast.IfExp, ast.match_case)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield node.name, node.end_lineno - node.lineno + 1, sum(isinstance(n, branching) for n in ast.walk(node))


def test_functions_are_short() -> None:
    long = [
        f"{path}: {name} has {lines} lines and {branches} branches"
        for path in FILES
        for name, lines, branches in functions(path)
        if lines > 60 or branches > 14
    ]
    assert not long, "\n".join(long)
