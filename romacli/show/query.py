"""Draw a localized query with its map points, as matched and as reprojected."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from romacli.errors import InputError
from romacli.images.decode import read_image
from romacli.store.localized import QueryPoints, read_localized, read_points
from romacli.words import counted, counted_of, first_few

from .folder import meant_by
from .picture import matplotlib_here, shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDTH_INCHES, _TITLE_INCHES, _BAR_INCHES = 12.0, 0.55, 0.9
_INLIERS, _OUTLIERS = "viridis", "red"
# Reprojection errors above this quantile share the last colour.
_SHOWN_ERRORS = 0.98


@dataclass(frozen=True)
class QueryView:
    """A query to be drawn: its photograph, RGB uint8 (H, W, 3), its points, and a note for the reader."""

    name: str
    image: np.ndarray
    points: QueryPoints
    note: str

    @property
    def errors(self) -> np.ndarray:
        """Reprojection error of each inlier in px."""
        inside = self.points.inliers
        return np.asarray(np.hypot(*(self.points.projected - self.points.places)[inside].T))


def view_of_query(folder: Path, query: str, images: Path | None = None) -> QueryView:
    """The view of a query in a folder written by `romacli localize`.

    Args:
        query: its name there, the end of one, or a path. images: the folder of queries; by default the recorded one.

    Raises:
        InputError: there is no such query, or it saw no points.
        ImageError: its photograph cannot be read.
        StoreError: a file is damaged.
    """
    rows = {str(row["name"]): row for row in read_localized(folder)}
    name = meant_by(query, sorted(rows), folder)
    row, points = rows[name], read_points(folder, name)
    if points is None:
        why = str(row.get("why") or "none were kept").removesuffix(".")
        raise InputError(f"{name} has no points to draw: {why}.")
    photograph = images / name if images else Path(str(row.get("photograph", name)))
    if not points.inliers.any():
        note = f"no pose of its own: {row['why']}" if row.get("why") else "posed by the other cameras of its rig"
    else:
        used = row.get("map_images") or []
        note = f"by {counted(len(used), 'map image')}: {first_few(used, 3)}"
    return QueryView(name, read_image(photograph), points, note)


def draw_query(view: QueryView, *, with_outliers: bool = True) -> Figure:
    """The photograph with inliers at their projections, coloured by error, and outliers linked to theirs.

    Raises:
        InputError: matplotlib is not installed.
    """
    library = matplotlib_here()
    height, width = view.image.shape[:2]
    row = (_WIDTH_INCHES - _BAR_INCHES) * height / width
    tall = row + _TITLE_INCHES
    figure = library.figure.Figure(figsize=(_WIDTH_INCHES, tall), facecolor="white")
    axes = figure.add_axes((0.008, 0, 1 - _BAR_INCHES / _WIDTH_INCHES, row / tall), anchor="W")
    axes.imshow(view.image, extent=(0, width, height, 0), alpha=0.75)
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.set_axis_off()
    if with_outliers:
        _draw_outliers(library, axes, view.points)
    errors = view.errors
    if len(errors):
        norm = library.colors.Normalize(0, float(np.quantile(errors, _SHOWN_ERRORS)) or 1.0)
        x, y = view.points.projected[view.points.inliers].T
        axes.scatter(x, y, c=errors, cmap=_INLIERS, norm=norm, s=9, edgecolors="black", linewidths=0.25)
        bar = figure.add_axes((1 - 0.85 * _BAR_INCHES / _WIDTH_INCHES, 0.3 * row / tall, 0.012, 0.4 * row / tall))
        figure.colorbar(library.cm.ScalarMappable(norm, _INLIERS), cax=bar).set_label("reprojection error, px")
    figure.text(0.008, 1 - 0.2 / tall, shortened(view.name), fontsize=12, weight="bold", va="center", parse_math=False)
    figure.text(0.008, 1 - 0.42 / tall, subtitle(view), fontsize=9.5, va="center", color="0.3", parse_math=False)
    return figure


def subtitle(view: QueryView) -> str:
    """The figures shown with the picture, in words."""
    errors = view.errors
    middle = f", {np.median(errors):.2f} px median" if len(errors) else ""
    agree = counted_of(len(errors), len(view.points.ids), "point", "is an inlier", "are inliers")
    return f"{agree}{middle}; {view.note}"


def _draw_outliers(library: Any, axes: Any, points: QueryPoints) -> None:
    """Crosses at the matched positions of outliers, with lines to their reprojections."""
    places, projected = points.places[~points.inliers], points.projected[~points.inliers]
    axes.scatter(*places.T, c=_OUTLIERS, marker="x", s=14, linewidths=0.8)
    known = np.isfinite(projected).all(1)
    lines = np.stack((places[known], projected[known]), axis=1)
    axes.add_collection(library.collections.LineCollection(lines, colors=_OUTLIERS, linewidths=0.5, alpha=0.6))
