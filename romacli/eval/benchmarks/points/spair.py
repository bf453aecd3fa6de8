"""SPair-71k's test pairs: photographs of two objects of a class, with common points and bounding boxes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from romacli.disk import read_text
from romacli.errors import InputError
from romacli.eval.benchmarks.benchmark import Task, require, sizes_of
from romacli.eval.benchmarks.points.truth import marked

LIST = "Layout/large/test.txt"
ANNOTATIONS, PICTURES = "PairAnnotation/test", "JPEGImages"


def read(root: Path) -> list[Task]:
    """The pairs of the list, in its order; errors are in long sides of the second object's box.

    Raises:
        InputError: the list, an annotation or a picture is missing or damaged.
    """
    require(root, (LIST, ANNOTATIONS, PICTURES))
    files = [root / ANNOTATIONS / f"{line}.json" for line in read_text(root / LIST, "the release's own").split()]
    if not files:
        raise InputError(f"{root / LIST} lists no pairs. Unpack the release again.")
    found = [_annotation(file) for file in files]
    sizes = sizes_of(root, (name for _, names, _, _ in found for name in names))
    return [
        marked(names, (sizes[names[0]], sizes[names[1]]), points, unit, str(file))
        for file, names, points, unit in found
    ]


def _annotation(file: Path) -> tuple[Path, tuple[str, str], tuple[Any, Any], float]:
    try:
        pair = json.loads(file.read_text(encoding="utf-8"))
        folder = f"{PICTURES}/{Path(pair['category']).name}"
        names = tuple(f"{folder}/{Path(pair[f'{side}_imname']).name}" for side in ("src", "trg"))
        left, top, right, low = map(float, pair["trg_bndbox"])
        return file, (names[0], names[1]), (pair["src_kps"], pair["trg_kps"]), max(right - left, low - top)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} cannot be read as a pair's annotation. Unpack the release again.") from error
