"""The public interface for scripts: every public name exists, with the types it takes, and paths may be strings."""

from __future__ import annotations

import inspect
import shutil
import subprocess
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.commands import REPOSITORY

import romacli

IMAGES = REPOSITORY / "examples" / "scene" / "images"
FUNCTIONS = [name for name in romacli.__all__ if inspect.isfunction(getattr(romacli, name))]


def classes_in(hint: Any) -> Iterator[type]:
    if isinstance(hint, type) and not typing.get_args(hint):
        yield hint
    for part in typing.get_args(hint):
        for inner in part if isinstance(part, list) else [part]:
            yield from classes_in(inner)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_types_of_public_functions_are_public(name: str) -> None:
    hints = typing.get_type_hints(getattr(romacli, name))
    ours = {each.__name__ for hint in hints.values() for each in classes_in(hint) if "romacli" in each.__module__}
    assert ours <= set(romacli.__all__)


def test_two_paths_give_pixel_matches_and_the_least_certainty_is_heeded() -> None:
    one, other = str(IMAGES / "court_07.jpg"), str(IMAGES / "court_09.jpg")
    options = romacli.MatcherOptions(min_certainty=0.9, coarse_resolution=(128, 128), upsample=False)
    matcher = romacli.load_matcher(options=options)
    found = romacli.match_two(one, other, matcher, num_matches=300)
    height, width = romacli.read_image(one).shape[:2]
    assert len(found.matches) == 300
    assert found.matches.keypoints0.max() > 2
    assert (found.matches.keypoints0 <= (width, height)).all()
    features = matcher.encode([matcher.prepare(image) for image in found.images])
    drawn = romacli.sample(matcher.warp([(features[0], features[1])])[0], 0)
    assert len(drawn)
    assert drawn.scores.min() > 0.9


def test_a_matcher_without_a_name_is_that_of_the_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ROMACLI_MODEL", raising=False)
    assert romacli.load_matcher().name == "mini"
    monkeypatch.setenv("ROMACLI_MODEL", "no-such-model")
    with pytest.raises(romacli.RomacliError, match="no-such-model"):
        romacli.load_matcher()


def test_folders_and_weights_may_be_text() -> None:
    images = romacli.list_images(str(IMAGES))
    assert images.root / images.names[0] == IMAGES / images.names[0]
    weights = str(Path(romacli.__file__).parent / "networks" / "mini.safetensors")
    assert romacli.load_matcher("mini", romacli.MatcherOptions(weights=weights)).name == "mini"


def test_a_script_beside_the_clone_imports_the_package(tmp_path: Path) -> None:
    pytest.importorskip("setuptools")
    clone, site = tmp_path / "romacli", tmp_path / "site"
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        clone.mkdir(exist_ok=True)
        shutil.copy(REPOSITORY / name, clone)
    (clone / "romacli").mkdir()
    shutil.copy(REPOSITORY / "romacli" / "__init__.py", clone / "romacli")
    site.mkdir()
    build = f"from setuptools.build_meta import build_editable; print(build_editable({str(site)!r}))"
    subprocess.run([sys.executable, "-W", "ignore", "-c", build], cwd=clone, check=True, capture_output=True)
    (wheel,) = site.glob("*.whl")
    shutil.unpack_archive(wheel, site, "zip")
    (tmp_path / "script.py").write_text("import romacli; print(romacli.__version__)")
    program = f"import site, runpy; site.addsitedir({str(site)!r}); runpy.run_path('script.py')"
    run = subprocess.run([sys.executable, "-S", "-c", program], cwd=tmp_path, capture_output=True, text=True, env={})
    assert run.stdout.strip() == romacli.__version__, run.stderr
