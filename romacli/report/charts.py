"""The figures of a report as plotly values. The page sets the colours of text and background.

plotly is imported with the first figure.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from romacli.colmap.poses import Pose
from romacli.colmap.reading import Model
from romacli.errors import InputError

from .summary import PairRow, Summary

# Limits on the content of the file; the rest is in the JSON.
MOST_POINTS = 15_000
MOST_SMALLER_MODELS = 4
_MOST_POINTS_ABOVE = 3_000
_MOST_EDGES = 3_000
_MOST_IN_MATRIX = 1_000
_LAYOUT_BY_FORCE = 300
_LONGEST_LABEL = 12
# The chart size on a phone, and the size of a letter, in px: labels that do not overlap there do not overlap anywhere.
_SMALLEST_CHART = (300, 300)
_LETTER_PX = (6.5, 13)
# The bulk of a cloud is between these percentiles; this share of their distance is added on each side.
_BULK = (5, 95)
_ABOUT_BULK = 0.3

BLUE, GREEN, AMBER, RED, GREY = "#3b7dd8", "#2a9d68", "#d9932b", "#d1495b", "#8a94a3"
# Weak to strong is violet to yellow everywhere, matplotlib's viridis.
_VIRIDIS = ("#440154", "#3b528b", "#21918c", "#5ec962", "#fde725")
# Weak to strong pairs, in the middle of the colour map, visible on white and on black: colour, width.
_EDGE_STYLES = (("#6a6fb5", 1.2), ("#2f87a0", 1.4), ("#2aa884", 1.8), ("#7fc441", 2.6))


def library() -> tuple[Any, str]:
    """plotly's graph objects, and its JavaScript.

    Raises:
        InputError: it is not installed.
    """
    try:
        import plotly.graph_objects
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise InputError("the report's figures need plotly. Install it: pip install 'romacli[report]'.") from error
    return plotly.graph_objects, get_plotlyjs()


def figures(summary: Summary, models: Mapping[int, Model]) -> dict[str, str]:
    """The plotly JSON of every non-empty figure, by name; of smaller models, by number, with it: `cloud1`.

    models: by number; the largest is 0.
    """
    go, _ = library()
    made = {"stages": _stages(go, summary), "graph": _graph(go, summary)}
    if len(summary.images) <= _MOST_IN_MATRIX:
        made["matrix"] = _matrix(go, summary)
    if summary.tracks is not None:
        made["keypoints"] = _keypoints(go, summary)
        made["tracks"] = _tracks(go, summary)
    for number, model in sorted(models.items())[: 1 + MOST_SMALLER_MODELS]:
        if model.poses:
            upright = _Upright(model.poses, model.xyz)
            made[f"above{number or ''}"] = _above(go, model, upright)
            made[f"cloud{number or ''}"] = _cloud(go, model, upright)
    for name, figure in made.items():
        figure.update_layout(paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)", hovermode="closest")
        if not name.startswith("cloud"):
            sides = 32 if name.startswith(("graph", "above")) else 8  # room for labels, which stand out from their dots
            figure.update_layout(margin={"l": sides, "r": sides, "t": 8, "b": 8})
        figure.layout.template = {}
    return {name: figure.to_json() for name, figure in made.items()}


_LEGEND_ABOVE = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "traceorder": "normal"}


def _stages(go: Any, summary: Summary) -> Any:
    """Bars of the number of images and pairs left after each stage."""
    figure = go.Figure()
    for row, (kind, counts) in enumerate(summary.stages.items()):
        total = max(counts["planned"], 1)
        names = [f"{kind} {stage}" for stage in counts]
        colours = [GREY if stage in ("planned", "rejected") else (GREEN, BLUE)[row] for stage in counts]
        figure.add_bar(
            y=names[::-1],
            x=[100 * count / total for count in counts.values()][::-1],
            text=[f"{count:,}" for count in counts.values()][::-1],
            customdata=[f"{count:,} of {counts['planned']:,} {kind}" for count in counts.values()][::-1],
            marker_color=colours[::-1],
            orientation="h",
            textposition="auto",
            hovertemplate="%{y}: %{customdata} (%{x:.0f} %)<extra></extra>",
        )
    figure.update_xaxes(range=[0, 103], ticksuffix=" %", title="of those planned", automargin=True)
    figure.update_yaxes(automargin=True)
    return figure.update_layout(showlegend=False, bargap=0.25)


def _matrix(go: Any, summary: Summary) -> Any:
    """The overlap of every pair in percent; -1, which the page leaves empty, if there is none."""
    count = len(summary.images)
    percent = np.full((count, count), -1, np.int8)
    for pair in summary.pairs:
        if pair.overlap is not None:
            percent[pair.one, pair.other] = percent[pair.other, pair.one] = round(100 * min(pair.overlap, 1))
    names = [image.name for image in summary.images]
    figure = go.Figure(
        go.Heatmap(
            z=percent,
            x=names,
            y=names,
            zmin=0,
            zmax=100,
            colorscale=[(k / 4, colour) for k, colour in enumerate(_VIRIDIS)],
            colorbar={
                "orientation": "h",
                "len": 0.85,
                "y": 1.0,
                "yanchor": "bottom",
                "tickvals": [0, 25, 50, 75, 100],
                "ticktext": [f"{percent} %" for percent in (0, 25, 50, 75, 100)],
                "thickness": 10,
            },
            hoverongaps=False,
            hovertemplate="%{y}<br>%{x}<br>overlap %{z} %<extra></extra>",
        )
    )
    axis = {"tickvals": names, "ticktext": _short_names(names), "showgrid": False, "type": "category"}
    axis["automargin"] = True
    figure.update_xaxes(**axis, constrain="domain", tickangle=-60)
    return figure.update_yaxes(**axis, autorange="reversed", scaleanchor="x")


def _graph(go: Any, summary: Summary) -> Any:
    """Images as dots and pairs as lines; strong pairs pull their images together."""
    strengths = [_strength(summary, pair) for pair in summary.pairs]
    drawn = sorted((k for k, strength in enumerate(strengths) if strength > 0), key=strengths.__getitem__)[
        -_MOST_EDGES:
    ]
    ends = np.array([(summary.pairs[k].one, summary.pairs[k].other) for k in drawn], int).reshape(-1, 2)
    weights = np.array([strengths[k] for k in drawn], int)
    xy = _positions(len(summary.images), ends, weights)
    unit = "inliers" if summary.verified else "matches" if summary.tracks is not None else "% overlap"
    figure = go.Figure()
    for some, (colour, width) in zip(np.array_split(np.arange(len(drawn)), 4), _EDGE_STYLES, strict=True):
        if not len(some):
            continue
        figure.add_scatter(
            **_segments(xy[ends[some, 0]], xy[ends[some, 1]]),
            mode="lines",
            line={"color": colour, "width": width},
            hoverinfo="skip",
            name=f"{weights[some[0]]:,} to {weights[some[-1]]:,} {unit}",
        )
    text = [
        f"{image.name}<br>{image.matched} of {image.pairs} pairs matched<br>{image.in_tracks:,} keypoints in tracks"
        for image in summary.images
    ]
    figure.add_scatter(
        x=xy[:, 0],
        y=xy[:, 1],
        mode="markers+text",
        text=_labels([image.name for image in summary.images], xy),
        textposition="top center",
        textfont_size=10,
        cliponaxis=False,
        marker={"size": 9, "color": [GREEN if image.matched else RED for image in summary.images]},
        hovertext=text,
        hoverinfo="text",
        showlegend=False,
    )
    hidden = {"visible": False}
    return figure.update_layout(xaxis=hidden, yaxis={**hidden, "scaleanchor": "x"}, legend={"orientation": "h"})


def _strength(summary: Summary, pair: PairRow) -> int:
    """The strength of a pair: inliers if verified, else matches, else the overlap in percent."""
    if pair.state not in ("matched", "verified"):
        return 0
    if summary.tracks is None:
        return max(1, round(100 * (pair.overlap or 0)))
    return pair.matches if pair.inliers is None else pair.inliers


def _positions(count: int, ends: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """A position (count, 2) for every image: by a spring model if there are few, else on a circle.

    ends: (n, 2) indices of connected images, with `weights` (n,).
    """
    import networkx

    graph = networkx.Graph()
    graph.add_nodes_from(range(count))
    graph.add_weighted_edges_from(zip(*ends.T.tolist(), np.log1p(weights).tolist(), strict=True) if len(ends) else ())
    if count > _LAYOUT_BY_FORCE or not len(ends):
        circle = networkx.circular_layout(graph)
        return np.array([circle[k] for k in range(count)]).reshape(-1, 2)
    places, left = np.zeros((count, 2)), 0.0
    groups = sorted(networkx.connected_components(graph), key=len, reverse=True)
    joined = [sorted(group) for group in groups if len(group) > 1]
    for group in joined:
        part, radius = graph.subgraph(group), np.sqrt(len(group))
        start = networkx.circular_layout(part)
        sprung = networkx.spring_layout(
            part, pos=start, iterations=100, seed=0, scale=radius, center=(left + radius, 0)
        )
        places[group] = [sprung[k] for k in group]
        left += 2 * radius + 1
    # Unconnected images are placed in a row below.
    alone = [k for group in groups if len(group) == 1 for k in group]
    places[alone, 0] = np.linspace(0, left - 1, len(alone))
    places[alone, 1] = -np.sqrt(len(joined[0])) - 1
    return places


def _keypoints(go: Any, summary: Summary) -> Any:
    """A bar for every image: keypoints in tracks, and the others above."""
    names = [image.name for image in summary.images]
    figure = go.Figure()
    shared = [image.in_tracks for image in summary.images]
    others = [image.keypoints - image.in_tracks for image in summary.images]
    for name, colour, counts, where in (
        ("in tracks", BLUE, shared, "shared with other images"),
        ("unmatched", GREY, others, "in this image only"),
    ):
        hover = f"%{{x}}<br>%{{y:,}} keypoints {where}<extra></extra>"
        figure.add_bar(x=names, y=counts, name=name, marker_color=colour, hovertemplate=hover)
    if any(image.points3D is not None for image in summary.images):
        figure.add_scatter(
            x=names,
            y=[image.points3D for image in summary.images],
            hovertemplate="%{x}<br>%{y:,} keypoints observe points of the model<extra></extra>",
            name="observing points of the model",
            mode="markers",
            marker={"color": AMBER, "size": 6},
        )
    short = {"tickvals": names, "ticktext": _short_names(names)}
    figure.update_xaxes(**short, type="category", automargin=True, tickangle=-60)
    figure.update_yaxes(
        title={"text": "keypoints", "standoff": 12}, rangemode="tozero", tickformat=",", automargin=True
    )
    return figure.update_layout(barmode="stack", legend=_LEGEND_ABOVE)


def _tracks(go: Any, summary: Summary) -> Any:
    """Number of tracks with 2, 3, ... views, in the hloc files and in the model."""
    assert summary.tracks is not None
    figure = go.Figure()
    bars = [("hloc files", BLUE, summary.tracks.lengths)]
    if summary.model is not None:
        bars.append(("model", AMBER, summary.model.lengths))
    for name, colour, lengths in bars:
        x, y = list(lengths), list(lengths.values())
        hover = f"{name}: %{{y:,}} tracks in %{{x}} images<extra></extra>"
        figure.add_bar(x=x, y=y, name=name, marker_color=colour, hovertemplate=hover)
    figure.update_xaxes(title="views per track", automargin=True)
    figure.update_yaxes(title={"text": "tracks", "standoff": 12}, rangemode="tozero", tickformat=",", automargin=True)
    return figure.update_layout(barmode="group", showlegend=True, legend=_LEGEND_ABOVE)


class _Upright:
    """A model centred and rotated so that z is up.

    Up is the mean up direction of the cameras, as most photographs are taken level.
    """

    def __init__(self, poses: Mapping[str, Pose], xyz: np.ndarray) -> None:
        centres = np.array([pose.centre for pose in poses.values()])
        up = -np.mean([pose.rotation[1] for pose in poses.values()], axis=0)
        forward = np.mean([pose.rotation[2] for pose in poses.values()], axis=0)
        up = up / max(np.linalg.norm(up), 1e-9)
        across = np.cross(forward, up)
        if np.linalg.norm(across) < 1e-6:
            across = np.cross([1.0, 0.3, 0.2], up)
        across = across / np.linalg.norm(across)
        self._turn = np.stack((across, np.cross(up, across), up))
        self._middle = np.median(xyz, axis=0) if len(xyz) else centres.mean(0)
        self.names = list(poses)
        self.centres = self.points(centres)
        self.directions = np.array([pose.rotation[2] for pose in poses.values()]) @ self._turn.T
        self.axes = np.array([pose.rotation for pose in poses.values()]) @ self._turn.T  # rows: right, down, forward
        spread = np.linalg.norm(self.centres - self.centres.mean(0), axis=1).max() if len(centres) > 1 else 1.0
        self.camera_size = 0.08 * float(spread) or 1.0

    def points(self, xyz: np.ndarray) -> np.ndarray:
        """Points (N, 3) in the upright frame."""
        return np.asarray((xyz - self._middle) @ self._turn.T, np.float32)


def _chosen(model: Model, upright: _Upright) -> tuple[np.ndarray, np.ndarray]:
    """Points (n, 3) and colours (n, 3) without outliers, at most `MOST_POINTS`, longest tracks first."""
    xyz = upright.points(model.xyz)
    low, high = np.percentile(xyz, _BULK, axis=0) if len(xyz) else (np.zeros(3), np.zeros(3))
    room = _ABOUT_BULK * (high - low)
    near = np.flatnonzero(((xyz >= low - room) & (xyz <= high + room)).all(axis=1))
    longest = near[np.argsort(-model.track_lengths[near], kind="stable")][:MOST_POINTS]
    return xyz[longest], model.colours[longest]


def _above(go: Any, model: Model, upright: _Upright) -> Any:
    """Cameras and points from above, in the model's unit."""
    points, _ = _chosen(model, upright)
    points = points[np.random.default_rng(0).permutation(len(points))[:_MOST_POINTS_ABOVE]]
    figure = go.Figure()
    figure.add_scatter(
        x=points[:, 0],
        y=points[:, 1],
        mode="markers",
        marker={"size": 2.5, "color": GREY, "opacity": 0.5},
        hoverinfo="skip",
        name="points",
    )
    angles = np.degrees(np.arctan2(upright.directions[:, 0], upright.directions[:, 1]))
    figure.add_scatter(
        x=upright.centres[:, 0],
        y=upright.centres[:, 1],
        mode="markers+text",
        marker={"symbol": "arrow", "angle": angles, "size": 13, "color": RED},
        text=_labels(upright.names, upright.centres[:, :2], around=points[:, :2]),
        textposition="bottom center",
        textfont_size=10,
        cliponaxis=False,
        hovertext=[f"{name}<br>sees {model.observations[name]:,} points of the model" for name in upright.names],
        hoverinfo="text",
        name="cameras",
    )
    hidden = {"showgrid": False, "zeroline": False, "showticklabels": False}
    return figure.update_layout(xaxis=hidden, yaxis={**hidden, "scaleanchor": "x"}, showlegend=False)


def _cloud(go: Any, model: Model, upright: _Upright) -> Any:
    """The interactive 3D view: coloured points, and cameras as small pyramids."""
    points, colours = _chosen(model, upright)
    figure = go.Figure()
    figure.add_scatter3d(
        **_xyz(points),
        mode="markers",
        marker={"size": 1.8, "color": [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in colours.tolist()]},
        hoverinfo="skip",
        name="points",
    )
    figure.add_scatter3d(
        **_xyz(_pyramids(upright)), mode="lines", line={"color": RED, "width": 2}, hoverinfo="skip", name="views"
    )
    figure.add_scatter3d(
        **_xyz(upright.centres),
        mode="markers",
        marker={"size": 3, "color": RED},
        text=[f"{name}<br>sees {model.observations[name]:,} points of the model" for name in upright.names],
        hoverinfo="text",
        name="cameras",
    )
    everything = np.vstack((points, upright.centres))
    extent = everything.max(0) - everything.min(0)
    largest = max(float(extent.max()), 1e-9)
    middle = (everything.max(0) + everything.min(0)) / 2
    towards = upright.centres.mean(0) - middle
    eye = np.array([*towards[:2], 0.0])
    eye = eye / max(float(np.linalg.norm(eye)), 1e-9) * 1.2 + [0, 0, 0.75]
    hidden = {"visible": False}
    return figure.update_layout(
        showlegend=False,
        scene={
            "xaxis": hidden,
            "yaxis": hidden,
            "zaxis": hidden,
            "aspectmode": "manual",
            "aspectratio": dict(zip("xyz", (1.3 * extent / largest).clip(0.05).tolist(), strict=True)),
            "camera": {"eye": dict(zip("xyz", eye.tolist(), strict=True)), "center": {"x": 0, "y": 0, "z": -0.1}},
            "dragmode": "orbit",
        },
        margin={"l": 0, "r": 0, "t": 0, "b": 0},
    )


def _pyramids(upright: _Upright) -> np.ndarray:
    """Each camera's edges as a line (n, 3), NaN between them."""
    corners = upright.camera_size * np.array([(-0.6, -0.45, 1), (0.6, -0.45, 1), (0.6, 0.45, 1), (-0.6, 0.45, 1)])
    gap = np.full((1, 3), np.nan)
    lines = []
    for centre, axes in zip(upright.centres, upright.axes, strict=True):
        a, b, c, d = corners @ axes + centre
        lines += [np.array([a, b, c, d, a, centre, b]), gap, np.array([c, centre, d]), gap]
    return np.vstack(lines).astype(np.float32)


def _xyz(points: np.ndarray) -> dict[str, np.ndarray]:
    return {axis: np.ascontiguousarray(points[:, k]) for k, axis in enumerate("xyz")}


def _segments(start: np.ndarray, end: np.ndarray) -> dict[str, np.ndarray]:
    """Lines from (n, 2) to (n, 2) as one, with NaN between them."""
    joined = np.stack((start, end, np.full_like(start, np.nan)), axis=1).reshape(-1, 2).astype(np.float32)
    return {"x": np.ascontiguousarray(joined[:, 0]), "y": np.ascontiguousarray(joined[:, 1])}


def _labels(names: Sequence[str], xy: np.ndarray, *, around: np.ndarray | None = None) -> list[str]:
    """Labels of dots at xy (n, 2); "" where one would cover an earlier one on the smallest chart.

    around: other points (m, 2) in the chart.
    """
    everything = xy if around is None else np.vstack((xy, around))
    extent = np.maximum(np.ptp(everything, axis=0), 1e-9)
    px = xy * (np.array(_SMALLEST_CHART) / extent).min()
    short = _short_names(names)
    boxes: list[tuple[float, float, int]] = []
    labels = []
    for (x, y), name in zip(px.tolist(), short, strict=True):
        is_free = all(
            abs(x - other_x) > _LETTER_PX[0] * (len(name) + letters) / 2 or abs(y - other_y) > _LETTER_PX[1]
            for other_x, other_y, letters in boxes
        )
        labels.append(name if is_free else "")
        if is_free:
            boxes.append((x, y, len(name)))
    return labels


def _short_names(names: Sequence[str]) -> list[str]:
    """Names as labels: without suffixes and the common prefix; only the end of those still long."""
    shared = len(os.path.commonprefix(list(names))) if len(names) > 1 else 0
    stems = [name[shared:].rpartition(".")[0] or name for name in names]
    return [stem if len(stem) <= _LONGEST_LABEL else f"…{stem[1 - _LONGEST_LABEL :]}" for stem in stems]
