"""Draw a pair with matplotlib: matches as lines, each photograph warped into the other, certainty maps.

matplotlib is imported when the first picture is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np

from romacli.disk import written_whole
from romacli.errors import InputError, UsageError
from romacli.geometry.coordinates import colmap_to_hloc
from romacli.types import Correspondences, Size
from romacli.words import counted

from .view import PairView, WarpMap

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Part = Literal["matches", "warp"]
PARTS: tuple[Part, ...] = ("matches", "warp")

_PANEL_HEIGHT = 900  # px that both photographs are resized to; sufficient for prints at 300 dpi
_ROW_WIDTH = 3600
_GAP = 18  # px between the two
_WIDTH_INCHES, _DPI = 12.0, 150
_TITLE_INCHES = 0.55
_CAPTION_INCHES = 0.25
_BAR_INCHES = 0.9  # for the colour bar and its numbers
_MARGIN_INCHES = 0.1
_TALLEST_ROW_INCHES = 6.0
_COLOURS = "viridis"
_EMPTY_GREY = 235


def write_figure(figure: Figure, path: Path) -> None:
    """Write a figure into a file whose suffix gives the format, by default PNG.

    Raises:
        UsageError: the format is not supported.
        StoreError: the file cannot be written.
    """
    try:
        with written_whole(path) as temporary:
            figure.savefig(temporary, dpi=_DPI, format=path.suffix[1:] or "png")
    except ValueError as error:
        raise UsageError(f"{path} has an unsupported format: {error}. Use .png, .jpg, .pdf or .svg.") from error


def draw(view: PairView, *, parts: Sequence[Part] = PARTS, num_lines: int = 150) -> Figure:
    """The figure of a pair: a row of the photographs with their matches, then rows of warps and certainties.

    num_lines: maximum matches drawn, chosen at random, since more hide the photographs.

    Raises:
        InputError: matplotlib is not installed.
    """
    library = matplotlib_here()
    panels = _panels(view.images)
    rows = _rows(view, panels, parts, num_lines)
    row_width = _WIDTH_INCHES - _BAR_INCHES - 2 * _MARGIN_INCHES
    shape = panels[0].size[1] / (panels[0].size[0] + _GAP + panels[1].size[0])
    row_height = min(row_width * shape, _TALLEST_ROW_INCHES)
    height = _TITLE_INCHES + len(rows) * (row_height + _CAPTION_INCHES) + _MARGIN_INCHES
    figure = library.figure.Figure(figsize=(_WIDTH_INCHES, height), facecolor="white")

    def place(x: float, top: float, width: float, tall: float) -> tuple[float, float, float, float]:
        """A box in inches from the top left corner, in matplotlib's coordinates."""
        return x / _WIDTH_INCHES, 1 - (top + tall) / height, width / _WIDTH_INCHES, tall / height

    left, count = _MARGIN_INCHES / _WIDTH_INCHES, len(view.matches)
    title = f"{shortened(view.names[0], 50)}  –  {shortened(view.names[1], 50)}"
    drawn = f", {num_lines} drawn" if "matches" in parts and count > num_lines else ""
    subtitle = f"{view.note}; {counted(count, 'match', 'matches')}{drawn}"
    figure.text(left, 1 - 0.2 / height, title, fontsize=12, weight="bold", va="center", parse_math=False)
    figure.text(left, 1 - 0.42 / height, subtitle, fontsize=9.5, va="center", color="0.3")
    norm = library.colors.Normalize(0, 1)
    top = _TITLE_INCHES + _CAPTION_INCHES
    for captions, pictures, matches in rows:
        axes = figure.add_axes(place(_MARGIN_INCHES, top, row_width, row_height), anchor="W")
        _draw_row(axes, captions, pictures, norm)
        if matches is not None:
            _draw_lines(library, axes, matches, panels, norm)
        top += row_height + _CAPTION_INCHES
    bar_place = place(_WIDTH_INCHES - _BAR_INCHES, _TITLE_INCHES + _CAPTION_INCHES, 0.15, min(2.5, row_height))
    mappable = library.cm.ScalarMappable(norm, _COLOURS)
    figure.colorbar(mappable, cax=figure.add_axes(bar_place)).set_label(view.quantity)
    return figure


def draw_matches(view: PairView, num_lines: int) -> Figure:
    """The photographs with at most `num_lines` of their matches only, without text or margin.

    Raises:
        InputError: matplotlib is not installed.
    """
    library = matplotlib_here()
    panels = _panels(view.images)
    width, height = panels[0].size[0] + _GAP + panels[1].size[0], panels[0].size[1]
    figure = library.figure.Figure(figsize=(_WIDTH_INCHES, _WIDTH_INCHES * height / width), facecolor="white")
    axes, norm = figure.add_axes((0, 0, 1, 1)), library.colors.Normalize(0, 1)
    _draw_row(axes, ("", ""), [panel.picture for panel in panels], norm)
    _draw_lines(library, axes, _thinned(view.matches, num_lines), panels, norm)
    return figure


@dataclass(frozen=True)
class _Panel:
    """A photograph brought to the row's height. scale: panel px per photograph px."""

    picture: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, image: np.ndarray, height: int = _PANEL_HEIGHT) -> _Panel:
        old_height, old_width = image.shape[:2]
        size = max(1, round(old_width * height / old_height)), height
        picture = cv2.resize(image, size, interpolation=cv2.INTER_AREA if height < old_height else cv2.INTER_LINEAR)
        return cls(picture, np.array(size) / (old_width, old_height))

    @property
    def size(self) -> Size:
        return self.picture.shape[1], self.picture.shape[0]


def _panels(images: Sequence[np.ndarray]) -> list[_Panel]:
    """Both photographs at one height, smaller for panoramas."""
    aspect = sum(image.shape[1] / image.shape[0] for image in images)
    return [_Panel.of(image, max(1, min(_PANEL_HEIGHT, round(_ROW_WIDTH / aspect)))) for image in images]


_Row = tuple[Sequence[str], Sequence[np.ndarray], Correspondences | None]


def _rows(view: PairView, panels: Sequence[_Panel], parts: Sequence[Part], num_lines: int) -> list[_Row]:
    """Captions, pictures and matches of each row."""
    one, other = panels
    rows: list[_Row] = []
    if "matches" in parts:
        rows.append((view.names, (one.picture, other.picture), _thinned(view.matches, num_lines)))
    if "warp" in parts and view.warps is not None:
        forward, backward = view.warps
        warped = moved(forward, other, size=one.size), moved(backward, one, size=other.size)
        rows.append((("the second, warped into the first", "the first, warped into the second"), warped, None))
        sides = ((forward, one), (backward, other))
        maps = [cv2.resize(warp.certainty, side.size, interpolation=cv2.INTER_NEAREST) for warp, side in sides]
        rows.append(([f"{view.quantity} in the first", f"{view.quantity} in the second"], maps, None))
    return rows or [(view.names, (one.picture, other.picture), None)]


def moved(warp: WarpMap, target: _Panel, *, size: Size) -> np.ndarray:
    """The target photograph sampled by the warp, faded to grey where uncertain, at `size`."""
    targets = cv2.resize(warp.targets * target.scale.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
    places = colmap_to_hloc(targets)  # OpenCV reads pixels in hloc's frame
    picture = cv2.remap(
        target.picture, places[..., 0], places[..., 1], cv2.INTER_LINEAR, borderValue=(_EMPTY_GREY,) * 3
    )
    # Between a usable cell and one without a target, interpolation is meaningless.
    whole = cv2.resize((warp.opacity > 0).astype(np.float32), size, interpolation=cv2.INTER_LINEAR) > 0.99
    opacity = (cv2.resize(warp.opacity, size, interpolation=cv2.INTER_LINEAR) * whole)[..., None]
    return (picture * opacity + _EMPTY_GREY * (1 - opacity)).astype(np.uint8)


def _thinned(matches: Correspondences, count: int) -> Correspondences:
    """At most `count` random matches, the most certain last, so that they are drawn on top."""
    chosen = np.random.default_rng(0).permutation(len(matches))[:count]
    chosen = chosen[np.argsort(matches.scores[chosen], kind="stable")]
    return Correspondences(matches.keypoints0[chosen], matches.keypoints1[chosen], matches.scores[chosen])


def _draw_row(axes: Axes, captions: Sequence[str], pictures: Sequence[np.ndarray], norm: Any) -> None:
    """Two pictures side by side, x and y in panel px, the second shifted by the first's width and the gap."""
    x = 0
    for caption, picture in zip(captions, pictures, strict=True):
        height, width = picture.shape[:2]
        axes.imshow(picture, extent=(x, x + width, height, 0), cmap=_COLOURS, norm=norm, interpolation="auto")
        axes.annotate(shortened(caption), (x, 0), (0, 3), textcoords="offset points", fontsize=9, parse_math=False)
        x += width + _GAP
    axes.set_xlim(0, x - _GAP)
    axes.set_ylim(height, 0)
    axes.set_axis_off()


def _draw_lines(library: Any, axes: Axes, matches: Correspondences, panels: Sequence[_Panel], norm: Any) -> None:
    start = matches.keypoints0 * panels[0].scale
    end = matches.keypoints1 * panels[1].scale + (panels[0].size[0] + _GAP, 0)
    lines = library.collections.LineCollection(
        np.stack((start, end), axis=1), array=matches.scores, cmap=_COLOURS, norm=norm, linewidths=0.7, alpha=0.75
    )
    axes.add_collection(lines)
    for points in (start, end):
        x, y = points.T
        axes.scatter(x, y, c=matches.scores, cmap=_COLOURS, norm=norm, s=7, edgecolors="black", linewidths=0.3)


def shortened(text: str, most: int = 70) -> str:
    """A text, shortened in the middle if it is long."""
    return text if len(text) <= most else f"{text[: most // 2 - 1]}…{text[-most // 2 :]}"


def matplotlib_here() -> Any:
    """matplotlib with the modules used here, without its global state.

    Raises:
        InputError: it is not installed.
    """
    try:
        import matplotlib
        import matplotlib.backends.backend_agg
        import matplotlib.cm
        import matplotlib.collections
        import matplotlib.colors
        import matplotlib.figure
    except ImportError as error:
        raise InputError("pictures are drawn with matplotlib. Install it: pip install 'romacli[report]'.") from error
    return matplotlib
