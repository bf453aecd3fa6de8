"""The file names in an output folder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from romacli.disk import put_back
from romacli.errors import InputError
from romacli.words import counted, first_few


class _Below:
    """A path under a layout's root."""

    def __init__(self, *parts: str) -> None:
        self._parts = parts

    def __get__(self, layout: Layout, kind: type[Layout]) -> Path:
        return layout.root.joinpath(*self._parts)


class _OfModel(_Below):
    """A path under the folder of the files made from a layout's model."""

    def __get__(self, layout: Layout, kind: type[Layout]) -> Path:
        return layout.dense.joinpath(*self._parts)


@dataclass(frozen=True)
class Layout:
    """The paths under the output folder `root`.

    number: of the model that is used; 0 is the largest. The files made from it are named after it.
    """

    root: Path
    number: int = 0

    manifest = _Below("manifest.json")
    pairs = _Below("pairs.txt")
    journal = _Below("journal")
    images = _Below("images.json")
    shards = _Below("shards.json")
    given_up = _Below("given-up.txt")
    leases = _Below("leases")
    features = _Below("features.h5")
    matches = _Below("matches.h5")
    global_features = _Below("global-features.h5")
    preselected = _Below("preselected")
    database = _Below("database.db")
    sparse = _Below("sparse")
    cloud = _OfModel("fused.ply")
    depth_maps = _OfModel("depth_maps")
    runs = _Below("runs.jsonl")
    report = _Below("report.html")

    @property
    def model(self) -> Path:
        return self.sparse / str(self.number)

    @property
    def dense(self) -> Path:
        """Model 0 has the folder itself; those of further models are inside it, as COLMAP numbers them."""
        folder = self.root / "dense"
        return folder / str(self.number) if self.number else folder

    def exported(self, format: str) -> Path:
        """Where the model is exported in a format, unless another folder is given."""
        return self.root / (f"{format}-{self.number}" if self.number else format)

    def densified(self) -> list[Layout]:
        """Layouts of model 0 and of each further one that has a folder of dense files, even if it exists no more."""
        first = replace(self, number=0)
        return [first, *(replace(self, number=int(path.name)) for path in model_folders(first.dense))]

    def depth_map(self, name: str) -> Path:
        """The depth map of a photograph, named as COLMAP names its own."""
        return self.depth_maps / f"{name}.geometric.bin"


def model_folders(folder: Path) -> list[Path]:
    """The folders of models, or of files made from them, by number: those of OUT/sparse are the largest first."""
    return sorted((path for path in folder.glob("*") if path.name.isdecimal()), key=lambda path: int(path.name))


def layout_of(folder: Path) -> Layout:
    """The layout of a job, given as its folder or as that of one of its models, such as OUT/sparse/1."""
    whole = folder.absolute()
    layout = Layout(folder.parent.parent if len(folder.parts) > 2 else whole.parent.parent)
    is_model = folder.name.isdecimal() and whole.parent == layout.sparse.absolute() and layout.manifest.exists()
    return replace(layout, number=int(folder.name)) if is_model else Layout(folder)


def model_of(layout: Layout) -> Path:
    """The folder of a job's model.

    Raises:
        InputError: there is none of this number.
    """
    put_back(layout.sparse)
    models = model_folders(layout.sparse)
    if not models:
        raise InputError(f"{layout.root} contains no model. Run `romacli reconstruct` with this --output first.")
    if not layout.model.is_dir():
        count = counted(len(models), "model")
        raise InputError(f"{layout.model} does not exist; {layout.root} has {count}: {first_few([*map(str, models)])}.")
    return layout.model


def about_other_models(layout: Layout) -> str | None:
    """A sentence on the job's further models where its largest is used, which may not be what was meant."""
    others = [str(path) for path in model_folders(layout.sparse)[1:]]
    if layout.number or not others:
        return None
    count = counted(1 + len(others), "model")
    return (
        f"{layout.model} is the largest of {count}; to use another, give its folder instead of {layout.root}: "
        f"{first_few(others)}"
    )
